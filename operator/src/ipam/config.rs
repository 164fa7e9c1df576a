//! What of `cilium-config` the operator gives addresses by.

use std::time::Duration;

use anyhow::Context as _;
use kinesin_cluster_pool::Config as ClusterPoolOptions;
use kinesin_core::{
    config::{Config, keys},
    values::{Families, Family},
};
use kinesin_ipam_blocks::{Mode, PoolSpec, Source};

use super::auto_pools::{self, AutoPools};

/// Settings of IPAM, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpamSettings {
    /// `ipam`: mode of nodes whose agent names none.
    pub mode: Mode,
    /// `enable-ipv4`, `enable-ipv6`.
    pub families: Families,
    /// `backend.cluster_pool.grow`: whether a node that runs low in cluster-pool gets a further block.
    pub grow: bool,
    /// `ipam-cidr-quarantine`: how long a block that was given back is not given to another node.
    pub quarantine: Duration,
    /// `cluster-pool-ipv4-cidr` and the like; nothing if cluster-pool is neither the mode nor configured.
    pub cluster_pool: Option<PoolSpec>,
    /// `auto-create-cilium-pod-ip-pools`.
    pub(crate) auto_pools: AutoPools,
}

impl Default for IpamSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Kubernetes,
            families: Families { v4: true, v6: false },
            grow: true,
            quarantine: Duration::from_secs(30),
            cluster_pool: None,
            auto_pools: AutoPools::new(),
        }
    }
}

impl IpamSettings {
    /// The settings of a configuration that was accepted.
    ///
    /// # Errors
    /// A value that the operator alone reads and cannot use, with its key.
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        let written = |key: &str| config.entries().iter().find(|entry| entry.key == key).map(|entry| &*entry.value);
        let value = |key: &str| written(key).or_else(|| keys::find(key).map(|key| key.default)).unwrap_or_default();
        // Modes of clouds and of third parties have operators of their own.
        let mode = value("ipam").parse().unwrap_or(Mode::Kubernetes);
        let options: ClusterPoolOptions = config.section("cluster_pool").parse()?;
        // Read as everybody reads it, so that nobody accepts what another one refuses.
        let quarantine = keys::parse_duration(value("ipam-cidr-quarantine"))
            .context("ipam-cidr-quarantine is no duration; write one such as 30s or 5m0s")?;
        let ranges = |family: Family| {
            let (cidrs, size) = match family {
                Family::V4 => ("cluster-pool-ipv4-cidr", "cluster-pool-ipv4-mask-size"),
                Family::V6 => ("cluster-pool-ipv6-cidr", "cluster-pool-ipv6-mask-size"),
            };
            let served = config.families.contains(family) && (mode == Mode::ClusterPool || written(cidrs).is_some());
            let words = value(cidrs).split([' ', ',']).filter(|word| !word.is_empty());
            let list: Vec<String> = words.map(str::to_owned).collect();
            let mask = value(size).parse::<u8>().ok()?;
            (served && !list.is_empty()).then_some((list, mask))
        };
        let (ipv4, ipv6) = (ranges(Family::V4), ranges(Family::V6));
        let served = ipv4.is_some() || ipv6.is_some();
        Ok(Self {
            mode,
            families: config.families,
            grow: options.grow,
            quarantine,
            cluster_pool: served.then(|| PoolSpec { source: Source::cluster_pool(), ipv4, ipv6 }),
            auto_pools: auto_pools::parse(value(auto_pools::KEY))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use kinesin_core::config::Sources;

    use super::*;

    fn settings(flags: &[(&str, &str)]) -> anyhow::Result<IpamSettings> {
        let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        IpamSettings::of(&Config::load(&Sources { flags, ..Sources::default() })?)
    }

    #[test]
    fn values_of_the_seed_are_understood() {
        let found = settings(&[
            ("ipam", "cluster-pool"),
            ("cluster-pool-ipv4-cidr", "172.20.42.0/28 172.20.84.0/28"),
            ("cluster-pool-ipv4-mask-size", "29"),
        ])
        .expect("accepted");
        let ranges = vec!["172.20.42.0/28".to_owned(), "172.20.84.0/28".to_owned()];
        let pool = found.cluster_pool.expect("served");
        assert_eq!((pool.ipv4, pool.ipv6), (Some((ranges, 29)), None));
        assert_eq!((found.mode, found.grow, found.quarantine), (Mode::ClusterPool, true, Duration::from_secs(30)));
    }

    #[test]
    fn cluster_pool_is_served_in_another_mode_only_if_its_ranges_are_written() {
        assert_eq!(settings(&[("ipam", "multi-pool")]).expect("accepted").cluster_pool, None);
        let both = settings(&[("ipam", "multi-pool"), ("cluster-pool-ipv4-cidr", "10.0.0.0/16")]).expect("accepted");
        assert!(both.cluster_pool.is_some());
        let dual = settings(&[("ipam", "cluster-pool"), ("enable-ipv6", "true")]).expect("accepted");
        assert_eq!(dual.cluster_pool.and_then(|pool| pool.ipv6).map(|(_, mask)| mask), Some(120));
    }

    #[test]
    fn options_of_ours_are_read_and_nonsense_names_its_key() {
        let found =
            settings(&[("backend.cluster_pool.grow", "false"), ("ipam-cidr-quarantine", "5s")]).expect("accepted");
        assert_eq!((found.grow, found.quarantine), (false, Duration::from_secs(5)));
        // Whatever an agent accepts; what is too long to count is as long as can be counted.
        for (text, expected) in
            [("1.5m", Duration::from_secs(90)), ("999999999999999999h", Duration::from_nanos(u64::MAX))]
        {
            let found = settings(&[("ipam-cidr-quarantine", text)]).expect("accepted");
            assert_eq!(found.quarantine, expected, "{text}");
        }
        let error = settings(&[("auto-create-cilium-pod-ip-pools", "default=x:1")]).expect_err("refused").to_string();
        assert!(error.starts_with("auto-create-cilium-pod-ip-pools: position 9: "), "{error}");
    }
}
