//! What runs on the node after the first `apply`: brought to the desired state as a whole, or endpoint by endpoint.

use std::collections::{BTreeMap, BTreeSet};

use kinesin_core::{
    chassis::{ChassisError, ChassisReport, EndpointSpec, NodeSpec},
    routing::Path,
    values::EndpointId,
};
use kinesin_loader::{LoaderError, TcMode};
use kinesin_netlink::Netlink;

use crate::{
    attach::NodeDevices,
    datapath::Datapath,
    entries,
    error::{loader_error, netlink_error, sysctl_error},
    filters::Filters,
    host_device,
    modes::Modes,
    overlay_device::{self, Overlays},
};

/// What exists after the first `apply`.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) datapath: Datapath,
    pub(crate) node: NodeSpec,
    pub(crate) paths: Vec<Path>,
    pub(crate) endpoints: BTreeMap<EndpointId, EndpointSpec>,
}

/// Brings tables and links to what is desired.
pub(crate) async fn reconcile(
    running: &mut Running,
    netlink: &Netlink,
    devices: &NodeDevices,
    desired: &BTreeMap<EndpointId, EndpointSpec>,
    report: &mut ChassisReport,
) -> Result<(), ChassisError> {
    let links: Vec<_> =
        netlink.addresses().await.map_err(netlink_error)?.into_iter().map(|(_, address)| address).collect();
    let mut alive = BTreeMap::new();
    for (id, endpoint) in desired {
        let ready = match check_device(netlink, endpoint).await {
            Ok(()) => host_device::endpoint(&endpoint.device, &running.node).map_err(sysctl_error),
            Err(error) => Err(error),
        };
        match ready {
            Ok(()) => drop(alive.insert(*id, endpoint.clone())),
            Err(error) => drop(report.failed.insert(*id, error.to_string())),
        }
    }
    // What leaves the tables first keeps a vanished endpoint's address from being delivered to its successor's device.
    let known: BTreeSet<u32> = alive.values().map(|endpoint| endpoint.ifindex).collect();
    let datapath = &mut running.datapath;
    for ifindex in datapath.devices.entries().map_err(loader_error)?.into_keys().filter(|old| !known.contains(old)) {
        datapath.devices.remove(&ifindex).map_err(loader_error)?;
        report.changes += 1;
    }
    let filters = filters(netlink, datapath.modes, &known, devices).await?;
    // Programs before entries: until its entry is there, a device passes nothing.
    for (id, endpoint) in &alive {
        match datapath.attach_endpoint(&endpoint.device, endpoint.ifindex, &filters) {
            Ok(changes) => report.changes += changes,
            Err(error) => drop(report.failed.insert(*id, error.to_string())),
        }
    }
    alive.retain(|id, _| !report.failed.contains_key(id));
    let table = entries::endpoints(&running.node, &links, alive.values());
    let attached: BTreeMap<u32, _> =
        alive.values().map(|endpoint| (endpoint.ifindex, entries::device(endpoint))).collect();
    report.changes += datapath.devices.sync(&attached).map_err(loader_error)?;
    report.changes += datapath.endpoints.sync(&table).map_err(loader_error)?;
    let prefixes = entries::prefixes(&running.node, &running.paths);
    report.changes += datapath.prefixes.apply(prefixes).map_err(loader_error)?;
    report.changes += datapath.attach_node(devices, &filters).map_err(loader_error)?;

    let mut kept: BTreeSet<u32> = attached.into_keys().collect();
    kept.extend(devices.indices());
    let links = netlink.links().await.map_err(netlink_error)?;
    let existing = links.into_iter().map(|link| (link.index, link.name)).collect();
    report.changes += datapath.remove_stale(&kept, &existing).map_err(loader_error)?;
    running.endpoints = alive;
    Ok(())
}

/// The filters of those devices that have filters in these modes.
async fn filters(
    netlink: &Netlink,
    modes: Modes,
    endpoints: &BTreeSet<u32>,
    devices: &NodeDevices,
) -> Result<Filters, ChassisError> {
    let of_pods = endpoints.iter().copied().filter(|_| modes.endpoint() == TcMode::Clsact);
    let of_node = devices.indices().filter(|_| modes.node() == TcMode::Clsact);
    Filters::read(netlink, of_pods.chain(of_node)).await.map_err(netlink_error)
}

impl Running {
    /// Attaches the program of the kernel's tunnel devices and raises them: through one that is up without it packets would
    /// get in that nobody has looked at. The answer is the number of changes.
    pub(crate) async fn open(&mut self, netlink: &Netlink, overlays: &mut Overlays) -> Result<usize, ChassisError> {
        let devices = overlay_device::devices(overlays);
        let of_node = devices.iter().filter(|_| self.datapath.modes.node() == TcMode::Clsact).map(|(_, index)| *index);
        let filters = Filters::read(netlink, of_node).await.map_err(netlink_error)?;
        let changes = self.datapath.attach_overlays(&devices, &filters).map_err(loader_error)?;
        Ok(changes + overlay_device::open(netlink, overlays).await)
    }

    /// Attaches the programs of one endpoint and enters it into the tables.
    pub(crate) fn attach(&mut self, endpoint: &EndpointSpec) -> Result<(), LoaderError> {
        // A new device has no filters; where this is a repetition they are replaced by the same.
        self.datapath.attach_endpoint(&endpoint.device, endpoint.ifindex, &Filters::default())?;
        self.datapath.devices.insert(endpoint.ifindex, entries::device(endpoint))?;
        for (key, value) in entries::endpoint(endpoint) {
            self.datapath.endpoints.insert(key, value)?;
        }
        Ok(())
    }

    /// Removes the addresses that an endpoint had and has no more.
    pub(crate) fn forget_addresses(&mut self, old: &EndpointSpec, new: &EndpointSpec) -> Result<(), LoaderError> {
        let kept: BTreeSet<_> = entries::endpoint(new).map(|(key, _)| key).collect();
        for (key, _) in entries::endpoint(old).filter(|(key, _)| !kept.contains(key)) {
            if self.datapath.endpoints.get(&key)?.is_some_and(|found| found.id == old.id.0) {
                self.datapath.endpoints.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Takes one endpoint out of the tables, and forgets its host end where that `is_gone`.
    pub(crate) fn detach(&mut self, endpoint: &EndpointSpec, is_gone: bool) -> Result<(), LoaderError> {
        for (key, _) in entries::endpoint(endpoint) {
            // The address may have a new holder by now.
            let holder = self.datapath.endpoints.get(&key)?;
            if holder.is_some_and(|found| found.id == endpoint.id.0 && found.ifindex == endpoint.ifindex) {
                self.datapath.endpoints.remove(&key)?;
            }
        }
        let on_device = self.datapath.devices.get(&endpoint.ifindex)?;
        if on_device.is_some_and(|found| found.id == endpoint.id.0) {
            self.datapath.devices.remove(&endpoint.ifindex)?;
        }
        if is_gone {
            self.datapath.forget_endpoint(&endpoint.device, endpoint.ifindex)?;
        }
        Ok(())
    }
}

/// Name and index must still belong together: both can be reused.
pub(crate) async fn check_device(netlink: &Netlink, endpoint: &EndpointSpec) -> Result<(), ChassisError> {
    let found = netlink.find_link(&endpoint.device).await.map_err(netlink_error)?;
    let wrong = |reason: String| ChassisError::Device { device: endpoint.device.clone(), reason };
    match found {
        Some(link) if link.index == endpoint.ifindex => Ok(()),
        Some(link) => Err(wrong(format!("its index is {}, the endpoint's was {}", link.index, endpoint.ifindex))),
        None => Err(wrong("it does not exist".to_owned())),
    }
}
