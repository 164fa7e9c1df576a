//! Where a generation's programs run: attached to devices, taken over from an earlier generation, and taken off.

use std::collections::{BTreeMap, BTreeSet};

use kinesin_loader::{Attached, Attachment, Direction, LoaderError, TcMode, link, pins};

use crate::{datapath::Datapath, filters::Filters};

/// The program on uplinks.
const FROM_NETDEV: &str = "from_netdev";
/// The program on `cilium_host`.
const FROM_HOST: &str = "from_host";
/// The program on uplinks whose packets have no Ethernet header.
const FROM_BARE_NETDEV: &str = "from_l3_netdev";
/// The program on the kernel's tunnel devices (`overlay_device.rs`).
const FROM_OVERLAY: &str = "from_overlay";
/// Programs on the host end of an endpoint, in the order in which they are attached: what comes out of a pod last.
const ENDPOINT: [(&str, Direction); 2] = [("to_container", Direction::Egress), ("from_container", Direction::Ingress)];

/// Where the node's own programs attach, beside the endpoints'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeDevices {
    /// `cilium_host`: name and index.
    pub(crate) host: (String, u32),
    /// Uplinks: name and index, and whether their packets have an Ethernet header.
    pub(crate) uplinks: Vec<((String, u32), bool)>,
    /// The kernel's tunnel devices (`overlay_device.rs`), where they are: name and index.
    pub(crate) overlays: Vec<(String, u32)>,
}

impl NodeDevices {
    /// Their indices.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u32> {
        let uplinks = self.uplinks.iter().map(|(device, _)| device);
        uplinks.chain([&self.host]).chain(&self.overlays).map(|(_, index)| *index)
    }
}

impl Datapath {
    /// Attaches both directions of a host end; the answer is the number of changes. A packet passes only once the tables
    /// know the device.
    pub(crate) fn attach_endpoint(
        &mut self,
        device: &str,
        ifindex: u32,
        filters: &Filters,
    ) -> Result<usize, LoaderError> {
        let mode = self.modes.endpoint();
        let place = |direction| Attachment { device: device.to_owned(), ifindex, direction };
        ENDPOINT.into_iter().map(|(program, direction)| self.attach(program, place(direction), mode, filters)).sum()
    }

    /// Attaches the node's own programs; the answer is the number of changes.
    pub(crate) fn attach_node(&mut self, devices: &NodeDevices, filters: &Filters) -> Result<usize, LoaderError> {
        let mode = self.modes.node();
        let mut changes = self.attach(FROM_HOST, place_on(&devices.host, Direction::Egress), mode, filters)?;
        // Before the uplinks: what they leave to the stack may reach these devices.
        changes += self.attach_overlays(&devices.overlays, filters)?;
        for (uplink, has_ethernet) in &devices.uplinks {
            let program = if *has_ethernet { FROM_NETDEV } else { FROM_BARE_NETDEV };
            changes += self.attach(program, place_on(uplink, Direction::Ingress), mode, filters)?;
        }
        Ok(changes)
    }

    /// Attaches the program of the kernel's tunnel devices; the answer is the number of changes.
    pub(crate) fn attach_overlays(
        &mut self,
        overlays: &[(String, u32)],
        filters: &Filters,
    ) -> Result<usize, LoaderError> {
        let mode = self.modes.node();
        let attach = |device| self.attach(FROM_OVERLAY, place_on(device, Direction::Ingress), mode, filters);
        overlays.iter().map(attach).sum()
    }

    /// Forgets a host end that is gone. Its filters went with it, and by now another device may have its name.
    pub(crate) fn forget_endpoint(&mut self, device: &str, ifindex: u32) -> Result<(), LoaderError> {
        for (_, direction) in ENDPOINT {
            let place = Attachment { device: device.to_owned(), ifindex, direction };
            link::detach_link(&place, &self.pins.links())?;
            self.attached.remove(&place);
        }
        Ok(())
    }

    /// Removes what is attached to devices that are not the node's any more, then generations whose programs see no packet
    /// any more. `kept` are the devices in use, `existing` all there are, by index.
    ///
    /// A host end that is no endpoint's any more keeps its programs for as long as it exists: without an entry in the
    /// tables they let nothing pass, and without programs the node's stack would forward for it. They may be of an older
    /// generation, whose arrays go here: a program that lets nothing pass comes to no slot.
    pub(crate) fn remove_stale(
        &mut self,
        kept: &BTreeSet<u32>,
        existing: &BTreeMap<u32, String>,
    ) -> Result<usize, LoaderError> {
        let mut removed = 0;
        let names = self.pins.link_names()?;
        let mut directions: BTreeMap<u32, usize> = BTreeMap::new();
        for ifindex in names.iter().filter_map(|name| Attachment::ifindex_of_pin(name)) {
            *directions.entry(ifindex).or_default() += 1;
        }
        // Of all devices only host ends have programs in both directions.
        let is_host_end =
            |ifindex: u32| existing.contains_key(&ifindex) && directions.get(&ifindex) == Some(&ENDPOINT.len());
        for name in names {
            let in_use = Attachment::ifindex_of_pin(&name)
                .is_some_and(|ifindex| kept.contains(&ifindex) || is_host_end(ifindex));
            if !in_use {
                pins::remove_pin(&self.pins.links().join(name))?;
                removed += 1;
            }
        }
        if self.takes_over {
            removed += remove_from_former_uplinks(kept, existing)?;
        }
        self.attached.retain(|place| kept.contains(&place.ifindex));
        self.takes_over = false;
        self.pins.remove_generations_except(&self.loaded.generation)?;
        Ok(removed)
    }

    fn attach(
        &mut self,
        program: &str,
        place: Attachment,
        mode: TcMode,
        filters: &Filters,
    ) -> Result<usize, LoaderError> {
        let links = self.pins.links();
        let loaded = self.loaded.program(program)?;
        // A filter that runs this very program stays: to replace it would be a change that everybody who watches hears of.
        // A link can be updated in any case, since the kernel sees that nothing changes.
        let attached = if mode == TcMode::Clsact && filters.is_running(&place, program, loaded)? {
            Attached::Already
        } else {
            link::attach(loaded, &place, mode, &links)?
        };
        if self.attached.insert(place.clone()) {
            // An earlier agent may have used the other way, and goes only now, so that no packet finds neither. For an
            // instant a packet that the link's program passes on meets the filter's too: it decides the same, since
            // what is passed on has neither been aged nor addressed, and counts it twice.
            match mode {
                TcMode::Tcx => drop(link::detach_filters(&place, program)?),
                TcMode::Clsact => link::detach_link(&place, &links)?,
            }
        }
        Ok(usize::from(attached != Attached::Already))
    }
}

fn place_on((name, ifindex): &(String, u32), direction: Direction) -> Attachment {
    Attachment { device: name.clone(), ifindex: *ifindex, direction }
}

/// Takes our filters off devices that were uplinks of an earlier generation; the answer is how many there were.
fn remove_from_former_uplinks(kept: &BTreeSet<u32>, existing: &BTreeMap<u32, String>) -> Result<usize, LoaderError> {
    let mut removed = 0;
    for (ifindex, device) in existing.iter().filter(|(ifindex, _)| !kept.contains(ifindex)) {
        let place = Attachment { device: device.clone(), ifindex: *ifindex, direction: Direction::Ingress };
        for program in [FROM_NETDEV, FROM_BARE_NETDEV] {
            removed += usize::from(link::detach_filters(&place, program)?);
        }
    }
    Ok(removed)
}

/// Takes the filters of every program of ours off a device, whoever attached them.
pub(crate) fn detach_all_filters(device: &str, ifindex: u32) -> Result<(), LoaderError> {
    let ingress = Direction::Ingress;
    let of_uplinks = [FROM_NETDEV, FROM_BARE_NETDEV].map(|program| (program, ingress));
    let node = of_uplinks.into_iter().chain([(FROM_OVERLAY, ingress), (FROM_HOST, Direction::Egress)]);
    for (program, direction) in ENDPOINT.into_iter().chain(node) {
        link::detach_filters(&Attachment { device: device.to_owned(), ifindex, direction }, program)?;
    }
    Ok(())
}
