//! The chassis: brings devices, tables and programs to the desired state.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use kinesin_abi::{Constants, LAYOUT, endpoint_flag};
use kinesin_core::{
    capability::{KernelVersion, ThisMachine},
    chassis::{
        AddressRow, Chassis, ChassisDesired, ChassisError, ChassisReport, Counter, EndpointSpec, NodeSpec,
        TunnelPathReport,
    },
    registry::{BuildContext, BuildError},
    routing::Path,
    values::{Carrier, Identity},
};
use kinesin_loader::{EventRing, OwnerLock, Pins};
use kinesin_netlink::{Link, Mirror, Netlink};
use tokio::sync::Mutex;

use crate::{
    attach::{NodeDevices, detach_all_filters},
    config::{Config, Settings},
    constants,
    datapath::Datapath,
    entries,
    error::{loader_error, netlink_error, sysctl_error},
    host_device, kernel,
    modes::Modes,
    overlay_device::{self, Overlays, TunnelDevice},
    running::{Running, check_device, reconcile},
    told,
    tunnel_path::{self, Seen, Uplink},
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
    /// The kernel's routes, as far as they may be the chassis' own.
    followed: Option<Mirror>,
    /// Router addresses that were not received at the last pass.
    deaf: Vec<Ipv6Addr>,
    /// What is known of the uplinks.
    seen: Seen,
    /// And of the node's network cards, as far as it counts.
    cards: Seen,
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
        let state = &mut *self.state.lock().await;
        if state.lock.is_none() {
            state.lock = Some(OwnerLock::acquire(&self.lock_path).map_err(loader_error)?);
        }
        let mut report = ChassisReport::default();
        let netlink = Netlink::new().map_err(netlink_error)?;

        let prepared = host_device::prepare(&netlink, &desired.node, &state.deaf).await.map_err(netlink_error)?;
        let host = &prepared.host;
        report.changes += prepared.changes;
        report.pending.extend(
            prepared
                .deaf
                .iter()
                .map(|ip| format!("packets to the router address {ip} are not received yet; is {} up?", host.name)),
        );
        let changed = host_device::forwarding(&desired.node).map_err(sysctl_error)?;
        if !changed.is_empty() {
            tracing::info!(sysctls = changed.join(" "), "switched on forwarding");
            report.changes += changed.len();
        }
        let uplinks = self.uplinks(&netlink, &desired.node).await?;
        let overlays = overlay_device::ensure(&netlink, &desired.node, &mut state.cards, &mut report.changes);
        let mut overlays = overlays.await.map_err(netlink_error)?;
        // One that cannot be raised keeps its program: whoever has its port may let go of it.
        let overlay_devices = overlay_device::devices(&overlays);
        // Nobody asks for it on a node without tunnels.
        let seen = if overlays.is_empty() { Vec::new() } else { state.seen.look(&uplinks) };
        let modes = self.modes(&mut report);
        if state.running.is_none() {
            let tunnel_devices = self.tunnel_paths(&seen, &overlays, &mut ChassisReport::default());
            let wanted = self.constants(&desired.node, host, &uplinks, &tunnel_devices);
            state.running = Some(self.start(desired, wanted, modes)?);
            report.changes += 1;
        }
        if let Some(running) = &mut state.running {
            // Before anything is sent through them, and before it is known whether they can be used.
            report.changes += running.open(&netlink, &mut overlays).await?;
        }
        let tunnel_devices = self.tunnel_paths(&seen, &overlays, &mut report);
        let wanted = self.constants(&desired.node, host, &uplinks, &tunnel_devices);

        let is_current = match &state.running {
            Some(running) => {
                // First, so that the next generation shares the tables whatever somebody did to their pins.
                report.changes += running.datapath.restore_pins().map_err(loader_error)?;
                running.datapath.is_current(wanted, &self.settings.slots).map_err(loader_error)?
            }
            None => false,
        };
        let former = if is_current {
            None
        } else {
            // Programs with other constants or slots are another generation; tables and links carry over. One that cannot
            // be loaded leaves the former one at work.
            report.changes += 1;
            let next = self.start(desired, wanted, modes)?;
            state.running.replace(next)
        };
        let running = state.running.as_mut().ok_or(ChassisError::NotReady)?;
        running.node = prepared.node.clone();
        running.paths.clone_from(&desired.paths);
        let devices = NodeDevices {
            host: (host.name.clone(), host.index),
            uplinks: uplinks.iter().map(|link| ((link.name.clone(), link.index), link.ethernet)).collect(),
            overlays: overlay_devices,
        };
        reconcile(running, &netlink, &devices, &desired.endpoints, &mut report).await?;
        report.changes += host_device::finish(&netlink, &mut state.followed, &prepared).await.map_err(netlink_error)?;
        state.deaf = prepared.deaf;
        // Only now: until its links are switched, the former generation's arrays may have no other holder.
        drop(former);
        report.attach_mode = running.datapath.modes.text().to_owned();
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
        running.datapath.prefixes.set(table).map_err(loader_error)?;
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

    async fn told_mtus(&self) -> Result<BTreeMap<IpAddr, u32>, ChassisError> {
        let mut state = self.state.lock().await;
        let running = state.running.as_mut().ok_or(ChassisError::NotReady)?;
        told::holding(&mut running.datapath.told).map_err(loader_error)
    }

    async fn retire(&self) -> Result<(), ChassisError> {
        let mut state = self.state.lock().await;
        let mut left = Vec::new();
        drop(state.running.take());
        state.followed = None;
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
            Ok(netlink) => [host_device::remove(&netlink).await, overlay_device::remove(&netlink).await],
            Err(error) => [Err(error), Ok(())],
        };
        left.extend(removed.into_iter().filter_map(Result::err).map(|error| error.to_string()));
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

    /// Decides who puts tunnels on and takes them off, and tells the reasons; the answer are the kernel's devices.
    fn tunnel_paths(
        &self,
        uplinks: &[Uplink],
        overlays: &Overlays,
        report: &mut ChassisReport,
    ) -> BTreeMap<Carrier, TunnelDevice> {
        let too_old = (this_kernel() < kernel::TUNNEL_SOURCE)
            .then(|| format!("its source address can be chosen only since Linux {}", kernel::TUNNEL_SOURCE));
        let mut devices = BTreeMap::new();
        for (carrier, overlay) in overlays {
            let unusable = overlay.why_not_carrying().or(too_old.as_deref());
            let decision = tunnel_path::choose(self.settings.tunnel_path, *carrier, unusable, uplinks);
            let path = if decision.by_device { "device" } else { "bpf" };
            let of_uplink = |(uplink, reason): (&Uplink, String)| TunnelPathReport {
                carrier: *carrier,
                uplink: uplink.name.clone(),
                path,
                reason,
            };
            report.tunnel_paths.extend(uplinks.iter().zip(decision.reasons).map(of_uplink));
            report.degraded.extend(decision.trouble);
            if let Some(why) = overlay.why_not_merging() {
                report.degraded.push(format!("segments that come in by {carrier} are not merged: {why}"));
            }
            devices.extend(overlay.for_programs(decision.by_device).map(|device| (*carrier, device)));
        }
        devices
    }

    fn constants(
        &self,
        node: &NodeSpec,
        host: &Link,
        uplinks: &[Link],
        overlays: &BTreeMap<Carrier, TunnelDevice>,
    ) -> Constants {
        // A smaller MTU than the device's is somebody's knowledge of what lies behind it.
        let mtu_bytes = node.device_mtu_bytes;
        let first = uplinks.first().map_or((0, mtu_bytes), |link| (link.index, link.mtu.min(mtu_bytes)));
        let slot_mask = self.settings.slots.keys().fold(0, |mask, stage| mask | stage.bit());
        constants::of_node(node, host, first, overlays, slot_mask)
    }

    fn modes(&self, report: &mut ChassisReport) -> Modes {
        let (modes, degraded) = Modes::choose(self.enable_tcx, self.settings.endpoint_attach, this_kernel());
        report.degraded.extend(degraded);
        modes
    }
}

/// A kernel whose version cannot be read is taken for an old one.
fn this_kernel() -> KernelVersion {
    ThisMachine::new().map_or(KernelVersion::new(0, 0), |machine| machine.kernel())
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

#[cfg(test)]
mod tests {
    use kinesin_abi::{DropReason, FORWARDED, SIGNALLING};

    use super::*;

    #[test]
    fn counters_of_drops_are_told_from_others_as_the_programs_number_them() {
        let is_drop =
            |reason| Counter { reason, text: String::new(), direction: "ingress", packets: 1, bytes: 1 }.is_drop();
        assert!(DropReason::ALL.iter().all(|reason| is_drop(*reason as u8)));
        assert!(![FORWARDED, SIGNALLING].into_iter().any(is_drop));
    }
}
