//! What this backend promises beyond the trait.

use std::{error::Error, path::Path, sync::Arc};

use kinesin_core::{
    config::Section,
    ipam::{AllocateRequest, Block, Ipam, IpamDesired, Lease, Owner},
    registry::{BuildContext, Registry},
    values::Families,
};
use sticky_ipam as _;

type Outcome = Result<(), Box<dyn Error>>;

/// An instance, as each run of the agent makes one; six addresses of each family.
async fn start(state_dir: &Path) -> Result<Arc<dyn Ipam>, Box<dyn Error>> {
    let context = BuildContext {
        node_name: "node".to_owned(),
        families: Families::DUAL,
        state_dir: state_dir.to_owned(),
        bpffs: "/sys/fs/bpf".into(),
        enable_tcx: true,
        auto_direct_node_routes: true,
        direct_routing_skip_unreachable: false,
        underlay: kinesin_core::values::Underlay::Auto,
        section: Section::new("sticky", serde_json::Map::new()),
    };
    let ipam = (Registry::collect()?.ipam("sticky")?.build)(&context)?;
    let block = |cidr: &str| cidr.parse().map(|cidr| Block { pool: "default".to_owned(), cidr });
    let blocks = vec![block("10.0.0.0/29")?, block("fd00::/125")?];
    ipam.apply(&IpamDesired { blocks, ..IpamDesired::default() }).await?;
    Ok(ipam)
}

/// A Pod starts: each time its container has another id.
async fn start_pod(ipam: &Arc<dyn Ipam>, name: &str, time: u32) -> Result<Lease, Box<dyn Error>> {
    let owner = Owner::Pod { namespace: "default".to_owned(), name: name.to_owned() };
    let attachment = format!("{name}-{time}:eth0");
    Ok(ipam.allocate(&AllocateRequest { attachment, owner, families: Families::DUAL, pool: None }).await?)
}

#[tokio::test]
async fn pod_that_comes_back_gets_its_addresses_back() -> Outcome {
    let dir = tempfile::tempdir()?;
    let ipam = start(dir.path()).await?;
    let first = start_pod(&ipam, "db-0", 1).await?;
    ipam.release(&first.attachment).await?;
    let other = start_pod(&ipam, "web", 1).await?;
    assert!(other.addresses.iter().all(|leased| !first.addresses.contains(leased)), "a free one was there");
    assert_eq!(start_pod(&ipam, "db-0", 2).await?.addresses, first.addresses);
    Ok(())
}

#[tokio::test]
async fn memory_outlives_the_agent() -> Outcome {
    let dir = tempfile::tempdir()?;
    let ipam = start(dir.path()).await?;
    start_pod(&ipam, "web", 1).await?;
    let first = start_pod(&ipam, "db-0", 1).await?;
    drop(ipam);
    let ipam = start(dir.path()).await?;
    assert_eq!(start_pod(&ipam, "db-0", 2).await?.addresses, first.addresses);
    Ok(())
}

#[tokio::test]
async fn full_node_gives_the_address_that_rests_for_longest() -> Outcome {
    let dir = tempfile::tempdir()?;
    let ipam = start(dir.path()).await?;
    let mut leases = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        leases.push(start_pod(&ipam, name, 1).await?);
    }
    for index in [3, 1, 4] {
        ipam.release(&leases[index].attachment).await?;
    }
    assert_eq!(start_pod(&ipam, "g", 1).await?.addresses, leases[3].addresses);
    assert_eq!(start_pod(&ipam, "d", 2).await?.addresses, leases[1].addresses, "its own is held by now");
    Ok(())
}

#[tokio::test]
async fn file_that_cannot_be_read_costs_the_memory_alone() -> Outcome {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("sticky.json"), "{")?;
    let ipam = start(dir.path()).await?;
    start_pod(&ipam, "db-0", 1).await?;
    Ok(())
}
