//! The list of routes that one backend made, kept in a file so that a later run knows them.
//!
//! A change is a line at the end; when too many of them are out of date the file is written anew. Whether somebody else has
//! changed a file is told by its number, size and time, so that it is not read again as long as it is the same.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

/// What the files' names end in.
const SUFFIX: &str = "-routes";
/// In the place of where a route leads: it is not ours any more.
const GONE: &str = "gone";
/// Lines that a file may have beyond two for each route.
const SLACK: usize = 64;

/// Where a listed route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Next hop.
    pub(crate) via: Option<IpAddr>,
    /// Name of the device; an index could be another device's by now.
    pub(crate) device: String,
    /// Preferred source address.
    pub(crate) src: Option<IpAddr>,
    /// The route's own MTU in bytes.
    pub(crate) mtu_bytes: Option<u32>,
}

/// The listed routes by destination.
pub(crate) type Entries = BTreeMap<IpNet, Entry>;

/// What tells one content of a file from another: number, size, time in seconds and nanoseconds. None: there is no file.
type Stamp = Option<(u64, u64, i64, i64)>;

/// A file as it was read or written last.
#[derive(Debug, Default)]
struct Known {
    stamp: Stamp,
    lines: usize,
    entries: Entries,
}

/// The file, in which lines read like `ip route` prints the routes, and those of the node's other backends.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    own: Option<Known>,
    others: BTreeMap<PathBuf, Known>,
}

impl Ledger {
    /// A backend's list in a state directory.
    pub(crate) fn new(state_dir: &Path, backend: &str) -> Self {
        Self { path: state_dir.join(format!("{backend}{SUFFIX}")), own: None, others: BTreeMap::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what has changed; says whether anything has. A missing file is an empty list, and lines that make no sense are
    /// left out with a warning.
    pub(crate) fn refresh(&mut self) -> io::Result<bool> {
        let mut changed = refresh(&self.path, self.own.get_or_insert_default())?;
        let files = match self.path.parent().map(fs::read_dir) {
            Some(Ok(files)) => Some(files),
            None => None,
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Some(Err(error)) => return Err(error),
        };
        let mut there = Vec::new();
        for file in files.into_iter().flatten() {
            let path = file?.path();
            if path != self.path && path.to_string_lossy().ends_with(SUFFIX) {
                there.push(path);
            }
        }
        let before = self.others.len();
        self.others.retain(|path, _| there.contains(path));
        changed |= self.others.len() != before;
        for path in there {
            changed |= refresh(&path, self.others.entry(path.clone()).or_default())?;
        }
        Ok(changed)
    }

    /// The list.
    pub(crate) fn entries(&self) -> &Entries {
        static NONE: Entries = Entries::new();
        self.own.as_ref().map_or(&NONE, |own| &own.entries)
    }

    /// What the other backends of this node have listed for a destination.
    pub(crate) fn of_others(&self, dst: IpNet) -> impl Iterator<Item = &Entry> {
        self.others.values().filter_map(move |known| known.entries.get(&dst))
    }

    /// Notes where routes lead, or that they are gone; in the file before this returns. It is not synced to the disk: a
    /// crash of the machine takes the routes with it.
    pub(crate) fn note(&mut self, changes: Vec<(IpNet, Option<Entry>)>) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let own = self.own.get_or_insert_default();
        let (count, mut text) = (changes.len(), String::new());
        for (dst, entry) in changes {
            write_line(&mut text, dst, entry.as_ref());
            match entry {
                Some(entry) => drop(own.entries.insert(dst, entry)),
                None => drop(own.entries.remove(&dst)),
            }
        }
        let appended = own.stamp.is_some()
            && own.lines + count <= own.entries.len() * 2 + SLACK
            && append(&self.path, text.as_bytes())?;
        own.lines = if appended { own.lines + count } else { rewrite(&self.path, &own.entries)? };
        own.stamp = stamp(&self.path)?;
        Ok(())
    }

    /// Removes the list; a missing file is fine.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        self.own = None;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Writes all of it beside the place, and puts it there in one step. The answer is the number of lines.
fn rewrite(path: &Path, entries: &Entries) -> io::Result<usize> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut text = String::new();
    for (dst, entry) in entries {
        write_line(&mut text, *dst, Some(entry));
    }
    let draft = path.with_extension("new");
    fs::write(&draft, text)?;
    fs::rename(&draft, path)?;
    Ok(entries.len())
}

/// Says whether the file was there.
fn append(path: &Path, text: &[u8]) -> io::Result<bool> {
    match OpenOptions::new().append(true).open(path) {
        Ok(mut file) => file.write_all(text).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn write_line(text: &mut String, dst: IpNet, entry: Option<&Entry>) {
    // Writing to a String cannot fail.
    let _ = match entry {
        None => writeln!(text, "{dst} {GONE}"),
        Some(Entry { via, device, src, mtu_bytes }) => {
            let via = via.map(|hop| format!(" via {hop}")).unwrap_or_default();
            let src = src.map(|source| format!(" src {source}")).unwrap_or_default();
            let mtu = mtu_bytes.map(|bytes| format!(" mtu {bytes}")).unwrap_or_default();
            writeln!(text, "{dst}{via} dev {device}{src}{mtu}")
        }
    };
}

/// Reads a file unless it is as it was; says whether it was not.
fn refresh(path: &Path, known: &mut Known) -> io::Result<bool> {
    let stamp = stamp(path)?;
    if known.stamp == stamp {
        return Ok(false);
    }
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    *known = Known { stamp, ..Known::default() };
    for line in String::from_utf8_lossy(&bytes).lines() {
        known.lines += 1;
        match parse_line(line) {
            Some((dst, Some(entry))) => drop(known.entries.insert(dst, entry)),
            Some((dst, None)) => drop(known.entries.remove(&dst)),
            None => tracing::warn!(path = %path.display(), line, "unreadable line in the list of own routes"),
        }
    }
    Ok(true)
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// None in the place of an entry: it is gone.
fn parse_line(line: &str) -> Option<(IpNet, Option<Entry>)> {
    let mut words = line.split_whitespace();
    let dst = words.next()?.parse().ok()?;
    let (mut via, mut device, mut src, mut mtu_bytes) = (None, None, None, None);
    while let Some(word) = words.next() {
        if word == GONE && device.is_none() && words.next().is_none() {
            return Some((dst, None));
        }
        let value = words.next()?;
        match word {
            "via" => via = Some(value.parse().ok()?),
            "dev" => device = Some(value.to_owned()),
            "src" => src = Some(value.parse().ok()?),
            "mtu" => mtu_bytes = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some((dst, Some(Entry { via, device: device?, src, mtu_bytes })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> (IpNet, Option<Entry>) {
        parse_line(text).expect("a line")
    }

    fn lines(ledger: &Ledger) -> Vec<String> {
        fs::read_to_string(ledger.path()).expect("there").lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_written_is_read_and_damage_costs_only_its_line() {
        let directory = tempfile::tempdir().expect("directory");
        let state = directory.path().join("state");
        let mut ledger = Ledger::new(&state, "native");
        assert!(!ledger.refresh().expect("missing is empty"));
        let written = [
            "10.244.1.0/24 via 10.0.0.11 dev eth0",
            "10.244.2.0/24 via 10.244.0.5 dev cilium_host src 10.244.0.5 mtu 1450",
            "fd00::/64 via fd01::11 dev eth0",
            "fd00:1::/64 dev cilium_host src fd00:2::5 mtu 1430",
        ];
        ledger.note(written.map(line).into()).expect("written");
        assert_eq!(lines(&ledger), written);
        assert!(!ledger.refresh().expect("there"), "what it wrote itself is known");
        let read = || {
            let mut later = Ledger::new(&state, "native");
            assert!(later.refresh().expect("there"));
            later
        };
        assert_eq!(read().entries(), ledger.entries());
        assert_eq!(ledger.entries().len(), 4);

        let mut bytes = fs::read(ledger.path()).expect("there");
        bytes.extend_from_slice(
            b"\xff\xfe nonsense\n10.0.0.0/8 via dev eth0\n10.0.0.0/8 via 10.0.0.1 dev eth0 more\n10.0.0.0/8 via 10.0.0.1\n",
        );
        bytes.extend_from_slice(b"10.0.0.0/8 gone away\n10.0.0.0/8 dev eth0 gone\ngone\n");
        fs::write(ledger.path(), bytes).expect("written");
        assert_eq!(read().entries(), ledger.entries());
        assert!(ledger.refresh().expect("there"), "somebody wrote to it");
        assert_eq!(ledger.others.len(), 0, "its own list is not another's");
        let mut other = Ledger::new(&state, "vxlan");
        assert!(other.refresh().expect("there"));
        let dst = "fd00::/64".parse().expect("a network");
        assert_eq!(other.of_others(dst).collect::<Vec<_>>(), [&ledger.entries()[&dst]]);
        ledger.remove().expect("removed");
        ledger.remove().expect("again");
        assert!(other.refresh().expect("there") && other.of_others(dst).next().is_none());
    }

    #[test]
    fn a_change_is_a_line_and_the_file_stays_short() {
        let directory = tempfile::tempdir().expect("directory");
        let mut ledger = Ledger::new(directory.path(), "native");
        let number = |n: usize| line(&format!("10.244.{n}.0/24 via 10.0.0.{n} dev eth0"));
        ledger.note((0..100).map(number).collect()).expect("written");
        ledger.note(vec![line("10.244.7.0/24 gone"), line("10.244.8.0/24 via 10.0.0.9 dev eth0")]).expect("written");
        let found = lines(&ledger);
        assert_eq!((found.len(), found[100].as_str()), (102, "10.244.7.0/24 gone"));
        for round in 0..500 {
            let (dst, entry) = number(round % 100);
            ledger.note(vec![(dst, entry.filter(|_| round % 2 == 0))]).expect("written");
            assert!(lines(&ledger).len() <= ledger.entries().len() * 2 + SLACK);
        }
        let mut later = Ledger::new(directory.path(), "native");
        later.refresh().expect("there");
        assert_eq!(later.entries(), ledger.entries());
        // Whoever removes the file loses nothing of what is known here.
        fs::remove_file(ledger.path()).expect("there");
        ledger.note(vec![number(1)]).expect("written");
        assert_eq!(lines(&ledger).len(), ledger.entries().len());
    }
}
