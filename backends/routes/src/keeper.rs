//! Brings the kernel to what a backend wants, and keeps the list of what it made.

use std::{collections::BTreeSet, io, net::IpAddr};

use futures::{StreamExt as _, stream};
use ipnet::IpNet;
use kinesin_core::{
    routing::{Path, Peer, RoutingDesired, RoutingError, RoutingReport},
    values::Carrier,
};
use kinesin_netlink::{Netlink, NetlinkError};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    cidrs,
    kernel::{Kernel, netlink_error},
    ledger::{Entries, Ledger},
    outcome::Outcome,
    plan::{Change, plan},
};

/// Requests to the kernel that are under way at a time; the socket's buffer holds many more answers.
const PARALLEL: usize = 32;

/// The routes of one backend.
#[derive(Debug)]
pub struct Keeper {
    /// One user at a time.
    ledger: Mutex<Ledger>,
}

/// One use of the routes, from reading the kernel to changing it.
#[derive(Debug)]
pub struct Turn<'a> {
    ledger: MutexGuard<'a, Ledger>,
    kernel: Kernel,
}

impl Keeper {
    /// The routes of the backend of this registry name, whose list is in `state_dir`.
    #[must_use]
    pub fn new(state_dir: &std::path::Path, backend: &str) -> Self {
        Self { ledger: Mutex::new(Ledger::new(state_dir, backend)) }
    }

    /// Waits for its turn and reads the kernel.
    ///
    /// # Errors
    /// [`RoutingError::Kernel`] when it cannot be read.
    pub async fn turn(&self) -> Result<Turn<'_>, RoutingError> {
        let ledger = self.ledger.lock().await;
        let kernel = Kernel::read(&Netlink::new().map_err(netlink_error)?).await?;
        Ok(Turn { ledger, kernel })
    }

    /// Removes every route of the backend, also those of an earlier run, and the list.
    ///
    /// # Errors
    /// [`RoutingError::Retire`] with what could not be removed.
    pub async fn retire(&self) -> Result<(), RoutingError> {
        let turn = self.turn().await?;
        let mut outcome = Outcome::default();
        turn.enforce(&mut outcome).await?;
        if outcome.left.is_empty() {
            turn.ledger.remove().map_err(|error| file_error("remove", &turn.ledger, error))
        } else {
            Err(RoutingError::Retire { left: outcome.left })
        }
    }
}

impl Turn<'_> {
    /// What the kernel had when the turn began.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The pod CIDRs that are this carrier's and may be routed, each with its peer's name; beside them, the reasons against
    /// the others.
    #[must_use]
    pub fn routable(&self, desired: &RoutingDesired, carrier: Carrier) -> (Vec<(IpNet, String)>, Outcome) {
        let own: Vec<IpAddr> = self.kernel.own_addresses().collect();
        let checked = cidrs::check(desired, &own);
        let ours = |name: &String| desired.peers.get(name).is_some_and(|peer: &Peer| peer.is_carried_by(carrier));
        let peers = desired.peers.keys().filter(|name| ours(name)).cloned().collect();
        let mut outcome = Outcome::of(peers);
        for (name, reasons) in checked.bad {
            for reason in reasons {
                outcome.refuse(&name, reason);
            }
        }
        (checked.good.into_iter().filter(|(_, name)| ours(name)).collect(), outcome)
    }

    /// The paths that are wanted, with nothing changed.
    #[must_use]
    pub fn plan(self, outcome: Outcome) -> Vec<Path> {
        outcome.report(0).paths
    }

    /// Brings the kernel to what `outcome` wants.
    ///
    /// # Errors
    /// What concerns all peers; one peer's trouble is in the report.
    pub async fn finish(self, mut outcome: Outcome) -> Result<RoutingReport, RoutingError> {
        let changes = self.enforce(&mut outcome).await?;
        Ok(outcome.report(changes))
    }

    /// The answer is the number of changes.
    async fn enforce(&self, outcome: &mut Outcome) -> Result<usize, RoutingError> {
        let (ledger, kernel) = (&*self.ledger, &self.kernel);
        let before = ledger.read().map_err(|error| file_error("read", ledger, error))?;
        let others = ledger.read_others().map_err(|error| file_error("read what is beside", ledger, error))?;
        let listed = kernel.routes_of(&before);
        let others: Vec<_> = others.iter().flat_map(|entries| kernel.routes_of(entries).into_values()).collect();
        let plan = plan(&outcome.routes, &listed, &others, kernel.routes());
        for (dst, other) in &plan.blocked {
            outcome.fail(*dst, &occupied(other.via, other.protocol));
        }

        // Listed first: after a crash the list names too many routes rather than too few.
        let mut entries = before.clone();
        let made: BTreeSet<IpNet> = plan.changes.iter().filter_map(Change::made).collect();
        entries.extend(outcome.routes.iter().filter_map(|(dst, route)| {
            // Not what somebody else's route does for us.
            let ours = !plan.blocked.contains_key(dst)
                && (listed.contains_key(dst) || made.contains(dst) || kernel.has(route));
            ours.then(|| (*dst, kernel.entry(route)))
        }));
        if entries != before {
            ledger.write(&entries).map_err(|error| file_error("write", ledger, error))?;
        }

        let mut changes = 0;
        let mut gone: BTreeSet<IpNet> =
            before.keys().filter(|dst| !outcome.routes.contains_key(dst)).copied().collect();
        let netlink = Netlink::new().map_err(netlink_error)?;
        let results = stream::iter(plan.changes).map(|change| carry_out(&netlink, change));
        let mut results = results.buffer_unordered(PARALLEL);
        while let Some((change, result)) = results.next().await {
            match (change, result) {
                (_, Ok(())) => changes += 1,
                (Change::Add(route), Err(error)) => {
                    gone.insert(route.dst);
                    let reason = if error.is_existing() { occupied(None, 0) } else { error.to_string() };
                    outcome.fail(route.dst, &reason);
                }
                (Change::PutBack(route), Err(error)) => outcome.fail(route.dst, &error.to_string()),
                (Change::Remove(route), Err(error)) => {
                    gone.remove(&route.dst);
                    tracing::warn!(dst = %route.dst, %error, "route stays until the next attempt");
                    outcome.left.push(error.to_string());
                }
            }
        }
        let after: Entries =
            entries.iter().filter(|(dst, _)| !gone.contains(*dst)).map(|(d, e)| (*d, e.clone())).collect();
        if after != entries {
            ledger.write(&after).map_err(|error| file_error("write", ledger, error))?;
        }
        Ok(changes)
    }
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

fn file_error(verb: &str, ledger: &Ledger, error: io::Error) -> RoutingError {
    let action = format!("{verb} the list of own routes {}: {error}", ledger.path().display());
    RoutingError::Kernel { action, source: Box::new(error) }
}
