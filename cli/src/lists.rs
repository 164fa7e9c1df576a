//! Tables of endpoints, nodes, backends and map entries, in Cilium's forms.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};

use kinesin_agent_api::types::{
    BackendHealth, BackendInfo, BpfEndpoint, BpfMetric, ClusterNode, Endpoint, EndpointState,
};

use crate::table::{LIST, STATUS};

/// `endpoint list`: one row per label, the first one carries the rest; sorted by number.
pub(crate) fn endpoints(endpoints: &[Endpoint]) -> String {
    let mut text =
        "ENDPOINT\tPOLICY (ingress)\tPOLICY (egress)\tIDENTITY\tLABELS (source:key[=value])\tIPv6\tIPv4\tSTATUS\n\
                    \tENFORCEMENT\tENFORCEMENT\t\t\t\t\t\n"
            .to_owned();
    let mut sorted: Vec<_> = endpoints.iter().collect();
    sorted.sort_by_key(|endpoint| endpoint.id);
    for endpoint in sorted {
        let status = &endpoint.status;
        let address = |wanted: fn(&IpAddr) -> bool| {
            let found = status.networking.addressing.iter().find(|pair| wanted(&pair.ip));
            found.map_or_else(String::new, |pair| pair.ip.to_string())
        };
        let mut labels: Vec<_> = status.identity.labels.iter().map(String::as_str).collect();
        labels.sort_unstable();
        let mut labels = labels.into_iter();
        let _ = writeln!(
            text,
            // No policy backend is compiled in, so nothing is enforced.
            "{}\tDisabled\tDisabled\t{}\t{}\t{}\t{}\t{}",
            endpoint.id,
            if status.identity.id == 0 { "<no label id>".to_owned() } else { status.identity.id.to_string() },
            labels.next().unwrap_or("no labels"),
            address(IpAddr::is_ipv6),
            address(IpAddr::is_ipv4),
            state(status.state),
        );
        for label in labels {
            let _ = writeln!(text, "\t\t\t\t{label}\t\t\t");
        }
    }
    LIST.align(&text)
}

fn state(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Creating => "creating",
        EndpointState::Restoring => "restoring",
        EndpointState::Regenerating => "regenerating",
        EndpointState::Ready => "ready",
        EndpointState::NotReady => "not-ready",
        EndpointState::Disconnecting => "disconnecting",
    }
}

/// `bpf endpoint list`: rows in the order of the map.
pub(crate) fn bpf_endpoints(rows: &[BpfEndpoint]) -> String {
    let mut text = "IP ADDRESS\tLOCAL ENDPOINT INFO\n".to_owned();
    for row in rows {
        let value = if row.host {
            "(localhost)".to_owned()
        } else {
            format!(
                // A pod's device has no parent here, so the last field is always 0.
                "id={:<5} sec_id={:<5} flags=0x{:04X} ifindex={:<3} mac={} nodemac={} parent_ifindex=0",
                row.id,
                row.sec_id,
                row.flags,
                row.ifindex,
                row.mac.to_uppercase(),
                row.nodemac.to_uppercase()
            )
        };
        let _ = writeln!(text, "{}:0\t{value}", row.ip);
    }
    LIST.align(&text)
}

/// `bpf metrics list`.
pub(crate) fn bpf_metrics(rows: &[BpfMetric]) -> String {
    let mut text = "REASON\tDIRECTION\tPACKETS\tBYTES\n".to_owned();
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by(|one, other| (&one.reason, &one.direction).cmp(&(&other.reason, &other.direction)));
    for row in sorted {
        let _ = writeln!(text, "{}\t{}\t{}\t{}", row.reason, row.direction.to_uppercase(), row.packets, row.bytes);
    }
    LIST.align(&text)
}

/// `node list`: sorted by the text of the row.
pub(crate) fn nodes(nodes: &[ClusterNode]) -> String {
    let mut rows: Vec<_> = nodes
        .iter()
        .map(|node| {
            let address = |wanted: fn(&IpAddr) -> bool| {
                node.addresses.iter().find(|address| wanted(address)).map_or_else(String::new, ToString::to_string)
            };
            // An IPv6 network has a colon, an IPv4 one has none.
            let cidr = |v6: bool| {
                let found: BTreeSet<_> =
                    node.pod_cidrs.iter().filter(|cidr| cidr.contains(':') == v6).map(String::as_str).collect();
                found.into_iter().collect::<Vec<_>>().join(" ")
            };
            format!(
                "{}\t{}\t{}\t{}\t{}\t{}\n",
                node.name,
                address(IpAddr::is_ipv4),
                cidr(false),
                address(IpAddr::is_ipv6),
                cidr(true),
                if node.local { "local" } else { "custom-resource" }
            )
        })
        .collect();
    rows.sort();
    let header = "Name\tIPv4 Address\tEndpoint CIDR\tIPv6 Address\tEndpoint CIDR\tSource\n";
    STATUS.align(&(header.to_owned() + &rows.concat()))
}

/// `backends`.
pub(crate) fn backends(backends: &[BackendInfo]) -> String {
    let mut text = "TRAIT\tNAME\tRUNS\tSUMMARY\tPROVIDES\tREQUIRES\n".to_owned();
    for found in backends {
        let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
        let _ = writeln!(
            text,
            "{}\t{}\t{}\t{}\t{}\t{}",
            found.r#trait,
            found.name,
            if found.selected { "yes" } else { "no" },
            found.summary,
            list(&found.provides),
            list(&found.requires)
        );
    }
    LIST.align(&text)
}

/// `doctor`: one row per backend, further problems on rows of their own.
pub(crate) fn doctor(backends: &[BackendHealth]) -> String {
    let mut text = "TRAIT\tNAME\tRUNS HERE\tWHY NOT\n".to_owned();
    for found in backends {
        let mut problems = found.problems.iter().map(String::as_str);
        let verdict = if found.problems.is_empty() { "yes" } else { "no" };
        let _ = writeln!(text, "{}\t{}\t{verdict}\t{}", found.r#trait, found.name, problems.next().unwrap_or("-"));
        for problem in problems {
            let _ = writeln!(text, "\t\t\t{problem}");
        }
    }
    LIST.align(&text)
}

#[cfg(test)]
mod tests {
    use kinesin_agent_api::types::{
        AddressPair, EndpointChangeRequest, EndpointIdentity, EndpointNetworking, EndpointStatus,
    };

    use super::*;

    fn endpoint(id: u16, identity: u32, labels: &[&str], addresses: &[&str]) -> Endpoint {
        let pair = |ip: &&str| AddressPair { ip: ip.parse().expect("an address"), pool: "default".to_owned() };
        Endpoint {
            id,
            spec: EndpointChangeRequest::default(),
            status: EndpointStatus {
                state: EndpointState::Ready,
                message: String::new(),
                networking: EndpointNetworking {
                    addressing: addresses.iter().map(pair).collect(),
                    ..EndpointNetworking::default()
                },
                identity: EndpointIdentity {
                    id: identity,
                    labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                },
                restored: false,
            },
        }
    }

    fn trimmed(text: &str) -> String {
        text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    #[test]
    fn endpoints_have_one_row_per_label() {
        let list = [
            endpoint(331, 4, &["reserved:health"], &["10.100.0.148", "fd00::9"]),
            endpoint(24, 1, &["reserved:host", "k8s:a=b"], &[]),
            endpoint(7, 0, &[], &["10.100.0.1"]),
        ];
        let expected = "\
ENDPOINT   POLICY (ingress)   POLICY (egress)   IDENTITY        LABELS (source:key[=value])   IPv6      IPv4           STATUS
           ENFORCEMENT        ENFORCEMENT
7          Disabled           Disabled          <no label id>   no labels                               10.100.0.1     ready
24         Disabled           Disabled          1               k8s:a=b                                                ready
                                                                reserved:host
331        Disabled           Disabled          4               reserved:health               fd00::9   10.100.0.148   ready
";
        assert_eq!(trimmed(&endpoints(&list)), expected);
    }

    #[test]
    fn map_rows_are_those_of_cilium() {
        let host = BpfEndpoint { ip: "10.0.0.10".to_owned(), host: true, ..BpfEndpoint::default() };
        let pod = BpfEndpoint {
            ip: "10.100.1.36".to_owned(),
            host: false,
            id: 38,
            sec_id: 4760,
            flags: 0,
            ifindex: 16,
            mac: "1a:86:d3:21:8b:ab".to_owned(),
            nodemac: "0e:d8:21:10:bf:a2".to_owned(),
        };
        let expected = "\
IP ADDRESS      LOCAL ENDPOINT INFO
10.0.0.10:0     (localhost)
10.100.1.36:0   id=38    sec_id=4760  flags=0x0000 ifindex=16  mac=1A:86:D3:21:8B:AB nodemac=0E:D8:21:10:BF:A2 parent_ifindex=0
";
        assert_eq!(bpf_endpoints(&[host, pod]), expected);
    }

    #[test]
    fn nodes_are_sorted_and_have_both_families() {
        let node = |name: &str, local| ClusterNode {
            name: name.to_owned(),
            addresses: vec!["192.168.10.101".parse().expect("valid"), "fd00::101".parse().expect("valid")],
            pod_cidrs: vec!["10.244.1.0/24".to_owned(), "fd00:1::/64".to_owned()],
            health: Vec::new(),
            local,
        };
        let expected = "\
Name         IPv4 Address     Endpoint CIDR   IPv6 Address   Endpoint CIDR   Source
cilium-ctr   192.168.10.101   10.244.1.0/24   fd00::101      fd00:1::/64     local
cilium-w1    192.168.10.101   10.244.1.0/24   fd00::101      fd00:1::/64     custom-resource
";
        assert_eq!(nodes(&[node("cilium-w1", false), node("cilium-ctr", true)]), expected);
    }

    #[test]
    fn backends_say_whether_they_run() {
        let info = BackendInfo {
            r#trait: "ipam".to_owned(),
            name: "host_scope".to_owned(),
            summary: "the Node's podCIDRs".to_owned(),
            selected: true,
            ..BackendInfo::default()
        };
        let expected = "\
TRAIT   NAME         RUNS   SUMMARY               PROVIDES   REQUIRES
ipam    host_scope   yes    the Node's podCIDRs   -          -
";
        assert_eq!(backends(&[info]), expected);
    }

    #[test]
    fn doctor_gives_every_problem_a_row() {
        let health = |name: &str, problems: &[&str]| BackendHealth {
            r#trait: "chassis".to_owned(),
            name: name.to_owned(),
            problems: problems.iter().map(|problem| (*problem).to_owned()).collect(),
        };
        let expected = "\
TRAIT     NAME    RUNS HERE   WHY NOT
chassis   ebpf    no          no BTF; build one
                              too old; run a newer one
chassis   stack   yes         -
";
        assert_eq!(
            doctor(&[health("ebpf", &["no BTF; build one", "too old; run a newer one"]), health("stack", &[])]),
            expected
        );
    }

    #[test]
    fn metrics_are_sorted_by_reason() {
        let row = |reason: &str| BpfMetric {
            reason: reason.to_owned(),
            direction: "ingress".to_owned(),
            packets: 1,
            bytes: 60,
        };
        let expected = "\
REASON              DIRECTION   PACKETS   BYTES
Invalid source ip   INGRESS     1         60
Success             INGRESS     1         60
";
        assert_eq!(bpf_metrics(&[row("Success"), row("Invalid source ip")]), expected);
    }
}
