//! CNI ADD and DEL, timed on the node from the start of the plugin's process to its end.
//!
//! That is what a runtime waits for. The benchmark runs itself on the node ([`on_node_main`]), in all its namespaces, as
//! containerd is there; the pods' namespaces are made before and removed after, and do not count.

use std::{
    fs,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Barrier,
    thread,
    time::Instant,
};

use kinesin_lab::Node;
use kinesin_netlink::NetNs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::BenchError;

/// Where a node has the programs of the directory that this one is in.
const OWN_PROGRAM: &str = "/opt/kinesin/build/kinesin-bench";
/// Where runtimes keep namespaces.
const NETNS_DIR: &str = "/run/netns";
/// Subcommand of [`on_node_main`].
pub(crate) const ON_NODE: &str = "on-node";

/// How pods of a contender are attached.
#[derive(Debug, Clone)]
pub struct Network {
    /// Where.
    pub node: Node,
    /// Where the node has the plugins.
    pub bin_dir: PathBuf,
    /// The plugin's `type`.
    pub program: String,
    /// What it gets on stdin, without `prevResult`.
    pub conf: Value,
}

/// What shall be attached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Names of the pods and of their namespaces.
    pub pods: Vec<String>,
    /// Whether all are attached at once.
    pub parallel: bool,
    /// Whether they stay; otherwise they are detached in the same way and their namespaces removed.
    pub keep: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Milliseconds of each ADD.
    pub add_ms: Vec<f64>,
    /// Milliseconds of each DEL.
    pub del_ms: Vec<f64>,
    /// Addresses of each pod.
    pub addresses: Vec<Vec<IpAddr>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    bin_dir: PathBuf,
    program: String,
    conf: Value,
    order: Order,
}

/// Attaches pods on a node.
///
/// # Errors
/// `Plugin` with what the plugin said; `Io` when the node cannot be used.
pub fn run(network: &Network, order: &Order) -> Result<Outcome, BenchError> {
    let Network { node, bin_dir, program, conf } = network;
    let plan = Plan { bin_dir: bin_dir.clone(), program: program.clone(), conf: conf.clone(), order: order.clone() };
    let file = node.dir().join("bench-plan.json");
    let text = serde_json::to_vec(&plan).map_err(BenchError::io("write down the order"))?;
    fs::write(&file, text).map_err(BenchError::io(format!("write {}", file.display())))?;
    let output = node.output([OWN_PROGRAM.as_ref(), ON_NODE.as_ref(), file.as_os_str()])?;
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        return Err(BenchError::Scene(format!("on node {:?}: {told}", node.name())));
    }
    serde_json::from_slice(&output.stdout).map_err(BenchError::io("read what the node measured"))
}

/// What runs on the node: does what the file orders and returns the outcome.
///
/// # Errors
/// As [`run`].
pub fn on_node_main(file: &Path) -> Result<Outcome, BenchError> {
    let text = fs::read(file).map_err(BenchError::io(format!("read {}", file.display())))?;
    let plan: Plan = serde_json::from_slice(&text).map_err(BenchError::io(format!("read {}", file.display())))?;
    let names = &plan.order.pods;
    for name in names {
        NetNs::create(netns_of(name))?;
    }
    let done = attach_all(&plan);
    if !plan.order.keep || done.is_err() {
        for name in names {
            NetNs::remove(netns_of(name))?;
        }
    }
    done
}

fn attach_all(plan: &Plan) -> Result<Outcome, BenchError> {
    let names: Vec<(&str, Value)> = plan.order.pods.iter().map(|name| (name.as_str(), Value::Null)).collect();
    let added = all(plan, "ADD", &names);
    let mut outcome = Outcome::default();
    let mut attached = Vec::new();
    let mut failed = None;
    for (name, call) in plan.order.pods.iter().zip(added) {
        match call {
            Ok((took, result)) => {
                outcome.add_ms.push(took);
                outcome.addresses.push(addresses_in(&result));
                attached.push((name.as_str(), result));
            }
            Err(error) => {
                // The spec wants a DEL after a failed ADD too.
                attached.push((name.as_str(), Value::Null));
                failed = failed.or(Some(error));
            }
        }
    }
    if !plan.order.keep || failed.is_some() {
        for call in all(plan, "DEL", &attached) {
            match call {
                Ok((took, _)) => outcome.del_ms.push(took),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
    }
    failed.map_or(Ok(outcome), Err)
}

type Call = Result<(f64, Value), BenchError>;

fn all(plan: &Plan, command: &'static str, pods: &[(&str, Value)]) -> Vec<Call> {
    if !plan.order.parallel {
        return pods.iter().map(|(name, before)| call(plan, command, name, before)).collect();
    }
    let start = Barrier::new(pods.len());
    let start = &start;
    thread::scope(|scope| {
        let together = |(name, before): &'_ (&'_ str, Value)| {
            let (name, before) = ((*name).to_owned(), before.clone());
            scope.spawn(move || {
                start.wait();
                call(plan, command, &name, &before)
            })
        };
        let threads: Vec<_> = pods.iter().map(together).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(BenchError::Scene("a thread panicked".to_owned()))));
        joined.collect()
    })
}

/// One call, as containerd makes it; milliseconds from the start of the process to its end.
fn call(plan: &Plan, command: &'static str, pod: &str, before: &Value) -> Call {
    let failed = |reason: String| BenchError::Plugin { command, plugin: plan.program.clone(), reason };
    let mut conf = plan.conf.clone();
    if !before.is_null() {
        conf["prevResult"] = before.clone();
    }
    let id = container_id(pod);
    let mut process = Command::new(plan.bin_dir.join(&plan.program));
    process
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &id)
        .env("CNI_NETNS", netns_of(pod))
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", &plan.bin_dir)
        .env(
            "CNI_ARGS",
            format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={pod}"
            ),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let stdin = conf.to_string();
    let begun = Instant::now();
    let mut child = process.spawn().map_err(|error| failed(format!("it does not start: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // A plugin that ends without reading says why itself.
        let _ = input.write_all(stdin.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    if !output.status.success() {
        let told = [output.stdout, output.stderr].concat();
        return Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&told).trim())));
    }
    if command == "DEL" {
        return Ok((took, Value::Null));
    }
    let result: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| failed(format!("no result: {error}")))?;
    if addresses_in(&result).is_empty() {
        return Err(failed(format!("the result has no address: {result}")));
    }
    Ok((took, result))
}

fn netns_of(pod: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(pod)
}

/// 64 digits, as those of containerd.
fn container_id(pod: &str) -> String {
    let digits: String = pod.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits:0>64}")
}

fn addresses_in(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn container_ids_have_64_digits_and_differ() {
        let (one, other) = (container_id("add-1-2"), container_id("add-1-3"));
        assert_eq!((one.len(), other.len()), (64, 64));
        assert_ne!(one, other);
    }

    #[test]
    fn addresses_are_read_without_their_prefix_length() {
        let result = json!({"ips": [{"address": "10.0.0.2/24"}, {"address": "fd00::2/64"}, {"address": 3}]});
        assert_eq!(addresses_in(&result), ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert!(addresses_in(&json!({})).is_empty());
    }
}
