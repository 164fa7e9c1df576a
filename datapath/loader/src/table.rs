//! Tables in the kernel that are brought to a desired content.

use std::{collections::BTreeMap, fmt, path::Path};

use aya::{
    Pod,
    maps::{
        HashMap, Map, MapData, MapError, PerCpuArray,
        lpm_trie::{Key, LpmTrie},
    },
};

use crate::LoaderError;

/// A hash table.
#[derive(Debug)]
pub struct Table<K: Pod, V: Pod> {
    name: &'static str,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod + Ord, V: Pod + PartialEq> Table<K, V> {
    /// A table over a map of this name.
    ///
    /// # Errors
    /// `Map` when the map is no hash table of these types.
    pub fn new(name: &'static str, map: Map) -> Result<Self, LoaderError> {
        let map = HashMap::try_from(map).map_err(|source| failed("use", name, source))?;
        Ok(Self { name, map })
    }

    /// A table over the map that is pinned at `path`, for whoever only looks at it.
    ///
    /// # Errors
    /// `Map` when nothing is pinned there, or no hash table of these types.
    pub fn pinned(name: &'static str, path: &Path) -> Result<Self, LoaderError> {
        Self::new(name, open(name, path)?)
    }

    /// Every entry.
    ///
    /// # Errors
    /// `Map`.
    pub fn entries(&self) -> Result<BTreeMap<K, V>, LoaderError> {
        self.map.iter().collect::<Result<_, _>>().map_err(|source| failed("read", self.name, source))
    }

    /// The entry of a key.
    ///
    /// # Errors
    /// `Map`.
    pub fn get(&self, key: &K) -> Result<Option<V>, LoaderError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(failed("read", self.name, source)),
        }
    }

    /// Adds or replaces an entry; programs see the old one or the new one.
    ///
    /// # Errors
    /// `Map` when the table is full.
    pub fn insert(&mut self, key: K, value: V) -> Result<(), LoaderError> {
        self.map.insert(key, value, 0).map_err(|source| failed("write", self.name, source))
    }

    /// Removes an entry; one that is gone already is fine.
    ///
    /// # Errors
    /// `Map`.
    pub fn remove(&mut self, key: &K) -> Result<(), LoaderError> {
        match self.map.remove(key) {
            Err(error) if !is_missing(&error) => Err(failed("write", self.name, error)),
            _ => Ok(()),
        }
    }

    /// Makes the table hold exactly `desired`; the answer is the number of changes. What is to stay is not touched, what
    /// is new comes before what is old goes.
    ///
    /// # Errors
    /// `Map`.
    pub fn sync(&mut self, desired: &BTreeMap<K, V>) -> Result<usize, LoaderError> {
        let actual = self.entries()?;
        let mut changes = 0;
        for (key, value) in desired {
            if actual.get(key) != Some(value) {
                self.insert(*key, *value)?;
                changes += 1;
            }
        }
        for key in actual.keys().filter(|key| !desired.contains_key(key)) {
            self.remove(key)?;
            changes += 1;
        }
        Ok(changes)
    }
}

/// A table of prefixes. The length of a prefix counts from the first bit of the key's data.
#[derive(Debug)]
pub struct PrefixTable<K: Pod, V: Pod> {
    name: &'static str,
    map: LpmTrie<MapData, K, V>,
}

impl<K: Pod + Ord, V: Pod + PartialEq> PrefixTable<K, V> {
    /// A table over a map of this name.
    ///
    /// # Errors
    /// `Map` when the map is no prefix table of these types.
    pub fn new(name: &'static str, map: Map) -> Result<Self, LoaderError> {
        let map = LpmTrie::try_from(map).map_err(|source| failed("use", name, source))?;
        Ok(Self { name, map })
    }

    /// A table over the map that is pinned at `path`, for whoever only looks at it.
    ///
    /// # Errors
    /// `Map` when nothing is pinned there, or no prefix table of these types.
    pub fn pinned(name: &'static str, path: &Path) -> Result<Self, LoaderError> {
        Self::new(name, open(name, path)?)
    }

    /// Every entry by prefix length and data.
    ///
    /// # Errors
    /// `Map`.
    pub fn entries(&self) -> Result<BTreeMap<(u32, K), V>, LoaderError> {
        let mut all = BTreeMap::new();
        for entry in self.map.iter() {
            let (key, value) = entry.map_err(|source| failed("read", self.name, source))?;
            all.insert((key.prefix_len(), key.data()), value);
        }
        Ok(all)
    }

    /// Makes the table hold exactly `desired`; the answer is the number of changes.
    ///
    /// # Errors
    /// `Map` when the table is full.
    pub fn sync(&mut self, desired: &BTreeMap<(u32, K), V>) -> Result<usize, LoaderError> {
        let actual = self.entries()?;
        self.change(&actual, desired)
    }

    /// Makes the table hold `desired` where that differs from `known`, which it holds already: nothing else is read or
    /// written. The answer is the number of changes.
    ///
    /// # Errors
    /// `Map` when the table is full.
    pub fn change(
        &mut self,
        known: &BTreeMap<(u32, K), V>,
        desired: &BTreeMap<(u32, K), V>,
    ) -> Result<usize, LoaderError> {
        let mut changes = 0;
        for ((length, data), value) in desired {
            if known.get(&(*length, *data)) != Some(value) {
                let key = Key::new(*length, *data);
                self.map.insert(&key, value, 0).map_err(|source| failed("write", self.name, source))?;
                changes += 1;
            }
        }
        for (length, data) in known.keys().filter(|key| !desired.contains_key(key)) {
            match self.map.remove(&Key::new(*length, *data)) {
                Err(error) if !is_missing(&error) => return Err(failed("write", self.name, error)),
                _ => changes += 1,
            }
        }
        Ok(changes)
    }
}

/// An array with one value per CPU and index.
pub struct PerCpuTable<V: Pod> {
    name: &'static str,
    map: PerCpuArray<MapData, V>,
}

impl<V: Pod> fmt::Debug for PerCpuTable<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuTable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<V: Pod> PerCpuTable<V> {
    /// A table over a map of this name.
    ///
    /// # Errors
    /// `Map` when the map is no per-CPU array of this type.
    pub fn new(name: &'static str, map: Map) -> Result<Self, LoaderError> {
        let map = PerCpuArray::try_from(map).map_err(|source| failed("use", name, source))?;
        Ok(Self { name, map })
    }

    /// Number of indices.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.map.len()
    }

    /// Whether it has no index at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of all CPUs at `index`.
    ///
    /// # Errors
    /// `Map` when the index is out of range.
    pub fn get(&self, index: u32) -> Result<Vec<V>, LoaderError> {
        let values = self.map.get(&index, 0).map_err(|source| failed("read", self.name, source))?;
        Ok(values.to_vec())
    }
}

fn open(name: &str, path: &Path) -> Result<Map, LoaderError> {
    let opened = MapData::from_pin(path).and_then(Map::from_map_data);
    opened.map_err(|source| failed("open", name, source))
}

fn failed(action: &str, name: &str, source: MapError) -> LoaderError {
    LoaderError::Map { action: format!("{action} map {name:?}"), source }
}

fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
