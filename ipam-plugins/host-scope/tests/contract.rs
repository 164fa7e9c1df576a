//! The trait's behaviours, by number, through the registry.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, sync::Arc, time::Instant};

use kinesin_core::{
    config::Section,
    ipam::{AllocateRequest, Block, Ipam, IpamDesired, IpamError, Lease, LeasedAddress, Owner},
    registry::{BuildContext, Registry},
    values::{Families, Family},
};
use kinesin_host_scope as _;
use serde_json::json;

const V4: Families = Families { v4: true, v6: false };

fn backend_with(section: serde_json::Value) -> Arc<dyn Ipam> {
    let registry = Registry::collect().expect("one backend is linked");
    let serde_json::Value::Object(section) = section else { panic!("a table") };
    let context = BuildContext {
        node_name: "n1".to_owned(),
        families: Families::DUAL,
        state_dir: PathBuf::from("/nonexistent"),
        bpffs: PathBuf::from("/nonexistent"),
        enable_tcx: true,
        auto_direct_node_routes: true,
        direct_routing_skip_unreachable: false,
        underlay: kinesin_core::values::Underlay::Auto,
        section: Section::new("host_scope", section),
    };
    (registry.ipam("host_scope").expect("registered").build)(&context).expect("valid")
}

fn backend() -> Arc<dyn Ipam> {
    backend_with(json!({}))
}

fn block(cidr: &str) -> Block {
    Block { pool: "default".to_owned(), cidr: cidr.parse().expect("a network") }
}

fn desired(cidrs: &[&str]) -> IpamDesired {
    IpamDesired { blocks: cidrs.iter().map(|cidr| block(cidr)).collect(), ..IpamDesired::default() }
}

fn request(attachment: &str, families: Families) -> AllocateRequest {
    let owner = Owner::Pod { namespace: "default".to_owned(), name: attachment.to_owned() };
    AllocateRequest { attachment: attachment.to_owned(), owner, families, pool: None }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn lease(attachment: &str, address: &str, cidr: &str) -> Lease {
    Lease {
        attachment: attachment.to_owned(),
        owner: Owner::Container(attachment.to_owned()),
        mode: "host_scope".to_owned(),
        addresses: vec![LeasedAddress { ip: ip(address), block: block(cidr) }],
        restored: false,
    }
}

async fn fill(ipam: &dyn Ipam, families: Families) -> (BTreeSet<IpAddr>, IpamError) {
    let mut leased = BTreeSet::new();
    for number in 0.. {
        match ipam.allocate(&request(&format!("fill{number}"), families)).await {
            Ok(lease) => {
                for found in lease.addresses {
                    assert!(leased.insert(found.ip), "{} is leased twice", found.ip);
                }
            }
            Err(error) => return (leased, error),
        }
    }
    unreachable!("a block is finite")
}

#[tokio::test]
async fn ipam_1_every_address_but_the_first_and_last_is_leased() {
    for (cidr, families, expected) in [
        ("10.244.1.0/29", V4, vec!["10.244.1.1", "10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.1.5", "10.244.1.6"]),
        ("10.244.1.2/31", V4, vec!["10.244.1.2", "10.244.1.3"]),
        ("10.244.1.2/32", V4, vec!["10.244.1.2"]),
        ("fd00::/126", Families { v4: false, v6: true }, vec!["fd00::1", "fd00::2"]),
        ("fd00::/127", Families { v4: false, v6: true }, vec!["fd00::", "fd00::1"]),
        ("fd00::5/128", Families { v4: false, v6: true }, vec!["fd00::5"]),
    ] {
        let ipam = backend_with(json!({"minAddresses": "1"}));
        ipam.apply(&desired(&[cidr])).await.expect("valid");
        let (leased, _) = fill(ipam.as_ref(), families).await;
        assert_eq!(leased, expected.into_iter().map(ip).collect(), "{cidr}");
    }
}

#[tokio::test]
async fn ipam_2_no_address_is_leased_twice_over_several_blocks_in_order() {
    let ipam = backend();
    ipam.apply(&desired(&["10.244.9.0/29", "10.244.1.0/29"])).await.expect("valid");
    for number in 0..6 {
        let lease = ipam.allocate(&request(&format!("first{number}"), V4)).await.expect("free");
        assert_eq!(lease.addresses[0].block, block("10.244.9.0/29"), "in the order of preference");
    }
    let (leased, _) = fill(ipam.as_ref(), V4).await;
    assert_eq!(leased.len(), 6);
}

#[tokio::test]
async fn ipam_3_same_attachment_same_lease() {
    let ipam = backend();
    ipam.apply(&desired(&["10.244.1.0/24", "fd00::/64"])).await.expect("valid");
    let first = ipam.allocate(&request("a", Families::DUAL)).await.expect("free");
    assert_eq!(ipam.allocate(&request("a", Families::DUAL)).await.expect("again"), first);
    assert_eq!(ipam.allocate(&request("a", V4)).await.expect("fewer families"), first);
    let four = ipam.allocate(&request("b", V4)).await.expect("free");
    let both = ipam.allocate(&request("b", Families::DUAL)).await.expect("one more family");
    assert_eq!(both.addresses[0], four.addresses[0]);
    assert!(both.address(Family::V6).is_some());
}

#[tokio::test]
async fn ipam_4_both_families_or_neither() {
    let ipam = backend_with(json!({"minAddresses": 1}));
    ipam.apply(&desired(&["10.244.1.0/24"])).await.expect("valid");
    let error = ipam.allocate(&request("a", Families::DUAL)).await.expect_err("no IPv6 yet");
    assert!(matches!(error, IpamError::NotReady { family: Family::V6, .. }), "{error}");
    assert!(error.to_string().contains("Node.spec.podCIDRs"), "{error}");
    assert!(ipam.snapshot().leases.is_empty());
    ipam.apply(&desired(&["10.244.1.0/24", "fd00::/128"])).await.expect("valid");
    let pod = ipam.allocate(&request("a", Families::DUAL)).await.expect("free");
    assert_eq!(pod.addresses.iter().map(|leased| Family::of(&leased.ip)).collect::<Vec<_>>(), Family::ALL);
    ipam.allocate(&request("b", Families::DUAL)).await.expect_err("IPv6 is full");
    assert_eq!(ipam.snapshot().blocks[0].leased, 1, "no IPv4 address of the failed request is left leased");
}

#[tokio::test]
async fn ipam_5_released_address_can_be_leased_again() {
    let ipam = backend();
    ipam.apply(&desired(&["10.244.1.0/29"])).await.expect("valid");
    fill(ipam.as_ref(), V4).await;
    let ended = ipam.release("fill3").await.expect("recorded").expect("was leased");
    assert_eq!(ipam.release("fill3").await.expect("recorded"), None);
    assert_eq!(ipam.release("never").await.expect("recorded"), None);
    let again = ipam.allocate(&request("new", V4)).await.expect("one is free");
    assert_eq!(again.addresses, ended.addresses);
}

#[tokio::test]
async fn ipam_6_restored_lease_has_its_addresses_and_its_mark() {
    let ipam = backend();
    ipam.apply(&desired(&["10.244.1.0/24"])).await.expect("valid");
    let old = lease("a", "10.244.1.77", "10.244.1.0/24");
    ipam.restore(&old).await.expect("free");
    ipam.restore(&old).await.expect("again");
    assert_eq!(ipam.snapshot().leases["a"], Lease { restored: true, ..old });

    let error = ipam.restore(&lease("b", "10.244.1.77", "10.244.1.0/24")).await.expect_err("a has it");
    assert!(matches!(&error, IpamError::Taken { holder: Owner::Container(holder), .. } if holder == "a"), "{error}");
    for outside in ["10.244.2.1", "10.244.1.0", "10.244.1.255", "fd00::1"] {
        let error = ipam.restore(&lease("b", outside, "10.244.1.0/24")).await.expect_err("in no block");
        assert!(matches!(error, IpamError::OutOfRange { .. }), "{error}");
    }
    assert_eq!(ipam.snapshot().leases.len(), 1);
}

#[tokio::test]
async fn ipam_6_restart_with_another_pod_cidr_keeps_old_leases() {
    let ipam = backend();
    // What the agent does at start: the blocks of its records, the records, then what the node has now.
    ipam.apply(&desired(&["10.244.1.0/24"])).await.expect("valid");
    ipam.restore(&lease("a", "10.244.1.7", "10.244.1.0/24")).await.expect("its block is known");
    ipam.apply(&desired(&["10.244.0.0/16"])).await.expect("valid");
    let snapshot = ipam.snapshot();
    assert_eq!((snapshot.blocks[1].draining, snapshot.blocks[1].leased), (true, 1));
    assert_eq!(snapshot.blocks[0].capacity, 65_533, "the old lease lies in the new block and is not free there");
}

#[tokio::test]
async fn ipam_7_exhaustion_has_true_counts_and_leases_nothing() {
    let ipam = backend();
    let reserved = IpamDesired { reserved: vec![ip("10.244.1.4")], ..desired(&["10.244.1.0/29"]) };
    ipam.apply(&reserved).await.expect("valid");
    let (leased, error) = fill(ipam.as_ref(), V4).await;
    assert_eq!(leased.len(), 5);
    assert!(matches!(error, IpamError::Exhausted { leased: 5, capacity: 5, .. }), "{error}");
    assert!(error.to_string().starts_with("range is full"), "{error}");
    assert!(error.retryable());
    assert_eq!(ipam.snapshot().leases.len(), 5);
}

#[tokio::test]
async fn ipam_8_block_that_left_drains_and_vanishes() {
    let ipam = backend();
    ipam.apply(&desired(&["10.244.1.0/24"])).await.expect("valid");
    let old = ipam.allocate(&request("old", V4)).await.expect("free");
    let before = ipam.snapshot();
    ipam.apply(&desired(&["10.244.1.0/24"])).await.expect("the same");
    assert_eq!(ipam.snapshot(), before);

    ipam.apply(&desired(&["10.244.2.0/24"])).await.expect("valid");
    let new = ipam.allocate(&request("new", V4)).await.expect("free");
    assert_eq!(new.addresses[0].block, block("10.244.2.0/24"));
    assert_eq!(ipam.allocate(&request("old", V4)).await.expect("kept"), old);
    let draining: Vec<bool> = ipam.snapshot().blocks.iter().map(|used| used.draining).collect();
    assert_eq!(draining, [false, true]);
    ipam.release("old").await.expect("recorded");
    assert_eq!(ipam.snapshot().blocks.len(), 1);
}

#[tokio::test]
async fn ipam_8_block_that_comes_back_gives_leases_again() {
    let ipam = backend();
    ipam.apply(&desired(&["10.244.1.0/29"])).await.expect("valid");
    ipam.allocate(&request("old", V4)).await.expect("free");
    ipam.apply(&desired(&["10.244.2.0/29"])).await.expect("valid");
    ipam.apply(&desired(&["10.244.1.0/29"])).await.expect("valid");
    let (leased, _) = fill(ipam.as_ref(), V4).await;
    assert_eq!((leased.len(), ipam.snapshot().blocks[0].leased), (5, 6));
}

#[tokio::test]
async fn ipam_9_reserved_addresses_are_never_leased() {
    let ipam = backend();
    let mut state = desired(&["10.244.1.0/29"]);
    state.reserved = vec![ip("10.244.1.1"), ip("192.0.2.1")];
    // A cloud's node address is a network of one address; it may lie in the pod CIDR.
    state.node_networks = vec!["10.244.1.2/32".parse().expect("a network")];
    ipam.apply(&state).await.expect("valid");
    let (leased, _) = fill(ipam.as_ref(), V4).await;
    assert_eq!(leased, ["10.244.1.3", "10.244.1.4", "10.244.1.5", "10.244.1.6"].into_iter().map(ip).collect());
    let error = ipam.restore(&lease("b", "10.244.1.1", "10.244.1.0/29")).await.expect_err("the node's own");
    assert!(matches!(error, IpamError::Taken { .. }), "{error}");
    let router = Lease { owner: Owner::Router, ..lease("router", "10.244.1.1", "10.244.1.0/29") };
    ipam.restore(&router).await.expect("the router address is the node's own");
}

#[tokio::test]
async fn ipam_10_retire_waits_for_the_last_lease() {
    let ipam = backend();
    ipam.apply(&desired(&["10.244.1.0/24"])).await.expect("valid");
    ipam.allocate(&request("a", V4)).await.expect("free");
    assert!(matches!(ipam.retire().await, Err(IpamError::InUse { leases: 1 })));
    ipam.release("a").await.expect("recorded");
    ipam.retire().await.expect("unused");
    ipam.retire().await.expect("again");
    assert!(ipam.snapshot().blocks.is_empty());
    assert!(matches!(ipam.allocate(&request("a", V4)).await, Err(IpamError::NotReady { .. })));
}

#[tokio::test]
async fn unusable_blocks_are_refused_and_the_earlier_state_stays() {
    let ipam = backend();
    ipam.apply(&desired(&["10.244.1.0/24"])).await.expect("valid");
    let before = ipam.snapshot();
    for (cidrs, expected) in [
        (&["10.244.2.0/24", "192.168.0.0/16"][..], "192.168.0.0/16 cannot be used: it overlaps 192.168.10.0/24"),
        (&["192.168.10.128/25"], "192.168.10.128/25 cannot be used: it overlaps 192.168.10.0/24"),
        (&["10.0.0.0/7"], "10.0.0.0/7 cannot be used: it is larger than a /8"),
        (&["10.244.3.0/30"], "10.244.3.0/30 cannot be used: 2 IPv4 addresses can be leased from it"),
        (&["10.244.3.0/24", "fd00::/127"], "fd00::/127 cannot be used: 2 IPv6 addresses can be leased from it"),
    ] {
        let mut state = desired(cidrs);
        state.node_networks = vec!["192.168.10.0/24".parse().expect("a network")];
        let error = ipam.apply(&state).await.expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("give the node"), "names a way out: {error}");
        assert_eq!(ipam.snapshot(), before);
    }
}

#[tokio::test]
async fn unknown_pool_is_answered_with_the_pools_there_are() {
    let ipam = backend();
    ipam.apply(&desired(&["10.244.1.0/24"])).await.expect("valid");
    let other = AllocateRequest { pool: Some("blue".to_owned()), ..request("a", V4) };
    let error = ipam.allocate(&other).await.expect_err("there is no such pool");
    assert_eq!(error.to_string(), r#"pool "blue" does not exist in mode "host_scope"; use one of ["default"]"#);
    let named = AllocateRequest { pool: Some("default".to_owned()), ..request("a", V4) };
    ipam.allocate(&named).await.expect("the one pool by name");
}

#[tokio::test]
async fn a_full_block_of_65534_addresses_is_filled_quickly() {
    let ipam = backend();
    ipam.apply(&desired(&["10.244.0.0/16"])).await.expect("valid");
    let start = Instant::now();
    let (leased, _) = fill(ipam.as_ref(), V4).await;
    let took = start.elapsed();
    assert_eq!(leased.len(), 65_534);
    eprintln!("65534 leases in {took:?}, {:?} each", took / 65_534);
    // Generous for a loaded machine; a search address by address would take minutes.
    assert!(took.as_secs() < 20, "{took:?}");
}
