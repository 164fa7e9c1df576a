//! The agent as the chart runs it: with some capabilities, and a `/proc/sys` that it cannot write.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::{
    cidrs::reaches,
    cluster::{CIDRS, Cluster},
    follow,
    node::{Node, built},
    pods::{self, Pod},
};

/// What a container runtime does for a container that is not privileged, of what matters to the agent: a root of its own
/// with a read-only `/proc/sys`, the host's `/proc/sys/net` where the chart mounts it, and only these capabilities.
///
/// Arguments: directory for the root, capabilities as `setpriv` writes them, the program and its arguments.
const CONTAIN: &str = r#"root=$1 caps=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$root"
for place in /*; do
    if [ -L "$place" ]; then cp -P "$place" "$root$place"
    elif [ -d "$place" ]; then mkdir "$root$place"; mount --rbind "$place" "$root$place"
    fi
done
mkdir -p "$root/host/proc/sys/net"
mount --bind /proc/sys/net "$root/host/proc/sys/net"
mount --bind /proc/sys "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
exec chroot "$root" setpriv --no-new-privs --bounding-set="$caps" --inh-caps=-all "$@""#;

/// The capabilities that the chart's values give to the agent.
fn of_the_chart() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/kinesin/values.yaml");
    let values = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let list = values.split("ciliumAgent:\n").nth(1).expect("a list");
    let names = list.lines().map(str::trim).map_while(|line| line.strip_prefix("- "));
    names.map(str::to_ascii_lowercase).collect()
}

/// Number of a capability. Source: Linux `include/uapi/linux/capability.h`.
fn number(capability: &str) -> u32 {
    match capability {
        "net_admin" => 12,
        "net_raw" => 13,
        "sys_admin" => 21,
        "sys_resource" => 24,
        "perfmon" => 38,
        "bpf" => 39,
        other => panic!("say here which number {other} has"),
    }
}

/// One of the masks in `/proc/<pid>/status`.
fn mask(pid: &str, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a mask");
    u64::from_str_radix(line.trim(), 16).expect("hexadecimal")
}

fn contained(node: &Node, root: &Path, capabilities: &BTreeSet<String>) -> Command {
    let mine = mask("self", "CapBnd:");
    // Not every machine's root has every one to give.
    let given = capabilities.iter().filter(|name| mine & (1 << number(name)) != 0);
    let caps = given.fold("-all".to_owned(), |all, name| format!("{all},+{name}"));
    let agent = node.agent_command(&[]);
    let arguments: Vec<_> = agent.get_args().map(ToOwned::to_owned).collect();
    let own = arguments.iter().position(|argument| Path::new(argument) == built("kinesin-agent")).expect("the agent");
    let mut command = node.command("unshare");
    command.args(["--mount", "--propagation", "slave", "sh", "-ec", CONTAIN, "contain"]).arg(root).arg(caps);
    command.args(&arguments[own..]);
    command
}

#[test]
fn agent_works_with_the_capabilities_of_the_chart() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    let root = node.directory.path().join("root");
    fs::create_dir(&root).expect("made");
    // As on a host that systemd runs; by the chart's `HostToContainer` the agent sees what is mounted later.
    node.shell("mkdir -p /run/netns && mount --make-rshared /run");
    let capabilities = of_the_chart();
    assert!(capabilities.len() >= 4, "{capabilities:?}");
    node.shell("echo 0 > /proc/sys/net/ipv4/ip_forward");

    let command = contained(&node, &root, &capabilities);
    node.start_with(command);
    node.ready();
    let allowed = capabilities.iter().fold(0, |all, name| all | (1 << number(name)));
    let held = mask(&node.pid().to_string(), "CapEff:");
    assert_eq!((held & !allowed, held != 0), (0, true), "the agent holds {held:#x}, the chart gives {allowed:#x}");
    node.shell("[ $(cat /proc/sys/net/ipv4/ip_forward) = 1 ]");

    // Their namespaces are kept where container runtimes keep them, and the agent of the chart looks for them.
    let (one, other) = (Pod::new("c1"), Pod::new("c2"));
    let ips = |pod: &Pod| pods::addresses(&pod.add_in(&node, &follow::keep(&node, &pod.netns, &pod.container)).ok());
    let (from, to) = (ips(&one), ips(&other));
    node.shell("ip link set eth0 mtu 1400");
    follow::wait_for_mtu(&node, &[&one, &other], 1400);
    node.status_when("without complaint", |status| status.cilium.msg.is_empty());
    for (from, to) in from.iter().zip(&to) {
        assert!(reaches(&one, *from, &other, *to), "{from} to {to}");
    }
    one.del(&node).ok();
    other.del(&node).ok();
}
