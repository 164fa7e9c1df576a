//! The pin directory: `<bpffs>/kinesin/v<layout>/{maps,links,gen-<n>}`.
//!
//! What is pinned outlives the agent, so that traffic flows while it is away. The layout is part of the path: an agent
//! that finds another layout says so and touches nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::statfs::{FsType, statfs};

use crate::{LoaderError, sys};

/// `BPF_FS_MAGIC`, Linux `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11_u32 as _);
/// Directory below the bpffs that holds every layout.
const OWN_DIRECTORY: &str = "kinesin";
const GENERATION_PREFIX: &str = "gen-";

/// The pin directory of one layout.
#[derive(Debug, Clone)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Opens the directory of `layout` below `bpffs`, and makes it where it is missing.
    ///
    /// # Errors
    /// `NotBpffs`, `OtherLayout`, or `Pin` when a directory cannot be made.
    pub fn open(bpffs: &Path, layout: u32) -> Result<Self, LoaderError> {
        let is_bpffs = statfs(bpffs).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
        if !is_bpffs {
            return Err(LoaderError::NotBpffs { path: bpffs.to_owned() });
        }
        let all = bpffs.join(OWN_DIRECTORY);
        let own = format!("v{layout}");
        for found in names_in(&all)? {
            if found != own && found.starts_with('v') {
                return Err(LoaderError::OtherLayout { path: all, found, own });
            }
        }
        let pins = Self { root: all.join(own) };
        for directory in [pins.maps(), pins.links()] {
            make_directory(&directory)?;
        }
        Ok(pins)
    }

    /// The directory of this layout.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of maps that every generation shares.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// The directory of links.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Makes the directory of a new generation.
    ///
    /// # Errors
    /// `Pin`.
    pub fn new_generation(&self) -> Result<PathBuf, LoaderError> {
        let last = self.generations()?.into_iter().map(|(number, _)| number).max().unwrap_or(0);
        let path = self.root.join(format!("{GENERATION_PREFIX}{}", last + 1));
        make_directory(&path)?;
        Ok(path)
    }

    /// Removes every generation but `kept`; called after the last link has left them.
    ///
    /// An array that nobody pins loses its entries at once, so this waits for packets that are still on their way
    /// through the old programs.
    ///
    /// # Errors
    /// `Pin` for the first one that cannot be removed.
    pub fn remove_generations_except(&self, kept: &Path) -> Result<(), LoaderError> {
        let old: Vec<_> = self.generations()?.into_iter().filter(|(_, path)| path != kept).collect();
        if old.is_empty() {
            return Ok(());
        }
        if let Err(error) = sys::wait_for_programs() {
            // A kernel with nohz_full CPUs refuses; no program runs for nearly as long.
            tracing::debug!(%error, "no grace period to be had, waiting a fixed time");
            thread::sleep(Duration::from_millis(50));
        }
        old.iter().try_for_each(|(_, path)| remove_tree(path))
    }

    /// Names of the link pins.
    ///
    /// # Errors
    /// `Pin`.
    pub fn link_names(&self) -> Result<Vec<String>, LoaderError> {
        names_in(&self.links())
    }

    /// Removes everything of this layout; what is not there is fine.
    ///
    /// # Errors
    /// `Pin` for the first thing that cannot be removed.
    pub fn remove_all(&self) -> Result<(), LoaderError> {
        remove_tree(&self.root)?;
        if let Some(all) = self.root.parent() {
            // Other layouts may be beside ours; then it stays.
            let _ = fs::remove_dir(all);
        }
        Ok(())
    }

    fn generations(&self) -> Result<Vec<(u64, PathBuf)>, LoaderError> {
        let names = names_in(&self.root)?;
        let number = |name: &str| name.strip_prefix(GENERATION_PREFIX)?.parse::<u64>().ok();
        Ok(names.iter().filter_map(|name| Some((number(name)?, self.root.join(name)))).collect())
    }
}

/// Removes a pin; one that is gone already is fine.
///
/// # Errors
/// `Pin`.
pub fn remove_pin(path: &Path) -> Result<(), LoaderError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LoaderError::Pin { action: "remove pin", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn make_directory(path: &Path) -> Result<(), LoaderError> {
    fs::create_dir_all(path).map_err(|source| LoaderError::Pin {
        action: "make directory",
        path: path.to_owned(),
        source,
    })
}

fn names_in(directory: &Path) -> Result<Vec<String>, LoaderError> {
    let failed = |source| LoaderError::Pin { action: "list", path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Removes a directory of pins. `remove_dir_all` is not used: it opens files, which pins do not allow.
fn remove_tree(directory: &Path) -> Result<(), LoaderError> {
    for name in names_in(directory)? {
        let path = directory.join(name);
        if path.is_dir() {
            remove_tree(&path)?;
        } else {
            remove_pin(&path)?;
        }
    }
    match fs::remove_dir(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LoaderError::Pin { action: "remove directory", path: directory.to_owned(), source })
        }
        _ => Ok(()),
    }
}
