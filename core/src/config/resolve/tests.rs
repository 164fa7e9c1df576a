//! What is accepted, what is refused, and in which words.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::config::{Config, ConfigError, Sources};

/// A directory of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kinesin-config-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    fn with(keys: &[(&str, &str)]) -> Self {
        let dir = Self::new();
        keys.iter().for_each(|(key, value)| dir.write(key, value.as_bytes()));
        dir
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.0.join(name), content).expect("a file in it");
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&Sources { config_dir: Some(self.0.clone()), ..Sources::default() })
    }

    /// The error, with the directory's name taken out.
    fn refusal(&self) -> String {
        let error = self.load().expect_err("this must be refused");
        error.to_string().replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn load_values(values: &str) -> Result<Config, ConfigError> {
    let dir = Dir::new();
    dir.write("values.yaml", values.as_bytes());
    Config::load(&Sources { file: Some(dir.0.join("values.yaml")), ..Sources::default() })
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn source<'a>(config: &'a Config, key: &str) -> (&'a str, &'a str) {
    let entry = config.entries().iter().find(|entry| entry.key == key).unwrap_or_else(|| panic!("no {key}"));
    (&entry.value, &entry.source)
}

#[test]
fn defaults_are_accepted() {
    let config = Config::load(&Sources::default()).expect("defaults");
    assert_eq!(config.selection.ipam, "host_scope");
    assert_eq!(config.selection.routing, "vxlan");
    assert_eq!(config.selection.chassis, "ebpf");
    assert!(config.selection.load_balancer.is_empty());
    assert!(config.families.v4 && !config.families.v6);
    assert!(!config.auto_direct_node_routes && config.enable_tcx && config.health.endpoint);
    assert_eq!(config.mtu_bytes, None);
    assert_eq!(config.cni.conf_path.as_deref(), Some(Path::new("/etc/cni/net.d/05-cilium.conflist")));
    assert!(config.notices().is_empty());
}

#[test]
fn later_sources_win_and_say_so() {
    let dir = Dir::with(&[("mtu", "1400"), ("debug", "true\n"), ("cluster-name", "a"), ("enable-ipv6", "true")]);
    let sources = Sources {
        config_dir: Some(dir.0.clone()),
        env: pairs(&[("KINESIN__MTU", "1350"), ("KINESIN__CLUSTER__NAME", "b"), ("PATH", "/bin")]),
        flags: pairs(&[("mtu", "1340")]),
        ..Sources::default()
    };
    let config = Config::load(&sources).expect("valid");
    assert_eq!(config.mtu_bytes, Some(1340));
    assert_eq!(source(&config, "mtu"), ("1340", "flag --mtu"));
    assert_eq!(source(&config, "cluster-name"), ("b", "environment variable KINESIN__CLUSTER__NAME"));
    assert_eq!(source(&config, "debug"), ("true", &*dir.0.join("debug").display().to_string()));
    assert_eq!(source(&config, "enable-tcx"), ("true", "default"));
}

#[test]
fn mounted_links_are_followed_and_are_no_keys() {
    let dir = Dir::new();
    let data = dir.0.join("..2026_01_01");
    fs::create_dir(&data).expect("a directory");
    fs::write(data.join("debug"), "true").expect("a file");
    std::os::unix::fs::symlink("..2026_01_01", dir.0.join("..data")).expect("a link");
    std::os::unix::fs::symlink("..data/debug", dir.0.join("debug")).expect("a link");
    assert!(dir.load().expect("valid").debug);
}

#[test]
fn both_spellings_of_a_choice_agree_or_are_refused() {
    let config = Dir::with(&[("backends.ipam", "host_scope"), ("ipam", "kubernetes")]).load().expect("they agree");
    assert_eq!(config.selection.ipam, "host_scope");
    let config = Dir::with(&[("backends.routing", "geneve")]).load().expect("valid");
    assert_eq!(source(&config, "routing-mode"), ("tunnel", "backends.routing"));
    assert_eq!(source(&config, "tunnel-protocol"), ("geneve", "backends.routing"));
    assert!(!config.auto_direct_node_routes);
    let config = Dir::with(&[("routing-mode", "tunnel")]).load().expect("valid");
    assert_eq!(config.selection.routing, "vxlan");
    assert_eq!(source(&config, "backends.routing"), ("vxlan", "routing-mode"));
    let config = Dir::with(&[("ipam", "cluster-pool"), ("cluster-pool-ipv4-mask-size", "29")]).load().expect("valid");
    assert_eq!(config.selection.ipam, "cluster_pool");
}

#[test]
fn routing_is_a_tunnel_unless_native_is_written() {
    let routing = |keys: &[(&str, &str)]| {
        let config = Dir::with(keys).load().unwrap_or_else(|error| panic!("{keys:?}: {error}"));
        (config.selection.routing.clone(), config.auto_direct_node_routes)
    };
    for (keys, backend, direct) in [
        (&[][..], "vxlan", false),
        (&[("tunnel-protocol", "geneve")], "geneve", false),
        (&[("routing-mode", "")], "vxlan", false),
        (&[("auto-direct-node-routes", "false")], "vxlan", false),
        (&[("routing-mode", "native")], "native", true),
        (&[("routing-mode", "native"), ("auto-direct-node-routes", "false")], "native", false),
        // Cilium's chart writes the protocol in every mode.
        (&[("routing-mode", "native"), ("tunnel-protocol", "geneve")], "native", true),
        (&[("backends.routing", "native"), ("tunnel-protocol", "geneve")], "native", true),
        (&[("backends.routing", "native")], "native", true),
    ] {
        assert_eq!(routing(keys), (backend.to_owned(), direct), "{keys:?}");
    }
}

#[test]
fn refusals_name_key_reason_and_remedy() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("ipam-mode", "x")], "ipam-mode: there is no key \"ipam-mode\"; did you mean \"ipam\"?"),
        (&[("routing-mod", "native")], "routing-mod: there is no key \"routing-mod\"; did you mean \"routing-mode\"?"),
        (
            &[("tunnel", "vxlan")],
            "tunnel: tunnel was removed; write routing-mode (native or tunnel) and tunnel-protocol (vxlan or geneve)",
        ),
        (
            &[("kube-proxy-replacement", "true")],
            "kube-proxy-replacement: kube-proxy-replacement=\"true\": service load balancing is not built into this version; set kubeProxyReplacement to false",
        ),
        (&[("enable-ipv4", "maybe")], "enable-ipv4: enable-ipv4=\"maybe\" is no boolean; write \"true\" or \"false\""),
        (
            &[("tunnel-port", "70000")],
            "tunnel-port: tunnel-port=\"70000\" is out of range; write a number from 0 to 65535",
        ),
        (&[("mtu", "625")], "mtu: mtu=\"625\" is too small; write 0 for detection, or a number from 626 to 65535"),
        (
            &[("mtu", "575"), ("backends.routing", "native")],
            "mtu: mtu=\"575\" is too small; write 0 for detection, or a number from 576 to 65535",
        ),
        (
            &[("mtu", "1349"), ("enable-ipv6", "true"), ("underlay-protocol", "ipv6")],
            "mtu: mtu=\"1349\" is too small; write 0 for detection, or a number from 1350 to 65535",
        ),
        (
            &[("ipv4-native-routing-cidr", "fd00::/8")],
            "ipv4-native-routing-cidr: ipv4-native-routing-cidr=\"fd00::/8\" is an IPv6 network; write an IPv4 one such as 10.0.0.0/8",
        ),
        (
            &[("backends.ipam", "host_scope"), ("ipam", "cluster-pool")],
            "backends.ipam=\"host_scope\" (backends.ipam) and ipam=\"cluster-pool\" (ipam) contradict each other: ipam names the backend \"cluster_pool\"; remove one of them",
        ),
        (
            &[("backends.routing", "native"), ("routing-mode", "tunnel")],
            "backends.routing=\"native\" (backends.routing) and routing-mode=\"tunnel\" (routing-mode) contradict each other: routing-mode names the backend \"vxlan\"; remove one of them",
        ),
        (
            &[("enable-ipv4", "false")],
            "enable-ipv4=\"false\" (enable-ipv4) and enable-ipv6=\"false\" (default) contradict each other: pods would have no address; set one of them to true",
        ),
        (
            &[("routing-mode", "tunnel"), ("auto-direct-node-routes", "true")],
            "auto-direct-node-routes=\"true\" (auto-direct-node-routes) and routing-mode=\"tunnel\" (routing-mode) contradict each other: direct routes carry no tunnelled packets; remove auto-direct-node-routes or set routing-mode to native",
        ),
        (
            &[("auto-direct-node-routes", "true")],
            "auto-direct-node-routes=\"true\" (auto-direct-node-routes) and routing-mode=\"tunnel\" (default) contradict each other: direct routes carry no tunnelled packets; remove auto-direct-node-routes or set routing-mode to native",
        ),
        (
            &[("cluster-pool-ipv4-mask-size", "7")],
            "cluster-pool-ipv4-mask-size: cluster-pool-ipv4-mask-size=\"7\" is larger than 10.0.0.0/8 of cluster-pool-ipv4-cidr, so no block fits; write a number from 8 to 32",
        ),
        (
            &[("cluster-pool-ipv4-cidr", "10.0.0.0/8 10.1.0.0/16")],
            "cluster-pool-ipv4-cidr: cluster-pool-ipv4-cidr=\"10.0.0.0/8 10.1.0.0/16\" has 10.0.0.0/8 and 10.1.0.0/16, which overlap; remove one of them",
        ),
        (
            &[("cluster-pool-ipv4-cidr", "fd00::/104")],
            "cluster-pool-ipv4-cidr: cluster-pool-ipv4-cidr=\"fd00::/104\" has \"fd00::/104\", which is no IPv4 network; remove it",
        ),
        (
            &[("cluster-pool-ipv4-cidr", "10.0.0.0/33")],
            "cluster-pool-ipv4-cidr: cluster-pool-ipv4-cidr=\"10.0.0.0/33\" has \"10.0.0.0/33\", which is no network; write networks such as 10.0.0.0/8",
        ),
        (
            &[("cluster-pool-ipv6-mask-size", "121")],
            "cluster-pool-ipv6-mask-size: cluster-pool-ipv6-mask-size=\"121\" cuts fd00::/104 into more than 65536 blocks; write a number up to 120",
        ),
        (
            &[("ipam-default-ip-pool", "a"), ("backend.multi_pool.defaultPool", "b")],
            "ipam-default-ip-pool=\"a\" (ipam-default-ip-pool) and backend.multi_pool.defaultPool=\"b\" contradict each other: they are the same setting; remove one of them",
        ),
        (
            &[("backend.ebpf", "x")],
            "backend.ebpf: there is no key \"backend.ebpf\"; remove it; `kinesin config view` lists the keys",
        ),
    ];
    for (keys, expected) in cases {
        let found = Dir::with(keys).refusal();
        assert_eq!(found, format!("the configuration is refused: {expected}"), "{keys:?}");
    }
}

#[test]
fn a_refused_value_is_blamed_for_no_contradiction() {
    let error =
        Dir::with(&[("routing-mode", "natve"), ("auto-direct-node-routes", "true")]).load().expect_err("refused");
    assert_eq!(error.problems.len(), 1, "{error}");
}

#[test]
fn all_problems_are_reported_together() {
    let error = Dir::with(&[("mtu", "x"), ("debug", "x"), ("nonsense", "x")]).load().expect_err("three problems");
    assert_eq!(error.problems.len(), 3);
    assert!(error.to_string().starts_with("the configuration is refused for 3 reasons:\n  "), "{error}");
}

#[test]
fn unbuilt_features_are_accepted_at_their_default_and_when_they_are_off() {
    let config = Dir::with(&[("enable-hubble", "false"), ("enable-ipv4-masquerade", "true")]).load().expect("valid");
    assert_eq!(config.notices().len(), 1, "{:?}", config.notices());
    assert!(config.notices()[0].contains("masquerading is not built into this version"));
}

#[test]
fn what_is_no_text_is_refused_by_name() {
    let dir = Dir::new();
    dir.write("debug", &[0xff, 0xfe]);
    dir.write("mtu", b"15\0");
    dir.write("devices", &vec![b'a'; (1 << 20) + 1]);
    fs::create_dir(dir.0.join("ipam")).expect("a directory");
    let found = dir.refusal();
    for expected in [
        "debug: is not UTF-8 text; replace it",
        "mtu: holds the control character '\\0'; replace it",
        "devices: has 1048577 bytes, more than the 1048576 of a ConfigMap; replace it",
        "ipam: is not a regular file; replace it",
    ] {
        assert!(found.contains(expected), "{expected} is not in {found}");
    }
}

#[test]
fn missing_directory_and_two_files_are_refused() {
    let missing = Sources { config_dir: Some("/nonexistent/map".into()), ..Sources::default() };
    let error = Config::load(&missing).expect_err("missing").to_string();
    assert!(error.contains("/nonexistent/map: cannot be listed: No such file"), "{error}");
    let dir = Dir::with(&[]);
    dir.write("values.yaml", b"");
    let both =
        Sources { file: Some(dir.0.join("values.yaml")), config_dir: Some(Dir::new().0.clone()), ..Sources::default() };
    let error = Config::load(&both).expect_err("both").to_string();
    assert!(error.contains("give either a config directory or a config file"), "{error}");
}

#[test]
fn the_way_of_tunnels_is_an_option_of_the_chassis() {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Options {
        tunnel_path: String,
    }
    let found = |keys: &[(&str, &str)]| {
        let config = Dir::with(keys).load().unwrap_or_else(|error| panic!("{keys:?}: {error}"));
        config.section("ebpf").parse::<Options>().expect("valid").tunnel_path
    };
    assert_eq!(found(&[("tunnel-path", "device")]), "device");
    // The chart writes the default, which contradicts nobody.
    assert_eq!(found(&[("tunnel-path", "auto"), ("backend.ebpf.tunnelPath", "bpf")]), "bpf");
    let error = Dir::with(&[("tunnel-path", "kernel")]).load().expect_err("no such way").to_string();
    assert!(error.contains("tunnel-path") && error.contains("device") && error.contains("bpf"), "{error}");
    let both = [("tunnel-path", "device"), ("backend.ebpf.tunnelPath", "bpf")];
    let error = Dir::with(&both).load().expect_err("they contradict each other").to_string();
    assert!(error.contains("they are the same setting"), "{error}");
}

#[test]
fn sections_come_from_every_source() {
    let dir = Dir::with(&[("backend.ebpf.maxEndpoints", "100"), ("backend.ebpf.events.enabled", "true")]);
    let sources = Sources {
        config_dir: Some(dir.0.clone()),
        env: pairs(&[("KINESIN__BACKEND_CONFIG__EBPF__MAX_ENDPOINTS", "200")]),
        ..Sources::default()
    };
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Options {
        max_endpoints: u32,
        events: Events,
    }
    #[derive(serde::Deserialize)]
    struct Events {
        enabled: bool,
    }
    let config = Config::load(&sources).expect("valid");
    let options: Options = config.section("ebpf").parse().expect("valid");
    assert_eq!((options.max_endpoints, options.events.enabled), (200, true));
    assert_eq!(config.section_names().collect::<Vec<_>>(), ["ebpf"]);
    assert!(config.section("native").is_empty());
}

#[test]
fn values_file_is_read_like_the_directory() {
    let config = load_values(
        "ipam: {mode: kubernetes}\nroutingMode: native\nipv6: {enabled: true}\ndevices: [eth0, eth1]\nMTU: 1400\n\
         backends: {chassis: ebpf}\nbackendConfig: {ebpf: {list: [1, 2], nested: {on: true}}}\nextraConfig: {debug: true}\n",
    )
    .expect("valid");
    assert_eq!(config.devices, ["eth0", "eth1"]);
    assert_eq!(config.mtu_bytes, Some(1400));
    assert!(config.families.v6 && config.debug);
    assert!(source(&config, "mtu").1.ends_with("values.yaml (MTU)"));
    assert_eq!(source(&config, "backend.ebpf.list").0, "[1,2]");
}

#[test]
fn values_files_are_refused_with_the_path() {
    let cases = [
        ("routingMod: native", "there is no key \"routingMod\"; did you mean \"routingMode\"?"),
        ("routing-mode: native", "there is no key \"routing-mode\"; did you mean \"routingMode\"?"),
        (
            "ipam: {operator: {clusterPoolIPv4PodCIDR: 10.0.0.0/8}}",
            "ipam.operator.clusterPoolIPv4PodCIDR was removed; write ipam.operator.clusterPoolIPv4PodCIDRList, a list",
        ),
        ("ipam: kubernetes", "ipam=\"kubernetes\" is no mapping; write the keys under it"),
        ("- a", "is no mapping of keys to values"),
        ("a: [", "is no YAML"),
        ("debug: {enabled: true}\ndebug: {enabled: false}", "is no YAML: duplicate entry"),
        ("extraConfig: {debugg: true}", "there is no key \"debugg\"; did you mean \"debug\"?"),
    ];
    for (values, expected) in cases {
        let error = load_values(values).expect_err(values).to_string();
        assert!(error.contains(expected), "{values}: {error}");
    }
}

#[test]
fn environment_is_checked_like_the_rest() {
    let load =
        |env| Config::load(&Sources { env: pairs(env), ..Sources::default() }).map_err(|error| error.to_string());
    let error = load(&[("KINESIN__ROUTING_MOD", "native")]).expect_err("misspelt");
    assert!(error.ends_with("did you mean \"KINESIN__ROUTING_MODE\"?"), "{error}");
    let error = load(&[("KINESIN__IPAM__MODE", "kubernetes"), ("KINESIN__IPAM", "crd")]).expect_err("twice");
    assert!(error.contains("both set the same key; unset one of them"), "{error}");
    assert!(
        load(&[("KINESIN__BACKENDS__IPAM", "third_party")]).is_ok_and(|config| config.selection.ipam == "third_party")
    );
}

#[test]
fn settings_of_another_mode_are_accepted_with_a_notice() {
    let keys = [("ipam", "multi-pool"), ("cluster-pool-ipv4-cidr", "172.20.0.0/16"), ("ipam-default-ip-pool", "vac")];
    let config = Dir::with(&keys).load().expect("a migration needs both");
    let [notice] = config.notices() else { panic!("one notice: {:?}", config.notices()) };
    assert!(notice.contains("cluster-pool-ipv4-cidr belongs to the backend \"cluster_pool\""), "{notice}");
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Options {
        default_pool: String,
    }
    let options: Options = config.section("multi_pool").parse().expect("valid");
    assert_eq!(options.default_pool, "vac");
    assert_eq!(config.ipam_update_rate, std::time::Duration::from_secs(15));
}

#[test]
fn changed_names_what_differs() {
    let old = Dir::with(&[("mtu", "1400"), ("backend.ebpf.a", "1")]).load().expect("valid");
    let new = Dir::with(&[("mtu", "1500"), ("backend.ebpf.b", "1")]).load().expect("valid");
    assert_eq!(old.changed(&new), ["backend.ebpf.a", "backend.ebpf.b", "mtu"]);
    assert!(old.changed(&old).is_empty());
}

#[test]
fn the_stock_charts_config_map_is_understood() {
    let keys: Vec<(&str, &str)> =
        include_str!("stock.txt").lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
    let config = Dir::with(&keys).load().expect("every key of it");
    assert_eq!(config.selection.ipam, "cluster_pool");
    assert_eq!(config.selection.routing, "vxlan");
    assert!(config.notices().iter().any(|notice| notice.contains("Hubble is not built")), "{:?}", config.notices());
}
