//! What a kubelet is started with.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::KubeletError;

/// What a kubelet is started with. All paths are absolute, as seen inside the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// Addresses of the node in the network of the nodes; the first of each family is announced first.
    pub internal_ips: Vec<IpAddr>,
    /// Where the API server listens, such as `http://172.18.0.1:6443`.
    pub api_server_url: String,
    /// Where network configuration lists are looked for; the node is ready once there is one.
    pub cni_conf_dir: PathBuf,
    /// Where the plugins are.
    pub cni_bin_dir: PathBuf,
    /// Unix socket for logs, exec and attach; the Node's annotation tells the API server.
    pub socket: PathBuf,
    /// State, volumes and run directories of the pods; a restarted kubelet goes on from it.
    pub pods_dir: PathBuf,
    /// Logs of the containers, as `/var/log/pods` on a real node.
    pub log_dir: PathBuf,
    /// Where the pods' network namespaces are kept, as `/run/netns` on a real node.
    pub netns_dir: PathBuf,
    /// The cgroup2 directory under which every pod gets its own; `None` leaves processes where they are.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// Where the binaries of Kinesin's images are.
    pub bin_dir: PathBuf,
    /// Labels of the Node beside those that every kubelet sets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The program that dispatches `lab-launch` and `lab-workload`; `None` is the running one.
    #[serde(default)]
    pub program: Option<PathBuf>,
}

impl Config {
    /// Checks what can be checked without touching anything.
    ///
    /// # Errors
    /// `Config` with the field and the reason.
    pub fn validate(&self) -> Result<(), KubeletError> {
        let wrong = |field: &'static str, reason: &str| Err(KubeletError::Config { field, reason: reason.to_owned() });
        if self.node_name.is_empty() {
            return wrong("node_name", "a node needs a name");
        }
        if self.internal_ips.is_empty() {
            return wrong("internal_ips", "a node needs an address");
        }
        let paths = [
            ("cni_conf_dir", &self.cni_conf_dir),
            ("cni_bin_dir", &self.cni_bin_dir),
            ("socket", &self.socket),
            ("pods_dir", &self.pods_dir),
            ("log_dir", &self.log_dir),
            ("netns_dir", &self.netns_dir),
            ("bin_dir", &self.bin_dir),
        ];
        for (field, path) in paths {
            if !path.is_absolute() {
                return wrong(field, &format!("{path:?} is not an absolute path"));
            }
        }
        Ok(())
    }

    /// One address per family, in the order given: what `status.hostIPs` shows.
    pub(crate) fn host_ips(&self) -> Vec<IpAddr> {
        let first = |v4: bool| self.internal_ips.iter().copied().find(|ip| ip.is_ipv4() == v4);
        let mut ips: Vec<IpAddr> = [first(true), first(false)].into_iter().flatten().collect();
        ips.sort_by_key(|ip| self.internal_ips.iter().position(|other| other == ip));
        ips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_refused_by_name() {
        let config = Config {
            node_name: "n".into(),
            internal_ips: vec!["fd00::1".parse().unwrap(), "10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            api_server_url: "http://127.0.0.1:1".into(),
            cni_conf_dir: "/c".into(),
            cni_bin_dir: "/b".into(),
            socket: "run/kubelet.sock".into(),
            pods_dir: "/p".into(),
            log_dir: "/l".into(),
            netns_dir: "/n".into(),
            cgroup: None,
            bin_dir: "/x".into(),
            labels: BTreeMap::new(),
            program: None,
        };
        assert!(config.validate().unwrap_err().to_string().contains("socket"));
        assert_eq!(config.host_ips(), ["fd00::1".parse::<IpAddr>().unwrap(), "10.0.0.1".parse().unwrap()]);
    }
}
