//! One generation of programs with its tables and slots. Where its programs run is in `attach.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use aya::programs::{ProgramError, SchedClassifier};
use kinesin_abi::{
    Bucket, Constants, Continuation, DeviceValue, EndpointKey, EndpointValue, IpcacheKey, IpcacheValue, Metric,
    PacketState, PathMtuValue, Stage, map,
};
use kinesin_loader::{
    Attachment, EventRing, LoadSpec, Loaded, LoaderError, PerCpuTable, Pins, PrefixTable, SharedMap, Table,
};

use crate::{OBJECT, constants, kernel, modes::Modes, prefixes::Prefixes};

/// Programs that attach to devices.
pub(crate) const ENTRIES: [&str; 6] =
    ["from_container", "to_container", "from_netdev", "from_l3_netdev", "from_host", "from_overlay"];
/// Programs that slot programs tail-call, by continuation.
pub(crate) const CONTINUATIONS: [(u32, &str); 3] = [
    (Continuation::Next as u32, "cont_next"),
    (Continuation::Deliver as u32, "cont_deliver"),
    (Continuation::Drop as u32, "cont_drop"),
];

/// Maps that every generation shares.
const SHARED: [SharedMap; 8] = [
    shared::<u32, DeviceValue>(map::DEVICES),
    shared::<EndpointKey, EndpointValue>(map::ENDPOINTS),
    // A prefix key starts with the number of bits that count.
    SharedMap {
        name: map::IPCACHE,
        key_size: (size_of::<u32>() + size_of::<IpcacheKey>()) as u32,
        value_size: size_of::<IpcacheValue>() as u32,
    },
    shared::<EndpointKey, PathMtuValue>(map::PATH_MTU),
    shared::<u32, Metric>(map::METRICS),
    SharedMap { name: map::EVENTS, key_size: 0, value_size: 0 },
    shared::<u32, PacketState>(map::STATE),
    shared::<u32, Bucket>(map::BUCKET),
];

const fn shared<K, V>(name: &'static str) -> SharedMap {
    // Lossless: keys and values have tens of bytes.
    SharedMap { name, key_size: size_of::<K>() as u32, value_size: size_of::<V>() as u32 }
}

/// A loaded generation.
#[derive(Debug)]
pub(crate) struct Datapath {
    pub(crate) pins: Pins,
    pub(crate) loaded: Loaded,
    pub(crate) modes: Modes,
    /// What it was loaded with.
    pub(crate) constants: Constants,
    /// Endpoints by host end.
    pub(crate) devices: Table<u32, DeviceValue>,
    /// Where addresses of this node live.
    pub(crate) endpoints: Table<EndpointKey, EndpointValue>,
    /// What is known of prefixes.
    pub(crate) prefixes: Prefixes,
    /// What routers said of ways to nodes.
    pub(crate) told: Table<EndpointKey, PathMtuValue>,
    metrics: PerCpuTable<Metric>,
    /// Programs in the slots, by their number in the kernel.
    slots: BTreeMap<Stage, u32>,
    /// Where this generation's programs are attached.
    pub(crate) attached: BTreeSet<Attachment>,
    /// Whether what an earlier generation attached may still be there.
    pub(crate) takes_over: bool,
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
            prefixes: Prefixes::new(PrefixTable::new(map::IPCACHE, loaded.take_map(map::IPCACHE)?)?),
            told: Table::new(map::PATH_MTU, loaded.take_map(map::PATH_MTU)?)?,
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
        if self.constants != constants || !self.loaded.is_pinned() {
            return Ok(false);
        }
        for (stage, path) in slots {
            if self.slots.get(stage) != Some(&slot_program(*stage, path)?.1) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Pins the tables again where somebody removed a pin; the answer is the number of changes.
    pub(crate) fn restore_pins(&self) -> Result<usize, LoaderError> {
        self.loaded.restore_pins()
    }

    /// Opens the events of all generations for reading.
    pub(crate) fn events(&self) -> Result<EventRing, LoaderError> {
        EventRing::open(&self.pins.maps().join(map::EVENTS))
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
