//! Loads an object file: constants set, maps shared by pin, programs verified.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Map, MapData, MapInfo, ProgramArray},
    programs::{ProgramFd, SchedClassifier},
};

use crate::{LoaderError, pins};

/// Longer than the kernel takes to empty an array that nobody holds.
const EMPTYING: Duration = Duration::from_millis(20);

/// A map that outlives the object and is shared by pin.
#[derive(Debug, Clone, Copy)]
pub struct SharedMap {
    /// Name in the object file and of the pin.
    pub name: &'static str,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
}

/// What to load, and how.
#[derive(Debug)]
pub struct LoadSpec<'a> {
    /// The object file.
    pub object: &'a [u8],
    /// Load-time constants: symbol and bytes.
    pub constants: &'a [(&'static str, Vec<u8>)],
    /// Maps pinned under `maps`.
    pub shared: &'a [SharedMap],
    /// Directory of the shared maps.
    pub maps: &'a Path,
    /// Maps pinned under `generation`, each new.
    pub per_generation: &'a [&'static str],
    /// Directory of the generation.
    pub generation: &'a Path,
    /// Programs to load.
    pub programs: &'a [&'static str],
}

/// A loaded object.
#[derive(Debug)]
pub struct Loaded {
    ebpf: Ebpf,
    /// Where its own maps are pinned.
    pub generation: PathBuf,
    /// Pins of the shared maps, and their numbers in the kernel.
    shared: Vec<(PathBuf, u32)>,
    /// Pins of its own arrays.
    own: Vec<PathBuf>,
}

impl Loaded {
    /// Loads the object and its programs.
    ///
    /// # Errors
    /// `MapMismatch` for a pin of another shape, `Object`, `Missing`, and `Program` with the end of the verifier's log.
    pub fn load(spec: &LoadSpec<'_>) -> Result<Self, LoaderError> {
        for map in spec.shared {
            check_pin(&spec.maps.join(map.name), map)?;
        }
        let mut loader = EbpfLoader::new();
        // No program reads a structure of the kernel's, so nothing is relocated.
        loader.btf(None);
        // A log of every program costs time at each start; the kernel still gives one for what it refuses.
        loader.verifier_log_level(VerifierLogLevel::STATS);
        for (symbol, bytes) in spec.constants {
            loader.override_global(symbol, bytes.as_slice(), true);
        }
        for map in spec.shared {
            loader.map_pin_path(map.name, spec.maps.join(map.name));
        }
        for name in spec.per_generation {
            loader.map_pin_path(name, spec.generation.join(name));
        }
        let mut ebpf = loader.load(spec.object).map_err(LoaderError::Object)?;
        for name in spec.programs {
            let program = classifier(&mut ebpf, name)?;
            let action = || format!("load program {name:?}");
            program.load().map_err(|source| LoaderError::Program { action: action(), source })?;
        }
        let shared = spec.shared.iter().map(|map| {
            let pin = spec.maps.join(map.name);
            pinned(&pin).map(|found| (pin, found.id()))
        });
        Ok(Self {
            ebpf,
            generation: spec.generation.to_owned(),
            shared: shared.collect::<Result<_, _>>()?,
            own: spec.per_generation.iter().map(|name| spec.generation.join(name)).collect(),
        })
    }

    /// Whether every array of this generation is still pinned. One that lost its pin keeps its entries only as long as
    /// this process lives, so it takes a new generation.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.generation.is_dir() && self.own.iter().all(|pin| pin.exists())
    }

    /// Pins the shared maps again where somebody has removed a pin or put another map there, so that the next generation
    /// shares them too; the answer is the number of changes.
    ///
    /// # Errors
    /// `Map` when a map cannot be had, `Pin` when it cannot be pinned.
    pub fn restore_pins(&self) -> Result<usize, LoaderError> {
        let mut restored = 0;
        for (pin, id) in &self.shared {
            // What is there and is no map is none of ours either.
            if pin.exists() && pinned(pin).is_ok_and(|found| found.id() == *id) {
                continue;
            }
            let failed = |source| LoaderError::Pin { action: "restore pin", path: pin.clone(), source };
            pins::remove_pin(pin)?;
            pin.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
            let map = MapData::from_id(*id);
            let map = map.map_err(|source| LoaderError::Map { action: format!("find map {id}"), source })?;
            map.pin(pin).map_err(|error| failed(io::Error::other(error)))?;
            restored += 1;
        }
        Ok(restored)
    }

    /// A loaded tc program.
    ///
    /// # Errors
    /// `Missing`.
    pub fn program(&mut self, name: &str) -> Result<&mut SchedClassifier, LoaderError> {
        classifier(&mut self.ebpf, name)
    }

    /// Takes a map out of the object.
    ///
    /// # Errors
    /// `Missing`.
    pub fn take_map(&mut self, name: &str) -> Result<Map, LoaderError> {
        self.ebpf.take_map(name).ok_or_else(|| LoaderError::Missing { kind: "map", name: name.to_owned() })
    }

    /// Fills the program array called `array` that a program of somebody else's uses, and pins it at `pin`.
    ///
    /// Without the pin the array would lose its entries when whoever loaded that program closes it. A program that uses no
    /// such array is left as it is.
    ///
    /// # Errors
    /// `Missing`, `Program` when the other program cannot be inspected, `Map` when the kernel refuses, `Pin`.
    pub fn fill_array_of(
        &mut self,
        other: &SchedClassifier,
        array: &str,
        entries: &[(u32, &str)],
        pin: &Path,
    ) -> Result<(), LoaderError> {
        let failed = |source| LoaderError::Map { action: format!("fill program array {array:?}"), source };
        let inspected = |source| LoaderError::Program { action: "inspect a slot program".to_owned(), source };
        let ids = other.info().and_then(|info| info.map_ids()).map_err(inspected)?.unwrap_or_default();
        for id in ids {
            // One descriptor for all of it: when the last one of an array is closed, the kernel empties the array, and it
            // does so a moment later (`prog_array_map_clear`, 6.18).
            let data = MapData::from_id(id).map_err(failed)?;
            if data.info().map_err(failed)?.name_as_str() != Some(array) {
                continue;
            }
            let map = Map::from_map_data(data).map_err(failed)?;
            let mut map = ProgramArray::try_from(map).map_err(failed)?;
            // Twice, in case whoever loaded the program has closed its own descriptor just now.
            for pause in [EMPTYING, Duration::ZERO] {
                for (index, program) in entries {
                    let descriptor = self.program(program)?.fd().map_err(inspected)?;
                    map.set(*index, descriptor, 0).map_err(failed)?;
                }
                thread::sleep(pause);
            }
            map.pin(pin).map_err(|error| LoaderError::Pin {
                action: "pin program array",
                path: pin.to_owned(),
                source: io::Error::other(error),
            })?;
            self.own.push(pin.to_owned());
            return Ok(());
        }
        Ok(())
    }

    /// Puts a program into a program array of the object.
    ///
    /// # Errors
    /// `Missing`; `Map` with `EINVAL` when the program's type, attach type or licence differs from the array's first user.
    pub fn put_program(&mut self, array: &str, index: u32, program: &ProgramFd) -> Result<(), LoaderError> {
        let missing = || LoaderError::Missing { kind: "map", name: array.to_owned() };
        let map = self.ebpf.map_mut(array).ok_or_else(missing)?;
        let failed = |source| LoaderError::Map { action: format!("put a program into {array:?} at {index}"), source };
        let mut array_map = ProgramArray::try_from(map).map_err(failed)?;
        array_map.set(index, program, 0).map_err(failed)
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, LoaderError> {
    let missing = || LoaderError::Missing { kind: "program", name: name.to_owned() };
    let program = ebpf.program_mut(name).ok_or_else(missing)?;
    program.try_into().map_err(|source| LoaderError::Program { action: format!("use program {name:?} at tc"), source })
}

/// What is pinned here.
fn pinned(path: &Path) -> Result<MapInfo, LoaderError> {
    let failed = |source| LoaderError::Map { action: format!("inspect pinned map {}", path.display()), source };
    MapData::from_pin(path).and_then(|map| map.info()).map_err(failed)
}

/// A pin of another shape would be used as it is and misread.
fn check_pin(path: &Path, map: &SharedMap) -> Result<(), LoaderError> {
    if !path.exists() {
        return Ok(());
    }
    let info = pinned(path)?;
    if info.key_size() == map.key_size && info.value_size() == map.value_size {
        return Ok(());
    }
    Err(LoaderError::MapMismatch {
        path: path.to_owned(),
        key_size: info.key_size(),
        value_size: info.value_size(),
        expected_key: map.key_size,
        expected_value: map.value_size,
    })
}
