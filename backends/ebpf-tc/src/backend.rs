//! The chassis: brings devices, tables and programs to the desired state.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use kinesin_abi::{Constants, LAYOUT, endpoint_flag};
use kinesin_core::{
    capability::{KernelVersion, ThisMachine},
    chassis::{AddressRow, Chassis, ChassisDesired, ChassisError, ChassisReport, Counter, EndpointSpec, NodeSpec},
    registry::{BuildContext, BuildError},
    routing::Path,
    values::{EndpointId, Identity},
};
use kinesin_loader::{EventRing, LoaderError, OwnerLock, Pins};
use kinesin_netlink::{Link, Netlink, NetlinkError, SysctlError};
use tokio::sync::Mutex;

use crate::{
    config::{Config, Settings},
    constants,
    datapath::{Datapath, NodeDevices, detach_all_filters},
    entries, host_device,
    modes::Modes,
};

/// The eBPF chassis of one node.
#[derive(Debug)]
pub struct EbpfChassis {
    settings: Settings,
    bpffs: PathBuf,
    lock_path: PathBuf,
    enable_tcx: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lock: Option<OwnerLock>,
    running: Option<Running>,
}

/// What exists after the first `apply`.
#[derive(Debug)]
struct Running {
    datapath: Datapath,
    node: NodeSpec,
    paths: Vec<Path>,
    endpoints: BTreeMap<EndpointId, EndpointSpec>,
}

/// Builds the chassis from its section; the kernel is not touched before `apply`.
pub(crate) fn build(context: &BuildContext) -> Result<Arc<dyn Chassis>, BuildError> {
    let settings = context.section.parse::<Config>()?.validate()?;
    Ok(Arc::new(EbpfChassis {
        settings,
        bpffs: context.bpffs.clone(),
        lock_path: context.state_dir.join("datapath.lock"),
        enable_tcx: context.enable_tcx,
        state: Mutex::default(),
    }))
}

#[async_trait]
impl Chassis for EbpfChassis {
    async fn apply(&self, desired: &ChassisDesired) -> Result<ChassisReport, ChassisError> {
        let mut state = self.state.lock().await;
        if state.lock.is_none() {
            state.lock = Some(OwnerLock::acquire(&self.lock_path).map_err(loader_error)?);
        }
        let mut report = ChassisReport::default();
        let netlink = Netlink::new().map_err(netlink_error)?;

        let (host, changes) = host_device::apply(&netlink, &desired.node).await.map_err(netlink_error)?;
        report.changes += changes;
        let changed = host_device::forwarding(&desired.node).map_err(sysctl_error)?;
        if !changed.is_empty() {
            tracing::info!(sysctls = changed.join(" "), "switched on forwarding");
            report.changes += changed.len();
        }
        let uplinks = self.uplinks(&netlink, &desired.node).await?;
        let wanted = self.constants(&desired.node, &uplinks);
        let modes = self.modes(&mut report);

        let running = match state.running.take() {
            Some(running) if running.datapath.is_current(wanted, &self.settings.slots).map_err(loader_error)? => {
                running
            }
            other => {
                // Programs with other constants or slots are another generation; tables and links carry over.
                report.changes += 1;
                let next = self.start(desired, wanted, modes)?;
                drop(other);
                next
            }
        };
        let running = state.running.insert(running);
        running.node = desired.node.clone();
        running.paths.clone_from(&desired.paths);
        let devices = NodeDevices {
            host: (host.name.clone(), host.index),
            uplinks: uplinks.iter().map(|link| (link.name.clone(), link.index)).collect(),
        };
        reconcile(running, &netlink, &devices, &desired.endpoints, &mut report).await?;
        report.attach_mode = running.datapath.modes().text().to_owned();
        Ok(report)
    }

    async fn attach(&self, endpoint: &EndpointSpec) -> Result<(), ChassisError> {
        let mut state = self.state.lock().await;
        let running = state.running.as_mut().ok_or(ChassisError::NotReady)?;
        let netlink = Netlink::new().map_err(netlink_error)?;
        check_device(&netlink, endpoint).await?;
        host_device::endpoint(&endpoint.device, &running.node).map_err(sysctl_error)?;
        running.attach(endpoint).map_err(loader_error)?;
        if let Some(old) = running.endpoints.insert(endpoint.id, endpoint.clone()) {
            running.forget_addresses(&old, endpoint).map_err(loader_error)?;
        }
        Ok(())
    }

    async fn detach(&self, endpoint: &EndpointSpec) -> Result<(), ChassisError> {
        let mut state = self.state.lock().await;
        let running = state.running.as_mut().ok_or(ChassisError::NotReady)?;
        let netlink = Netlink::new().map_err(netlink_error)?;
        // A host end that is still there keeps its programs, which let nothing pass from now on (see `remove_stale`).
        let is_gone = check_device(&netlink, endpoint).await.is_err();
        running.detach(endpoint, is_gone).map_err(loader_error)?;
        running.endpoints.remove(&endpoint.id);
        Ok(())
    }

    async fn set_paths(&self, paths: &[Path]) -> Result<(), ChassisError> {
        let mut state = self.state.lock().await;
        let running = state.running.as_mut().ok_or(ChassisError::NotReady)?;
        let table = entries::prefixes(&running.node, paths);
        running.datapath.prefixes.sync(&table).map_err(loader_error)?;
        running.paths = paths.to_vec();
        Ok(())
    }

    async fn addresses(&self) -> Result<Vec<AddressRow>, ChassisError> {
        let state = self.state.lock().await;
        let running = state.running.as_ref().ok_or(ChassisError::NotReady)?;
        let table = running.datapath.endpoints.entries().map_err(loader_error)?;
        Ok(table
            .iter()
            .filter(|(_, value)| value.flags & endpoint_flag::BROADCAST == 0)
            .filter_map(|(key, value)| {
                let (mac, host_mac) = entries::macs(value.eth);
                Some(AddressRow {
                    ip: entries::ip(&key.addr, key.family)?,
                    host: value.flags & endpoint_flag::HOST != 0,
                    id: value.id,
                    identity: Identity(value.identity),
                    flags: u32::from(value.flags),
                    ifindex: value.ifindex,
                    mac,
                    host_mac,
                })
            })
            .collect())
    }

    async fn counters(&self) -> Result<Vec<Counter>, ChassisError> {
        let state = self.state.lock().await;
        let running = state.running.as_ref().ok_or(ChassisError::NotReady)?;
        let counters = running.datapath.counters().map_err(loader_error)?;
        Ok(counters
            .into_iter()
            .map(|(index, metric)| {
                // Lossless: the index is a byte of reason and a bit of direction.
                let reason = (index & 0xff) as u8;
                Counter {
                    reason,
                    text: kinesin_abi::text_of(reason).map_or_else(|| format!("reason {reason}"), str::to_owned),
                    direction: if index >> 8 == 0 { "ingress" } else { "egress" },
                    packets: metric.packets,
                    bytes: metric.bytes,
                }
            })
            .collect())
    }

    async fn retire(&self) -> Result<(), ChassisError> {
        let mut state = self.state.lock().await;
        let mut left = Vec::new();
        drop(state.running.take());
        let netlink = Netlink::new();
        if let Ok(netlink) = &netlink {
            left.extend(remove_filters(netlink).await);
        }
        // Also what an earlier run left; links go with their pins.
        match Pins::open(&self.bpffs, LAYOUT).and_then(|pins| pins.remove_all()) {
            Ok(()) => {}
            Err(error) => left.push(error.to_string()),
        }
        let removed = match netlink {
            Ok(netlink) => host_device::remove(&netlink).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            left.push(error.to_string());
        }
        state.lock = None;
        if left.is_empty() { Ok(()) } else { Err(ChassisError::Retire { left }) }
    }
}

impl EbpfChassis {
    /// Opens the drop events for reading; there is one reader at a time.
    ///
    /// # Errors
    /// `NotReady` before the first `apply`, `Kernel` when the ring cannot be opened.
    pub async fn events(&self) -> Result<EventRing, ChassisError> {
        let state = self.state.lock().await;
        state.running.as_ref().ok_or(ChassisError::NotReady)?.datapath.events().map_err(loader_error)
    }

    /// Loads a generation for these constants.
    fn start(&self, desired: &ChassisDesired, wanted: Constants, modes: Modes) -> Result<Running, ChassisError> {
        let pins = Pins::open(&self.bpffs, LAYOUT).map_err(loader_error)?;
        let datapath = Datapath::load(pins, wanted, modes, &self.settings.slots).map_err(loader_error)?;
        Ok(Running { datapath, node: desired.node.clone(), paths: desired.paths.clone(), endpoints: BTreeMap::new() })
    }

    async fn uplinks(&self, netlink: &Netlink, node: &NodeSpec) -> Result<Vec<Link>, ChassisError> {
        let mut found = Vec::new();
        for name in &node.uplinks {
            let link = netlink.find_link(name).await.map_err(netlink_error)?;
            found.push(link.ok_or_else(|| ChassisError::Device {
                device: name.clone(),
                reason: "it does not exist; name an existing one in `devices`".to_owned(),
            })?);
        }
        Ok(found)
    }

    fn constants(&self, node: &NodeSpec, uplinks: &[Link]) -> Constants {
        let (uplink, mtu) = uplinks.first().map_or((0, node.device_mtu_bytes), |link| (link.index, link.mtu));
        let slot_mask = self.settings.slots.keys().fold(0, |mask, stage| mask | stage.bit());
        constants::of_node(node, uplink, mtu, slot_mask)
    }

    fn modes(&self, report: &mut ChassisReport) -> Modes {
        // A kernel whose version cannot be read is taken for an old one.
        let kernel = ThisMachine::new().map_or(KernelVersion::new(0, 0), |machine| machine.kernel());
        let (modes, degraded) = Modes::choose(self.enable_tcx, self.settings.endpoint_attach, kernel);
        report.degraded.extend(degraded);
        modes
    }
}

/// Brings tables and links to what is desired.
async fn reconcile(
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
    // Programs before entries: until its entry is there, a device passes nothing.
    for (id, endpoint) in &alive {
        match datapath.attach_endpoint(&endpoint.device, endpoint.ifindex) {
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
    report.changes += datapath.prefixes.sync(&prefixes).map_err(loader_error)?;
    report.changes += datapath.attach_node(devices).map_err(loader_error)?;

    let mut kept: BTreeSet<u32> = attached.into_keys().collect();
    kept.insert(devices.host.1);
    kept.extend(devices.uplinks.iter().map(|(_, index)| *index));
    let links = netlink.links().await.map_err(netlink_error)?;
    let existing = links.into_iter().map(|link| (link.index, link.name)).collect();
    report.changes += datapath.remove_stale(&kept, &existing).map_err(loader_error)?;
    running.endpoints = alive;
    Ok(())
}

impl Running {
    fn attach(&mut self, endpoint: &EndpointSpec) -> Result<(), LoaderError> {
        self.datapath.attach_endpoint(&endpoint.device, endpoint.ifindex)?;
        self.datapath.devices.insert(endpoint.ifindex, entries::device(endpoint))?;
        for (key, value) in entries::endpoint(endpoint) {
            self.datapath.endpoints.insert(key, value)?;
        }
        Ok(())
    }

    /// Removes the addresses that an endpoint had and has no more.
    fn forget_addresses(&mut self, old: &EndpointSpec, new: &EndpointSpec) -> Result<(), LoaderError> {
        let kept: BTreeSet<_> = entries::endpoint(new).map(|(key, _)| key).collect();
        for (key, _) in entries::endpoint(old).filter(|(key, _)| !kept.contains(key)) {
            if self.datapath.endpoints.get(&key)?.is_some_and(|found| found.id == old.id.0) {
                self.datapath.endpoints.remove(&key)?;
            }
        }
        Ok(())
    }

    fn detach(&mut self, endpoint: &EndpointSpec, is_gone: bool) -> Result<(), LoaderError> {
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

/// Takes our filters off every device of the node; the answer is what could not be done.
async fn remove_filters(netlink: &Netlink) -> Vec<String> {
    match netlink.links().await {
        Ok(links) => links
            .iter()
            .filter(|link| !link.loopback)
            .filter_map(|link| detach_all_filters(&link.name, link.index).err())
            .map(|error| error.to_string())
            .collect(),
        Err(error) => vec![error.to_string()],
    }
}

/// Name and index must still belong together: both can be reused.
async fn check_device(netlink: &Netlink, endpoint: &EndpointSpec) -> Result<(), ChassisError> {
    let found = netlink.find_link(&endpoint.device).await.map_err(netlink_error)?;
    let wrong = |reason: String| ChassisError::Device { device: endpoint.device.clone(), reason };
    match found {
        Some(link) if link.index == endpoint.ifindex => Ok(()),
        Some(link) => Err(wrong(format!("its index is {}, the endpoint's was {}", link.index, endpoint.ifindex))),
        None => Err(wrong("it does not exist".to_owned())),
    }
}

fn loader_error(error: LoaderError) -> ChassisError {
    match error {
        LoaderError::OtherLayout { path, found, own } => ChassisError::Layout {
            path: path.display().to_string(),
            found,
            own,
            remedy: "drain the node and remove that directory, or go on with the version that wrote it".to_owned(),
        },
        LoaderError::Locked { pid, .. } => ChassisError::Busy { pid },
        other => kernel_error(other.to_string(), other),
    }
}

fn netlink_error(error: NetlinkError) -> ChassisError {
    kernel_error(error.to_string(), error)
}

fn sysctl_error(error: SysctlError) -> ChassisError {
    kernel_error(error.to_string(), error)
}

fn kernel_error(text: String, source: impl std::error::Error + Send + Sync + 'static) -> ChassisError {
    // `ChassisError` starts its message with "cannot"; the errors below do too.
    let action = text.strip_prefix("cannot ").map(str::to_owned).unwrap_or(format!("set up the datapath: {text}"));
    ChassisError::Kernel { action, source: Box::new(source) }
}
