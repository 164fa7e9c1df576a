//! The file system of a container: the machine's own, with a writable layer that goes with the container.

use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::unistd::{chdir, pivot_root};

use super::{Bind, RunSpec};

const NONE: Option<&str> = None;
/// Where the node's file system is until every volume is in place.
fn old_root() -> String {
    // A root that several containers share must not confuse them.
    format!(".lab-node-{}", std::process::id())
}

/// Builds the file system and moves into it. The caller has a mount namespace of its own.
pub(super) fn enter(spec: &RunSpec) -> Result<(), String> {
    // What the node mounts later still arrives; nothing of the container gets out.
    at("/", mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE))?;
    let submounts = top_level_mounts();
    let scratch = &spec.scratch;
    // The layers are in memory: an upper layer on the file system of the lower one is refused (ELOOP).
    at(scratch, mount(Some("tmpfs"), scratch, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")))?;
    for dir in ["upper", "work", "root"] {
        made(&scratch.join(dir))?;
    }
    let root = scratch.join("root");
    add_layer(scratch, &root)?;
    for name in submounts {
        let (source, target) = (Path::new("/").join(&name), root.join(&name));
        at(&source, mount(Some(&source), &target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE))?;
    }
    at("/dev", mount(Some("/dev"), &root.join("dev"), NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE))?;
    for (dir, mode) in [("tmp", "mode=1777"), ("run", "mode=0755")] {
        let target = root.join(dir);
        at(&target, mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(mode)))?;
    }
    let old = root.join(old_root());
    made(&old)?;
    at(&root, pivot_root(&root, &old))?;
    at("/", chdir("/"))?;
    mount_kernel(spec)?;
    // Parents first, so that a volume may lie inside another.
    let mut binds: Vec<&Bind> = spec.binds.iter().collect();
    binds.sort_by_key(|bind| bind.target.components().count());
    for bind in binds {
        bind_volume(bind)?;
    }
    let old = Path::new("/").join(old_root());
    at(&old, umount2(&old, MntFlags::MNT_DETACH))?;
    fs::remove_dir(&old).map_err(|error| format!("remove {old:?}: {error}"))?;
    for (link, to) in &spec.links {
        // The machine may have a program of that name; the image's own counts.
        let _ = fs::remove_file(link);
        std::os::unix::fs::symlink(to, link).map_err(|error| format!("link {link:?}: {error}"))?;
    }
    Ok(())
}

/// Mounts the machine's files with a layer for what the container writes.
fn add_layer(scratch: &Path, root: &Path) -> Result<(), String> {
    let layers = format!("lowerdir=/,upperdir={0}/upper,workdir={0}/work", scratch.display());
    match mount(Some("overlay"), root, Some("overlay"), MsFlags::empty(), Some(layers.as_str())) {
        // Overlays stack twice at most. Where the node's root is the second, it is in memory already, and the containers
        // of the node share what they write.
        Err(Errno::EINVAL) if is_overlay("/") => at(root, mount(Some("/"), root, NONE, MsFlags::MS_BIND, NONE)),
        outcome => at(root, outcome),
    }
}

fn is_overlay(path: &str) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}

/// `/proc` and `/sys` show the container's own namespaces.
fn mount_kernel(spec: &RunSpec) -> Result<(), String> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let keep = |name: &str| {
        let source = Path::new("/").join(old_root()).join(name);
        at(&source, mount(Some(&source), &Path::new("/").join(name), NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE))
    };
    if spec.host_pid {
        keep("proc")?;
    } else {
        at("/proc", mount(Some("proc"), "/proc", Some("proc"), flags, NONE))?;
        // Sysctls outside net are the machine's; those of net are the namespace's own.
        for place in ["/proc/sys", "/proc/sys/net"] {
            at(place, mount(Some(place), place, NONE, MsFlags::MS_BIND, NONE))?;
        }
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags;
        at("/proc/sys", mount(NONE, "/proc/sys", NONE, read_only, NONE))?;
    }
    if spec.netns.is_none() {
        return keep("sys");
    }
    at("/sys", mount(Some("sysfs"), "/sys", Some("sysfs"), flags | MsFlags::MS_RDONLY, NONE))
}

fn bind_volume(bind: &Bind) -> Result<(), String> {
    let source = Path::new("/").join(old_root()).join(bind.source.strip_prefix("/").unwrap_or(&bind.source));
    let is_sane = bind.target.is_absolute() && !bind.target.components().any(|c| c == Component::ParentDir);
    if !is_sane || bind.target == Path::new("/") {
        return Err(format!("invalid mount path {:?}", bind.target));
    }
    let kind = fs::metadata(&source).map_err(|error| format!("stat {:?}: {error}", bind.source))?;
    if kind.is_dir() {
        made(&bind.target)?;
    } else if !bind.target.exists() {
        made(bind.target.parent().unwrap_or(Path::new("/")))?;
        fs::write(&bind.target, "").map_err(|error| format!("make {:?}: {error}", bind.target))?;
    }
    at(&bind.target, mount(Some(&source), &bind.target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE))?;
    if bind.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        at(&bind.target, mount(NONE, &bind.target, NONE, flags, NONE))?;
    }
    Ok(())
}

/// Directories of `/` that are file systems of their own: the overlay does not reach into them.
fn top_level_mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| Some(line.split_whitespace().nth(4)?.strip_prefix('/')?.to_owned()))
        .filter(|name| !name.is_empty() && !name.contains('/'))
        .filter(|name| !matches!(name.as_str(), "proc" | "sys" | "dev" | "run" | "tmp"))
        .map(PathBuf::from)
        .collect();
    found.sort();
    found.dedup();
    found
}

fn made(dir: &Path) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|error| format!("make directory {dir:?}: {error}"))
}

fn at<T>(path: impl AsRef<Path>, outcome: nix::Result<T>) -> Result<T, String> {
    outcome.map_err(|error| format!("mount at {:?}: {}", path.as_ref(), error.desc()))
}
