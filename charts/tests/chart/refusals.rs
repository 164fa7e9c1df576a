//! What is refused, by whom, and with which words.

use kinesin_core::config::{
    Config, Problem, Sources,
    keys::{self, Class, Kind},
    to_config_map,
};

use crate::helm::{FIXTURES, fixture, template};

fn refusal(values: &str) -> String {
    match template(values) {
        Ok(_) => panic!("{values} was accepted"),
        Err(error) => error,
    }
}

fn load(values: &str) -> Result<Config, kinesin_core::config::ConfigError> {
    let flags = to_config_map(values)?.into_iter().collect();
    Config::load(&Sources { flags, ..Sources::default() })
}

#[test]
fn unknown_names_are_refused_by_the_schema() {
    for (values, name) in [
        ("routingMod: native", "routingMod"),
        ("cluster: {nam: x}", "nam"),
        ("operator: {replica: 2}", "replica"),
        ("image: {repo: x}", "repo"),
        ("extraConfig: {no-such-key: 1}", "no-such-key"),
        ("securityContext: {capabilities: {agent: []}}", "agent"),
        (
            "ipam: {operator: {autoCreateCiliumPodIPPools: {default: {ipv4: {cidr: 10.0.0.0/8}}}}}",
            "autoCreateCiliumPodIPPools",
        ),
    ] {
        let said = refusal(values);
        assert!(said.contains("schema") && said.contains(name), "{values}: {said}");
    }
}

#[test]
fn values_of_another_type_are_refused_by_the_schema() {
    for (values, name) in [
        ("MTU: many", "MTU"),
        ("MTU: 70000", "MTU"),
        ("ipv4: {enabled: yes please}", "ipv4.enabled"),
        ("ipv4: true", "ipv4"),
        ("routingMode: bgp", "routingMode"),
        ("ipv4NativeRoutingCIDR: 10.0.0.0", "ipv4NativeRoutingCIDR"),
        ("ipv6NativeRoutingCIDR: 10.0.0.0.0/x", "ipv6NativeRoutingCIDR"),
        ("backends: {ipam: Host-Scope}", "backends.ipam"),
        ("backendConfig: {own: 5}", "backendConfig.own"),
        ("cluster: {name: Not_A_Name}", "cluster.name"),
        ("bpf: {root: sys/fs/bpf}", "bpf.root"),
        ("operator: {replicas: two}", "operator.replicas"),
        ("tolerations: all", "tolerations"),
        ("daemon: {runPath: /elsewhere}", "daemon.runPath"),
    ] {
        let said = refusal(values);
        assert!(said.contains("schema") && said.contains(name), "{values}: {said}");
    }
}

#[test]
fn what_is_not_built_is_refused_with_its_feature_and_all_at_once() {
    let said = refusal(&fixture("seed-native"));
    for line in [
        "kubeProxyReplacement=\"true\": service load balancing is not built into this version; set \
         kubeProxyReplacement to false",
        "bpf.masquerade=\"true\": masquerading is not built into this version; set bpf.masquerade to false",
        "endpointRoutes.enabled=\"true\": a route per endpoint is not built into this version; set \
         endpointRoutes.enabled to false",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let said = refusal("hubble: {relay: {enabled: true}}\nextraConfig: {enable-wireguard: true}");
    assert!(said.contains("hubble.relay.enabled=\"true\": Hubble Relay is not built into this version"), "{said}");
    assert!(said.contains("enable-wireguard=\"true\": encryption is not built into this version"), "{said}");
}

#[test]
fn removed_names_are_refused_with_what_to_write() {
    for (values, replacement) in [
        ("tunnel: vxlan", "write routingMode (native or tunnel)"),
        ("ipam: {operator: {clusterPoolIPv4PodCIDR: 10.0.0.0/8}}", "write ipam.operator.clusterPoolIPv4PodCIDRList"),
        ("global: {cluster: {name: x}}", "write its keys at the top level"),
        ("hostServices: {enabled: true}", "write socketLB.enabled"),
    ] {
        let said = refusal(values);
        assert!(said.contains("was removed") && said.contains(replacement), "{values}: {said}");
    }
}

/// Values of keys that are not built, one key a line so that a run of helm tells of all of them.
#[test]
fn chart_and_agent_refuse_the_same_switches() {
    let switches = || {
        let not_built = |key: &&keys::Key| matches!(key.class, Class::NotBuilt(_)) && key.kind == Kind::Bool;
        keys::all().filter(not_built).filter(|key| !key.helm.is_empty())
    };
    for wanted in ["true", "false"] {
        let sets: Vec<_> = switches()
            .map(|key| {
                let parts: Vec<_> = key.helm.split('.').collect();
                let open: String = parts.iter().map(|part| format!("{{\"{part}\": ")).collect();
                (key, format!("{open}{wanted}{}", "}".repeat(parts.len())))
            })
            .collect();
        let mut all = serde_json::json!({});
        for (key, _) in &sets {
            let mut place = &mut all;
            for part in key.helm.split('.') {
                place = &mut place[part];
            }
            *place = serde_json::json!(wanted == "true");
        }
        let said = template(&all.to_string()).err().unwrap_or_default();
        for (key, values) in &sets {
            let by_core = load(values).is_err_and(|error| {
                error
                    .problems
                    .iter()
                    .any(|problem| matches!(problem, Problem::NotBuilt { key: found, .. } if *found == key.key))
            });
            let by_chart = said.contains(&format!("  {}=\"{wanted}\": ", key.helm));
            assert_eq!(by_chart, by_core, "{}={wanted}: {said}", key.helm);
        }
    }
}

#[test]
fn what_the_chart_renders_the_agent_reads() {
    for name in FIXTURES {
        // Whether a chosen backend is compiled in is not core's to say.
        load(&fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
