//! Loads an object file: constants set, maps shared by pin, programs verified.

use std::path::{Path, PathBuf};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Map, MapData, ProgramArray},
    programs::{ProgramFd, SchedClassifier},
};

use crate::LoaderError;

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
        Ok(Self { ebpf, generation: spec.generation.to_owned() })
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

    /// Puts one of the object's own programs into a program array of the object.
    ///
    /// # Errors
    /// `Missing`, `Program` before it is loaded, `Map` when the kernel refuses.
    pub fn put_own_program(&mut self, array: &str, index: u32, program: &str) -> Result<(), LoaderError> {
        let action = || format!("take program {program:?}");
        let descriptor = classifier(&mut self.ebpf, program)?
            .fd()
            .and_then(|found| found.try_clone().map_err(Into::into))
            .map_err(|source| LoaderError::Program { action: action(), source })?;
        self.put_program(array, index, &descriptor)
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

/// A pin of another shape would be used as it is and misread.
fn check_pin(path: &Path, map: &SharedMap) -> Result<(), LoaderError> {
    if !path.exists() {
        return Ok(());
    }
    let failed = |source| LoaderError::Map { action: format!("inspect pinned map {}", path.display()), source };
    let info = MapData::from_pin(path).map_err(failed)?.info().map_err(failed)?;
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
