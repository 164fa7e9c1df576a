//! A node's own view of the files: the machine's, with every write kept in memory.
//!
//! The root is an overlay over the machine's; other file systems of the machine are there read-only. What a node keeps
//! for itself (run directories, CNI configuration and plugins, bpffs, cgroup2, /proc) is mounted over it. The node's
//! directory of the lab is the one place that both share.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, pivot_root, sethostname},
};

use crate::plan::NodePlan;

/// The programs as they were built.
pub(crate) const BUILD: &str = "/opt/kinesin/build";
/// The programs under the names they are called by; first in a node's PATH.
pub(crate) const BIN: &str = "/opt/kinesin/bin";
/// Where a node's cgroup2 is.
pub(crate) const CGROUP: &str = "/sys/fs/cgroup";
/// A kubeconfig for whoever works on the node.
pub(crate) const KUBECONFIG: &str = "/etc/kubernetes/admin.conf";
/// Places that begin empty on every node, whatever the machine has there.
const EMPTY: [&str; 9] = [
    "/run",
    "/tmp",
    "/dev/shm",
    "/etc/cni",
    "/opt/cni",
    "/var/lib/cilium",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log",
];
/// File systems that show the kernel or another process, not files of the machine.
const NOT_FILES: [&str; 17] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "tmpfs",
    "cgroup",
    "cgroup2",
    "bpf",
    "mqueue",
    "hugetlbfs",
    "debugfs",
    "tracefs",
    "securityfs",
    "pstore",
    "configfs",
    "autofs",
    "nsfs",
];

type Done<T = ()> = Result<T, String>;

/// Makes the calling process's mount namespace that of a node, and its name the host name.
pub(crate) fn assemble(plan: &NodePlan) -> Done {
    sethostname(&plan.name).map_err(|error| format!("cannot set the host name: {error}"))?;
    // Nothing mounted from here on may show on the machine, nor the other way round.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|error| format!("cannot make the mounts private: {error}"))?;
    let stage = plan.node_dir.join("root");
    make(&stage)?;
    tmpfs(&stage)?;
    let root = overlay(&stage)?;
    other_file_systems(&root)?;
    kernel(&root)?;
    for place in EMPTY {
        let place = below(&root, place);
        make(&place)?;
        tmpfs(&place)?;
    }
    contents(&root, plan)?;
    enter(&root)
}

fn overlay(stage: &Path) -> Done<PathBuf> {
    let [upper, work, root] = ["upper", "work", "merged"].map(|name| stage.join(name));
    for dir in [&upper, &work, &root] {
        make(dir)?;
    }
    let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|error| format!("cannot mount an overlay over the machine's files: {error}"))?;
    Ok(root)
}

/// An overlay shows one file system; `/usr` or `/home` may be others.
fn other_file_systems(root: &Path) -> Done {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| format!("cannot list the mounts: {error}"))?;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(_), Some(path), Some(kind)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let inside = root.starts_with(path) || Path::new(path).starts_with(root.parent().unwrap_or(root));
        if path == "/" || inside || NOT_FILES.contains(&kind) || kind.starts_with("fuse") {
            continue;
        }
        let place = below(root, &path.replace("\\040", " "));
        // A mount that cannot be shown is the machine's own affair; the node does without it.
        if bind(Path::new(path), &place).and_then(|()| read_only(&place)).is_err() {
            tracing::warn!(path, kind, "a file system of the machine is not on the node");
        }
    }
    Ok(())
}

/// /dev, /proc, /sys with bpffs and cgroup2.
fn kernel(root: &Path) -> Done {
    let dev = below(root, "/dev");
    mount(Some("/dev"), &dev, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|error| format!("cannot mount /dev: {error}"))?;
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf"), ("cgroup2", CGROUP)] {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let place = below(root, place);
        mount(Some(kind), &place, Some(kind), flags, None::<&str>)
            .map_err(|error| format!("cannot mount {kind}: {error}"))?;
    }
    // Sysctls outside net belong to the machine; those under net are the node's own.
    let (all, net) = (below(root, "/proc/sys"), below(root, "/proc/sys/net"));
    bind(&all, &all)?;
    bind(&net, &net)?;
    read_only(&all)
}

fn contents(root: &Path, plan: &NodePlan) -> Done {
    for place in
        ["/run/netns", "/run/cilium", "/run/lock", "/etc/cni/net.d", "/opt/cni/bin", BIN, BUILD, "/etc/kubernetes"]
    {
        make(&below(root, place))?;
    }
    let var_run = below(root, "/var/run");
    if !var_run.is_symlink() {
        make(&var_run)?;
        bind(&below(root, "/run"), &var_run)?;
    }
    // The directory, not its files, so that a program built anew is found by whatever starts next.
    bind(&plan.bin_dir, &below(root, BUILD))?;
    read_only(&below(root, BUILD))?;
    for (name, program) in [
        ("kinesin", "kinesin"),
        ("cilium", "kinesin"),
        ("cilium-dbg", "kinesin"),
        ("kinesin-agent", "kinesin-agent"),
        ("cilium-agent", "kinesin-agent"),
        ("kinesin-operator", "kinesin-operator"),
        ("kinesin-cni", "kinesin-cni"),
    ] {
        link(&format!("{BUILD}/{program}"), &below(root, BIN).join(name))?;
    }
    link(&format!("{BUILD}/kinesin-cni"), &below(root, "/opt/cni/bin/cilium-cni"))?;
    // Mounted last: it may be below a place that is empty on nodes.
    let shared = below(root, &plan.node_dir.to_string_lossy());
    make(&shared)?;
    mount(Some(&plan.node_dir), &shared, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|error| format!("cannot mount {}: {error}", plan.node_dir.display()))?;
    write(root, "/etc/hostname", &format!("{}\n", plan.name))?;
    let mut hosts = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (address, name) in &plan.hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    write(root, "/etc/hosts", &hosts)?;
    write(root, KUBECONFIG, &crate::kubeconfig::render("kubernetes", &plan.api_url))
}

fn enter(root: &Path) -> Done {
    let failed = |error| format!("cannot enter the node's root: {error}");
    chdir(root).map_err(failed)?;
    // Source: pivot_root(2), "pivot_root(".", ".")": the old root lies over the new one until it is let go.
    pivot_root(".", ".").map_err(failed)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed)?;
    chdir("/").map_err(failed)?;
    // As systemd has it, so that what is mounted on the node later arrives in pods whose volumes ask for it.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>).map_err(failed)
}

/// `/x` below another root.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn make(path: &Path) -> Done {
    fs::create_dir_all(path).map_err(|error| format!("cannot make {}: {error}", path.display()))
}

fn write(root: &Path, path: &str, text: &str) -> Done {
    let path = below(root, path);
    // On some machines these are links to what is not there yet, such as /run/systemd/...
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("cannot replace {}: {error}", path.display()));
        }
        _ => {}
    }
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn link(to: &str, path: &Path) -> Done {
    match symlink(to, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("cannot link {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

fn tmpfs(place: &Path) -> Done {
    // Where everyone may write on any machine.
    let is_shared = place.ends_with("tmp") || place.ends_with("dev/shm");
    let mode = if is_shared { "mode=1777" } else { "mode=755" };
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::MS_NODEV, Some(mode))
        .map_err(|error| format!("cannot mount a tmpfs on {}: {error}", place.display()))
}

fn bind(what: &Path, place: &Path) -> Done {
    mount(Some(what), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|error| format!("cannot mount {} on {}: {error}", what.display(), place.display()))
}

fn read_only(place: &Path) -> Done {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, place, None::<&str>, flags, None::<&str>)
        .map_err(|error| format!("cannot make {} read-only: {error}", place.display()))
}
