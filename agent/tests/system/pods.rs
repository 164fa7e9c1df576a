//! Pods: namespaces, and the plugin that connects them.

use std::{
    io::Write as _,
    net::IpAddr,
    os::fd::AsRawFd as _,
    process::{Child, Command, Stdio, id},
    sync::Arc,
};

use kinesin_netlink::NetNs;
use serde_json::{Value, json};

use crate::node::{Node, built};

/// One pod: its namespace, which lives as long as this value, and its container.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) netns: Arc<NetNs>,
    pub(crate) container: String,
}

/// What the plugin answered.
#[derive(Debug)]
#[expect(dead_code, reason = "what it said on stderr is for whoever reads a failed test")]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    stdout: String,
    stderr: String,
}

impl Outcome {
    fn of(child: Child) -> Self {
        let output = child.wait_with_output().expect("output");
        Self {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Demands success.
    pub(crate) fn ok(&self) -> Value {
        assert!(self.success, "{self:?}");
        if self.stdout.is_empty() { Value::Null } else { serde_json::from_str(&self.stdout).expect("JSON") }
    }

    /// Demands an error in the form of the specification, and answers its words.
    pub(crate) fn error(&self) -> String {
        assert!(!self.success, "{self:?}");
        let answer: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert!(answer["code"].as_u64().is_some_and(|code| code > 0), "{answer}");
        format!("{}; {}", answer["msg"].as_str().expect("msg"), answer["details"].as_str().unwrap_or_default())
    }
}

impl Pod {
    /// A pod that is not connected yet.
    pub(crate) fn new(name: impl ToString) -> Self {
        let netns = NetNs::anonymous().expect("root may make namespaces");
        Self { netns: Arc::new(netns), container: name.to_string() }
    }

    /// Several of them.
    pub(crate) fn several(count: usize) -> Vec<Self> {
        (0..count).map(|number| Self::new(format!("c{number}"))).collect()
    }

    /// Starts the plugin; whoever called waits for it with [`finish`].
    pub(crate) fn start(&self, node: &Node, command: &str) -> Child {
        self.start_in(node, command, &self.path())
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", id(), self.netns.as_raw_fd())
    }

    fn start_in(&self, node: &Node, command: &str, netns: &str) -> Child {
        let mut child = self.spawn(node, command, netns);
        feed(&mut child);
        child
    }

    /// Starts the plugin, which waits for its configuration until [`feed`] gives it.
    pub(crate) fn held(&self, node: &Node, command: &str) -> Child {
        self.spawn(node, command, &self.path())
    }

    fn spawn(&self, node: &Node, command: &str, netns: &str) -> Child {
        let mut plugin: Command = node.command(built("kinesin-cni"));
        let container = &self.container;
        plugin
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", netns)
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={container};K8S_POD_UID=u-{container}"));
        plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run")
    }

    /// ADD.
    pub(crate) fn add(&self, node: &Node) -> Outcome {
        finish(self.start(node, "ADD"))
    }

    /// ADD with a namespace that is not there.
    pub(crate) fn add_in(&self, node: &Node, netns: &str) -> Outcome {
        finish(self.start_in(node, "ADD", netns))
    }

    /// DEL.
    pub(crate) fn del(&self, node: &Node) -> Outcome {
        finish(self.start(node, "DEL"))
    }
}

/// Gives a plugin its configuration.
pub(crate) fn feed(child: &mut Child) {
    let config = json!({"cniVersion": "1.1.0", "name": "cilium", "type": "cilium-cni"}).to_string();
    // A plugin that refuses early, or was killed, has closed its end before everything is written.
    let _ = child.stdin.take().expect("piped").write_all(config.as_bytes());
}

/// Waits for a plugin; it limits itself.
pub(crate) fn finish(child: Child) -> Outcome {
    Outcome::of(child)
}

/// Addresses in a result, IPv4 first.
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().expect("ips");
    let text = |ip: &Value| ip["address"].as_str().and_then(|text| text.split('/').next()?.parse().ok());
    ips.iter().map(|ip| text(ip).expect("an address")).collect()
}
