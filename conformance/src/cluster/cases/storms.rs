//! Pods come and go while agents, plugins and the API server are killed; afterwards nothing of them is left anywhere.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};

use crate::{
    cluster::{
        context::Context,
        place::{Place, every_protocol, failures},
        random::Sequence,
        storm::{Storm, patiently},
        verdict::{Judged, Stop, told},
    },
    leaks::{self, Held, Site},
    target::{Inside, NodeInfo},
};

/// Kills after which everything is counted.
const ROUND: usize = 25;
/// Of as many kills one is the API server's; of the others, every second one is an agent's.
const API_EVERY: usize = 8;
/// Time between two kills is less than this.
const PAUSE: Duration = Duration::from_millis(160);
/// The API server is away for less than this.
const AWAY: Duration = Duration::from_millis(600);
/// Who makes pods on each node, two at a time.
const MAKERS: usize = 3;
/// How long the kills of a round may take, and how long what is left may take to be gone.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(50);

/// Counts leases, endpoints, devices, routes, pins, map entries, processes, files and published objects after each round of
/// kills: they are those of the pods that were there before. These pods still reach each other, and new ones do.
pub(in crate::cluster) fn leak_nothing(context: &Context<'_>) -> Judged {
    let Some(inside) = context.target.inside() else {
        return Err(Stop::broken("the target says that it can be reached inside, and has no means"));
    };
    let nodes = context.two_nodes();
    let stay = context.start_on(&nodes, "stay", 2)?;
    inside.settle()?;
    let before: Vec<Before> = nodes.iter().map(|node| Before::of(context, inside, node)).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    let (mut killed, made) = (Killed::default(), AtomicUsize::new(0));
    let total = context.scale.storm_kills;
    let size = total.div_ceil(2).clamp(1, ROUND);
    let mut rounds = 0;
    while killed.sum() < total {
        rounds += 1;
        rage(context, inside, &nodes, rounds, size.min(total - killed.sum()), &mut killed, &made)?;
        context.wait_until_gone(|pod| pod.metadata.name.as_deref().is_some_and(|name| name.starts_with("storm")))?;
        inside.settle()?;
        let in_round = |stop: Stop| Stop::broken(format!("after round {rounds}, {killed}: {stop}"));
        before.iter().try_for_each(Before::is_all_there_is).map_err(in_round)?;
        published(context, &stay).map_err(in_round)?;
        reach_each_other(context, &stay).map_err(in_round)?;
    }
    let took = begun.elapsed();
    let new = context.start_on(&nodes, "new", 1)?;
    let all: Vec<Place> = stay.into_iter().chain(new).collect();
    let answered = reach_each_other(context, &all)?;
    Ok(format!(
        "{killed} in {rounds} rounds of {:.0} s in all, while {} pods came and went: nothing is left; {answered}",
        took.as_secs_f64(),
        made.load(Ordering::Relaxed),
    ))
}

/// How often what was killed.
#[derive(Debug, Default, Clone, Copy)]
struct Killed {
    agents: usize,
    plugins: usize,
    api: usize,
}

impl Killed {
    fn sum(self) -> usize {
        self.agents + self.plugins + self.api
    }
}

impl std::fmt::Display for Killed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { agents, plugins, api } = self;
        write!(f, "{} kills ({agents} of agents, {plugins} of plugins, {api} of the API server)", self.sum())
    }
}

/// One storm with so many kills. When it returns, no pod is made any more.
fn rage(
    context: &Context<'_>,
    inside: &dyn Inside,
    nodes: &[NodeInfo],
    round: usize,
    kills: usize,
    killed: &mut Killed,
    made: &AtomicUsize,
) -> Result<(), Stop> {
    let is_over = &AtomicBool::new(false);
    let (runtime, container) = (context.target.runtime(), context.target.container());
    let mut random = Sequence::new(context.random());
    thread::scope(|scope| {
        let mut makers = Vec::new();
        for (n, node) in nodes.iter().enumerate() {
            for maker in 0..MAKERS {
                let storm = Storm { pods: context.pods(), runtime, made, is_over };
                let (prefix, seed, container) = (format!("storm-{round}-{n}-{maker}"), random.next(), &container);
                makers.push(scope.spawn(move || {
                    storm.rage(&prefix, seed, |name| Context::object(container.clone(), name, &node.name, false))
                }));
            }
        }
        let done = kill(inside, nodes, kills, &mut random, killed);
        is_over.store(true, Ordering::Relaxed);
        for maker in makers {
            let raged = maker.join().unwrap_or_else(|_| Err(Stop::broken("a thread that makes pods has panicked")));
            raged?;
        }
        done
    })
}

/// Kills at random moments; who it is goes in turn, so that few kills are of every kind, too.
fn kill(
    inside: &dyn Inside,
    nodes: &[NodeInfo],
    kills: usize,
    random: &mut Sequence,
    killed: &mut Killed,
) -> Result<(), Stop> {
    let until = Instant::now() + PATIENCE;
    let mut done = 0;
    while done < kills {
        let mut some = |of: Duration| of.mul_f64((random.next() % 1000) as f64 / 1000.0);
        thread::sleep(some(PAUSE));
        let away = some(AWAY);
        let node = &nodes[usize::try_from(random.next()).unwrap_or_default() % nodes.len()].name;
        let is_done = match done % API_EVERY {
            3 => inside.restart_api(away).map(|()| (true, &mut killed.api)),
            turn if turn % 2 == 0 => inside.kill_agent(node).map(|done| (done, &mut killed.agents)),
            _ => inside.kill_plugin(node).map(|done| (done, &mut killed.plugins)),
        };
        // Nobody ran who could be killed; so it is tried again a little later.
        if let (true, count) = is_done? {
            *count += 1;
            done += 1;
        }
        if Instant::now() > until {
            let within = PATIENCE.as_secs();
            return Err(Stop::broken(format!(
                "within {within} s, only {done} of {kills} processes ran that could be killed"
            )));
        }
    }
    Ok(())
}

/// What a node held before.
struct Before {
    node: String,
    site: Site,
    held: Held,
    surroundings: BTreeSet<String>,
}

impl Before {
    fn of(context: &Context<'_>, inside: &dyn Inside, node: &NodeInfo) -> Result<Self, Stop> {
        let site = inside.site(&node.name)?;
        let until = Instant::now() + PATIENCE;
        // Pods of an earlier case are gone from the API sooner than from the node, and there their endpoints sooner than
        // their devices.
        let held = loop {
            let held = leaks::settled(&site, PATIENCE).map_err(Stop::broken)?;
            let known = addresses_of_pods(context, &node.name)?;
            if held.addresses == known && held.orphans.is_empty() {
                break held;
            }
            if Instant::now() > until {
                let told = format!("{} holds {held:?}, and its pods are at {known:?}", node.name);
                return Err(Stop::broken(told));
            }
            thread::sleep(LOOK);
        };
        let look = || leaks::surroundings(&site).map_err(Stop::broken);
        let mut surroundings = look()?;
        // A program that only looks after something, such as a probe, is not there a moment later.
        loop {
            thread::sleep(LOOK * 4);
            let now = look()?;
            if now == surroundings {
                break;
            }
            if Instant::now() > until {
                return Err(Stop::broken(format!(
                    "{} does not come to rest: {}",
                    node.name,
                    apart(&surroundings, &now)
                )));
            }
            surroundings = now;
        }
        Ok(Self { node: node.name.clone(), site, held, surroundings })
    }

    /// Until the node holds that and nothing else.
    fn is_all_there_is(&self) -> Result<(), Stop> {
        let until = Instant::now() + PATIENCE;
        loop {
            let told = match (leaks::settled(&self.site, PATIENCE), leaks::surroundings(&self.site)) {
                (Ok(held), Ok(surroundings)) if held == self.held && surroundings == self.surroundings => return Ok(()),
                (Ok(held), Ok(_)) if held != self.held => format!("{held:?} is held instead of {:?}", self.held),
                (Ok(_), Ok(now)) => apart(&self.surroundings, &now),
                (Err(told), _) | (_, Err(told)) => told,
            };
            if Instant::now() > until {
                return Err(Stop::broken(format!("{}: {told}", self.node)));
            }
            thread::sleep(LOOK);
        }
    }
}

/// Those of all namespaces, as far as they have a network of their own.
fn addresses_of_pods(context: &Context<'_>, node: &str) -> Result<BTreeSet<IpAddr>, Stop> {
    let pods: Api<Pod> = Api::all(context.target.client().clone());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let list = patiently(|| context.target.runtime().block_on(pods.list(&on_node)));
    let list = list.map_err(|error| Stop::target(&error))?;
    let own =
        list.items.into_iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.host_network != Some(true)));
    let addresses = own.filter_map(|pod| pod.status?.pod_ips).flatten();
    Ok(addresses.filter_map(|address| address.ip.parse().ok()).collect())
}

fn apart(before: &BTreeSet<String>, now: &BTreeSet<String>) -> String {
    let of = |one: &BTreeSet<String>, other| one.difference(other).cloned().collect::<Vec<_>>().join("; ");
    format!("there is [{}] that was not there, and no [{}]", of(now, before), of(before, now))
}

/// The API knows endpoints of these pods and of no others.
fn published(context: &Context<'_>, stay: &[Place]) -> Result<(), Stop> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("cilium.io", "v2", "CiliumEndpoint"));
    let endpoints: Api<DynamicObject> =
        Api::namespaced_with(context.target.client().clone(), context.namespace(), &kind);
    let wanted: BTreeSet<&str> = stay.iter().filter_map(|place| place.name.split(' ').next()).collect();
    let until = Instant::now() + PATIENCE;
    loop {
        let list = patiently(|| context.target.runtime().block_on(endpoints.list(&ListParams::default())));
        let list = list.map_err(|error| Stop::target(&error))?;
        let found: BTreeSet<&str> = list.items.iter().filter_map(|found| found.metadata.name.as_deref()).collect();
        if found == wanted {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Stop::broken(format!("endpoints {found:?} are published instead of {wanted:?}")));
        }
        thread::sleep(LOOK);
    }
}

fn reach_each_other(context: &Context<'_>, all: &[Place]) -> Judged {
    let mut questions = Vec::new();
    for from in all {
        for to in all.iter().filter(|to| !std::ptr::eq(*to, from)) {
            for is_ipv4 in context.families() {
                questions.extend(every_protocol(from, to, is_ipv4, context.random(), 64));
            }
        }
    }
    told(&failures(&questions)?, questions.len())
}
