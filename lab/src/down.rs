//! Removes a lab, whatever state it is in.

use std::{fs, io, path::Path};

use kinesin_core::causes::with_causes;
use nix::unistd::geteuid;

use crate::{Lab, LabError, cgroup, layout::Layout, lock::Lock, spec::check_name};

impl Lab {
    /// Removes the lab `name`: its processes, and with them its namespaces, devices and mounts; its cgroups; its files.
    /// The answer tells whether there was anything.
    ///
    /// All of it is found by the name alone, so that it does not matter what has crashed before.
    ///
    /// # Errors
    /// [`LabError::Busy`] while another command works on it, [`LabError::Left`] with what could not be removed.
    pub fn down(base: &Path, name: &str) -> Result<bool, LabError> {
        if !geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        check_name(name)?;
        let (layout, cgroup) = (Layout::new(base, name), cgroup::of_lab(name)?);
        let was_there = layout.dir().exists() || cgroup.exists();
        if !base.exists() {
            // Without files there is nothing to lock either.
            cgroup::remove(&cgroup)?;
            return Ok(was_there);
        }
        let lock = Lock::take(&layout, name)?;
        let mut left = Vec::new();
        if let Err(error) = cgroup::remove(&cgroup) {
            left.push(with_causes(&error));
        } else if let Err(error) = remove_files(&layout) {
            left.push(format!("{}: {error}", layout.dir().display()));
        }
        lock.remove();
        // Other labs may be in it; it is removed by the last one.
        let _ = fs::remove_dir(base);
        if left.is_empty() {
            Ok(was_there)
        } else {
            Err(LabError::Left { name: name.to_owned(), left: left.join("; ") })
        }
    }
}

/// Only a directory that looks like a lab's is removed: the base may be any directory that someone named.
fn remove_files(layout: &Layout) -> io::Result<()> {
    let dir = layout.dir();
    if !dir.exists() {
        return Ok(());
    }
    if !layout.state().exists() && fs::read_dir(&dir)?.flatten().any(|entry| !is_ours(&entry.file_name())) {
        return Err(io::Error::other(
            "it has no state.json and other files than a lab's; remove it by hand if it is one",
        ));
    }
    // The state goes last: as long as anything else is there, the directory is known for a lab's.
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        if path == layout.state() {
            continue;
        }
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    fs::remove_dir_all(&dir)
}

fn is_ours(name: &std::ffi::OsStr) -> bool {
    ["logs", "nodes", "plans", "apiserver", "kubeconfig", "state.new"].iter().any(|ours| name == *ours)
}
