//! Brings the kernel to what a backend wants, and keeps the list of what it made.
//!
//! What is wanted, listed and in the kernel is kept in memory, and only destinations of which one of the three has changed
//! are compared: one node that changes among a thousand costs one comparison. All of them are compared at the start, after
//! an error, and whenever devices or addresses of this node changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::Path as FilePath,
};

use futures::{StreamExt as _, stream};
use ipnet::IpNet;
use kinesin_core::routing::{Path, RoutingDesired, RoutingError, RoutingReport};
use kinesin_netlink::{MirrorSpec, Netlink, NetlinkError, Route};
use tokio::sync::Mutex;

use crate::{
    cidrs,
    kernel::{Kernel, netlink_error},
    ledger::{Entry, Ledger},
    outcome::{Outcome, refusal},
    pathfinder::Pathfinder,
    plan::{Change, Step, plan},
};

/// Requests to the kernel that are under way at a time; the socket's buffer holds many more answers.
const PARALLEL: usize = 32;

/// The routes of one backend.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// One user at a time.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    spec: MirrorSpec,
    /// Absent before the first use and after retirement.
    kernel: Option<Kernel>,
    wanted: Option<Wanted>,
    /// What is to be compared.
    due: Due,
    /// Destinations that could not be routed, with the reasons.
    failed: BTreeMap<IpNet, String>,
    /// Destinations that were changed last, of which the kernel is about to tell.
    touched: BTreeSet<IpNet>,
}

/// What the cluster wants by now.
#[derive(Debug)]
struct Wanted {
    desired: RoutingDesired,
    outcome: Outcome,
}

/// Destinations.
#[derive(Debug)]
enum Due {
    All,
    Some(BTreeSet<IpNet>),
}

impl Due {
    fn extend(&mut self, more: impl IntoIterator<Item = IpNet>) {
        if let Self::Some(some) = self {
            some.extend(more);
        }
    }
}

impl Keeper {
    /// The routes of the backend of this registry name, whose list is in `state_dir`.
    pub(crate) fn new(state_dir: &FilePath, backend: &str, spec: MirrorSpec) -> Self {
        let ledger = Ledger::new(state_dir, backend);
        let (failed, touched) = (BTreeMap::new(), BTreeSet::new());
        Self { state: Mutex::new(State { ledger, spec, kernel: None, wanted: None, due: Due::All, failed, touched }) }
    }

    /// The paths that are wanted, with nothing changed.
    pub(crate) async fn plan(
        &self,
        desired: &RoutingDesired,
        finder: &dyn Pathfinder,
    ) -> Result<Vec<Path>, RoutingError> {
        let mut state = self.state.lock().await;
        state.want(desired, finder).await?;
        Ok(state.wanted.iter().flat_map(|wanted| wanted.outcome.paths.values().cloned()).collect())
    }

    /// Brings the kernel to what is wanted.
    pub(crate) async fn apply(
        &self,
        desired: &RoutingDesired,
        finder: &dyn Pathfinder,
    ) -> Result<RoutingReport, RoutingError> {
        let mut state = self.state.lock().await;
        state.want(desired, finder).await?;
        let (changes, _) = state.enforce().await?;
        Ok(state.report(changes))
    }

    /// Removes every route of the backend, also those of an earlier run, and the list.
    pub(crate) async fn retire(&self) -> Result<(), RoutingError> {
        let mut state = self.state.lock().await;
        (state.wanted, state.due) = (None, Due::All);
        state.look().await?;
        let (_, left) = state.enforce().await?;
        if !left.is_empty() {
            return Err(RoutingError::Retire { left });
        }
        state.failed.clear();
        // Nobody listens any more: what changes until the next use is read then.
        (state.kernel, state.due) = (None, Due::All);
        let removed = state.ledger.remove();
        removed.map_err(|error| file_error("remove", &state.ledger, &error))
    }

    /// How often all routes of the kernel were read.
    pub(crate) async fn readings(&self) -> u64 {
        self.state.lock().await.kernel.as_ref().map_or(0, Kernel::readings)
    }
}

impl State {
    /// Finds out what changed in the kernel and the lists. The answer is whether that may lead to other ways.
    async fn look(&mut self) -> Result<bool, RoutingError> {
        if self.ledger.refresh().map_err(|error| file_error("read", &self.ledger, &error))? {
            self.due = Due::All;
        }
        let kernel = match &mut self.kernel {
            Some(kernel) => kernel,
            None => self.kernel.insert(Kernel::open(self.spec)?),
        };
        let seen = kernel.look().await?;
        let touched = std::mem::take(&mut self.touched);
        if seen.all || seen.devices {
            self.due = Due::All;
            return Ok(true);
        }
        let ours = |dst: &IpNet| {
            let is_wanted = self.wanted.as_ref().is_some_and(|wanted| wanted.outcome.routes.contains_key(dst));
            is_wanted || self.ledger.entries().contains_key(dst) || touched.contains(dst)
        };
        // Others' routes may lead to nodes; ours lead to pods, and no node is there.
        let is_others = !seen.routes.iter().all(ours);
        self.due.extend(seen.routes);
        Ok(is_others)
    }

    /// Finds the ways, unless they are known.
    async fn want(&mut self, desired: &RoutingDesired, finder: &dyn Pathfinder) -> Result<(), RoutingError> {
        let leads_elsewhere = self.look().await?;
        if !leads_elsewhere && self.wanted.as_ref().is_some_and(|wanted| wanted.desired == *desired) {
            return Ok(());
        }
        let Some(kernel) = &self.kernel else { return Ok(()) };
        let outcome = match find(kernel, desired, finder) {
            Ok(outcome) => outcome,
            Err(error) => {
                (self.wanted, self.due) = (None, Due::All);
                return Err(error);
            }
        };
        match &self.wanted {
            None => self.due = Due::All,
            Some(before) => self.due.extend(outcome.differs_from(&before.outcome)),
        }
        match &mut self.wanted {
            Some(before) if before.desired == *desired => before.outcome = outcome,
            wanted => *wanted = Some(Wanted { desired: desired.clone(), outcome }),
        }
        Ok(())
    }

    /// The answer is the number of changes, and what could not be removed.
    async fn enforce(&mut self) -> Result<(usize, Vec<String>), RoutingError> {
        // Whatever ends this early leaves everything to be compared.
        let due = std::mem::replace(&mut self.due, Due::All);
        let Self { ledger, kernel: Some(kernel), wanted, failed, touched, .. } = self else {
            return Ok((0, Vec::new()));
        };
        let none = BTreeMap::new();
        let routes = wanted.as_ref().map_or(&none, |wanted| &wanted.outcome.routes);
        failed.retain(|dst, _| routes.contains_key(dst));
        let due: BTreeSet<IpNet> = match due {
            Due::All => routes.keys().chain(ledger.entries().keys()).copied().collect(),
            Due::Some(due) => due,
        };

        let (mut changes, mut listed, mut gone) = (Vec::new(), Vec::new(), BTreeSet::new());
        for dst in due {
            let before = ledger.entries().get(&dst);
            let ours = before.map(|entry| kernel.route_of(dst, entry));
            let others: Vec<Route> = ledger.of_others(dst).map(|entry| kernel.route_of(dst, entry)).collect();
            let (route, actual) = (routes.get(&dst), kernel.routes_to(dst));
            failed.remove(&dst);
            let step = plan(route, ours.as_ref(), &others, &actual);
            match route {
                None if before.is_some() => drop(gone.insert(dst)),
                Some(route) if is_ours(&step, before, route, &actual) => {
                    let entry = kernel.entry(route);
                    if before != Some(&entry) {
                        listed.push((dst, Some(entry)));
                    }
                }
                _ => {}
            }
            match step {
                Step::Nothing => {}
                Step::Do(change) => {
                    touched.insert(dst);
                    changes.push(change);
                }
                Step::Blocked(other) => drop(failed.insert(dst, occupied(other.via, other.protocol))),
            }
        }
        // Listed first: after a crash the list names too many routes rather than too few.
        ledger.note(listed).map_err(|error| file_error("write", ledger, &error))?;

        let done = carry_out_all(changes, failed, &mut gone).await?;
        if !done.all_went_well {
            kernel.distrust();
        }
        let unlisted = gone.into_iter().filter(|dst| ledger.entries().contains_key(dst)).map(|dst| (dst, None));
        let unlisted = unlisted.collect();
        ledger.note(unlisted).map_err(|error| file_error("write", ledger, &error))?;
        // What failed is tried again; what was done is announced, and compared at the next look.
        let again = failed.keys().copied().chain(done.left.keys().copied());
        self.due = Due::Some(again.collect());
        Ok((done.changes, done.left.into_values().collect()))
    }

    fn report(&self, changes: usize) -> RoutingReport {
        let Some(Wanted { desired, outcome }) = &self.wanted else { return RoutingReport::default() };
        let paths = outcome.paths.iter().filter(|(dst, _)| !self.failed.contains_key(dst));
        let paths = paths.map(|(_, path)| path.clone()).collect();
        let mut unreachable = outcome.unreachable.clone();
        for (dst, reason) in &self.failed {
            let owner = desired.peers.iter().find(|(_, peer)| peer.pod_cidrs.iter().any(|cidr| cidr.trunc() == *dst));
            if let Some((name, _)) = owner.filter(|_| outcome.paths.contains_key(dst)) {
                unreachable.entry(name.clone()).or_default().insert(refusal(*dst, reason));
            }
        }
        let joined = |reasons: BTreeSet<String>| reasons.into_iter().collect::<Vec<_>>().join("; ");
        let unreachable = unreachable.into_iter().map(|(name, reasons)| (name, joined(reasons))).collect();
        RoutingReport { paths, unreachable, changes }
    }
}

/// The ways to the pod CIDRs that are this carrier's and may be routed, and the reasons against others.
fn find(kernel: &Kernel, desired: &RoutingDesired, finder: &dyn Pathfinder) -> Result<Outcome, RoutingError> {
    let checked = cidrs::check(desired, kernel.own_addresses());
    let carrier = finder.carrier();
    let ours = |name: &str| desired.peers.get(name).filter(|peer| peer.is_carried_by(carrier));
    let mut outcome = Outcome::default();
    for (name, reasons) in checked.bad.into_iter().filter(|(name, _)| ours(name).is_some()) {
        for reason in reasons {
            outcome.refuse(name, reason);
        }
    }
    let good: Vec<_> = checked.good.into_iter().filter_map(|(cidr, name)| Some((cidr, name, ours(name)?))).collect();
    finder.find(kernel, desired, &good, &mut outcome)?;
    Ok(outcome)
}

/// Whether a route is, or is about to be, one that this backend made: not what somebody else's does for us.
fn is_ours(step: &Step, before: Option<&Entry>, route: &Route, actual: &[&Route]) -> bool {
    match step {
        Step::Blocked(_) => false,
        Step::Do(_) => true,
        Step::Nothing => before.is_some() || actual.contains(&route),
    }
}

/// What came of the changes.
#[derive(Debug, Default)]
struct Done {
    changes: usize,
    all_went_well: bool,
    /// What could not be removed.
    left: BTreeMap<IpNet, String>,
}

/// Carries out every change; `gone` are the destinations that are to be no longer listed.
async fn carry_out_all(
    changes: Vec<Change>,
    failed: &mut BTreeMap<IpNet, String>,
    gone: &mut BTreeSet<IpNet>,
) -> Result<Done, RoutingError> {
    let mut done = Done { all_went_well: true, ..Done::default() };
    if changes.is_empty() {
        return Ok(done);
    }
    let netlink = Netlink::new().map_err(netlink_error)?;
    let mut results = stream::iter(changes).map(|change| carry_out(&netlink, change)).buffer_unordered(PARALLEL);
    while let Some((change, result)) = results.next().await {
        let Err(error) = result else {
            done.changes += 1;
            continue;
        };
        done.all_went_well = false;
        match change {
            Change::Add(route) => {
                gone.insert(route.dst);
                let reason = if error.is_existing() { occupied(None, 0) } else { error.to_string() };
                failed.insert(route.dst, reason);
            }
            Change::PutBack(route) => drop(failed.insert(route.dst, error.to_string())),
            Change::Remove(route) => {
                gone.remove(&route.dst);
                tracing::warn!(dst = %route.dst, %error, "route stays until the next attempt");
                done.left.insert(route.dst, error.to_string());
            }
        }
    }
    Ok(done)
}

async fn carry_out(netlink: &Netlink, change: Change) -> (Change, Result<(), NetlinkError>) {
    let result = match &change {
        Change::Add(route) => netlink.add_route(route).await,
        Change::PutBack(route) => netlink.replace_route(route).await,
        Change::Remove(route) => netlink.delete_route(route).await,
    };
    (change, result)
}

fn occupied(via: Option<IpAddr>, protocol: u8) -> String {
    let via = via.map(|hop| format!(" (via {hop}, protocol {protocol})")).unwrap_or_default();
    format!("another program's route to it is in the way{via}; remove that route")
}

fn file_error(verb: &str, ledger: &Ledger, error: &io::Error) -> RoutingError {
    let action = format!("{verb} the list of own routes {}: {error}", ledger.path().display());
    RoutingError::Kernel { action, source: io::Error::new(error.kind(), error.to_string()).into() }
}
