//! Options of multi pool: as written, and checked.

use std::{collections::BTreeMap, time::Duration};

use kinesin_core::registry::BuildError;
use kinesin_ipam_allocator::check_number;
use serde::Deserialize;

use crate::NAME;

/// Cilium's default of `ipam-multi-pool-pre-allocation`.
const PRE_ALLOCATION: &str = "default=8";
/// The number in it.
const READY: u64 = 8;
/// More than this ready on one node is a mistake: an IPv6 block has no more addresses that are used.
const MOST_READY: u64 = 65_536;

/// Options as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Config {
    /// Pool of pods that name none.
    pub default_pool: String,
    /// Addresses kept ready, `POOL=NUMBER` separated by commas.
    pub pre_allocation: String,
    /// Seconds that a block has to be unneeded before it is given back.
    pub release_after_seconds: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { default_pool: "default".to_owned(), pre_allocation: PRE_ALLOCATION.to_owned(), release_after_seconds: 5 }
    }
}

/// Options, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Pool of pods that name none.
    pub default_pool: String,
    /// Addresses kept ready per pool; never 0.
    pub pre_allocation: BTreeMap<String, u64>,
    /// How long a block has to be unneeded before it is given back.
    pub linger: Duration,
}

impl Settings {
    /// Addresses that a node has of a pool for so many that are used or waited for: full portions of the pre-allocation, at
    /// least one of which is free (Cilium's `neededIPCeil`; reference 5.4).
    #[must_use]
    pub fn wanted(&self, pool: &str, base: u64) -> u64 {
        match self.pre_allocation.get(pool) {
            None => base,
            Some(portion) if base.is_multiple_of(*portion) => (base / portion + 1) * portion,
            Some(portion) => (base / portion + 2) * portion,
        }
    }
}

impl Config {
    /// Checks the options; touches no file.
    ///
    /// # Errors
    /// `Config` for what is no pool or no number.
    pub fn validate(self) -> Result<Settings, BuildError> {
        let refuse =
            |key: &str, reason: String| BuildError::Config { backend: NAME.to_owned(), key: key.to_owned(), reason };
        if !is_object_name(&self.default_pool) {
            let reason = format!("{:?} is no name of a CiliumPodIPPool; \"default\" is the default", self.default_pool);
            return Err(refuse("defaultPool", reason));
        }
        let pre_allocation = if self.pre_allocation == PRE_ALLOCATION {
            BTreeMap::from([(self.default_pool.clone(), READY)])
        } else {
            parse(&self.pre_allocation).map_err(|reason| refuse("preAllocation", reason))?
        };
        // A day.
        let linger =
            check_number(NAME, "releaseAfterSeconds", self.release_after_seconds, 0..=86_400, "5 is the default")?;
        let linger = Duration::from_secs(linger.into());
        Ok(Settings { default_pool: self.default_pool, pre_allocation, linger })
    }
}

/// `POOL=NUMBER`, separated by commas; a number of 0 is as good as none.
fn parse(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let mut pools = BTreeMap::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let form = || format!("{entry:?} is not POOL=NUMBER; write for example default=8,batch=16");
        let (pool, number) = entry.split_once('=').ok_or_else(form)?;
        let number: u64 = number.trim().parse().map_err(|_| form())?;
        let pool = pool.trim();
        if !is_object_name(pool) {
            return Err(form());
        }
        if number > MOST_READY {
            return Err(format!("{entry:?} asks for more than {MOST_READY} addresses; write a smaller number"));
        }
        if pools.insert(pool.to_owned(), number).is_some() {
            return Err(format!("pool {pool:?} is named twice; remove one"));
        }
    }
    pools.retain(|_, number| *number > 0);
    Ok(pools)
}

/// A DNS subdomain, as Kubernetes wants the name of an object (RFC 1123 section 2.1).
fn is_object_name(name: &str) -> bool {
    let edge = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    !name.is_empty()
        && name.len() <= 253
        && name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|letter| edge(letter) || letter == '-' || letter == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pre_allocation(text: &str) -> Result<BTreeMap<String, u64>, String> {
        let config = Config { pre_allocation: text.to_owned(), ..Config::default() };
        config.validate().map(|settings| settings.pre_allocation).map_err(|error| error.to_string())
    }

    #[test]
    fn default_file_equals_the_default() {
        let written: Config = toml::from_str(include_str!("../default.toml")).expect("valid");
        assert_eq!(written, Config::default());
        assert!(written.validate().is_ok());
    }

    #[test]
    fn pre_allocation_is_read_as_cilium_writes_it() {
        let expected = BTreeMap::from([("a".to_owned(), 16), ("default".to_owned(), 8)]);
        assert_eq!(pre_allocation(" default=8, a=16,b=0,"), Ok(expected));
        assert_eq!(pre_allocation(""), Ok(BTreeMap::new()));
    }

    #[test]
    fn the_default_pre_allocation_follows_the_default_pool() {
        let config = Config { default_pool: "vac".to_owned(), ..Config::default() };
        let settings = config.validate().expect("valid");
        assert_eq!(settings.pre_allocation, BTreeMap::from([("vac".to_owned(), 8)]));
    }

    #[test]
    fn nonsense_is_refused_by_key() {
        for text in ["default", "default=x", "=8", "default=-1", "Default=8", "a=1,a=2", "default=65537"] {
            let error = pre_allocation(text).expect_err(text);
            assert!(error.starts_with("backendConfig.multi_pool.preAllocation: "), "{error}");
        }
        let error = Config { default_pool: "a b".to_owned(), ..Config::default() }.validate().expect_err("no name");
        assert!(error.to_string().starts_with("backendConfig.multi_pool.defaultPool: "), "{error}");
        assert!(toml::from_str::<Config>("pool = \"x\"").is_err());
    }
}
