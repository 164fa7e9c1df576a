//! What the node holds, counted in every place where it could be left behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use kinesin_agent_api::types::{BpfEndpoint, Endpoint, StatusResponse};
use kinesin_netlink::Route;

use crate::node::{Node, PATIENCE};

/// Owners of the node's own leases.
const OWN: [&str; 2] = ["router", "health"];

/// Numbers, addresses and devices that an agent holds for pods, after all places were found to agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) ids: BTreeSet<u16>,
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) devices: BTreeSet<String>,
    /// Host ends that no endpoint has: their plugin was killed, and the runtime's DEL is still to come.
    pub(crate) orphans: BTreeSet<String>,
}

/// Compares leases, endpoints, files and the datapath's table; `Err` names the first difference.
pub(crate) fn look(node: &Node) -> Result<Held, String> {
    let endpoints: Vec<Endpoint> = node.get("/endpoint");
    let rows: Vec<BpfEndpoint> = node.get("/bpf/endpoint");
    let status: StatusResponse = node.get("/healthz");

    let mut held = Held::default();
    for endpoint in &endpoints {
        held.ids.insert(endpoint.id);
        held.addresses.extend(endpoint.status.networking.addressing.iter().map(|pair| pair.ip));
        held.devices.insert(endpoint.spec.interface_name.clone());
    }
    let (mut leased, mut health, mut own) = (BTreeSet::new(), BTreeSet::new(), 0);
    for (address, owner) in &status.ipam.allocations {
        let address: IpAddr = address.parse().expect("an address");
        match owner.as_str() {
            "health" => drop(health.insert(address)),
            "router" => {}
            _ => drop(leased.insert(address)),
        }
        own += usize::from(OWN.contains(&owner.as_str()));
    }
    differ("leases", &leased, "endpoints", &held.addresses)?;
    let families = usize::from(status.ipam.ipv4.is_some()) + usize::from(status.ipam.ipv6.is_some());
    differ("own leases", &own, "two of each family", &(families * 2))?;

    let in_kernel = |row: &&BpfEndpoint| !row.host && !health.contains(&row.ip.parse().expect("an address"));
    let pods: Vec<_> = rows.iter().filter(in_kernel).collect();
    let addresses: BTreeSet<IpAddr> = pods.iter().map(|row| row.ip.parse().expect("an address")).collect();
    differ("rows of the endpoint map", &addresses, "endpoints", &held.addresses)?;
    let ids: BTreeSet<u16> = pods.iter().map(|row| row.id).collect();
    differ("numbers in the endpoint map", &ids, "endpoints", &held.ids)?;

    let files = node.files("/var/run/cilium/state/endpoints");
    let files: BTreeSet<String> = files.into_iter().collect();
    let expected: BTreeSet<String> = held.ids.iter().map(|id| format!("{id}.json")).collect();
    differ("state files", &files, "endpoints", &expected)?;

    let present = node.links().into_iter().map(|link| link.name);
    let present: BTreeSet<String> = present.filter(|name| name.starts_with("lxc") && name != "lxc_health").collect();
    let missing: Vec<_> = held.devices.difference(&present).collect();
    if !missing.is_empty() {
        return Err(format!("endpoints without a device: {missing:?}"));
    }
    held.orphans = present.difference(&held.devices).cloned().collect();
    Ok(held)
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, other: &str, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what} {found:?}, {other} {expected:?}")) }
}

/// Demands that all places agree.
pub(crate) fn consistent(node: &Node) -> Held {
    look(node).unwrap_or_else(|difference| panic!("{difference}"))
}

/// Demands that no pod has left anything.
pub(crate) fn nothing_left(node: &Node) {
    assert_eq!(consistent(node), Held::default());
    assert_eq!(queued(node), 0);
}

/// What is held once what goes on has come to rest: queued deletions are performed right after a start.
pub(crate) fn settled(node: &Node) -> Held {
    let end = Instant::now() + PATIENCE;
    loop {
        match look(node) {
            Ok(held) if queued(node) == 0 => return held,
            outcome if Instant::now() >= end => panic!("{outcome:?}, {} deletions wait", queued(node)),
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// What a node without pods has: devices, routes, pins and processes, none of them by a number that changes.
pub(crate) fn surroundings(node: &Node) -> BTreeSet<String> {
    let links: BTreeMap<u32, String> = node.links().into_iter().map(|link| (link.index, link.name)).collect();
    let name = |index: u32| links.get(&index).cloned().unwrap_or_else(|| format!("device {index} that is not there"));
    let mut all: BTreeSet<String> = links.values().map(|link| format!("device {link}")).collect();
    // The kernel makes those of link-local addresses, some time after a device has come up.
    let made = node.routes().into_iter().filter(|route| !route.dst.to_string().starts_with("fe80:"));
    all.extend(made.map(|route| {
        let Route { dst, via, dev, table, metric, .. } = route;
        format!("route to {dst} via {via:?} dev {} table {table} metric {metric}", name(dev))
    }));
    for layout in node.files("/sys/fs/bpf/kinesin") {
        let below = format!("/sys/fs/bpf/kinesin/{layout}");
        // Generations have numbers that grow; there may be only one at a time.
        let kinds = node.files(&below).into_iter().map(|name| name.split('-').next().unwrap_or_default().to_owned());
        let kinds: Vec<_> = kinds.collect();
        all.insert(format!("pins in {kinds:?}"));
        all.extend(node.files(&format!("{below}/maps")).into_iter().map(|map| format!("map {map}")));
        all.extend(node.files(&format!("{below}/links")).into_iter().map(|pin| {
            let parts: Vec<_> = pin.rsplitn(3, '-').collect();
            let device = parts.get(1).and_then(|index| index.parse().ok()).map_or_else(|| pin.clone(), name);
            format!("link of {device}: {} {}", parts.last().unwrap_or(&""), parts[0])
        }));
    }
    all.extend(node.processes().into_iter().map(|process| format!("process {process}")));
    all
}

/// Deletions that wait for the agent.
pub(crate) fn queued(node: &Node) -> usize {
    node.files("/var/run/cilium/deleteQueue").iter().filter(|name| name.ends_with(".delete")).count()
}

/// Demands that every pinned link belongs to a device that exists; right after a start, which removes the others.
pub(crate) fn no_stale_pins(node: &Node) {
    let existing: BTreeSet<u32> = node.links().into_iter().map(|link| link.index).collect();
    for layout in node.files("/sys/fs/bpf/kinesin") {
        for pin in node.files(&format!("/sys/fs/bpf/kinesin/{layout}/links")) {
            let index = pin.rsplit('-').nth(1).and_then(|index| index.parse().ok());
            assert!(index.is_some_and(|index| existing.contains(&index)), "{pin} is no device's");
        }
    }
}
