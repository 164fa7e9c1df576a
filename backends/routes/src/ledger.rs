//! The list of routes that one backend made, kept in a file so that a later run knows them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

/// What the files' names end in.
const SUFFIX: &str = "-routes";

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

/// The file; lines read like `ip route` prints the routes.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// A backend's list in a state directory.
    pub(crate) fn new(state_dir: &Path, backend: &str) -> Self {
        Self { path: state_dir.join(format!("{backend}{SUFFIX}")) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the list; a missing file is an empty one, and lines that make no sense are left out with a warning.
    pub(crate) fn read(&self) -> io::Result<Entries> {
        read(&self.path)
    }

    /// Reads the lists of the other backends on this node.
    pub(crate) fn read_others(&self) -> io::Result<Vec<Entries>> {
        let files = match self.path.parent().map(fs::read_dir) {
            Some(Ok(files)) => files,
            None => return Ok(Vec::new()),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Some(Err(error)) => return Err(error),
        };
        let mut others = Vec::new();
        for file in files {
            let path = file?.path();
            if path != self.path && path.to_string_lossy().ends_with(SUFFIX) {
                others.push(read(&path)?);
            }
        }
        Ok(others)
    }

    /// Replaces the list in one step. It is not synced to the disk: a crash of the machine takes the routes with it.
    pub(crate) fn write(&self, entries: &Entries) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut text = String::new();
        for (dst, Entry { via, device, src, mtu_bytes }) in entries {
            let via = via.map(|hop| format!(" via {hop}")).unwrap_or_default();
            let src = src.map(|source| format!(" src {source}")).unwrap_or_default();
            let mtu = mtu_bytes.map(|bytes| format!(" mtu {bytes}")).unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{dst}{via} dev {device}{src}{mtu}");
        }
        let draft = self.path.with_extension("new");
        fs::write(&draft, text)?;
        fs::rename(&draft, &self.path)
    }

    /// Removes the list; a missing file is fine.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> io::Result<Entries> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entries::new()),
        Err(error) => return Err(error),
    };
    let mut entries = Entries::new();
    for line in String::from_utf8_lossy(&bytes).lines() {
        match parse_line(line) {
            Some((dst, entry)) => {
                entries.insert(dst, entry);
            }
            None => tracing::warn!(path = %path.display(), line, "unreadable line in the list of own routes"),
        }
    }
    Ok(entries)
}

fn parse_line(line: &str) -> Option<(IpNet, Entry)> {
    let mut words = line.split_whitespace();
    let dst = words.next()?.parse().ok()?;
    let (mut via, mut device, mut src, mut mtu_bytes) = (None, None, None, None);
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word {
            "via" => via = Some(value.parse().ok()?),
            "dev" => device = Some(value.to_owned()),
            "src" => src = Some(value.parse().ok()?),
            "mtu" => mtu_bytes = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some((dst, Entry { via, device: device?, src, mtu_bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_costs_only_its_line() {
        let directory = tempfile::tempdir().expect("directory");
        let state = directory.path().join("state");
        let ledger = Ledger::new(&state, "native");
        assert!(ledger.read().expect("missing is empty").is_empty());
        assert!(ledger.read_others().expect("missing is empty").is_empty());
        let line = |text: &str| parse_line(text).expect("a line");
        let lines = [
            "10.244.1.0/24 via 10.0.0.11 dev eth0",
            "10.244.2.0/24 via 10.244.0.5 dev cilium_host src 10.244.0.5 mtu 1450",
            "fd00::/64 via fd01::11 dev eth0",
            "fd00:1::/64 dev cilium_host src fd00:2::5 mtu 1430",
        ];
        let entries = Entries::from(lines.map(line));
        ledger.write(&entries).expect("written");
        assert_eq!(ledger.read().expect("there"), entries);
        assert_eq!(fs::read_to_string(ledger.path()).expect("there").lines().collect::<Vec<_>>(), lines);

        let mut bytes = fs::read(ledger.path()).expect("there");
        bytes.extend_from_slice(
            b"\xff\xfe nonsense\n10.0.0.0/8 via dev eth0\n10.0.0.0/8 via 10.0.0.1 dev eth0 more\n10.0.0.0/8 via 10.0.0.1\n",
        );
        fs::write(ledger.path(), bytes).expect("written");
        assert_eq!(ledger.read().expect("there"), entries);
        assert!(ledger.read_others().expect("there").is_empty(), "its own list is not another's");
        assert_eq!(Ledger::new(&state, "vxlan").read_others().expect("there"), [entries]);
        ledger.remove().expect("removed");
        ledger.remove().expect("again");
    }
}
