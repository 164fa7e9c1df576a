//! `auto-create-cilium-pod-ip-pools`: the pools that the operator makes if they are not there.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use kinesin_cluster::{
    CiliumPodIPPool, ClusterError,
    crd::{Ipv4Ranges, Ipv6Ranges, PoolSpec},
};
use kinesin_ipam_blocks::{PoolSpec as Ranges, Pools, Source};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

use super::write::{Requests, code};

/// The key, as errors name it.
pub(crate) const KEY: &str = "auto-create-cilium-pod-ip-pools";

/// Pools by name.
pub(crate) type AutoPools = BTreeMap<String, PoolSpec>;

/// Parses `NAME=ATTR;ATTR,NAME=...`, where an attribute is `ipv4-cidrs:A,B`, `ipv4-mask-size:N` or the same with ipv6.
///
/// # Errors
/// What is wrong, with the key and the position in the text, counted in characters from 1.
pub(crate) fn parse(text: &str) -> anyhow::Result<AutoPools> {
    let mut pools = AutoPools::new();
    for (position, entry) in entries(text) {
        let at = |offset: usize| text[..position + offset].chars().count() + 1;
        let Some((name, attributes)) = entry.split_once('=') else {
            bail!("{KEY}: position {}: {entry:?} is no pool; write NAME=ipv4-cidrs:CIDR,...;ipv4-mask-size:N", at(0));
        };
        let name = name.trim();
        ensure!(
            is_name(name),
            "{KEY}: position {}: {name:?} is no name of a pool (lower case letters, digits, - and .)",
            at(0)
        );
        ensure!(!pools.contains_key(name), "{KEY}: position {}: pool {name:?} is written twice; remove one", at(0));
        let mut offset = entry.len() - attributes.len();
        let (mut cidrs, mut masks) = ([None, None], [None, None]);
        for attribute in attributes.split(';') {
            let here = at(offset);
            offset += attribute.len() + 1;
            if attribute.trim().is_empty() {
                continue;
            }
            let (key, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            let (key, value) = (key.trim(), value.trim());
            let family = usize::from(key.starts_with("ipv6"));
            match key {
                "ipv4-cidrs" | "ipv6-cidrs" => {
                    let list: Vec<String> = value.split(',').map(|text| text.trim().to_owned()).collect();
                    for cidr in &list {
                        let parsed: Result<ipnet::IpNet, _> = cidr.parse();
                        let fits = parsed.is_ok_and(|net| net.addr().is_ipv6() == (family == 1));
                        ensure!(fits, "{KEY}: position {here}: {cidr:?} of pool {name:?} is no CIDR for {key}");
                    }
                    ensure!(
                        cidrs[family].is_none(),
                        "{KEY}: position {here}: {key} is written twice for pool {name:?}"
                    );
                    cidrs[family] = Some(list);
                }
                "ipv4-mask-size" | "ipv6-mask-size" => {
                    let longest = if family == 1 { 128 } else { 32 };
                    let mask = value.parse::<u8>().ok().filter(|mask| (1..=longest).contains(mask));
                    let Some(mask) = mask else {
                        bail!("{KEY}: position {here}: {value:?} of pool {name:?} is no mask size from 1 to {longest}");
                    };
                    ensure!(
                        masks[family].is_none(),
                        "{KEY}: position {here}: {key} is written twice for pool {name:?}"
                    );
                    masks[family] = Some(mask);
                }
                _ => bail!(
                    "{KEY}: position {here}: {key:?} of pool {name:?} is no attribute; there is: ipv4-cidrs, \
                     ipv4-mask-size, ipv6-cidrs, ipv6-mask-size"
                ),
            }
        }
        let spec =
            assemble(name, cidrs, masks).map_err(|reason| anyhow::anyhow!("{KEY}: position {}: {reason}", at(0)))?;
        pools.insert(name.to_owned(), spec);
    }
    overlaps(&pools)?;
    Ok(pools)
}

/// Commas stand between pools and between CIDRs: what has a `=` begins a pool.
fn entries(text: &str) -> Vec<(usize, &str)> {
    let mut found: Vec<(usize, &str)> = Vec::new();
    let mut start = 0;
    for part in text.split(',') {
        let end = start + part.len();
        match found.last_mut() {
            Some((begin, entry)) if !part.contains('=') => *entry = &text[*begin..end],
            _ if part.trim().is_empty() => {}
            _ => found.push((start, part)),
        }
        start = end + 1;
    }
    found
}

/// RFC 1123 subdomain, as names of objects are.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn assemble(name: &str, cidrs: [Option<Vec<String>>; 2], masks: [Option<u8>; 2]) -> Result<PoolSpec, String> {
    let [v4, v6] = cidrs;
    let pair = |cidrs: Option<Vec<String>>, mask: Option<u8>, family: &str| match (cidrs, mask) {
        (Some(cidrs), Some(mask)) => Ok(Some((cidrs, mask))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(format!("pool {name:?} has {family}-cidrs and no {family}-mask-size; add it")),
        (None, Some(_)) => Err(format!("pool {name:?} has {family}-mask-size and no {family}-cidrs; add them")),
    };
    let v4 = pair(v4, masks[0], "ipv4")?;
    let v6 = pair(v6, masks[1], "ipv6")?;
    if v4.is_none() && v6.is_none() {
        return Err(format!("pool {name:?} has no range; add ipv4-cidrs and ipv4-mask-size, or the same with ipv6"));
    }
    Ok(PoolSpec {
        ipv4: v4.map(|(cidrs, mask_size)| Ipv4Ranges { cidrs, mask_size }),
        ipv6: v6.map(|(cidrs, mask_size)| Ipv6Ranges { cidrs, mask_size }),
    })
}

/// Ranges that collide, and mask sizes that do not fit, are refused before anything is made.
fn overlaps(pools: &AutoPools) -> anyhow::Result<()> {
    let specs: Vec<Ranges> = pools
        .iter()
        .map(|(name, spec)| Ranges {
            source: Source::pool(name),
            ipv4: spec.ipv4.as_ref().map(|ranges| (ranges.cidrs.clone(), ranges.mask_size)),
            ipv6: spec.ipv6.as_ref().map(|ranges| (ranges.cidrs.clone(), ranges.mask_size)),
        })
        .collect();
    let checked = Pools::check(&specs);
    for spec in &specs {
        if let Some(reason) = checked.refused(&spec.source).first() {
            bail!("{KEY}: {}: {reason}", spec.source);
        }
    }
    Ok(())
}

/// Makes the pools that are missing; one that is there stays as it is.
///
/// # Errors
/// The first that could not be made.
pub(crate) async fn create(requests: &Requests, pools: &AutoPools) -> Result<(), ClusterError> {
    let api: Api<CiliumPodIPPool> = Api::all(requests.client());
    for (name, spec) in pools {
        let pool = CiliumPodIPPool {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            spec: spec.clone(),
            status: None,
        };
        let params = PostParams::default();
        match requests.write(&format!("create CiliumPodIPPool {name}"), api.create(&params, &pool)).await {
            Ok(_) => tracing::info!(pool = name, "created CiliumPodIPPool"),
            Err(error) if code(&error) == Some(409) => {
                tracing::debug!(pool = name, "CiliumPodIPPool is there and stays")
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_chart_is_understood() {
        let pools = parse("default=ipv4-cidrs:172.20.0.0/16;ipv4-mask-size:28").expect("the seed's");
        let expected = Ipv4Ranges { cidrs: vec!["172.20.0.0/16".to_owned()], mask_size: 28 };
        assert_eq!(pools["default"], PoolSpec { ipv4: Some(expected), ipv6: None });
        let text = "a=ipv4-cidrs:10.0.0.0/8,11.0.0.0/8;ipv4-mask-size:24,b=ipv6-cidrs:fd00::/64;ipv6-mask-size:96;";
        let pools = parse(text).expect("two pools");
        assert_eq!(pools["a"].ipv4.as_ref().map(|ranges| ranges.cidrs.len()), Some(2));
        assert_eq!(pools["b"].ipv6.as_ref().map(|ranges| ranges.mask_size), Some(96));
        assert_eq!(parse("").expect("none"), AutoPools::new());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_position() {
        for (text, position, reason) in [
            ("default", "position 1:", "is no pool"),
            ("Default=ipv4-cidrs:10.0.0.0/8", "position 1:", "no name"),
            ("a=ipv4-cidrs:10.0.0.0/8", "position 1:", "no ipv4-mask-size"),
            ("a=ipv4-mask-size:24", "position 1:", "no ipv4-cidrs"),
            ("a=", "position 1:", "has no range"),
            ("a=ipv4-cidrs:10.0.0.0/8;ipv4-mask-size:33", "position 25:", "from 1 to 32"),
            ("a=ipv4-cidrs:10.0.0.0/8;mask:24", "position 25:", "no attribute"),
            ("a=ipv4-cidrs:10.0.0.0/8;ipv4-mask-size:24,b=ipv4-cidrs:x;ipv4-mask-size:24", "position 45:", "\"x\""),
            ("a=ipv4-cidrs:fd00::/64;ipv4-mask-size:24", "position 3:", "fd00::/64"),
            ("a=ipv4-cidrs:10.0.0.0/24;ipv4-mask-size:16", KEY, "larger than"),
            (
                "a=ipv4-cidrs:10.0.0.0/8;ipv4-mask-size:24,b=ipv4-cidrs:10.1.0.0/16;ipv4-mask-size:24",
                KEY,
                "collides with 10.0.0.0/8",
            ),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(KEY) && error.contains(position) && error.contains(reason), "{text}: {error}");
        }
    }
}
