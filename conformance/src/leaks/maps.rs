//! The kernel's maps that no request shows, read where they are pinned.

use std::{collections::BTreeSet, path::PathBuf};

use kinesin_abi::{DeviceValue, IpcacheKey, IpcacheValue, LAYOUT, map};
use kinesin_core::causes::with_causes;
use kinesin_loader::{PrefixTable, Table};

use super::{Site, surroundings::PINS};

/// Keys of the device map: indices of host ends. None where the chassis has no such map.
pub(super) fn devices(site: &Site) -> Result<Option<BTreeSet<u32>>, String> {
    let Some(pin) = pin(site, map::DEVICES) else { return Ok(None) };
    let entries = Table::<u32, DeviceValue>::pinned(map::DEVICES, &pin).and_then(|table| table.entries());
    entries.map(|entries| Some(entries.into_keys().collect())).map_err(|error| with_causes(&error))
}

/// Keys of the prefix map, as text.
pub(super) fn prefixes(site: &Site) -> Result<Vec<String>, String> {
    let Some(pin) = pin(site, map::IPCACHE) else { return Ok(Vec::new()) };
    let entries = PrefixTable::<IpcacheKey, IpcacheValue>::pinned(map::IPCACHE, &pin).and_then(|table| table.entries());
    let entries = entries.map_err(|error| with_causes(&error))?;
    Ok(entries.into_iter().map(|((length, key), _)| format!("{:x?}/{length}", key.addr)).collect())
}

fn pin(site: &Site, name: &str) -> Option<PathBuf> {
    let pin = site.path(&format!("{PINS}/v{LAYOUT}/maps/{name}"));
    pin.exists().then_some(pin)
}
