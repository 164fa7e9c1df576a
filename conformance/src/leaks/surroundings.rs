//! What a node has besides its pods.

use std::collections::{BTreeMap, BTreeSet};

use kinesin_netlink::Route;

use super::{Site, maps};

/// Where pins are, on the node.
pub(super) const PINS: &str = "/sys/fs/bpf/kinesin";

/// Devices, routes, pins, prefixes, processes and the runtime's files of a node, none of them by a number that changes. Pods that run show in
/// it; whoever compares two of these has the same pods both times.
///
/// # Errors
/// Why one of the places cannot be read.
pub fn surroundings(site: &Site) -> Result<BTreeSet<String>, String> {
    let links: BTreeMap<u32, String> = site.links()?.into_iter().map(|link| (link.index, link.name)).collect();
    let name = |index: u32| links.get(&index).cloned().unwrap_or_else(|| format!("device {index} that is not there"));
    let mut all: BTreeSet<String> = links.values().map(|link| format!("device {link}")).collect();
    // The kernel makes those of link-local addresses, some time after a device has come up.
    let made = site.routes()?.into_iter().filter(|route| !route.dst.to_string().starts_with("fe80:"));
    all.extend(made.map(|route| {
        let Route { dst, via, dev, table, metric, .. } = route;
        format!("route to {dst} via {via:?} dev {} table {table} metric {metric}", name(dev))
    }));
    for layout in site.files(PINS) {
        let below = format!("{PINS}/{layout}");
        // Generations have numbers that grow; there may be only one at a time.
        let kinds = site.files(&below).into_iter().map(|name| name.split('-').next().unwrap_or_default().to_owned());
        let kinds: Vec<_> = kinds.collect();
        all.insert(format!("pins in {kinds:?}"));
        all.extend(site.files(&format!("{below}/maps")).into_iter().map(|map| format!("map {map}")));
        all.extend(site.files(&format!("{below}/links")).into_iter().map(|pin| {
            let parts: Vec<_> = pin.rsplitn(3, '-').collect();
            let device = parts.get(1).and_then(|index| index.parse().ok()).map_or_else(|| pin.clone(), name);
            format!("link of {device}: {} {}", parts.last().unwrap_or(&""), parts[0])
        }));
    }
    all.extend(maps::prefixes(site)?.into_iter().map(|prefix| format!("prefix {prefix}")));
    for directory in &site.runtime_dirs {
        all.insert(format!("{} entries in {directory}", site.files(directory).len()));
    }
    let mut processes: BTreeMap<String, usize> = BTreeMap::new();
    for process in site.processes() {
        *processes.entry(process).or_default() += 1;
    }
    all.extend(processes.into_iter().map(|(process, count)| format!("process {process} x {count}")));
    Ok(all)
}

/// Pinned links that belong to no device that exists. There are none right after an agent's start, which removes them.
///
/// # Errors
/// Why the devices cannot be listed.
pub fn stale_pins(site: &Site) -> Result<Vec<String>, String> {
    let existing: BTreeSet<u32> = site.links()?.into_iter().map(|link| link.index).collect();
    let is_stale = |pin: &String| {
        let index = pin.rsplit('-').nth(1).and_then(|index| index.parse().ok());
        !index.is_some_and(|index| existing.contains(&index))
    };
    let of = |layout: String| site.files(&format!("{PINS}/{layout}/links"));
    Ok(site.files(PINS).into_iter().flat_map(of).filter(is_stale).collect())
}
