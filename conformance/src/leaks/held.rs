//! What is held for pods: every place that knows of it must know the same.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use kinesin_agent_api::types::{BpfEndpoint, Endpoint, StatusResponse};

use super::{Site, maps};

/// Owners of the node's own leases.
const OWN: [&str; 2] = ["router", "health"];
/// The node's own device among those of the pods.
const HEALTH_DEVICE: &str = "lxc_health";

/// Numbers, addresses and devices that an agent holds for pods, after all places were found to agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Endpoint numbers.
    pub ids: BTreeSet<u16>,
    /// Addresses of both families.
    pub addresses: BTreeSet<IpAddr>,
    /// Host ends.
    pub devices: BTreeSet<String>,
    /// Host ends that no endpoint has: their plugin was killed, and the runtime's DEL is still to come.
    pub orphans: BTreeSet<String>,
}

/// Compares leases, endpoints, state files, the datapath's tables and the devices.
///
/// # Errors
/// The first difference, or why one of the places cannot be read.
pub fn held(site: &Site) -> Result<Held, String> {
    let mut endpoints: Vec<Endpoint> = site.ask("/endpoint")?;
    // The node's own one has no container, and its addresses are counted below.
    endpoints.retain(|endpoint| !endpoint.spec.container_id.is_empty());
    let rows: Vec<BpfEndpoint> = site.ask("/bpf/endpoint")?;
    let status: StatusResponse = site.ask("/healthz")?;

    let mut held = Held::default();
    for endpoint in &endpoints {
        held.ids.insert(endpoint.id);
        held.addresses.extend(endpoint.status.networking.addressing.iter().map(|pair| pair.ip));
        held.devices.insert(endpoint.spec.interface_name.clone());
    }
    let (mut leased, mut health, mut own) = (BTreeSet::new(), BTreeSet::new(), 0);
    for (text, owner) in &status.ipam.allocations {
        match owner.as_str() {
            "health" => drop(health.insert(address(text)?)),
            "router" => {}
            _ => drop(leased.insert(address(text)?)),
        }
        own += usize::from(OWN.contains(&owner.as_str()));
    }
    differ("leases", &leased, "endpoints", &held.addresses)?;
    let families = usize::from(status.ipam.ipv4.is_some()) + usize::from(status.ipam.ipv6.is_some());
    differ("own leases", &own, "two of each family", &(families * 2))?;

    let (mut addresses, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for row in rows.iter().filter(|row| !row.host) {
        let address = address(&row.ip)?;
        if !health.contains(&address) {
            addresses.insert(address);
            ids.insert(row.id);
        }
    }
    differ("rows of the endpoint map", &addresses, "endpoints", &held.addresses)?;
    differ("numbers in the endpoint map", &ids, "endpoints", &held.ids)?;

    let files: BTreeSet<String> = site.files("/var/run/cilium/state/endpoints").into_iter().collect();
    let expected: BTreeSet<String> = held.ids.iter().map(|id| format!("{id}.json")).collect();
    differ("state files", &files, "endpoints", &expected)?;

    let links = site.links()?;
    let present = links.iter().filter(|link| link.name.starts_with("lxc") && link.name != HEALTH_DEVICE);
    let present: BTreeSet<String> = present.map(|link| link.name.clone()).collect();
    let missing: Vec<_> = held.devices.difference(&present).collect();
    if !missing.is_empty() {
        return Err(format!("endpoints without a device: {missing:?}"));
    }
    if let Some(found) = maps::devices(site)? {
        let is_known = |name: &String| name == HEALTH_DEVICE || held.devices.contains(name);
        let expected = links.iter().filter(|link| is_known(&link.name)).map(|link| link.index).collect();
        differ("indices in the device map", &found, "devices of endpoints", &expected)?;
    }
    held.orphans = present.difference(&held.devices).cloned().collect();
    Ok(held)
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|error| format!("the agent tells an address {text:?}: {error}"))
}

fn differ<T: PartialEq + fmt::Debug>(what: &str, found: &T, other: &str, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what} {found:?}, {other} {expected:?}")) }
}
