//! The lab's part of the cgroup2 tree: what a node takes for its root, and how everything of a lab is found again.
//!
//! Every process of a lab is in `<cgroup2>/kinesin-lab-<name>/<part>`, so killing that subtree ends the lab whatever
//! became of its files. Only directories made here are written to. Kernel: 5.14 (`cgroup.kill`).

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::LabError;

const PREFIX: &str = "kinesin-lab-";
/// How long the kernel may take to end killed processes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where cgroup2 is mounted: beside version 1 or alone.
pub(crate) fn mount_point() -> Result<PathBuf, LabError> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(LabError::io("read /proc/self/mounts"))?;
    find_mount(&mounts).ok_or(LabError::NoCgroup2)
}

fn find_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// The cgroup of a lab.
pub(crate) fn of_lab(name: &str) -> Result<PathBuf, LabError> {
    Ok(mount_point()?.join(format!("{PREFIX}{name}")))
}

/// Names of the labs that have a cgroup.
pub(crate) fn labs() -> Result<Vec<String>, LabError> {
    let root = mount_point()?;
    let entries = fs::read_dir(&root).map_err(LabError::io(format!("list {}", root.display())))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix(PREFIX)?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Moves the calling process into a cgroup.
pub(crate) fn join(cgroup: &Path) -> io::Result<()> {
    fs::create_dir_all(cgroup)?;
    // 0 stands for the writer. Source: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup.procs.
    fs::write(cgroup.join("cgroup.procs"), "0")
}

/// Whether any process is in the cgroup or below it.
pub(crate) fn is_populated(cgroup: &Path) -> bool {
    fs::read_to_string(cgroup.join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

/// Kills every process in the cgroup and below, and removes it; one that is gone already is fine.
pub(crate) fn remove(cgroup: &Path) -> Result<(), LabError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match fs::write(cgroup.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(LabError::io(format!("kill what is in {}", cgroup.display()))(error)),
            Ok(()) => {}
        }
        while is_populated(cgroup) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        // A process may have come in since; the directory is busy then, and killed again.
        match remove_tree(cgroup) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= until => {
                return Err(LabError::io(format!("remove {}", cgroup.display()))(error));
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn remove_tree(cgroup: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(cgroup) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_found_beside_version_1_and_alone() {
        let hybrid = "none /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_mount(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find_mount("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"), Some("/sys/fs/cgroup".into()));
        assert_eq!(find_mount("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\nshort\n"), None);
    }
}
