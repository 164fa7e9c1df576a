//! What runs the suite on kind, as far as it can be looked at without Docker.

use std::{
    collections::BTreeSet,
    env,
    path::Path,
    process::{Command, Output},
};

use kinesin_core::config::{Config, Sources};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::helm::{config_map, helm, object, rendered, root};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs `conformance/kind/run`, with the helm of the tests.
fn run(arguments: &[&str]) -> Output {
    let mut path = vec![helm().parent().expect("a directory").to_owned()];
    path.extend(env::split_paths(&env::var_os("PATH").expect("PATH")));
    let home = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(root().join("conformance/kind/run"));
    command.args(arguments).env("PATH", env::join_paths(path).expect("PATH")).env("HOME", home.path());
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, home.path().join(name));
    }
    command.output().expect("bash runs")
}

/// The cluster's configuration and the chart's objects.
fn plan(arguments: &[&str]) -> (Value, Vec<Value>) {
    let output = run(&[&["--plan"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut documents =
        serde_yaml_ng::Deserializer::from_str(&text).map(|found| Value::deserialize(found).expect("YAML"));
    let cluster = documents.next().expect("the configuration");
    (cluster, documents.filter(|object| !object.is_null()).collect())
}

#[test]
fn every_family_and_proxy_gives_a_cluster_without_a_network_and_a_chart_that_fits() {
    for (family, pods) in
        [("ipv4", "10.244.0.0/16"), ("ipv6", "fd00:10:244::/56"), ("dual", "10.244.0.0/16,fd00:10:244::/56")]
    {
        let (cluster, objects) = plan(&["--families", family]);
        let networking = json!({
            "disableDefaultCNI": true, "kubeProxyMode": "iptables", "ipFamily": family, "podSubnet": pods,
        });
        assert_eq!(cluster["networking"], networking);
        assert_eq!((&cluster["kind"], &cluster["apiVersion"]), (&json!("Cluster"), &json!("kind.x-k8s.io/v1alpha4")));
        let roles: Vec<_> =
            cluster["nodes"].as_array().expect("nodes").iter().map(|node| node["role"].clone()).collect();
        assert_eq!(roles, ["control-plane", "worker", "worker"]);

        let map = config_map(&objects);
        let flags = map.into_iter().collect();
        let config = Config::load(&Sources { flags, ..Sources::default() }).expect("accepted");
        assert_eq!((config.families.v4, config.families.v6), (family != "ipv6", family != "ipv4"));
        let pod = &object(&objects, "DaemonSet", "cilium")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!((&pod["image"], &pod["imagePullPolicy"]), (&json!("kinesin/kinesin:kind"), &json!("Never")));
        let env = pod["env"].as_array().expect("a list");
        assert!(env.contains(&json!({"name": "KUBERNETES_SERVICE_HOST", "value": "192.0.2.1"})), "{env:?}");
        assert!(env.contains(&json!({"name": "KUBERNETES_SERVICE_PORT", "value": "6443"})), "{env:?}");
    }
    assert_eq!(plan(&["--kube-proxy", "none"]).0["networking"]["kubeProxyMode"], "none");
}

#[test]
fn more_values_are_laid_over_and_arguments_of_the_suite_are_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("more.yaml");
    std::fs::write(&file, "debug: {enabled: true}").expect("written");
    let (_, objects) = plan(&["--values", file.to_str().expect("UTF-8"), "--", "--no-option-of-the-script"]);
    assert_eq!(config_map(&objects)["debug"], "true");
}

#[test]
fn wrong_options_are_refused_before_anything_is_done() {
    for (arguments, word) in [
        (&["--families", "both"][..], "--families is ipv4, ipv6 or dual, not 'both'"),
        (&["--kube-proxy", "yes"], "--kube-proxy is none, iptables, ipvs or nftables"),
        (&["--name", "a b"], "--name is made of"),
        (&["--name"], "--name needs a value"),
        (&["--nonsense"], "there is no option '--nonsense'"),
    ] {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(word), "{arguments:?}: {said}");
    }
}

#[test]
fn scripts_are_well_formed() {
    for script in ["conformance/kind/run", "images/build"] {
        let output = Command::new("bash").arg("-n").arg(root().join(script)).output().expect("bash runs");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(root().join(script)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} is not executable");
    }
}

#[test]
fn suite_is_asked_for_with_options_that_it_has() {
    let script = read("conformance/kind/run");
    let line = script.split("kinesin\" conformance ").nth(1).expect("the suite is run");
    let options: Vec<_> = line.split_whitespace().filter_map(|word| word.strip_prefix("--")).collect();
    assert!(options.contains(&"target") && options.contains(&"report"), "{options:?}");
    let arguments = read("cli/src/args.rs");
    for option in options {
        assert!(arguments.contains(&format!("    pub {option}: ")), "kinesin conformance has no option --{option}");
    }
}

/// Names of the programs that `cargo build --workspace --bins` makes.
fn programs() -> BTreeSet<String> {
    let manifest = read("Cargo.toml");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).expect("members");
    let mut found = BTreeSet::new();
    for member in members.split('"').skip(1).step_by(2) {
        if root().join(member).join("src/main.rs").is_file() {
            let manifest = read(&format!("{member}/Cargo.toml"));
            let named = manifest.split("[[bin]]").nth(1).unwrap_or(&manifest);
            let name = named.split("name = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a name");
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
fn image_is_made_of_programs_that_are_built_and_holds_what_the_chart_starts() {
    let dockerfile = read("images/Dockerfile");
    let copied = dockerfile.lines().find_map(|line| line.strip_prefix("COPY ")).expect("a COPY");
    let mut copied: Vec<_> = copied.split_whitespace().collect();
    assert_eq!(copied.pop(), Some("/usr/bin/"));
    let copied: BTreeSet<_> = copied.into_iter().map(str::to_owned).collect();
    let built = programs();
    let strangers: Vec<_> = copied.difference(&built).collect();
    assert!(strangers.is_empty(), "the Dockerfile copies what nothing builds: {strangers:?} of {built:?}");
    let script = read("images/build");
    let staged = script.split("programs=(").nth(1).and_then(|rest| rest.split(')').next()).expect("programs");
    assert_eq!(staged.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>(), copied);

    let objects = rendered("");
    for (kind, name) in [("DaemonSet", "cilium"), ("Deployment", "cilium-operator")] {
        let command = &object(&objects, kind, name)["spec"]["template"]["spec"]["containers"][0]["command"][0];
        assert!(copied.contains(command.as_str().expect("text")), "{command} is not in the image");
    }
    let install =
        object(&objects, "DaemonSet", "cilium")["spec"]["template"]["spec"]["initContainers"][1]["args"][0].clone();
    assert!(install.as_str().expect("text").contains("cp /usr/bin/kinesin-cni "), "{install}");
    for name in ["cilium", "cilium-dbg"] {
        assert!(dockerfile.contains(&format!("ln -s kinesin /usr/bin/{name} ")), "{name} is not the CLI");
    }
}

/// The scripts of init containers, with what they call in place of the host.
#[test]
fn plugin_is_installed_whole_and_by_its_name() {
    let objects = rendered("");
    let script = object(&objects, "DaemonSet", "cilium")["spec"]["template"]["spec"]["initContainers"][1]["args"][0]
        .as_str()
        .expect("text")
        .to_owned();
    let host = tempfile::tempdir().expect("a directory");
    let place = |path: &str| host.path().join(path);
    for directory in ["usr/bin", "host/opt/cni/bin"] {
        std::fs::create_dir_all(place(directory)).expect("made");
    }
    std::fs::write(place("usr/bin/kinesin-cni"), "new").expect("written");
    std::fs::write(place("host/opt/cni/bin/cilium-cni"), "old").expect("written");
    let script = script
        .replace("/host/opt", place("host/opt").to_str().expect("UTF-8"))
        .replace("/usr/bin", place("usr/bin").to_str().expect("UTF-8"));
    let output = Command::new("sh").args(["-ec", &script]).output().expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let there: Vec<_> = std::fs::read_dir(place("host/opt/cni/bin"))
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(there, ["cilium-cni"]);
    assert_eq!(std::fs::read_to_string(Path::new(&place("host/opt/cni/bin/cilium-cni"))).expect("read"), "new");
}
