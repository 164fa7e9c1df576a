//! The list of routes that this backend made, kept in a file so that a later run knows them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

/// Where a listed route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Next hop.
    pub(crate) via: IpAddr,
    /// Name of the device; an index could be another device's by now.
    pub(crate) device: String,
}

/// The listed routes by destination.
pub(crate) type Entries = BTreeMap<IpNet, Entry>;

/// The file; lines read like `ip route` prints the routes.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// The list in a state directory.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("native-routes") }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the list; a missing file is an empty one, and lines that make no sense are left out with a warning.
    pub(crate) fn read(&self) -> io::Result<Entries> {
        let bytes = match fs::read(&self.path) {
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
                None => tracing::warn!(path = %self.path.display(), line, "unreadable line in the list of own routes"),
            }
        }
        Ok(entries)
    }

    /// Replaces the list in one step. It is not synced to the disk: a crash of the machine takes the routes with it.
    pub(crate) fn write(&self, entries: &Entries) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut text = String::new();
        for (dst, Entry { via, device }) in entries {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{dst} via {via} dev {device}");
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

fn parse_line(line: &str) -> Option<(IpNet, Entry)> {
    let mut words = line.split_whitespace();
    let dst = words.next()?.parse().ok()?;
    let via = words.next().filter(|word| *word == "via").and_then(|_| words.next())?.parse().ok()?;
    let device = words.next().filter(|word| *word == "dev").and_then(|_| words.next())?.to_owned();
    words.next().is_none().then_some((dst, Entry { via, device }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_costs_only_its_line() {
        let directory = tempfile::tempdir().expect("directory");
        let ledger = Ledger::new(&directory.path().join("state"));
        assert!(ledger.read().expect("missing is empty").is_empty());
        let entry = |via: &str| Entry { via: via.parse().expect("an address"), device: "eth0".to_owned() };
        let entries = Entries::from([
            ("10.244.1.0/24".parse().expect("a network"), entry("10.0.0.11")),
            ("fd00::/64".parse().expect("a network"), entry("fd01::11")),
        ]);
        ledger.write(&entries).expect("written");
        assert_eq!(ledger.read().expect("there"), entries);

        let mut bytes = fs::read(ledger.path()).expect("there");
        bytes.extend_from_slice(b"\xff\xfe nonsense\n10.0.0.0/8 via dev eth0\n10.0.0.0/8 via 10.0.0.1 dev eth0 more\n");
        fs::write(ledger.path(), bytes).expect("written");
        assert_eq!(ledger.read().expect("there"), entries);
        ledger.remove().expect("removed");
        ledger.remove().expect("again");
    }
}
