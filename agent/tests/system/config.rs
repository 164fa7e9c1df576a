//! Configurations that are refused, at the first start, while the agent runs, and at a restart.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use kinesin_agent_api::types::State;

use crate::{
    cluster::{CIDRS, Cluster},
    leaks,
    node::{API, NAME, Node, built},
    pods::Pod,
};

/// A ConfigMap as the kubelet mounts it: keys are links through `..data`, which is exchanged in one step.
struct Mounted {
    directory: PathBuf,
    version: u32,
}

impl Mounted {
    fn new(node: &Node) -> Self {
        let directory = node.directory.path().join("config-map");
        fs::create_dir(&directory).expect("directory");
        Self { directory, version: 0 }
    }

    /// Exchanges the content for the usual keys and `extra` ones.
    fn set(&mut self, node: &Node, extra: &[(&str, &str)]) {
        self.version += 1;
        let name = format!("..2026_01_01_00_00_{:02}.1", self.version);
        let content = self.directory.join(&name);
        fs::create_dir(&content).expect("directory");
        let cni = node.directory.path().join("net.d/05-cilium.conflist").display().to_string();
        let api = format!("http://{API}");
        let usual = [("k8s-api-server", api.as_str()), ("enable-ipv6", "true"), ("write-cni-conf-when-ready", &cni)];
        for (key, value) in usual.iter().chain(extra) {
            fs::write(content.join(key), value).expect("key");
        }
        symlink(&name, self.directory.join("..data_tmp")).expect("link");
        fs::rename(self.directory.join("..data_tmp"), self.directory.join("..data")).expect("exchanged");
        for entry in fs::read_dir(&self.directory).expect("directory").map(|entry| entry.expect("entry")) {
            if !entry.file_name().to_string_lossy().starts_with("..") {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
        for (key, _) in usual.iter().chain(extra) {
            symlink(format!("..data/{key}"), self.directory.join(key)).expect("link");
        }
    }

    fn agent(&self, node: &Node) -> std::process::Command {
        let mut command = node.command(built("kinesin-agent"));
        command.arg(format!("--k8s-node-name={NAME}")).arg(format!("--config-dir={}", self.directory.display()));
        command
    }
}

#[test]
fn first_start_is_refused_with_file_key_reason_and_remedy() {
    let node = Node::new();
    let mut config = Mounted::new(&node);
    let cases: [(&str, &str, &[&str]); 6] = [
        ("enable-ipv7", "true", &["there is no key", "enable-ipv6"]),
        ("mtu", "many", &["\"many\""]),
        ("enable-bgp-control-plane", "true", &["BGP", "not built"]),
        ("backends.routing", "pigeons", &["pigeons", "native"]),
        ("routing-mode", "pigeons", &["pigeons", "native"]),
        ("cluster-health-port", "0", &["1", "65535"]),
    ];
    for (key, value, told) in cases {
        config.set(&node, &[(key, value)]);
        let said = node.refused(config.agent(&node));
        assert!(said.contains(key), "{key}={value}: {said}");
        assert!(told.iter().all(|part| said.contains(part)), "{key}={value}: {said}");
        assert!(said.contains(&format!("config-map/{key}")), "{key}={value} names its file: {said}");
        assert!(node.files("/var/run/cilium/state").is_empty() && node.files("/sys/fs/bpf/kinesin").is_empty());
    }
}

#[test]
fn refused_configuration_degrades_a_running_agent_and_its_restart() {
    for state_dir in ["/var/run/cilium", "/run/elsewhere"] {
        let mut node = Node::new();
        let _cluster = Cluster::new(&node, &CIDRS);
        let mut config = Mounted::new(&node);
        let usual = [("state-dir", state_dir)];
        config.set(&node, &usual);
        node.start_with(config.agent(&node));
        let status = node.ready();
        assert_eq!(status.cilium.msg, "");
        let pod = Pod::new("c1");
        let result = pod.add(&node).ok();

        config.set(&node, &[usual[0], ("enable-ipv7", "true")]);
        let refused = |text: &str| text.contains("enable-ipv7") && text.contains("accepted before");
        let status = node.status_when("degraded", |status| refused(&status.cilium.msg));
        assert_eq!(status.cilium.state, State::Ok, "it goes on");
        assert_eq!(pod.add(&node).ok(), result);

        node.kill();
        node.start_with(config.agent(&node));
        let status = node.ready();
        assert!(refused(&status.cilium.msg), "{}", status.cilium.msg);
        assert_eq!(pod.add(&node).ok(), result);
        let another = Pod::new("c2");
        another.add(&node).ok();

        // Put right again, it is as if nothing had been; another value waits for a restart.
        config.set(&node, &usual);
        node.status_when("content", |status| status.cilium.msg.is_empty());
        config.set(&node, &[usual[0], ("mtu", "1400")]);
        node.status_when("waiting", |status| {
            status.cilium.msg.contains("restart") && status.cilium.msg.contains("mtu")
        });
        if state_dir == "/var/run/cilium" {
            leaks::consistent(&node);
        }
    }
}

#[test]
fn unusable_addresses_of_the_api_server_are_refused() {
    let node = Node::new();
    for (flag, told) in [
        ("--k8s-api-server=nonsense", "nonsense"),
        ("--k8s-kubeconfig-path=/run/no-such-kubeconfig", "/run/no-such-kubeconfig"),
    ] {
        let mut command = node.command(built("kinesin-agent"));
        command.arg(flag);
        let said = node.refused(command);
        assert!(said.contains(told), "{said}");
    }
    let mut command = node.command(built("kinesin-agent"));
    let said = node.refused({
        command.arg("--config-dir=/run/no-such-directory");
        command
    });
    assert!(said.contains("/run/no-such-directory") && said.contains("mount the ConfigMap"), "{said}");
    assert!(node.files("/sys/fs/bpf/kinesin").is_empty());
}
