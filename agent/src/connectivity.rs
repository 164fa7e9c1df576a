//! Probes every node from this one: echoes and the responder on TCP, to the node itself and to its health endpoint.
//!
//! Nodes are probed from the node's own network, health endpoints from the own health endpoint's, so that those probes go
//! the way of a packet from pod to pod. An echo as large as the path should carry finds what throughput graphs do not: a
//! black hole, where packets of full size vanish and nobody says that they are too large (RFC 2923 section 2.1).

mod echo;
mod probe;
mod record;
mod report;
mod responder;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt as _;
use kinesin_core::values::Family;
use kinesin_netlink::NetNs;
use tokio_util::sync::CancellationToken;

use crate::{engine::Engine, watches::Watches};

pub(crate) use record::Connectivity;
pub(crate) use report::{metrics, status};
pub(crate) use responder::answer_hello;

use probe::Path;
use record::{Kind, Target};
use responder::Responders;

/// Name in `status`.
pub(crate) const NAME: &str = "probe-nodes";
/// How often a path of a small cluster is probed; see [`interval`].
const BASE_INTERVAL: Duration = Duration::from_secs(10);
/// How soon a path is probed again that is not well.
const UNWELL_INTERVAL: Duration = Duration::from_secs(5);
/// Paths that are probed at once.
const AT_ONCE: usize = 16;
/// Nodes that come together are taken up together.
const COALESCE: Duration = Duration::from_millis(500);

/// Probes until the agent stops.
pub(crate) async fn run(engine: Arc<Engine>, watches: Arc<Watches>, stop: CancellationToken) {
    let mut responders = Responders::default();
    let mut nodes = watches.cluster_nodes();
    loop {
        let round = async {
            let (targets, inside) = targets(&engine, &watches).await;
            let listening = responders.keep(&engine).await;
            engine.connectivity.expect(&targets, interval(targets.len()));
            futures::stream::iter(engine.connectivity.due())
                .for_each_concurrent(AT_ONCE, |target| {
                    let (inside, engine) = (inside.clone(), &engine);
                    async move {
                        let outcome = probe::run(&target.path, target.netns(inside.as_deref())).await;
                        engine.connectivity.learn(&target, outcome);
                    }
                })
                .await;
            engine.controllers.note(NAME, listening.map_err(Into::into));
        };
        tokio::select! {
            () = round => {}
            () = stop.cancelled() => return,
        }
        let news = async {
            nodes.changed().await;
            tokio::time::sleep(COALESCE).await;
        };
        tokio::select! {
            () = tokio::time::sleep(UNWELL_INTERVAL) => {}
            () = news => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Grows with the logarithm of the cluster, so that the probes that all nodes send to one do not grow as fast as the
/// cluster.
fn interval(paths: usize) -> Duration {
    let paths = u32::try_from(paths).unwrap_or(u32::MAX);
    BASE_INTERVAL.mul_f64(f64::from(paths).ln().max(1.0))
}

/// Every path from here, and the namespace that paths to health endpoints start in.
async fn targets(engine: &Engine, watches: &Watches) -> (Vec<Target>, Option<Arc<NetNs>>) {
    let state = engine.state().await;
    let Some(datapath) = &state.datapath else { return (Vec::new(), None) };
    let node_mtu = datapath.links.uplinks.first().map_or(datapath.device_mtu_bytes, |link| link.mtu);
    // What a node takes itself is all that the way to it is to carry.
    let narrow: BTreeMap<String, u32> =
        state.node.peers.iter().filter_map(|(name, peer)| Some((name.clone(), peer.mtu_bytes?))).collect();
    let (own, pod_mtu) = (engine.node_name.clone(), datapath.route_mtu_bytes);
    let inside = state.health.as_ref().map(|health| health.netns.clone());
    drop(state);

    let port = engine.config.health.port;
    let mut targets = Vec::new();
    for node in watches.nodes() {
        let is_local = node.name == own;
        let of = |kind, mtu_bytes, addresses: &[std::net::IpAddr]| {
            let used = addresses.iter().filter(|ip| engine.config.families.contains(Family::of(ip)));
            let paths = used.map(|ip| Path { peer: *ip, port, mtu_bytes });
            paths.map(|path| Target { node: node.name.clone(), is_local, kind, path }).collect::<Vec<_>>()
        };
        targets.extend(of(
            Kind::Node,
            narrow.get(&node.name).map_or(node_mtu, |mtu| node_mtu.min(*mtu)),
            &node.addresses,
        ));
        targets.extend(of(Kind::Endpoint, pod_mtu, &node.health));
    }
    (targets, inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_grows_more_slowly_than_the_cluster() {
        assert_eq!(interval(0), BASE_INTERVAL);
        assert_eq!(interval(2), BASE_INTERVAL);
        let (small, large) = (interval(12), interval(4_000));
        assert!(small > BASE_INTERVAL && large < small * 4, "{small:?} and {large:?}");
    }
}
