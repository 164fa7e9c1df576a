//! One generation of programs with its tables, and what is attached.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use aya::programs::SchedClassifier;
use kinesin_abi::{
    Bucket, Constants, Continuation, DeviceValue, EndpointKey, EndpointValue, IpcacheKey, IpcacheValue, Metric, PacketState, Stage, map,
};
use kinesin_loader::{
    Attachment, Direction, LoadSpec, Loaded, LoaderError, PerCpuTable, Pins, PrefixTable, SharedMap, Table, TcMode, link, pins,
};

use crate::{OBJECT, constants};

/// Programs that attach to devices.
const ENTRIES: [&str; 4] = ["from_container", "to_container", "from_netdev", "from_host"];
/// Programs that slot programs tail-call, by continuation.
const CONTINUATIONS: [(Continuation, &str); 3] = [
    (Continuation::Next, "cont_next"),
    (Continuation::Deliver, "cont_deliver"),
    (Continuation::Drop, "cont_drop"),
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
    mode: TcMode,
    /// What it was loaded with.
    pub(crate) constants: Constants,
    /// Endpoints by host end.
    pub(crate) devices: Table<u32, DeviceValue>,
    /// Where addresses of this node live.
    pub(crate) endpoints: Table<EndpointKey, EndpointValue>,
    /// What is known of prefixes.
    pub(crate) prefixes: PrefixTable<IpcacheKey, IpcacheValue>,
    metrics: PerCpuTable<Metric>,
}

impl Datapath {
    /// Loads a new generation; nothing is attached to it yet.
    pub(crate) fn load(
        pins: Pins,
        constants: Constants,
        mode: TcMode,
        slots: &BTreeMap<Stage, PathBuf>,
    ) -> Result<Self, LoaderError> {
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
            per_generation: &[map::SLOTS, map::CONT],
            generation: &generation,
            programs: &programs,
        };
        let mut loaded = Loaded::load(&spec)?;
        // Both arrays are filled before any link is switched to this generation, and never changed afterwards.
        if !slots.is_empty() {
            for (continuation, program) in CONTINUATIONS {
                loaded.put_own_program(map::CONT, continuation as u32, program)?;
            }
        }
        for (stage, path) in slots {
            let action = || format!("use the pinned program {} for stage {:?}", path.display(), stage.name());
            let failed = |source| LoaderError::Program { action: action(), source };
            let program = SchedClassifier::from_pin(path).map_err(failed)?;
            let descriptor =
                program.fd().and_then(|found| found.try_clone().map_err(Into::into)).map_err(failed)?;
            loaded.put_program(map::SLOTS, *stage as u32, &descriptor)?;
        }
        Ok(Self {
            devices: Table::new(map::DEVICES, loaded.take_map(map::DEVICES)?)?,
            endpoints: Table::new(map::ENDPOINTS, loaded.take_map(map::ENDPOINTS)?)?,
            prefixes: PrefixTable::new(map::IPCACHE, loaded.take_map(map::IPCACHE)?)?,
            metrics: PerCpuTable::new(map::METRICS, loaded.take_map(map::METRICS)?)?,
            pins,
            loaded,
            mode,
            constants,
        })
    }

    /// How programs are attached.
    pub(crate) fn mode(&self) -> TcMode {
        self.mode
    }

    /// Attaches both directions of a host end. A packet passes only once the tables know the device.
    pub(crate) fn attach_endpoint(&mut self, device: &str, ifindex: u32) -> Result<(), LoaderError> {
        self.attach("to_container", device, ifindex, Direction::Egress)?;
        self.attach("from_container", device, ifindex, Direction::Ingress)
    }

    /// Attaches the node's own programs.
    pub(crate) fn attach_node(&mut self, devices: &NodeDevices) -> Result<(), LoaderError> {
        self.attach("from_host", &devices.host.0, devices.host.1, Direction::Egress)?;
        for (name, ifindex) in &devices.uplinks {
            self.attach("from_netdev", name, *ifindex, Direction::Ingress)?;
        }
        Ok(())
    }

    /// Takes both programs off a host end.
    pub(crate) fn detach_endpoint(&self, device: &str, ifindex: u32) -> Result<(), LoaderError> {
        for direction in [Direction::Ingress, Direction::Egress] {
            let place = Attachment { device: device.to_owned(), ifindex, direction };
            link::detach(&place, self.mode, &self.pins.links())?;
        }
        Ok(())
    }

    /// Removes links of devices that are not in `kept`, then generations that no link uses any more.
    pub(crate) fn remove_stale(&self, kept: &BTreeSet<u32>) -> Result<usize, LoaderError> {
        let mut removed = 0;
        for name in self.pins.link_names()? {
            if Attachment::ifindex_of_pin(&name).is_none_or(|ifindex| !kept.contains(&ifindex)) {
                pins::remove_pin(&self.pins.links().join(name))?;
                removed += 1;
            }
        }
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
    ) -> Result<(), LoaderError> {
        let place = Attachment { device: device.to_owned(), ifindex, direction };
        let links = self.pins.links();
        link::attach(self.loaded.program(program)?, &place, self.mode, &links)
    }
}
