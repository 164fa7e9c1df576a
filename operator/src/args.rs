//! The command line. Flags that Cilium's operator has too bear its names and defaults.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use clap::Parser;
use kinesin_core::config::{Config, Sources};

use crate::{election::Timing, ipam::IpamSettings, operator::Settings, reload};

/// What is once per cluster: resource definitions and the collection of what nodes left behind.
#[derive(Debug, Parser)]
#[command(name = "kinesin-operator", version)]
pub struct Args {
    /// The mounted ConfigMap cilium-config: the way to the API server, over which flags win, and what nodes get addresses
    /// of. Its changes are followed.
    #[arg(long, value_name = "DIRECTORY")]
    pub config_dir: Option<PathBuf>,
    /// Kubeconfig file; without it, the service account of the Pod is used.
    #[arg(long, visible_alias = "k8s-kubeconfig-path", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// URL of the API server, in place of the kubeconfig's.
    #[arg(long, value_name = "URL")]
    pub k8s_api_server: Option<String>,
    /// Namespace of the lease by which replicas elect a leader.
    #[arg(long, env = "CILIUM_K8S_NAMESPACE", default_value = "kube-system", value_name = "NAME")]
    pub k8s_namespace: String,
    /// Name of this replica in the lease; must differ from those of the others. Default: host name and a number.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,
    /// How long the others wait after the last sign of a leader.
    #[arg(long, default_value = "15s", value_parser = parse_duration, value_name = "DURATION")]
    pub leader_election_lease_duration: Duration,
    /// A leader that could not renew for so long stops leading.
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "DURATION")]
    pub leader_election_renew_deadline: Duration,
    /// Pause between two tries.
    #[arg(long, default_value = "2s", value_parser = parse_duration, value_name = "DURATION")]
    pub leader_election_retry_period: Duration,
    /// Between two looks for CiliumNodes without a Node; 0 is never.
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub nodes_gc_interval: Duration,
    /// Between two looks for CiliumEndpoints without a Pod; 0 is never.
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub cilium_endpoint_gc_interval: Duration,
    /// For how long an object must have been found orphaned before it is deleted.
    #[arg(long, default_value = "1m", value_parser = parse_duration, value_name = "DURATION")]
    pub gc_grace: Duration,
    /// Do not install the definitions; somebody else does.
    #[arg(long)]
    pub skip_crd_creation: bool,
    /// Address of GET /healthz.
    #[arg(long, default_value = "127.0.0.1:9234", value_name = "ADDRESS")]
    pub operator_api_serve_addr: String,
    /// Address of GET /metrics, without a host on all; empty is none.
    #[arg(long, default_value = ":9963", value_name = "ADDRESS")]
    pub operator_prometheus_serve_addr: String,
}

/// The way to the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// Kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// URL in place of the kubeconfig's.
    pub url: Option<String>,
}

impl Args {
    /// The way to the API server, by flags or by the ConfigMap.
    ///
    /// # Errors
    /// When the ConfigMap is refused: the agents refuse it too, and the message says why.
    pub fn api_server(&self) -> anyhow::Result<ApiServer> {
        let config = match &self.config_dir {
            Some(directory) => {
                let sources = Sources { config_dir: Some(directory.clone()), ..Sources::default() };
                Some(Config::load(&sources)?.k8s)
            }
            None => None,
        };
        let (kubeconfig, url) = config.map(|k8s| (k8s.kubeconfig_path, k8s.api_server)).unwrap_or_default();
        Ok(ApiServer { kubeconfig: self.kubeconfig.clone().or(kubeconfig), url: self.k8s_api_server.clone().or(url) })
    }

    /// What nodes get addresses of, by the ConfigMap; without one, what Kubernetes gives them.
    fn ipam(&self) -> anyhow::Result<IpamSettings> {
        self.config_dir.clone().map_or_else(|| Ok(IpamSettings::default()), reload::load)
    }

    /// The checked settings.
    ///
    /// # Errors
    /// For durations that cannot elect a leader, and for values of the ConfigMap that cannot be used.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let timing = Timing {
            lease: self.leader_election_lease_duration,
            renew: self.leader_election_renew_deadline,
            retry: self.leader_election_retry_period,
        };
        timing.validate()?;
        let identity = match self.identity.as_deref().map(str::trim) {
            Some(identity) if !identity.is_empty() => identity.to_owned(),
            _ => own_name()?,
        };
        let interval = |interval: Duration| (!interval.is_zero()).then_some(interval);
        Ok(Settings {
            namespace: self.k8s_namespace.clone(),
            identity,
            timing,
            nodes_interval: interval(self.nodes_gc_interval),
            endpoints_interval: interval(self.cilium_endpoint_gc_interval),
            ipam: self.ipam()?,
            config_dir: self.config_dir.clone(),
            grace: self.gc_grace,
            install_crds: !self.skip_crd_creation,
            health_address: self.operator_api_serve_addr.clone(),
            metrics_address: Some(self.operator_prometheus_serve_addr.clone()).filter(|text| !text.is_empty()),
        })
    }
}

/// Host name and a number that no other process on it has at this time.
fn own_name() -> anyhow::Result<String> {
    let host =
        std::fs::read_to_string("/proc/sys/kernel/hostname").context("the host name is not known; give --identity")?;
    let host = host.trim();
    ensure!(!host.is_empty(), "the host has no name; give --identity");
    Ok(format!("{host}-{}", std::process::id()))
}

/// As Go writes them: `15s`, `1m30s`, `5m0s`, `200ms`, and `0`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let wrong = || format!("{text:?} is no duration; write it as 15s, 5m or 200ms");
    let mut rest = text;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let factor = match &rest[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        rest = &rest[unit..];
        millis = number.checked_mul(factor).and_then(|part| millis.checked_add(part)).ok_or_else(wrong)?;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(millis)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let cases = [("15s", 15_000), ("5m0s", 300_000), ("1h2m3s4ms", 3_723_004), ("0", 0), ("0s", 0)];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5x", "-1s", "1.5s", "5s ", "99999999999999999999s", "9999999999999999999h", "5é"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn config_map_shows_the_way_and_flags_win() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("k8s-api-server"), "http://10.0.0.1:6443").expect("a key");
        let map = format!("--config-dir={}", directory.path().display());
        let parse =
            |words: &[&str]| Args::try_parse_from([&["kinesin-operator", &map], words].concat()).expect("flags");
        assert_eq!(parse(&[]).api_server().expect("accepted").url.as_deref(), Some("http://10.0.0.1:6443"));
        let flag = parse(&["--k8s-api-server=http://10.0.0.2:6443"]);
        assert_eq!(flag.api_server().expect("accepted").url.as_deref(), Some("http://10.0.0.2:6443"));
        std::fs::write(directory.path().join("no-such-key"), "1").expect("a key");
        let error = parse(&[]).api_server().expect_err("refused").to_string();
        assert!(error.contains("no-such-key"), "{error}");
    }

    #[test]
    fn defaults_are_usable_and_an_impossible_election_is_refused() {
        let parse = |words: &[&str]| Args::try_parse_from([&["kinesin-operator", "--identity=a"], words].concat());
        let settings = parse(&[]).expect("flags").settings().expect("settings");
        assert_eq!(settings.health_address, "127.0.0.1:9234");
        assert_eq!(settings.metrics_address.as_deref(), Some(":9963"));
        assert_eq!(settings.nodes_interval, Some(Duration::from_secs(300)));
        let late = parse(&["--leader-election-renew-deadline=15s"]).expect("flags");
        assert!(late.settings().expect_err("no time left").to_string().contains("lease"));
        let off = parse(&["--nodes-gc-interval=0", "--operator-prometheus-serve-addr="]).expect("flags");
        let off = off.settings().expect("settings");
        assert_eq!((off.nodes_interval, off.metrics_address), (None, None));
    }
}
