//! The answer to `GET /v1/healthz`: the whole node in one value.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
};

use kinesin_agent_api::types::{
    IpamStatus, KubernetesStatus, RoutingStatus, State as Word, Status, StatusResponse, TunnelPath,
};
use kinesin_core::{
    chassis::{Counter, TunnelPathReport},
    ipam::{IpamSnapshot, Owner},
    values::{Carrier, Family},
};

use crate::{
    connectivity, endpoint,
    engine::{Engine, State},
    path_mtu, routing,
    watches::Watches,
};

/// Everything that `status` prints.
pub(crate) async fn response(engine: &Engine, watches: &Watches) -> StatusResponse {
    // Counters are read from the kernel, which needs no turn of ours.
    let drops = drops(engine.backends.chassis.counters().await.unwrap_or_default());
    let state = engine.state().await;
    StatusResponse {
        cilium: agent(engine, watches, &state),
        kubernetes: kubernetes(watches),
        ipam: ipam(engine, &state),
        routing: routing(engine, &state),
        cni_file: watches.cni_file(),
        controllers: engine.controllers.report(),
        attach_mode: state.datapath.as_ref().map(|found| found.chassis.attach_mode.clone()).unwrap_or_default(),
        backends: engine.config.selection.iter().map(|(role, name)| (role.to_string(), name.to_owned())).collect(),
        node_name: engine.node_name.clone(),
        drops,
        cluster_health: engine.config.health.enabled.then(|| connectivity::status(&engine.connectivity)),
        refuses_add: refuses_add(engine),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn agent(engine: &Engine, watches: &Watches, state: &State) -> Status {
    if let Err(error) = state.datapath(&engine.controllers) {
        return Status { state: Word::Failure, msg: error.to_string() };
    }
    let degradation = engine.degradation.read().unwrap_or_else(PoisonError::into_inner).message();
    let chassis = state.datapath.iter().map(|found| &found.chassis);
    let less = chassis.flat_map(|chassis| chassis.degraded.iter().chain(&chassis.pending).cloned());
    let left = state.datapath.iter().flat_map(|found| routing::left(&found.left));
    let narrow = state.datapath.iter().filter_map(|found| {
        let (inside, device) = (found.route_mtu_bytes, found.device_mtu_bytes);
        engine.config.families.v6.then(|| too_narrow_for_ipv6(inside, device)).flatten()
    });
    let messages: Vec<String> = degradation
        .into_iter()
        .chain(less)
        .chain(left)
        .chain(narrow)
        .chain(unusable(watches))
        .chain(path_mtu::refused(state))
        .chain(endpoint::follow::told(state))
        .collect();
    Status { state: Word::Ok, msg: messages.join("; ") }
}

/// What of other nodes' objects cannot be used.
fn unusable(watches: &Watches) -> Vec<String> {
    let nodes = watches.cluster_nodes().snapshot();
    let parts = nodes.items.values().filter(|node| !node.problems.is_empty()).map(|node| {
        let told: Vec<&str> = node.problems.iter().take(3).map(String::as_str).collect();
        format!("the CiliumNode {} is taken without what cannot be used of it: {}", node.name, told.join(", "))
    });
    let wholes = nodes.rejected.iter().map(|(name, reason)| format!("the CiliumNode {name} cannot be used: {reason}"));
    parts.chain(wholes).collect()
}

/// Least MTU of IPv6 in bytes (RFC 8200 section 5): no host can be told to send less.
const LEAST_IPV6: u32 = 1280;

/// What to do where the node's device and the headers of its carriers leave IPv6 less than that. The key `mtu` is refused
/// when it asks for it; what was detected can only be told.
fn too_narrow_for_ipv6(route_mtu_bytes: u32, device_mtu_bytes: u32) -> Option<String> {
    (route_mtu_bytes < LEAST_IPV6).then(|| {
        let wanted = LEAST_IPV6 + device_mtu_bytes.saturating_sub(route_mtu_bytes);
        format!(
            "pods' IPv6 packets to other nodes have {route_mtu_bytes} bytes, and IPv6 needs {LEAST_IPV6}: raise the MTU of the \
             underlay from {device_mtu_bytes} to {wanted} bytes, or reach nodes natively"
        )
    })
}

/// Why the runtime shall hear that no ADD can be served, if the operator of the cluster wants it to hear that.
fn refuses_add(engine: &Engine) -> Option<String> {
    let lacking = engine.exhaustion.messages();
    (engine.config.cni.status_on_exhaustion && !lacking.is_empty()).then(|| lacking.join("; "))
}

fn kubernetes(watches: &Watches) -> KubernetesStatus {
    let health = watches.health();
    let lost = health.iter().find(|found| !found.connected);
    let status = match lost {
        None => Status { state: Word::Ok, msg: watches.server_version() },
        Some(found) => Status {
            state: Word::Failure,
            msg: format!(
                "cannot watch {}: {}; running pods go on",
                found.what,
                found.last_error.as_deref().unwrap_or("no answer yet")
            ),
        },
    };
    let mut versions: Vec<String> = health.iter().map(|found| api_version(&found.what)).collect();
    versions.sort();
    versions.dedup();
    KubernetesStatus { status, k8s_api_versions: versions }
}

/// `cilium.io/v2 CiliumNode` as `cilium/v2::CiliumNode`, `v1 Node` as `core/v1::Node`.
fn api_version(what: &str) -> String {
    let (version, kind) = what.split_once(' ').unwrap_or(("", what));
    let version = version.strip_prefix("cilium.io/").map_or_else(
        || if version.contains('/') { version.to_owned() } else { format!("core/{version}") },
        |rest| format!("cilium/{rest}"),
    );
    format!("{version}::{kind}")
}

fn ipam(engine: &Engine, state: &State) -> IpamStatus {
    let restored =
        |ip| state.endpoints.values().any(|running| running.restored && running.record.addresses().contains(&ip));
    let modes = &engine.backends.ipam;
    let snapshots = modes.snapshots();
    let default_pool = default_pool(engine);
    let mut allocations = BTreeMap::new();
    for lease in snapshots.iter().flat_map(|(_, snapshot)| snapshot.leases.values()) {
        for leased in &lease.addresses {
            let mark = if matches!(lease.owner, Owner::Pod { .. }) && restored(leased.ip) { " [restored]" } else { "" };
            // Cilium names the pool of an address unless it is the default one (reference 3.1).
            let pool = &leased.block.pool;
            let ip = if *pool == default_pool || pool == "default" {
                leased.ip.to_string()
            } else {
                format!("{pool}/{}", leased.ip)
            };
            allocations.insert(ip, format!("{}{mark}", lease.owner));
        }
    }
    let preferred = modes.preferred();
    let empty = IpamSnapshot::default();
    let of_preferred = snapshots.first().map_or(&empty, |(_, snapshot)| snapshot);
    let line = |family| {
        engine.config.families.contains(family).then(|| match preferred.source.has_pools() {
            true => pools(of_preferred, family),
            false => allocated(of_preferred, family),
        })
    };
    let draining = snapshots.iter().filter(|(mode, _)| mode.name != preferred.name).map(|(mode, snapshot)| {
        let families = Family::ALL.into_iter().filter(|family| has_family(snapshot, *family));
        let parts: Vec<_> = families.map(|family| format!("{family}: {}", allocated(snapshot, family))).collect();
        format!("{}: {}", mode.name, parts.join(", "))
    });
    IpamStatus {
        mode: engine.config.selection.ipam.clone(),
        ipv4: line(Family::V4),
        ipv6: line(Family::V6),
        allocations,
        draining: draining.collect(),
        lacking: engine.exhaustion.messages(),
    }
}

/// The pool whose addresses are shown without its name: that of the router.
fn default_pool(engine: &Engine) -> String {
    let snapshot = engine.backends.ipam.preferred().ipam.snapshot();
    let router = snapshot.leases.values().find(|lease| lease.owner == Owner::Router);
    let pool = router.and_then(|lease| lease.addresses.first()).map(|leased| leased.block.pool.clone());
    pool.unwrap_or_else(|| "default".to_owned())
}

fn has_family(snapshot: &IpamSnapshot, family: Family) -> bool {
    snapshot.blocks.iter().any(|used| Family::of_net(&used.block.cidr) == family)
}

/// `2 IPAM pool(s) available`, as Cilium prints in multi-pool.
fn pools(snapshot: &IpamSnapshot, family: Family) -> String {
    let of_family = snapshot.blocks.iter().filter(|used| Family::of_net(&used.block.cidr) == family);
    let pools: BTreeSet<_> = of_family.map(|used| &used.block.pool).collect();
    format!("{} IPAM pool(s) available", pools.len())
}

/// `3/254 allocated from 10.244.0.0/24`; blocks that only keep old leases are named too.
fn allocated(snapshot: &IpamSnapshot, family: Family) -> String {
    let blocks: Vec<_> = snapshot.blocks.iter().filter(|found| Family::of_net(&found.block.cidr) == family).collect();
    let leased: u64 = blocks.iter().map(|found| found.leased).sum();
    let capacity: u64 = blocks.iter().map(|found| found.capacity).sum();
    let names: Vec<_> = blocks.iter().map(|found| found.block.cidr.to_string()).collect();
    format!("{leased}/{capacity} allocated from {}", names.join(", "))
}

fn routing(engine: &Engine, state: &State) -> RoutingStatus {
    let own = engine.backends.routing.preferred().carrier();
    let mut network = network_name(own);
    let Some(datapath) = &state.datapath else {
        return RoutingStatus { network, ..RoutingStatus::default() };
    };
    // Only while the cluster changes its carrier.
    for carrier in Carrier::ALL.into_iter().filter(|carrier| *carrier != own) {
        let nodes = datapath.carriers.values().filter(|used| **used == carrier).count();
        if nodes > 0 {
            network = format!("{network}, {} to {nodes} node(s)", network_name(carrier));
        }
    }
    let unreachable = datapath.routing.unreachable.clone();
    let reached = state.node.peers.keys().filter(|name| !unreachable.contains_key(*name)).count();
    RoutingStatus {
        network,
        // Packets go from the pod's device to the uplink without the upper stack.
        host: if datapath.chassis.attach_mode.is_empty() { "Legacy" } else { "BPF" }.to_owned(),
        devices: datapath.links.uplinks.iter().map(|link| link.name.clone()).collect(),
        peers: reached,
        unreachable,
        tunnel_paths: datapath.chassis.tunnel_paths.iter().map(tunnel_path).collect(),
        path_mtus: path_mtu::told(state),
    }
}

fn tunnel_path(found: &TunnelPathReport) -> TunnelPath {
    TunnelPath {
        carrier: found.carrier.to_string(),
        device: found.uplink.clone(),
        path: found.path.to_owned(),
        reason: found.reason.clone(),
    }
}

/// A carrier in Cilium's words.
fn network_name(carrier: Carrier) -> String {
    if carrier == Carrier::Native { "Native".to_owned() } else { format!("Tunnel [{carrier}]") }
}

fn drops(counters: Vec<Counter>) -> BTreeMap<String, u64> {
    let mut drops = BTreeMap::new();
    for counter in counters.into_iter().filter(Counter::is_drop) {
        *drops.entry(counter.text).or_default() += counter.packets;
    }
    drops
}

#[cfg(test)]
mod tests {
    use kinesin_core::ipam::{Block, BlockUse};

    use super::*;

    #[test]
    fn allocation_is_told_in_the_known_form() {
        let block = |cidr: &str, leased| BlockUse {
            block: Block { pool: "default".to_owned(), cidr: cidr.parse().expect("a network") },
            leased,
            capacity: 6,
            draining: false,
        };
        let snapshot = IpamSnapshot {
            blocks: vec![block("172.20.42.0/29", 3), block("fd00::/125", 2)],
            ..IpamSnapshot::default()
        };
        assert_eq!(allocated(&snapshot, Family::V4), "3/6 allocated from 172.20.42.0/29");
        assert_eq!(allocated(&snapshot, Family::V6), "2/6 allocated from fd00::/125");
    }

    #[test]
    fn underlay_that_is_too_narrow_for_ipv6_in_a_tunnel_is_told() {
        let told = too_narrow_for_ipv6(1230, 1280).expect("too narrow");
        assert!(told.contains("have 1230 bytes") && told.contains("from 1280 to 1330 bytes"), "{told}");
        assert_eq!((too_narrow_for_ipv6(1280, 1330), too_narrow_for_ipv6(1280, 1280)), (None, None));
    }

    #[test]
    fn kinds_are_named_as_cilium_names_them() {
        assert_eq!(api_version("cilium.io/v2 CiliumNode"), "cilium/v2::CiliumNode");
        assert_eq!(api_version("v1 Node"), "core/v1::Node");
        assert_eq!(api_version("discovery.k8s.io/v1 EndpointSlice"), "discovery.k8s.io/v1::EndpointSlice");
    }
}
