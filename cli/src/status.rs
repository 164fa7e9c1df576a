//! `status`: the agent's answer to `GET /v1/healthz` in the lines of `cilium-dbg status`.
//!
//! A line is printed only if it is true here; labels, order and forms are Cilium's.

use std::fmt::Write as _;

use kinesin_agent_api::types::{ControllerStatus, State, Status, StatusResponse};

use crate::{cluster_health, table::STATUS};

/// Whether the agent serves: the exit code follows from it.
#[must_use]
pub fn is_healthy(status: &StatusResponse) -> bool {
    matches!(status.cilium.state, State::Ok | State::Disabled)
}

/// `OK`, or what is wrong.
#[must_use]
pub fn brief(status: &StatusResponse) -> String {
    if is_healthy(status) {
        return "OK\n".to_owned();
    }
    let reason = if status.cilium.msg.is_empty() { word(status.cilium.state) } else { &status.cilium.msg };
    format!("error in agent: {reason}\n")
}

/// Every line; `verbose` adds addresses, controllers, drops and what is off.
#[must_use]
pub fn render(status: &StatusResponse, verbose: bool) -> String {
    let mut text = String::new();
    let mut line = |label: &str, cells: &str| {
        text.push_str(label);
        text.push('\t');
        text.push_str(cells);
        text.push('\n');
    };
    line("KVStore:", "Disabled\t");
    line("Kubernetes:", &cell(&status.kubernetes.status));
    if status.kubernetes.status.state != State::Disabled {
        let mut kinds: Vec<_> = status.kubernetes.k8s_api_versions.iter().map(|kind| format!("{kind:?}")).collect();
        kinds.sort();
        line("Kubernetes APIs:", &format!("[{}]", kinds.join(", ")));
    }
    if !status.backends.contains_key("loadBalancer") {
        line("KubeProxyReplacement:", "False\t");
    }
    line("CNI Chaining:", "none");
    line("CNI Config file:", &status.cni_file.msg);
    line("Cilium:", &agent(status));
    line("IPAM:", &ipam(status));
    for mode in &status.ipam.draining {
        line("IPAM draining:", mode);
    }
    for lack in &status.ipam.lacking {
        line("IPAM lacking:", &lack.replace(['\n', '\t'], " "));
    }
    if verbose {
        addresses(&mut text, status);
        // No device of the datapath is told to take packets of more than 64 KiB.
        text.push_str("IPv4 BIG TCP:\tDisabled\nIPv6 BIG TCP:\tDisabled\n");
    }
    let mut line = |label: &str, cells: &str| {
        let _ = writeln!(text, "{label}\t{cells}");
    };
    line("Routing:", &format!("Network: {}\tHost: {}", status.routing.network, status.routing.host));
    for found in &status.routing.tunnel_paths {
        let reason = found.reason.replace(['\n', '\t'], " ");
        line("Tunnel path:", &format!("{} by {}: {}\t{reason}", found.carrier, found.device, found.path));
    }
    path_mtus(&mut text, status, verbose);
    let mut line = |label: &str, cells: &str| {
        let _ = writeln!(text, "{label}\t{cells}");
    };
    line("Attach Mode:", &status.attach_mode);
    line("Device Mode:", "veth");
    if !status.backends.contains_key("masquerade") {
        line("Masquerading:", "Disabled");
    }
    line("Controller Status:", &controllers_summary(&status.controllers));
    controllers(&mut text, &status.controllers, verbose);
    let _ = writeln!(text, "Node Routes:\t{}", routes_summary(status));
    for (peer, reason) in &status.routing.unreachable {
        let _ = writeln!(text, "  {peer}\t{reason}");
    }
    cluster_health::render(&mut text, status.cluster_health.as_ref(), verbose);
    let backends: Vec<_> = status.backends.iter().map(|(role, name)| format!("{role}: {name}")).collect();
    let _ = writeln!(text, "Backends:\t{}", backends.join(", "));
    if verbose {
        drops(&mut text, status);
    }
    STATUS.align(&text)
}

/// Nodes to which the way is narrower than this node's uplink: how many, and each if asked.
fn path_mtus(text: &mut String, status: &StatusResponse, verbose: bool) {
    let narrow = &status.routing.path_mtus;
    if !narrow.is_empty() {
        let _ = writeln!(text, "Path MTU:\tless than this node's to {} node(s)", narrow.len());
    }
    for (node, told) in narrow.iter().filter(|_| verbose) {
        let _ = writeln!(text, "  {node}\t{}", told.replace(['\n', '\t'], " "));
    }
}

/// State and message as two cells.
fn cell(status: &Status) -> String {
    format!("{}\t{}", word(status.state), status.msg)
}

/// An agent that serves may have something to say as well: a configuration that is pending or refused, a pod that cannot
/// follow, less than was asked for.
fn agent(status: &StatusResponse) -> String {
    let mut text = format!("{}   {}", word(status.cilium.state), version(&status.version));
    if !status.cilium.msg.is_empty() {
        // A message of several lines must not break the table.
        let _ = write!(text, "    {}", status.cilium.msg.replace(['\n', '\t'], " "));
    }
    text
}

/// `1.2.3 (v1.2.3)`; a build's revision follows the second one.
fn version(version: &str) -> String {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    format!("{release} (v{version})")
}

/// A family that is off leaves its place empty, so IPv4 alone ends with a comma and a space.
fn ipam(status: &StatusResponse) -> String {
    let part = |label: &str, value: &Option<String>| {
        value.as_ref().map_or_else(String::new, |value| format!("{label}: {value}"))
    };
    format!("{}, {}", part("IPv4", &status.ipam.ipv4), part("IPv6", &status.ipam.ipv6))
}

fn addresses(text: &mut String, status: &StatusResponse) {
    let mut rows: Vec<_> =
        status.ipam.allocations.iter().map(|(address, owner)| format!("  {address} ({owner})\n")).collect();
    // Sorted as text, so .28 comes after .220: that is Cilium's order.
    rows.sort();
    text.push_str("Allocated addresses:\n");
    text.extend(rows);
}

fn controllers_summary(controllers: &[ControllerStatus]) -> String {
    let healthy = controllers.iter().filter(|found| is_well(found)).count();
    format!("{healthy}/{} healthy", controllers.len())
}

fn is_well(controller: &ControllerStatus) -> bool {
    controller.consecutive_errors == 0
}

/// The failing ones always, the others when asked for.
fn controllers(text: &mut String, controllers: &[ControllerStatus], verbose: bool) {
    let mut shown: Vec<_> = controllers.iter().filter(|found| verbose || !is_well(found)).collect();
    if shown.is_empty() {
        return;
    }
    shown.sort_by(|one, other| one.name.cmp(&other.name));
    text.push_str("  Name\tLast success\tLast error\tCount\tMessage\n");
    for controller in shown {
        let message = if controller.message.is_empty() { "no error" } else { &controller.message };
        let _ = writeln!(
            text,
            "  {}\t{}\t{}\t{}\t{}",
            controller.name,
            ago(controller.last_success_seconds),
            ago(controller.last_error_seconds),
            controller.consecutive_errors,
            // An error of several lines must not break the table.
            message.replace(['\n', '\t'], " ")
        );
    }
}

fn routes_summary(status: &StatusResponse) -> String {
    let peers = status.routing.peers;
    let lost = status.routing.unreachable.len();
    let devices = status.routing.devices.join(", ");
    format!("{}/{} reachable\t[{devices}]", peers, peers + lost)
}

fn drops(text: &mut String, status: &StatusResponse) {
    if status.drops.is_empty() {
        text.push_str("Drops:\tnone\n");
        return;
    }
    text.push_str("Drops:\n");
    for (reason, packets) in &status.drops {
        let _ = writeln!(text, "  {reason}\t{packets}");
    }
}

fn ago(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", go_duration(seconds)))
}

/// A duration in Go's notation, `1m5s`.
pub(crate) fn go_duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "Ok",
        State::Warning => "Warning",
        State::Failure => "Failure",
        State::Disabled => "Disabled",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kinesin_agent_api::types::{IpamStatus, KubernetesStatus, RoutingStatus, TunnelPath};

    use super::*;

    fn text(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn sample() -> StatusResponse {
        StatusResponse {
            cilium: Status { state: State::Ok, msg: String::new() },
            kubernetes: KubernetesStatus {
                status: Status { state: State::Ok, msg: "1.33 (v1.33.2) [linux/amd64]".to_owned() },
                k8s_api_versions: vec!["core/v1::Node".to_owned(), "cilium/v2::CiliumNode".to_owned()],
            },
            ipam: IpamStatus {
                mode: "host_scope".to_owned(),
                ipv4: Some("4/6 allocated from 172.20.42.0/29".to_owned()),
                ipv6: None,
                allocations: text(&[
                    ("172.20.42.2", "router"),
                    ("172.20.42.3", "health"),
                    ("172.20.42.28", "default/b [restored]"),
                    ("172.20.42.220", "kube-system/coredns-674b8bbfcf-xcvrr"),
                ]),
                ..IpamStatus::default()
            },
            routing: RoutingStatus {
                network: "Native".to_owned(),
                host: "BPF".to_owned(),
                devices: vec!["eth0".to_owned()],
                peers: 1,
                unreachable: text(&[("cilium-w2", "it is on another segment")]),
                tunnel_paths: Vec::new(),
                path_mtus: BTreeMap::new(),
            },
            cni_file: Status {
                state: State::Ok,
                msg: "successfully wrote CNI configuration file to /etc/cni/net.d/05-cilium.conflist".to_owned(),
            },
            controllers: vec![
                ControllerStatus {
                    name: "routing".to_owned(),
                    last_success_seconds: Some(3),
                    ..ControllerStatus::default()
                },
                ControllerStatus {
                    name: "ciliumnode".to_owned(),
                    last_success_seconds: None,
                    last_error_seconds: Some(65),
                    consecutive_errors: 2,
                    message: "connection\nrefused".to_owned(),
                },
            ],
            attach_mode: "TCX".to_owned(),
            backends: text(&[("chassis", "ebpf"), ("ipam", "host_scope"), ("routing", "native")]),
            node_name: "cilium-w1".to_owned(),
            drops: BTreeMap::from([("Invalid source ip".to_owned(), 7)]),
            version: "0.1.0".to_owned(),
            ..StatusResponse::default()
        }
    }

    #[test]
    fn lines_are_those_of_cilium() {
        let expected = "\
KVStore:                Disabled
Kubernetes:             Ok         1.33 (v1.33.2) [linux/amd64]
Kubernetes APIs:        [\"cilium/v2::CiliumNode\", \"core/v1::Node\"]
KubeProxyReplacement:   False
CNI Chaining:           none
CNI Config file:        successfully wrote CNI configuration file to /etc/cni/net.d/05-cilium.conflist
Cilium:                 Ok   0.1.0 (v0.1.0)
IPAM:                   IPv4: 4/6 allocated from 172.20.42.0/29,
Routing:                Network: Native   Host: BPF
Attach Mode:            TCX
Device Mode:            veth
Masquerading:           Disabled
Controller Status:      1/2 healthy
  Name                  Last success    Last error   Count   Message
  ciliumnode            never           1m5s ago     2       connection refused
Node Routes:            1/2 reachable   [eth0]
  cilium-w2             it is on another segment
Cluster health:         Probe disabled
Backends:               chassis: ebpf, ipam: host_scope, routing: native
";
        let found = render(&sample(), false);
        let trimmed: Vec<_> = found.lines().map(str::trim_end).collect();
        assert_eq!(trimmed.join("\n") + "\n", expected);
    }

    #[test]
    fn ipv4_alone_ends_with_comma_and_space() {
        assert_eq!(ipam(&sample()), "IPv4: 4/6 allocated from 172.20.42.0/29, ");
        let mut dual = sample();
        dual.ipam.ipv6 = Some("4/65536 allocated from fd00::/64".to_owned());
        let expected = "IPv4: 4/6 allocated from 172.20.42.0/29, IPv6: 4/65536 allocated from fd00::/64";
        assert_eq!(ipam(&dual), expected);
    }

    #[test]
    fn verbose_adds_addresses_sorted_as_text_and_every_controller() {
        let found = render(&sample(), true);
        let expected = "\
Allocated addresses:
  172.20.42.2 (router)
  172.20.42.220 (kube-system/coredns-674b8bbfcf-xcvrr)
  172.20.42.28 (default/b [restored])
  172.20.42.3 (health)
IPv4 BIG TCP: ";
        assert!(found.contains(expected), "{found}");
        assert!(found.contains("  routing "), "{found}");
        assert!(found.contains("  Invalid source ip   7\n"), "{found}");
    }

    #[test]
    fn several_blocks_pools_and_what_drains_or_lacks() {
        let mut status = sample();
        status.ipam.ipv4 = Some("9/12 allocated from 10.0.0.0/29, 10.0.0.8/29".to_owned());
        status.ipam.allocations = text(&[("10.0.0.2", "router"), ("vac/10.100.0.3", "default/web")]);
        status.ipam.draining = vec!["host_scope: IPv4: 2/254 allocated from 10.244.1.0/24".to_owned()];
        status.ipam.lacking = vec!["range is full: pool \"vac\"".to_owned()];
        let found = render(&status, true);
        for expected in [
            "IPAM:                   IPv4: 9/12 allocated from 10.0.0.0/29, 10.0.0.8/29, \n",
            "IPAM draining:          host_scope: IPv4: 2/254 allocated from 10.244.1.0/24\n",
            "IPAM lacking:           range is full: pool \"vac\"\n",
            "  vac/10.100.0.3 (default/web)\n",
        ] {
            assert!(found.contains(expected), "{expected} is not in {found}");
        }
        status.ipam.ipv4 = Some("2 IPAM pool(s) available".to_owned());
        assert_eq!(ipam(&status), "IPv4: 2 IPAM pool(s) available, ");
    }

    #[test]
    fn who_puts_tunnels_on_is_told_with_the_reason() {
        let mut status = sample();
        let path = |carrier: &str, path: &str| TunnelPath {
            carrier: carrier.to_owned(),
            device: "eth0".to_owned(),
            path: path.to_owned(),
            reason: "tunnel.path\nsays so".to_owned(),
        };
        status.routing.tunnel_paths = vec![path("vxlan", "device"), path("geneve", "bpf")];
        for verbose in [false, true] {
            let found = render(&status, verbose);
            for expected in
                ["vxlan by eth0: device   tunnel.path says so\n", "geneve by eth0: bpf     tunnel.path says so\n"]
            {
                assert!(found.contains(expected), "{expected} is not in {found}");
            }
            assert_eq!(found.matches("Tunnel path:").count(), 2, "{found}");
        }
    }

    #[test]
    fn narrow_ways_are_counted_and_named_when_asked() {
        let mut status = sample();
        assert!(!render(&status, true).contains("Path MTU"));
        status.routing.path_mtus = text(&[("w2", "1400 bytes, as it announces"), ("w3", "1380 bytes,\tas\nsaid")]);
        let (brief, whole) = (render(&status, false), render(&status, true));
        for found in [&brief, &whole] {
            let line = found.lines().find(|line| line.starts_with("Path MTU:")).unwrap_or_default();
            assert!(line.ends_with(" less than this node's to 2 node(s)"), "{found}");
        }
        assert!(!brief.contains("1400 bytes") && whole.contains("1400 bytes, as it announces\n"), "{whole}");
        assert!(whole.contains("1380 bytes, as said\n"), "{whole}");
    }

    #[test]
    fn agent_that_is_not_well_is_named() {
        let mut status = sample();
        status.cilium = Status { state: State::Failure, msg: "no pod CIDR".to_owned() };
        assert!(!is_healthy(&status));
        assert_eq!(brief(&status), "error in agent: no pod CIDR\n");
        assert!(render(&status, false).contains("Failure   0.1.0 (v0.1.0)    no pod CIDR\n"));
        assert_eq!(brief(&sample()), "OK\n");
    }

    #[test]
    fn agent_that_serves_still_says_what_is_less_than_asked_for() {
        let mut status = sample();
        status.cilium.msg = "runs on the configuration accepted before:\nthe new one is refused".to_owned();
        assert!(is_healthy(&status));
        assert_eq!(brief(&status), "OK\n");
        let expected = "Ok   0.1.0 (v0.1.0)    runs on the configuration accepted before: the new one is refused\n";
        assert!(render(&status, false).contains(expected), "{}", render(&status, false));
    }

    #[test]
    fn durations_read_as_in_go() {
        assert_eq!(ago(None), "never");
        assert_eq!(ago(Some(59)), "59s ago");
        assert_eq!(ago(Some(3661)), "1h1m1s ago");
    }
}
