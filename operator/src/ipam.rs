//! Gives blocks of addresses to nodes: what the watches see goes into the engine, what it asks for goes to the API server.

pub(crate) mod auto_pools;
pub(crate) mod config;
mod feed;
pub(crate) mod pools;
pub(crate) mod read;
pub(crate) mod services;
pub(crate) mod write;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kinesin_cluster::{CiliumNode, CiliumPodIPPool, ClusterError, PodCIDRClaims, Table, crd::ClaimsSpec, watch_all};
use kinesin_ipam_blocks::{Claims, Effect, Engine, Name, NodeView, Outcome, Settings, Version};
use kube::Client;
use serde::Deserialize as _;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

pub use config::IpamSettings;

use crate::state::State;
use feed::Seen;
use read::{Host, PoolView};
use write::Requests;

/// Requests at the same time.
const AT_ONCE: usize = 32;
/// For how long the blocks of a deleted CiliumNode are kept while its Node is there.
const HOLD: Duration = Duration::from_secs(600);
/// Between two tries of what is asked once.
const RETRY: Duration = Duration::from_secs(2);
/// For so long at most the start waits for pools to be made.
const START: Duration = Duration::from_secs(5);
/// No pause between two passes is longer.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// Between two counts for metrics, since each looks at every block.
const COUNTS: Duration = Duration::from_millis(500);
/// Between two looks at what the pools' statuses are to say, at least.
const POOL_REPORTS: Duration = Duration::from_secs(2);

/// Objects of all nodes, pools and claims.
struct Tables {
    nodes: Table<Arc<NodeView>>,
    hosts: Table<Host>,
    pools: Table<PoolView>,
    claims: Table<Arc<(Version, Claims)>>,
}

impl Tables {
    fn watch(client: &Client) -> Self {
        Self {
            nodes: watch_all::<CiliumNode, _, _>(client.clone(), |object| Ok(Arc::new(read::node(object)))),
            hosts: watch_all::<Node, _, _>(client.clone(), read::host),
            pools: watch_all::<CiliumPodIPPool, _, _>(client.clone(), read::pool),
            claims: watch_all::<PodCIDRClaims, _, _>(client.clone(), |object| {
                let spec = ClaimsSpec::deserialize(&object.data["spec"]).map_err(|error| format!("spec: {error}"))?;
                Ok(Arc::new((read::version(object), read::claims(&spec)?)))
            }),
        }
    }

    /// Waits until each has been answered once: nothing is given out before everything that is given out is known.
    async fn synced(&mut self) {
        self.nodes.synced().await;
        self.hosts.synced().await;
        self.pools.synced().await;
        self.claims.synced().await;
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = self.nodes.changed() => {}
            () = self.hosts.changed() => {}
            () = self.pools.changed() => {}
            () = self.claims.changed() => {}
        }
    }
}

/// Gives blocks to nodes for as long as it is polled.
pub(crate) async fn run(client: &Client, mut settings: watch::Receiver<IpamSettings>, state: &Arc<State>) {
    let requests = Requests::new(client.clone(), Arc::clone(state));
    let mut tables = Tables::watch(client);
    let services = again("cannot learn the networks of services", || services::networks(&requests)).await;
    tables.synced().await;
    let auto_pools = settings.borrow().auto_pools.clone();
    let mut made = create_at_start(&requests, &auto_pools, &mut tables.pools).await;
    let mut work = Work::new(settings.borrow_and_update().clone(), services, requests.clone(), Arc::clone(state));
    let mut flights: JoinSet<(Effect, Outcome)> = JoinSet::new();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut creating = JoinSet::new();
    tracing::info!(nodes = tables.nodes.snapshot().items.len(), "giving blocks to nodes");
    loop {
        let auto = &work.settings.auto_pools;
        if made.as_ref() != Some(auto) && creating.is_empty() {
            let (requests, pools) = (requests.clone(), auto.clone());
            creating.spawn(async move {
                again("cannot create pools", || auto_pools::create(&requests, &pools)).await;
                pools
            });
        }
        let pass = Instant::now();
        work.look(&tables);
        for effect in work.engine.poll(work.started.elapsed(), &Timestamp::now().to_string()) {
            let (requests, permits) = (requests.clone(), Arc::clone(&permits));
            flights.spawn(async move {
                let _permit = permits.acquire_owned().await;
                let outcome = requests.perform(&effect).await;
                (effect, outcome)
            });
        }
        let wake = work.count().min(work.next_wake());
        // A pass looks at every node. While it takes long and much goes on, others are done at least as long as it, so
        // that the next one finds more to do at once; a single node's request does not wait for anything.
        tokio::time::sleep(pass.elapsed().min(LONGEST_PAUSE)).await;
        tokio::select! {
            () = tables.changed() => {}
            Ok(()) = settings.changed() => work.set_settings(settings.borrow_and_update().clone()),
            Some(Ok(pools)) = creating.join_next() => made = Some(pools),
            Some(done) = flights.join_next() => work.finish(done),
            () = tokio::time::sleep(wake) => {}
        }
        // What is there already is taken along: one plan for all of it.
        while let Some(done) = flights.try_join_next() {
            work.finish(done);
        }
    }
}

/// Makes the pools before nodes are looked at, so that no node is told that a pool is missing which is about to be made.
/// An API server that refuses them does not keep anybody else waiting for long.
async fn create_at_start(
    requests: &Requests,
    pools: &auto_pools::AutoPools,
    table: &mut Table<PoolView>,
) -> Option<auto_pools::AutoPools> {
    let create = async {
        again("cannot create pools", || auto_pools::create(requests, pools)).await;
        while !pools.keys().all(|name| table.snapshot().items.contains_key(name)) {
            table.changed().await;
        }
    };
    tokio::time::timeout(START, create).await.is_ok().then(|| pools.clone())
}

/// Repeats a request until it succeeds.
async fn again<T, F>(what: &str, mut request: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, ClusterError>>,
{
    loop {
        match request().await {
            Ok(answer) => return answer,
            Err(error) => tracing::warn!(error = error.line(), "{what}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The engine and what it has been fed.
struct Work {
    settings: IpamSettings,
    engine: Engine,
    requests: Requests,
    state: Arc<State>,
    started: Instant,
    services: BTreeSet<(IpNet, Name)>,
    nodes: Seen<Arc<NodeView>>,
    hosts: Seen<Host>,
    pools: Seen<PoolView>,
    claims: Seen<Arc<(Version, Claims)>>,
    reserved: BTreeSet<(IpNet, Name)>,
    /// When the pools were last told about themselves; the task that does.
    told: Option<Instant>,
    telling: JoinSet<()>,
    untold: bool,
    counted: Option<Instant>,
}

impl Work {
    fn new(settings: IpamSettings, services: BTreeSet<(IpNet, Name)>, requests: Requests, state: Arc<State>) -> Self {
        Self {
            engine: engine_for(&settings),
            settings,
            requests,
            state,
            started: Instant::now(),
            services,
            nodes: Seen::default(),
            hosts: Seen::default(),
            pools: Seen::default(),
            claims: Seen::default(),
            reserved: BTreeSet::new(),
            told: None,
            telling: JoinSet::new(),
            untold: true,
            counted: None,
        }
    }

    fn set_settings(&mut self, settings: IpamSettings) {
        tracing::info!(?settings, "new settings of IPAM");
        self.engine.set_settings(engine_settings(&settings));
        self.settings = settings;
        self.engine.set_pools(pools::served(&self.settings, self.pools.items()));
        self.untold = true;
    }

    /// Feeds the engine with what is different in the tables. Claims before nodes: a node's block is its own then.
    fn look(&mut self, tables: &Tables) {
        for (name, seen) in self.claims.changes(&tables.claims.snapshot()) {
            self.untold = true;
            let network = kinesin_ipam_blocks::parse_object_name(&name);
            let Some(network) = network.or_else(|| seen.as_ref().map(|seen| seen.1.network)) else { continue };
            self.engine.see_claims(&name.into(), network, seen.map(|seen| (*seen).clone()));
        }
        let hosts = self.hosts.changes(&tables.hosts.snapshot());
        let hosts_changed = !hosts.is_empty();
        for (name, seen) in hosts {
            self.engine.see_host(&name.into(), seen.map(|host| host.cidrs));
        }
        let first = self.told.is_none();
        if hosts_changed || first {
            let of_hosts = self.hosts.items().iter().flat_map(|(name, host)| {
                let what: Name = format!("node {name}").into();
                host.addresses.iter().map(move |address| (IpNet::from(*address), what.clone()))
            });
            self.reserved = self.services.iter().cloned().chain(of_hosts).collect();
            self.engine.set_reserved(self.reserved.clone());
            self.untold = true;
        }
        if !self.pools.changes(&tables.pools.snapshot()).is_empty() || first {
            self.engine.set_pools(pools::served(&self.settings, self.pools.items()));
            self.untold = true;
        }
        for (name, seen) in self.nodes.changes(&tables.nodes.snapshot()) {
            self.engine.see_node(&name.into(), seen.map(|view| (*view).clone()));
        }
        self.tell_pools();
    }

    /// Pools learn what became of them, seldom enough that a cluster in motion writes little.
    fn tell_pools(&mut self) {
        while self.telling.try_join_next().is_some() {}
        let soon = self.told.is_some_and(|told| told.elapsed() < POOL_REPORTS);
        if !self.untold || soon || !self.telling.is_empty() {
            return;
        }
        self.untold = false;
        self.told = Some(Instant::now());
        let served = pools::served(&self.settings, self.pools.items());
        let verdicts = self.pools.items().iter().filter(|(_, pool)| !pool.deleted).map(|(name, pool)| {
            let verdict = pools::verdict(&pool.spec.source, &served, &self.reserved, &self.engine);
            (name.clone(), pool.clone(), verdict)
        });
        let (requests, verdicts) = (self.requests.clone(), verdicts.collect());
        self.telling.spawn(async move { pools::report(&requests, verdicts).await });
        let source = kinesin_ipam_blocks::Source::cluster_pool();
        self.state.ipam.set_refused(served.refused(&source).to_vec());
    }

    fn finish(&mut self, done: Result<(Effect, Outcome), tokio::task::JoinError>) {
        match done {
            Ok((effect, outcome)) => self.engine.finish(&effect, outcome),
            // Its object would be waited for without end.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Counts for metrics unless it was done just now; answers when to do it again.
    fn count(&mut self) -> Duration {
        let since = self.counted.map_or(COUNTS, |counted| counted.elapsed());
        if since < COUNTS {
            return COUNTS - since;
        }
        self.counted = Some(Instant::now());
        self.state.ipam.set_counts(self.engine.counts());
        Duration::MAX
    }

    fn next_wake(&self) -> Duration {
        let engine = self.engine.next_wake().map(|at| at.saturating_sub(self.started.elapsed()));
        let pools = self.untold.then_some(POOL_REPORTS);
        engine.into_iter().chain(pools).min().unwrap_or(Duration::from_secs(60)).max(Duration::from_millis(1))
    }
}

/// An engine that has seen nothing yet.
pub(crate) fn engine_for(settings: &IpamSettings) -> Engine {
    Engine::new(engine_settings(settings))
}

fn engine_settings(settings: &IpamSettings) -> Settings {
    Settings {
        mode: settings.mode,
        families: settings.families,
        grow: settings.grow,
        quarantine: settings.quarantine,
        hold: HOLD,
    }
}
