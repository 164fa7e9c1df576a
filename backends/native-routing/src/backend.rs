//! The trait implementation: reads the kernel once, plans, and carries out what has to change.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use ipnet::IpNet;
use kinesin_core::{
    registry::{BuildContext, BuildError},
    routing::{Path, Peer, Routing, RoutingDesired, RoutingError, RoutingReport},
    values::{Carrier, Family},
};
use kinesin_netlink::{Link, Netlink, NetlinkError, Route};
use tokio::sync::Mutex;

use crate::{
    cidrs,
    config::{Config, Settings},
    ledger::{Entries, Entry, Ledger},
    neighbours::{Reach, Table},
    plan::{Change, direct_route, plan},
};

/// Requests to the kernel that are under way at a time; the socket's buffer holds many more answers.
const PARALLEL: usize = 32;

/// Routing by the network itself.
#[derive(Debug)]
pub struct NativeRouting {
    settings: Settings,
    /// The routes that were made; one user at a time.
    ledger: Mutex<Ledger>,
}

/// Builds the backend from its section.
pub(crate) fn build(context: &BuildContext) -> Result<Arc<dyn Routing>, BuildError> {
    let settings = context.section.parse::<Config>()?.validate(context);
    Ok(Arc::new(NativeRouting { settings, ledger: Mutex::new(Ledger::new(&context.state_dir)) }))
}

#[async_trait]
impl Routing for NativeRouting {
    fn carrier(&self) -> Carrier {
        Carrier::Native
    }

    fn overhead_bytes(&self, _underlay: Family) -> u16 {
        0
    }

    async fn apply(&self, desired: &RoutingDesired) -> Result<RoutingReport, RoutingError> {
        let ledger = self.ledger.lock().await;
        let kernel = Kernel::read(&Netlink::new().map_err(netlink_error)?).await?;
        let mut outcome = self.wanted(desired, &kernel)?;
        let changes = enforce(&ledger, &kernel, &mut outcome).await?;
        Ok(outcome.report(changes))
    }

    async fn retire(&self) -> Result<(), RoutingError> {
        let ledger = self.ledger.lock().await;
        let kernel = Kernel::read(&Netlink::new().map_err(netlink_error)?).await?;
        let mut outcome = Outcome::default();
        enforce(&ledger, &kernel, &mut outcome).await?;
        if outcome.left.is_empty() {
            ledger.remove().map_err(|error| file_error("remove", &ledger, error))
        } else {
            Err(RoutingError::Retire { left: outcome.left })
        }
    }
}

impl NativeRouting {
    /// What should be, as far as the cluster and the node's own links decide it.
    fn wanted(&self, desired: &RoutingDesired, kernel: &Kernel) -> Result<Outcome, RoutingError> {
        let checked = cidrs::check(desired, &kernel.addresses);
        let mut outcome = Outcome { peers: desired.peers.keys().cloned().collect(), ..Outcome::default() };
        for (name, reasons) in checked.bad {
            outcome.unreachable.entry(name).or_default().extend(reasons);
        }
        let uplinks = if self.settings.direct_routes && !checked.good.is_empty() {
            kernel.uplinks(&desired.local.uplinks)?
        } else {
            Vec::new()
        };
        let table = Table::new(&kernel.routes, &uplinks);
        for (cidr, name) in checked.good {
            let Some(peer) = desired.peers.get(&name) else { continue };
            match self.way_to(peer, cidr, &table, kernel) {
                Ok((path, route)) => {
                    // The chassis sends by the first uplink; over another one the routing table leads.
                    let next_hop =
                        route.as_ref().filter(|route| uplinks.first() == Some(&route.dev)).map(|_| path.node);
                    outcome.paths.insert(cidr, (name, Path { next_hop, ..path }));
                    outcome.routes.extend(route.map(|route| (cidr, route)));
                }
                Err(reason) => {
                    outcome.unreachable.entry(name).or_default().insert(format!("pod CIDR {cidr}: {reason}"));
                }
            }
        }
        Ok(outcome)
    }

    /// The way to one pod CIDR: the path, and the route if one is to be set.
    fn way_to(
        &self,
        peer: &Peer,
        cidr: IpNet,
        table: &Table<'_>,
        kernel: &Kernel,
    ) -> Result<(Path, Option<Route>), String> {
        let family = Family::of_net(&cidr);
        let mut addresses = peer.addresses.iter().copied().filter(|ip| Family::of(ip) == family);
        let Some(node) = addresses.next() else {
            return Err(format!("its node has no {family} address; give it an InternalIP of that family"));
        };
        if kernel.addresses.contains(&node) {
            return Err(format!("{node}, the address of its node, is this node's own; correct its InternalIP"));
        }
        let path = Path { prefix: cidr, node, carrier: Carrier::Native, next_hop: None };
        if !self.settings.direct_routes {
            return Ok((path, None));
        }
        match table.reach(node) {
            Reach::OnLink(dev) => Ok((path, Some(direct_route(cidr, node, dev)))),
            Reach::Gateway(gateway) if self.settings.skip_unreachable => Err(format!(
                "{node} is behind the router {gateway}; left to the network (direct-routing-skip-unreachable)"
            )),
            Reach::Gateway(gateway) => Err(format!(
                "{node} is behind the router {gateway}, and a direct route needs both nodes on one segment; set \
                 direct-routing-skip-unreachable if the network routes pod CIDRs, or choose a tunnel"
            )),
            Reach::OtherDevice(dev) => Err(format!(
                "{node} is reached by device {}, which is no uplink; add it to devices",
                kernel.device_name(dev)
            )),
            Reach::Nowhere => Err(format!("no route leads to {node}; check the address and the node's own routes")),
        }
    }
}

/// Brings the kernel to what `outcome` wants; the answer is the number of changes.
async fn enforce(ledger: &Ledger, kernel: &Kernel, outcome: &mut Outcome) -> Result<usize, RoutingError> {
    let before = ledger.read().map_err(|error| file_error("read", ledger, error))?;
    let listed = kernel.routes_of(&before);
    let plan = plan(&outcome.routes, &listed, &kernel.routes);
    for (dst, other) in &plan.blocked {
        outcome.fail(*dst, &occupied(other.via, other.protocol));
    }

    // Listed first: after a crash the list names too many routes rather than too few.
    let mut entries = before.clone();
    entries.extend(outcome.routes.iter().filter_map(|(dst, route)| {
        // Not what somebody else's route does for us.
        let ours = !plan.blocked.contains_key(dst)
            && (listed.contains_key(dst) || kernel.has(route) || plan.changes.contains(&Change::Add(route.clone())));
        ours.then(|| Some((*dst, kernel.entry(route)?))).flatten()
    }));
    if entries != before {
        ledger.write(&entries).map_err(|error| file_error("write", ledger, error))?;
    }

    let mut changes = 0;
    let mut gone: BTreeSet<IpNet> = before.keys().filter(|dst| !outcome.routes.contains_key(dst)).copied().collect();
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
    let after: Entries = entries.iter().filter(|(dst, _)| !gone.contains(*dst)).map(|(d, e)| (*d, e.clone())).collect();
    if after != entries {
        ledger.write(&after).map_err(|error| file_error("write", ledger, error))?;
    }
    Ok(changes)
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

/// What is wanted, and what came of it.
#[derive(Debug, Default)]
struct Outcome {
    peers: BTreeSet<String>,
    routes: BTreeMap<IpNet, Route>,
    paths: BTreeMap<IpNet, (String, Path)>,
    unreachable: BTreeMap<String, BTreeSet<String>>,
    /// What could not be removed.
    left: Vec<String>,
}

impl Outcome {
    /// Turns the path to a pod CIDR into a reason against it.
    fn fail(&mut self, dst: IpNet, reason: &str) {
        if let Some((name, _)) = self.paths.remove(&dst) {
            self.unreachable.entry(name).or_default().insert(format!("pod CIDR {dst}: {reason}"));
        }
    }

    fn report(self, changes: usize) -> RoutingReport {
        let unreachable = self.unreachable.into_iter();
        RoutingReport {
            paths: self.paths.into_values().map(|(_, path)| path).collect(),
            unreachable: unreachable
                .filter(|(name, _)| self.peers.contains(name))
                .map(|(name, reasons)| (name, reasons.into_iter().collect::<Vec<_>>().join("; ")))
                .collect(),
            changes,
        }
    }
}

/// One reading of the kernel.
#[derive(Debug)]
struct Kernel {
    links: Vec<Link>,
    addresses: Vec<IpAddr>,
    routes: Vec<Route>,
}

impl Kernel {
    async fn read(netlink: &Netlink) -> Result<Self, RoutingError> {
        let links = netlink.links().await.map_err(netlink_error)?;
        let addresses = netlink.addresses().await.map_err(netlink_error)?;
        let routes = netlink.routes().await.map_err(netlink_error)?;
        Ok(Self { links, addresses: addresses.iter().map(|(_, address)| address.addr()).collect(), routes })
    }

    /// Indices of the uplinks that can carry anything, in the given order.
    fn uplinks(&self, names: &[String]) -> Result<Vec<u32>, RoutingError> {
        let found = names.iter().filter_map(|name| self.links.iter().find(|link| link.name == *name));
        let up: Vec<u32> = found.clone().filter(|link| link.up).map(|link| link.index).collect();
        if !up.is_empty() {
            return Ok(up);
        }
        let reason = match (names.is_empty(), found.count()) {
            (true, _) => "no device leads to other nodes; name one in devices",
            (false, 0) => "it does not exist; correct devices",
            (false, _) => "it is down; set it up",
        };
        Err(RoutingError::Uplink { device: names.join(", "), reason: reason.to_owned() })
    }

    fn device_name(&self, index: u32) -> String {
        let link = self.links.iter().find(|link| link.index == index);
        link.map_or_else(|| index.to_string(), |link| link.name.clone())
    }

    fn has(&self, route: &Route) -> bool {
        self.routes.iter().any(|found| found == route)
    }

    fn entry(&self, route: &Route) -> Option<Entry> {
        Some(Entry { via: route.via?, device: self.device_name(route.dev) })
    }

    /// The listed routes as they were made. The routes of a device that is gone went with it, and index 0 is nobody's.
    fn routes_of(&self, entries: &Entries) -> BTreeMap<IpNet, Route> {
        let index = |name: &str| self.links.iter().find(|link| link.name == name).map_or(0, |link| link.index);
        entries.iter().map(|(dst, entry)| (*dst, direct_route(*dst, entry.via, index(&entry.device)))).collect()
    }
}

fn netlink_error(error: NetlinkError) -> RoutingError {
    let text = error.to_string();
    // `RoutingError` starts its message with "cannot"; most of these do too.
    let action = text.strip_prefix("cannot ").map_or_else(|| format!("read the node's network: {text}"), str::to_owned);
    RoutingError::Kernel { action, source: Box::new(error) }
}

fn file_error(verb: &str, ledger: &Ledger, error: io::Error) -> RoutingError {
    let action = format!("{verb} the list of own routes {}: {error}", ledger.path().display());
    RoutingError::Kernel { action, source: Box::new(error) }
}
