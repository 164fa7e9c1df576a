//! Commands of Cilium's for what is not built here: they are answered by the feature's name, as Cilium's keys are.

use std::ffi::OsString;

const BGP: &str = "BGP";
const ENCRYPTION: &str = "encryption";
const IDENTITIES: &str = "the allocation of identities";
const LOAD_BALANCING: &str = "service load balancing";
const MASQUERADING: &str = "masquerading";
const MONITOR: &str = "the monitor";
const POLICY: &str = "network policy";
const PROXY: &str = "the L7 proxy";

/// `cilium-dbg COMMAND` or `cilium COMMAND`, and what it belongs to.
const COMMANDS: &[(&str, &str)] = &[
    ("bgp", BGP),
    ("cgroups", LOAD_BALANCING),
    ("clustermesh", "the mesh of clusters"),
    ("encrypt", ENCRYPTION),
    ("encryption", ENCRYPTION),
    ("envoy", PROXY),
    ("fqdn", POLICY),
    ("hubble", "Hubble"),
    ("identity", IDENTITIES),
    ("ip", IDENTITIES),
    ("lrp", LOAD_BALANCING),
    ("monitor", MONITOR),
    ("policy", POLICY),
    ("prefilter", "the XDP filter"),
    ("recorder", MONITOR),
    ("service", LOAD_BALANCING),
];

/// `cilium-dbg bpf COMMAND`, and what it belongs to.
const BPF_COMMANDS: &[(&str, &str)] = &[
    ("auth", POLICY),
    ("bandwidth", "the bandwidth manager"),
    ("ct", "connection tracking"),
    ("egress", "the egress gateway"),
    ("ipcache", IDENTITIES),
    ("ipmasq", MASQUERADING),
    ("lb", LOAD_BALANCING),
    ("multicast", "multicast"),
    ("nat", MASQUERADING),
    ("policy", POLICY),
    ("recorder", MONITOR),
    ("srv6", "SRv6"),
    ("vtep", "VTEP integration"),
];

/// What to say of a command that does not exist, if it is one of Cilium's.
///
/// `program` is the name that this one was called by, `args` are its arguments with the program first, and `word` is the
/// one that was not understood.
pub(crate) fn explain(program: &str, args: &[OsString], word: &str) -> Option<String> {
    let at = args.iter().skip(1).position(|arg| arg == word)? + 1;
    let of_bpf = args[1..at].iter().any(|arg| arg == "bpf");
    let (table, command) = if of_bpf { (BPF_COMMANDS, format!("bpf {word}")) } else { (COMMANDS, word.to_owned()) };
    let (_, feature) = table.iter().find(|(name, _)| *name == word)?;
    Some(format!(
        "error: there is no `{program} {command}`: it is about {feature}, which is not built into this version\n\n\
         `{program} --help` lists what there is.\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str, word: &str) -> Option<String> {
        explain("cilium-dbg", &line.split(' ').map(OsString::from).collect::<Vec<_>>(), word)
    }

    #[test]
    fn commands_of_cilium_are_told_from_mistakes() {
        for (line, word, expected) in [
            ("cilium-dbg service list", "service", "`cilium-dbg service`: it is about service load balancing"),
            ("cilium-dbg bpf lb list --revnat", "lb", "`cilium-dbg bpf lb`: it is about service load balancing"),
            ("cilium-dbg -o json bpf policy get", "policy", "`cilium-dbg bpf policy`: it is about network policy"),
            ("cilium-dbg -H bpf.sock monitor", "monitor", "`cilium-dbg monitor`: it is about the monitor"),
        ] {
            let found = said(line, word).unwrap_or_default();
            assert!(found.contains(expected), "{line}: {found}");
        }
        assert_eq!(said("cilium-dbg lb list", "lb"), None);
        assert_eq!(said("cilium-dbg stauts", "stauts"), None);
    }
}
