//! One generation of programs with its tables, and what is attached.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use aya::programs::{ProgramError, SchedClassifier};
use kinesin_abi::{
    Bucket, Constants, Continuation, DeviceValue, EndpointKey, EndpointValue, IpcacheKey, IpcacheValue, Metric,
    PacketState, Stage, map,
};
use kinesin_loader::{
    Attached, Attachment, Direction, EventRing, LoadSpec, Loaded, LoaderError, PerCpuTable, Pins, PrefixTable,
    SharedMap, Table, TcMode, link, pins,
};

use crate::{OBJECT, constants, kernel, modes::Modes};

/// Programs that attach to devices.
const ENTRIES: [&str; 4] = ["from_container", "to_container", FROM_NETDEV, "from_host"];
/// The program on uplinks.
const FROM_NETDEV: &str = "from_netdev";
/// Programs on the host end of an endpoint, in the order in which they are attached: what comes out of a pod last.
const ENDPOINT: [(&str, Direction); 2] = [("to_container", Direction::Egress), ("from_container", Direction::Ingress)];
/// Programs that slot programs tail-call, by continuation.
const CONTINUATIONS: [(u32, &str); 3] = [
    (Continuation::Next as u32, "cont_next"),
    (Continuation::Deliver as u32, "cont_deliver"),
    (Continuation::Drop as u32, "cont_drop"),
];

/// Maps that every generation shares.
const SHARED: [SharedMap; 7] = [
    shared::<u32, DeviceValue>(map::DEVICES),
    shared::<EndpointKey, EndpointValue>(map::ENDPOINTS),
    // A prefix key starts with the number of bits that count.
    SharedMap {
        name: map::IPCACHE,
        key_size: (size_of::<u32>() + size_of::<IpcacheKey>()) as u32,
        value_size: size_of::<IpcacheValue>() as u32,
    },
    shared::<u32, Metric>(map::METRICS),
    SharedMap { name: map::EVENTS, key_size: 0, value_size: 0 },
    shared::<u32, PacketState>(map::STATE),
    shared::<u32, Bucket>(map::BUCKET),
];

const fn shared<K, V>(name: &'static str) -> SharedMap {
    // Lossless: keys and values have tens of bytes.
    SharedMap { name, key_size: size_of::<K>() as u32, value_size: size_of::<V>() as u32 }
}

/// Where the node's own programs attach, beside the endpoints'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeDevices {
    /// `cilium_host`: name and index.
    pub(crate) host: (String, u32),
    /// Uplinks: name and index.
    pub(crate) uplinks: Vec<(String, u32)>,
}

/// A loaded generation.
#[derive(Debug)]
pub(crate) struct Datapath {
    pins: Pins,
    loaded: Loaded,
    modes: Modes,
    /// What it was loaded with.
    pub(crate) constants: Constants,
    /// Endpoints by host end.
    pub(crate) devices: Table<u32, DeviceValue>,
    /// Where addresses of this node live.
    pub(crate) endpoints: Table<EndpointKey, EndpointValue>,
    /// What is known of prefixes.
    pub(crate) prefixes: PrefixTable<IpcacheKey, IpcacheValue>,
    metrics: PerCpuTable<Metric>,
    /// Programs in the slots, by their number in the kernel.
    slots: BTreeMap<Stage, u32>,
    /// Where this generation's programs are attached.
    attached: BTreeSet<Attachment>,
    /// Whether what an earlier generation attached may still be there.
    takes_over: bool,
}

impl Datapath {
    /// Loads a new generation; nothing is attached to it yet.
    pub(crate) fn load(
        pins: Pins,
        constants: Constants,
        modes: Modes,
        slots: &BTreeMap<Stage, PathBuf>,
    ) -> Result<Self, LoaderError> {
        if OBJECT.is_empty() {
            return Err(LoaderError::NoObject { remedy: kernel::BUILD_PROGRAMS });
        }
        let generation = pins.new_generation()?;
        let mut programs = ENTRIES.to_vec();
        if !slots.is_empty() {
            programs.extend(CONTINUATIONS.map(|(_, name)| name));
        }
        let spec = LoadSpec {
            object: OBJECT,
            constants: &constants::symbols(&constants),
            shared: &SHARED,
            maps: &pins.maps(),
            per_generation: &[map::SLOTS],
            generation: &generation,
            programs: &programs,
        };
        let mut loaded = Loaded::load(&spec)?;
        // The slots are filled before any link is switched to this generation, and never changed afterwards.
        let mut filled = BTreeMap::new();
        for (stage, path) in slots {
            let (program, id) = slot_program(*stage, path)?;
            let descriptor = program.fd().and_then(|found| found.try_clone().map_err(Into::into));
            let descriptor = descriptor.map_err(|source| slot_error(*stage, path, source))?;
            loaded.put_program(map::SLOTS, *stage as u32, &descriptor)?;
            let pin = generation.join(format!("{}_{}", map::CONT, stage.name()));
            loaded.fill_array_of(&program, map::CONT, &CONTINUATIONS, &pin)?;
            filled.insert(*stage, id);
        }
        Ok(Self {
            devices: Table::new(map::DEVICES, loaded.take_map(map::DEVICES)?)?,
            endpoints: Table::new(map::ENDPOINTS, loaded.take_map(map::ENDPOINTS)?)?,
            prefixes: PrefixTable::new(map::IPCACHE, loaded.take_map(map::IPCACHE)?)?,
            metrics: PerCpuTable::new(map::METRICS, loaded.take_map(map::METRICS)?)?,
            pins,
            loaded,
            modes,
            constants,
            slots: filled,
            attached: BTreeSet::new(),
            takes_over: true,
        })
    }

    /// Whether this generation is what `constants` and the programs that are pinned for `slots` by now ask for.
    pub(crate) fn is_current(
        &self,
        constants: Constants,
        slots: &BTreeMap<Stage, PathBuf>,
    ) -> Result<bool, LoaderError> {
        if self.constants != constants || !self.loaded.generation.is_dir() {
            return Ok(false);
        }
        for (stage, path) in slots {
            if self.slots.get(stage) != Some(&slot_program(*stage, path)?.1) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens the events of all generations for reading.
    pub(crate) fn events(&self) -> Result<EventRing, LoaderError> {
        EventRing::open(&self.pins.maps().join(map::EVENTS))
    }

    /// How programs are attached.
    pub(crate) fn modes(&self) -> Modes {
        self.modes
    }

    /// Attaches both directions of a host end; the answer is the number of changes. A packet passes only once the tables
    /// know the device.
    pub(crate) fn attach_endpoint(&mut self, device: &str, ifindex: u32) -> Result<usize, LoaderError> {
        let mode = self.modes.endpoint();
        ENDPOINT.into_iter().map(|(program, direction)| self.attach(program, device, ifindex, direction, mode)).sum()
    }

    /// Attaches the node's own programs; the answer is the number of changes.
    pub(crate) fn attach_node(&mut self, devices: &NodeDevices) -> Result<usize, LoaderError> {
        let mode = self.modes.node();
        let mut changes = self.attach("from_host", &devices.host.0, devices.host.1, Direction::Egress, mode)?;
        for (name, ifindex) in &devices.uplinks {
            changes += self.attach(FROM_NETDEV, name, *ifindex, Direction::Ingress, mode)?;
        }
        Ok(changes)
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

    /// The counters, summed over the CPUs: index and sum, zeros left out.
    pub(crate) fn counters(&self) -> Result<Vec<(u32, Metric)>, LoaderError> {
        let mut all = Vec::new();
        for index in 0..self.metrics.len() {
            let mut sum = Metric::default();
            for value in self.metrics.get(index)? {
                sum.packets += value.packets;
                sum.bytes += value.bytes;
            }
            if sum.packets > 0 {
                all.push((index, sum));
            }
        }
        Ok(all)
    }

    fn attach(
        &mut self,
        program: &str,
        device: &str,
        ifindex: u32,
        direction: Direction,
        mode: TcMode,
    ) -> Result<usize, LoaderError> {
        let place = Attachment { device: device.to_owned(), ifindex, direction };
        let links = self.pins.links();
        let attached = link::attach(self.loaded.program(program)?, &place, mode, &links)?;
        let first = self.attached.insert(place.clone());
        if first {
            // An earlier agent may have used the other way, and goes only now, so that no packet finds neither. For an
            // instant a packet that the link's program passes on meets the filter's too: it decides the same, since
            // what is passed on has neither been aged nor addressed, and counts it twice.
            match mode {
                TcMode::Tcx => drop(link::detach_filters(&place, program)?),
                TcMode::Clsact => link::detach_link(&place, &links)?,
            }
        }
        let is_change = match attached {
            Attached::Anew => true,
            Attached::Already => false,
            // A filter does not tell whether it was ours; that this generation had attached it does.
            Attached::Replaced => first || mode == TcMode::Tcx,
        };
        Ok(usize::from(is_change))
    }
}

/// Takes our filters off devices that were uplinks of an earlier generation; the answer is how many there were.
fn remove_from_former_uplinks(kept: &BTreeSet<u32>, existing: &BTreeMap<u32, String>) -> Result<usize, LoaderError> {
    let mut removed = 0;
    for (ifindex, device) in existing.iter().filter(|(ifindex, _)| !kept.contains(ifindex)) {
        let place = Attachment { device: device.clone(), ifindex: *ifindex, direction: Direction::Ingress };
        removed += usize::from(link::detach_filters(&place, FROM_NETDEV)?);
    }
    Ok(removed)
}

/// Takes the filters of every program of ours off a device, whoever attached them.
pub(crate) fn detach_all_filters(device: &str, ifindex: u32) -> Result<(), LoaderError> {
    let node = [(FROM_NETDEV, Direction::Ingress), ("from_host", Direction::Egress)];
    for (program, direction) in ENDPOINT.into_iter().chain(node) {
        link::detach_filters(&Attachment { device: device.to_owned(), ifindex, direction }, program)?;
    }
    Ok(())
}

/// The program that is pinned for a slot, and its number in the kernel.
fn slot_program(stage: Stage, path: &Path) -> Result<(SchedClassifier, u32), LoaderError> {
    let failed = |source| slot_error(stage, path, source);
    let program = SchedClassifier::from_pin(path).map_err(failed)?;
    let id = program.info().map_err(failed)?.id();
    Ok((program, id))
}

fn slot_error(stage: Stage, path: &Path, source: ProgramError) -> LoaderError {
    LoaderError::Program {
        action: format!("use the pinned program {} for stage {:?}", path.display(), stage.name()),
        source,
    }
}
