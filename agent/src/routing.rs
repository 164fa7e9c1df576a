//! The node's routing backends: one by which it wants to be reached, and others that reach nodes of another carrier.
//!
//! A cluster changes its carrier while it runs, node by node. `carriers` says what carries packets to which node; here each
//! backend gets its own nodes, and one that has none any more retires.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use kinesin_core::{
    causes::with_causes,
    chassis::Tunnel,
    routing::{Path, Peer, Routing, RoutingDesired, RoutingError, RoutingReport},
    values::{Carrier, Family},
};

use crate::{
    carriers::{self, Carriers, Format},
    engine::{Engine, State},
    path_mtu,
    store::PeerRecord,
};

/// How long a carrier is accepted after the last node has stopped preferring it. Announcements need milliseconds; a node
/// whose API server is away falls back on nothing, so there is no point in waiting for it.
pub(crate) const HOLD: Duration = Duration::from_secs(10);

/// What earlier passes may have left in the kernel, those of an earlier run as well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Former {
    /// What carried packets to each node.
    pub(crate) carriers: BTreeMap<String, Carrier>,
    /// Carriers of which something may be left.
    pub(crate) unclean: BTreeSet<Carrier>,
}

/// What [`Routings::apply`] came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routed {
    pub(crate) report: RoutingReport,
    /// What carriers that are not used any more have left, with the reason.
    pub(crate) left: BTreeMap<Carrier, String>,
}

/// The paths that are about to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) paths: Vec<Path>,
    /// Whether every backend in use could tell its own.
    pub(crate) is_whole: bool,
}

/// Every routing backend that can run on this node, at most one for each carrier.
#[derive(Debug, Clone)]
pub(crate) struct Routings {
    preferred: Arc<dyn Routing>,
    others: Vec<Arc<dyn Routing>>,
}

impl Routings {
    pub(crate) fn new(preferred: Arc<dyn Routing>, others: Vec<Arc<dyn Routing>>) -> Self {
        let mut taken = BTreeSet::from([preferred.carrier()]);
        let others = others.into_iter().filter(|other| taken.insert(other.carrier())).collect();
        Self { preferred, others }
    }

    /// What the configuration chose.
    pub(crate) fn preferred(&self) -> &dyn Routing {
        self.preferred.as_ref()
    }

    /// Every backend, the preferred one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<dyn Routing>> {
        std::iter::once(&self.preferred).chain(&self.others)
    }

    fn carriers(&self) -> BTreeSet<Carrier> {
        self.all().map(|backend| backend.carrier()).collect()
    }

    /// Bytes that the most expensive of these carriers adds on an underlay of one of these families.
    fn overhead_bytes(&self, carriers: &Carriers, families: &[Family]) -> u16 {
        let accepted = self.all().filter(|backend| carriers.accepts.contains_key(&backend.carrier()));
        accepted.flat_map(|backend| families.iter().map(|family| backend.overhead_bytes(*family))).max().unwrap_or(0)
    }

    /// The paths that [`Self::apply`] would report, as far as backends can tell before they act; nothing changes.
    ///
    /// # Errors
    /// What the preferred backend says of all its nodes.
    pub(crate) async fn plan(
        &self,
        mut desired: RoutingDesired,
        by_peer: &BTreeMap<String, Carrier>,
    ) -> Result<Plan, RoutingError> {
        assign(&mut desired, by_peer);
        let mut plan = Plan { paths: Vec::new(), is_whole: true };
        for backend in self.all().filter(|backend| by_peer.values().any(|used| *used == backend.carrier())) {
            match backend.plan(&desired).await {
                Ok(Some(found)) => plan.paths.extend(found),
                Ok(None) => plan.is_whole = false,
                Err(error) if backend.carrier() == self.preferred.carrier() => return Err(error),
                Err(error) => {
                    // It is told when it is asked to act.
                    tracing::debug!(carrier = %backend.carrier(), %error, "no plan");
                    plan.is_whole = false;
                }
            }
        }
        Ok(plan)
    }

    /// Gives each backend its nodes.
    ///
    /// A backend that gains a node goes before the one that loses it, so that the node's route is replaced and not missed.
    /// One that has none any more, and cannot clean up, keeps nobody else from working; it is asked again by the next pass.
    ///
    /// # Errors
    /// What the preferred backend says of all its nodes. Another's trouble is its nodes' alone.
    pub(crate) async fn apply(
        &self,
        mut desired: RoutingDesired,
        carriers: &Carriers,
        former: &Former,
    ) -> Result<Routed, RoutingError> {
        assign(&mut desired, &carriers.by_peer);
        let mut report = RoutingReport { unreachable: carriers.impossible.clone(), ..RoutingReport::default() };
        let mut left = BTreeMap::new();
        let gains = |backend: &Arc<dyn Routing>| {
            let own = backend.carrier();
            let moved = |name: &String| former.carriers.get(name).is_some_and(|was| *was != own);
            carriers.by_peer.iter().any(|(name, carrier)| *carrier == own && moved(name))
        };
        let mut ordered: Vec<&Arc<dyn Routing>> = self.all().collect();
        ordered.sort_by_key(|backend| !gains(backend));
        for backend in ordered {
            let carrier = backend.carrier();
            let is_preferred = carrier == self.preferred.carrier();
            if is_preferred || carriers.uses(carrier) {
                match backend.apply(&desired).await {
                    Ok(found) => {
                        report.paths.extend(found.paths);
                        report.changes += found.changes;
                        report.unreachable.extend(found.unreachable);
                    }
                    Err(error) if is_preferred => return Err(error),
                    Err(error) => {
                        let lost = carriers.by_peer.iter().filter(|(_, used)| **used == carrier);
                        report.unreachable.extend(lost.map(|(name, _)| (name.clone(), format!("{carrier}: {error}"))));
                    }
                }
            } else if former.unclean.contains(&carrier)
                && let Err(error) = backend.retire().await
            {
                left.insert(carrier, with_causes(&error));
            }
        }
        Ok(Routed { report, left })
    }

    /// Removes what any of them has made; the answer is what is left.
    pub(crate) async fn retire(&self) -> Vec<String> {
        let mut left = Vec::new();
        for backend in self.all() {
            left.extend(backend.retire().await.err().map(|error| error.to_string()));
        }
        left
    }
}

impl Engine {
    /// What carries packets to which node, by what the nodes announce now.
    pub(crate) fn carriers(&self, state: &mut State) -> Carriers {
        let own = Format::new(self.backends.routing.preferred().carrier(), self.config.tunnel_port);
        let have = self.backends.routing.carriers();
        let now = Instant::now();
        if state.wanted.is_empty() {
            // What an earlier run announced, others may send; what nobody wants now is older than the rest.
            let before = now.checked_sub(Duration::from_millis(1)).unwrap_or(now);
            state.wanted.extend(state.node.announced.accepts.iter().map(|format| (*format, before)));
        }
        let peers = state.node.peers.iter().map(|(name, peer)| (name, &peer.carriers));
        for format in carriers::decide(own, &have, [], peers.clone()).formats() {
            state.wanted.insert(format, now);
        }
        state.wanted.retain(|_, last| now.duration_since(*last) < HOLD);
        carriers::decide(own, &have, state.wanted.keys().copied(), peers)
    }

    /// Wakes a pass when what is only held can go.
    pub(crate) fn look_again_when_held_is_over(self: &Arc<Self>, state: &State) {
        let Some(wait) = until_held_is_over(&state.wanted, Instant::now()) else { return };
        if !self.is_waiting_for_hold.swap(true, std::sync::atomic::Ordering::SeqCst) {
            let engine = Arc::downgrade(self);
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                if let Some(engine) = engine.upgrade() {
                    engine.is_waiting_for_hold.store(false, std::sync::atomic::Ordering::SeqCst);
                    engine.wakes.datapath.notify_one();
                }
            });
        }
    }

    /// Bytes that carriers in use take from a packet: those of the largest headers.
    pub(crate) fn overhead_bytes(&self, state: &State, carriers: &Carriers) -> u16 {
        let own = &state.node.internal_ips;
        let has = |family: &Family| own.is_empty() || own.iter().any(|ip| Family::of(ip) == *family);
        let usable: Vec<Family> = self.config.underlay.families().filter(has).collect();
        // The family that the next node would be reached by, those by which others are to be, and by which they still are.
        let mut families: Vec<Family> = usable.iter().copied().take(1).collect();
        let tunnelled = carriers.by_peer.iter().filter(|(_, carrier)| **carrier != Carrier::Native);
        families.extend(tunnelled.filter_map(|(name, _)| {
            let addresses = &state.node.peers.get(name)?.addresses;
            usable.iter().copied().find(|family| addresses.iter().any(|ip| Family::of(ip) == *family))
        }));
        let paths = state.datapath.iter().flat_map(|datapath| &datapath.paths);
        families.extend(paths.filter(|path| path.carrier != Carrier::Native).map(|path| Family::of(&path.node)));
        families.sort_unstable();
        families.dedup();
        self.backends.routing.overhead_bytes(carriers, &families)
    }
}

/// How long the carrier that was wanted longest ago is held still; none if all are wanted now, which the same pass has noted
/// of them.
fn until_held_is_over(wanted: &BTreeMap<Format, Instant>, now: Instant) -> Option<Duration> {
    let (oldest, newest) = (wanted.values().min()?, wanted.values().max()?);
    (oldest < newest).then(|| HOLD.saturating_sub(now.duration_since(*oldest)) + Duration::from_millis(100))
}

/// Says of each peer what is to carry packets to it, and leaves out those that nothing can.
fn assign(desired: &mut RoutingDesired, by_peer: &BTreeMap<String, Carrier>) {
    desired.peers.retain(|name, _| by_peer.contains_key(name));
    for (name, peer) in &mut desired.peers {
        peer.carrier = by_peer.get(name).copied();
    }
}

/// What `status` says of carriers that could not clean up.
pub(crate) fn left(left: &BTreeMap<Carrier, String>) -> impl Iterator<Item = String> {
    left.iter().map(|(carrier, reason)| {
        format!("no node is reached by {carrier} any more, but not all of it is removed: {reason}; it is tried again")
    })
}

/// The paths while nodes change their carrier and routes have not followed yet: what leaves a tunnel stays in it until then,
/// since the route still leads there; paths that the plan does not know stay as well.
pub(crate) fn while_moving(planned: Vec<Path>, last: &[Path]) -> Vec<Path> {
    let mut paths: BTreeMap<_, Path> = last.iter().map(|path| (path.prefix, path.clone())).collect();
    for path in planned {
        let was = paths.get(&path.prefix).map_or(Carrier::Native, |was| was.carrier);
        if path.carrier != Carrier::Native || was == Carrier::Native {
            paths.insert(path.prefix, path);
        }
    }
    paths.into_values().collect()
}

/// Whether a node is to be reached by another carrier than before.
pub(crate) fn moves(before: &BTreeMap<String, Carrier>, now: &BTreeMap<String, Carrier>) -> bool {
    now.iter().any(|(name, carrier)| before.get(name).is_some_and(|was| was != carrier))
}

/// The tunnels that the chassis opens.
pub(crate) fn tunnels(carriers: &Carriers) -> Vec<Tunnel> {
    carriers.formats().filter_map(|format| Some(Tunnel { carrier: format.carrier, port: format.port? })).collect()
}

/// The first underlay address of each family.
pub(crate) fn first_of_each_family(addresses: &[std::net::IpAddr]) -> Vec<std::net::IpAddr> {
    let first = |family| addresses.iter().find(|ip| Family::of(ip) == family).copied();
    Family::ALL.into_iter().filter_map(first).collect()
}

/// A peer as routing sees it.
pub(crate) fn peer(record: &PeerRecord, told_mtus: &BTreeMap<IpAddr, u32>) -> Peer {
    Peer {
        addresses: record.addresses.clone(),
        pod_cidrs: record.pod_cidrs.clone(),
        created_unix_seconds: record.created_unix_seconds,
        carrier: None,
        mtu_bytes: path_mtu::known(record, told_mtus),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use kinesin_core::{routing::LocalNode, values::Families};

    use super::*;
    use crate::carriers::Said;

    /// Carries every peer that it is given, and notes what it was asked.
    #[derive(Debug)]
    struct Noting {
        carrier: Carrier,
        fails: bool,
        keeps: bool,
        log: Arc<Mutex<Vec<String>>>,
    }

    #[async_trait]
    impl Routing for Noting {
        fn carrier(&self) -> Carrier {
            self.carrier
        }

        fn overhead_bytes(&self, underlay: Family) -> u16 {
            match (self.carrier, underlay) {
                (Carrier::Native, _) => 0,
                (_, Family::V4) => 50,
                (_, Family::V6) => 70,
            }
        }

        async fn apply(&self, desired: &RoutingDesired) -> Result<RoutingReport, RoutingError> {
            self.log.lock().expect("no panic").push(format!("{} applies", self.carrier));
            if self.fails {
                return Err(RoutingError::Uplink { device: "eth0".to_owned(), reason: "it is down".to_owned() });
            }
            let own = desired.peers.values().filter(|peer| peer.is_carried_by(self.carrier));
            let path = |peer: &Peer| {
                let (prefix, node) = (peer.pod_cidrs[0], peer.addresses[0]);
                Path { prefix, node, carrier: self.carrier, next_hop: None, mtu_bytes: None }
            };
            Ok(RoutingReport { paths: own.map(path).collect(), ..RoutingReport::default() })
        }

        async fn retire(&self) -> Result<(), RoutingError> {
            self.log.lock().expect("no panic").push(format!("{} retires", self.carrier));
            if self.keeps { Err(RoutingError::Retire { left: vec!["a device: busy".to_owned()] }) } else { Ok(()) }
        }
    }

    struct World {
        routings: Routings,
        own: Format,
        log: Arc<Mutex<Vec<String>>>,
    }

    impl World {
        fn new(preferred: Carrier, fails: &[Carrier]) -> Self {
            Self::keeping(preferred, fails, &[])
        }

        fn keeping(preferred: Carrier, fails: &[Carrier], keeps: &[Carrier]) -> Self {
            let log = Arc::<Mutex<Vec<String>>>::default();
            let backend = |carrier| -> Arc<dyn Routing> {
                let (fails, keeps) = (fails.contains(&carrier), keeps.contains(&carrier));
                Arc::new(Noting { carrier, fails, keeps, log: log.clone() })
            };
            let others = Carrier::ALL.into_iter().map(backend).collect();
            Self { routings: Routings::new(backend(preferred), others), own: Format::new(preferred, None), log }
        }

        fn carriers(&self, peers: &[(&str, Carrier)]) -> Carriers {
            let said: Vec<(String, Said)> = peers
                .iter()
                .map(|(name, carrier)| {
                    let format = Format::new(*carrier, None);
                    ((*name).to_owned(), Said { prefers: Some(format), accepts: [format].into() })
                })
                .collect();
            carriers::decide(self.own, &self.routings.carriers(), [], said.iter().map(|(name, said)| (name, said)))
        }

        async fn apply(
            &self,
            peers: &[(&str, Carrier)],
            last: Option<&[(&str, Carrier)]>,
        ) -> (Result<Routed, RoutingError>, Vec<String>) {
            let former = last.map_or_else(Former::after_start, Former::of);
            self.apply_after(peers, &former).await
        }

        async fn apply_after(
            &self,
            peers: &[(&str, Carrier)],
            former: &Former,
        ) -> (Result<Routed, RoutingError>, Vec<String>) {
            let peer = |number: usize| Peer {
                addresses: vec![[10, 0, 0, number as u8].into()],
                pod_cidrs: vec![format!("10.244.{number}.0/24").parse().expect("a network")],
                ..Peer::default()
            };
            let desired = RoutingDesired {
                local: LocalNode {
                    name: "local".to_owned(),
                    created_unix_seconds: None,
                    families: Families::DUAL,
                    addresses: Vec::new(),
                    pod_cidrs: Vec::new(),
                    uplinks: Vec::new(),
                    host_device: String::new(),
                    router: Vec::new(),
                    mtu_bytes: 1500,
                },
                peers: peers.iter().enumerate().map(|(at, (name, _))| ((*name).to_owned(), peer(at + 1))).collect(),
            };
            let routed = self.routings.apply(desired, &self.carriers(peers), former).await;
            (routed, std::mem::take(&mut *self.log.lock().expect("no panic")))
        }
    }

    impl Former {
        fn after_start() -> Self {
            Self { carriers: BTreeMap::new(), unclean: Carrier::ALL.into() }
        }

        fn of(last: &[(&str, Carrier)]) -> Self {
            let carriers = last.iter().map(|(name, carrier)| ((*name).to_owned(), *carrier)).collect();
            Self { carriers, unclean: last.iter().map(|(_, carrier)| *carrier).collect() }
        }
    }

    #[tokio::test]
    async fn each_node_is_reached_by_the_backend_of_its_carrier() {
        let world = World::new(Carrier::Vxlan, &[]);
        let peers = [("w1", Carrier::Vxlan), ("w2", Carrier::Native)];
        let (routed, log) = world.apply(&peers, None).await;
        let paths = routed.expect("applied").report.paths;
        let mut carriers: Vec<Carrier> = paths.iter().map(|path| path.carrier).collect();
        carriers.sort();
        assert_eq!(carriers, [Carrier::Native, Carrier::Vxlan]);
        // An earlier run may have used the third one; from then on nobody asks it.
        assert_eq!(log, ["vxlan applies", "native applies", "geneve retires"]);
        assert_eq!(world.apply(&peers, Some(&peers)).await.1, ["vxlan applies", "native applies"]);
    }

    #[tokio::test]
    async fn who_gains_a_node_goes_before_who_loses_it_and_who_has_none_left_retires() {
        let native = World::new(Carrier::Native, &[]);
        let (before, after) =
            ([("w1", Carrier::Native), ("w2", Carrier::Native)], [("w1", Carrier::Geneve), ("w2", Carrier::Native)]);
        assert_eq!(native.apply(&after, Some(&before)).await.1, ["geneve applies", "native applies"]);
        assert_eq!(native.apply(&before, Some(&after)).await.1, ["native applies", "geneve retires"]);
        let geneve = World::new(Carrier::Geneve, &[]);
        let last = [("w1", Carrier::Geneve), ("w2", Carrier::Geneve)];
        assert_eq!(geneve.apply(&last, Some(&after)).await.1, ["geneve applies", "native retires"]);
    }

    #[tokio::test]
    async fn trouble_of_another_carrier_is_only_its_own_nodes() {
        let peers = [("w1", Carrier::Vxlan), ("w2", Carrier::Native)];
        let report =
            World::new(Carrier::Vxlan, &[Carrier::Native]).apply(&peers, None).await.0.expect("applied").report;
        assert_eq!(report.paths.len(), 1);
        assert!(
            report.unreachable["w2"].contains("native") && report.unreachable["w2"].contains("it is down"),
            "{report:?}"
        );
        assert!(World::new(Carrier::Native, &[Carrier::Native]).apply(&peers, None).await.0.is_err());
    }

    #[tokio::test]
    async fn who_gains_a_node_goes_first_after_a_start_as_well() {
        let native = World::new(Carrier::Native, &[]);
        let (before, after) = ([("w1", Carrier::Native)], [("w1", Carrier::Geneve)]);
        let former = Former { unclean: Carrier::ALL.into(), ..Former::of(&before) };
        assert_eq!(native.apply_after(&after, &former).await.1, ["geneve applies", "native applies", "vxlan retires"]);
    }

    #[tokio::test]
    async fn who_cannot_clean_up_keeps_nobody_from_working_and_is_named() {
        let world = World::keeping(Carrier::Vxlan, &[], &[Carrier::Native]);
        let peers = [("w1", Carrier::Vxlan), ("w2", Carrier::Geneve)];
        // Native comes before geneve.
        let (routed, log) = world.apply(&peers, None).await;
        let routed = routed.expect("applied");
        assert_eq!(log, ["vxlan applies", "native retires", "geneve applies"]);
        assert_eq!(routed.report.paths.len(), 2);
        let told: Vec<String> = left(&routed.left).collect();
        assert!(told.len() == 1 && told[0].contains("native") && told[0].contains("a device: busy"), "{told:?}");
        // Until it succeeds, whatever carries packets now.
        let former = Former { unclean: routed.left.keys().copied().collect(), ..Former::of(&peers) };
        assert_eq!(world.apply_after(&peers, &former).await.1, ["vxlan applies", "native retires", "geneve applies"]);
        assert_eq!(world.apply(&peers, Some(&peers)).await.1, ["vxlan applies", "geneve applies"]);
    }

    #[test]
    fn who_enters_a_tunnel_goes_before_the_route_and_who_leaves_it_after() {
        let path = |number: u8, carrier| Path {
            prefix: format!("10.244.{number}.0/24").parse().expect("a network"),
            node: [10, 0, 0, number].into(),
            carrier,
            next_hop: None,
            mtu_bytes: None,
        };
        let (native, vxlan, geneve) = (Carrier::Native, Carrier::Vxlan, Carrier::Geneve);
        let last = [path(1, native), path(2, vxlan), path(3, vxlan), path(4, native)];
        let planned = vec![path(1, vxlan), path(2, native), path(3, geneve), path(5, native)];
        let between = while_moving(planned, &last);
        assert_eq!(between, [path(1, vxlan), path(2, vxlan), path(3, geneve), path(4, native), path(5, native)]);
    }

    #[test]
    fn another_pass_follows_the_hold_however_short_ago_a_carrier_was_wanted() {
        let now = Instant::now();
        let (native, vxlan) = (Format::new(Carrier::Native, None), Format::new(Carrier::Vxlan, None));
        let wanted =
            |ago: Duration| BTreeMap::from([(native, now), (vxlan, now.checked_sub(ago).expect("an instant"))]);
        assert_eq!(until_held_is_over(&wanted(Duration::ZERO), now), None);
        for ago in [Duration::from_millis(1), Duration::from_secs(5), HOLD] {
            let wait = until_held_is_over(&wanted(ago), now).expect("it is held");
            assert!(wait > HOLD.saturating_sub(ago) && wait < HOLD + Duration::from_secs(1), "{ago:?}: {wait:?}");
        }
    }

    #[test]
    fn route_mtu_is_that_of_the_largest_headers_in_use() {
        let native = World::new(Carrier::Native, &[]);
        let overhead = |peers: &[(&str, Carrier)], families: &[Family]| {
            native.routings.overhead_bytes(&native.carriers(peers), families)
        };
        assert_eq!(overhead(&[("w1", Carrier::Native)], &[Family::V4]), 0);
        assert_eq!(overhead(&[("w1", Carrier::Native), ("w2", Carrier::Vxlan)], &[Family::V4]), 50);
        assert_eq!(overhead(&[("w2", Carrier::Vxlan)], &Family::ALL), 70);
    }
}
