//! Runs a chain of CNI plugins as containerd and libcni do.
//!
//! Source: CNI specification 1.1, `libcni/api.go` and `pkg/invoke` of the CNI project, `go-cni` of containerd.

mod conf;
mod plugin;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use conf::{ConfList, find_conf};

use crate::KubeletError;

/// What a sandbox was attached with; kept on disk, since DEL needs the configuration and the result of its ADD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) conf: ConfList,
    pub(crate) result: Option<Value>,
}

/// The sandbox that a call is about.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox<'a> {
    pub(crate) id: &'a str,
    pub(crate) netns: Option<&'a Path>,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    /// Ports of the node that lead to the pod, for plugins with the capability `portMappings`.
    pub(crate) port_mappings: Vec<Value>,
}

impl Sandbox<'_> {
    fn environment(&self, command: &str, bin_dir: &Path) -> Vec<(&'static str, String)> {
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            self.namespace, self.name, self.id, self.uid
        );
        vec![
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", self.id.to_owned()),
            ("CNI_NETNS", self.netns.map(|p| p.display().to_string()).unwrap_or_default()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_ARGS", arguments),
            ("CNI_PATH", bin_dir.display().to_string()),
        ]
    }
}

/// Attaches a sandbox: every plugin of the list in order, each with the result of the one before.
///
/// # Errors
/// `Cni` in the words of libcni. What has been done by then is the caller's to undo by [`del`].
pub(crate) async fn add(conf: &ConfList, bin_dir: &Path, sandbox: &Sandbox<'_>) -> Result<Value, KubeletError> {
    let mut result: Option<Value> = None;
    for plugin in &conf.plugins {
        let stdin = conf.stdin_of(plugin, result.as_ref(), &sandbox.port_mappings);
        let answer = run(plugin, bin_dir, sandbox, "ADD", &stdin)
            .await
            .map_err(|why| KubeletError::Cni(format!("plugin type={:?} failed (add): {why}", conf::kind(plugin))))?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| {
            KubeletError::Cni(format!(
                "plugin type={:?} failed (add): unable to parse result: {error}",
                conf::kind(plugin)
            ))
        })?;
        result = Some(answer);
    }
    result.ok_or_else(|| KubeletError::Cni("the network configuration list names no plugin".to_owned()))
}

/// Detaches a sandbox: the plugins in reverse order, each with the cached result of ADD.
///
/// # Errors
/// `Cni` of the first plugin that failed; like libcni, it stops there and the whole is tried again later.
pub(crate) async fn del(attachment: &Attachment, bin_dir: &Path, sandbox: &Sandbox<'_>) -> Result<(), KubeletError> {
    let conf = &attachment.conf;
    for plugin in conf.plugins.iter().rev() {
        let stdin = conf.stdin_of(plugin, attachment.result.as_ref(), &sandbox.port_mappings);
        run(plugin, bin_dir, sandbox, "DEL", &stdin)
            .await
            .map_err(|why| KubeletError::Cni(format!("plugin type={:?} failed (delete): {why}", conf::kind(plugin))))?;
    }
    Ok(())
}

async fn run(
    plugin: &Value,
    bin_dir: &Path,
    sandbox: &Sandbox<'_>,
    command: &str,
    stdin: &Value,
) -> Result<Vec<u8>, String> {
    let program = find_plugin(conf::kind(plugin), bin_dir)?;
    plugin::call(&program, &sandbox.environment(command, bin_dir), stdin.to_string().as_bytes()).await
}

fn find_plugin(kind: &str, bin_dir: &Path) -> Result<PathBuf, String> {
    // A name with a slash would leave the directory.
    if kind.is_empty() || kind.contains('/') {
        return Err(format!("invalid plugin name: {kind}"));
    }
    let path = bin_dir.join(kind);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("failed to find plugin {kind:?} in path [{}]", bin_dir.display()))
    }
}

/// The addresses of the pod's interface in a result: those of `eth0`, or all where interfaces are not told apart.
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let interfaces = result["interfaces"].as_array();
    let is_ours = |ip: &Value| {
        let Some(index) = ip["interface"].as_u64().and_then(|i| usize::try_from(i).ok()) else { return true };
        interfaces.and_then(|all| all.get(index)).is_none_or(|interface| interface["name"] == json!("eth0"))
    };
    let mut found: Vec<IpAddr> = result["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|ip| is_ours(ip))
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
        .collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_eth0_are_the_pods() {
        let result = json!({"interfaces": [{"name": "lxc1"}, {"name": "eth0", "sandbox": "/x"}],
            "ips": [{"interface": 0, "address": "10.0.0.9/32"}, {"interface": 1, "address": "10.0.0.2/32"},
                {"address": "fd00::2/128"}, {"address": 7}]});
        assert_eq!(addresses(&result), ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert!(addresses(&json!([])).is_empty());
    }

    #[test]
    fn a_plugin_is_only_looked_for_in_its_directory() {
        assert!(find_plugin("../sh", Path::new("/bin")).is_err());
        assert_eq!(
            find_plugin("no-such-plugin", Path::new("/bin")).unwrap_err(),
            "failed to find plugin \"no-such-plugin\" in path [/bin]"
        );
    }
}
