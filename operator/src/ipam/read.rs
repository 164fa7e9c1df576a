//! Objects of the API server as the engine sees them. Nothing is refused for what others wrote into it.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use kinesin_cluster::{
    IPAM_MODE,
    crd::{ClaimsSpec, NodeClaims, PoolSpec as PoolObject, ReleasedBlock, StatusCondition},
};
use kinesin_ipam_blocks::{
    BlockUse, Claim, Claims, Mode, Name, NodeView, Pool, PoolSpec, Released, Report, Request, Source, Version,
};
use kube::{ResourceExt, api::DynamicObject};
use serde::Deserialize;
use serde_json::Value;

/// Type of the operator's condition on CiliumNodes.
pub(crate) const CONDITION: &str = "PodAddresses";

/// A Node: its pod CIDRs and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) cidrs: Vec<IpNet>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// A pool, with what is needed to tell which is older, and to write its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolView {
    pub(crate) created: Option<Timestamp>,
    pub(crate) deleted: bool,
    pub(crate) spec: PoolSpec,
    pub(crate) conditions: Vec<StatusCondition>,
    pub(crate) version: String,
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|network| network.trunc())
}

pub(crate) fn version(object: &DynamicObject) -> Version {
    Version(object.resource_version().unwrap_or_default())
}

/// A CiliumNode.
pub(crate) fn node(object: &DynamicObject) -> NodeView {
    let (ipam, status) = (&object.data["spec"]["ipam"], &object.data["status"]);
    let pools = ipam["pools"]["allocated"].as_array().into_iter().flatten();
    let requests = ipam["pools"]["requested"].as_array().into_iter().flatten();
    let uses = status["ipam"]["pod-cidrs"].as_object().into_iter().flatten();
    NodeView {
        version: version(object),
        mode: object.annotations().get(IPAM_MODE).and_then(|mode| mode.parse::<Mode>().ok()),
        pod_cidrs: texts(&ipam["podCIDRs"]),
        allocated: pools
            .map(|entry| Pool {
                pool: entry["pool"].as_str().unwrap_or_default().to_owned(),
                cidrs: texts(&entry["cidrs"]),
            })
            .collect(),
        requested: requests
            .filter_map(|entry| {
                // Less than none is none.
                let number = |field: &str| {
                    let value = &entry["needed"][field];
                    value.as_u64().unwrap_or_default()
                };
                let needed = Request { ipv4: number("ipv4-addrs"), ipv6: number("ipv6-addrs") };
                Some((Name::from(entry["pool"].as_str()?), needed))
            })
            .collect(),
        uses: uses
            .filter_map(|(cidr, entry)| {
                let used = match entry["status"].as_str()? {
                    "in-use" => BlockUse::InUse,
                    "depleted" => BlockUse::Depleted,
                    "released" => BlockUse::Released,
                    _ => return None,
                };
                Some((network(cidr)?, used))
            })
            .collect(),
        report: report(status),
    }
}

fn report(status: &Value) -> Report {
    let error = status["ipam"]["operator-status"]["error"].as_str().unwrap_or_default().to_owned();
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let ours = conditions.filter_map(|condition| StatusCondition::deserialize(condition).ok());
    let condition = ours
        .filter(|condition| condition.r#type == CONDITION)
        .map(|condition| (condition.status == "True", condition.reason, condition.message))
        .next();
    Report { error, condition }
}

/// A Node.
pub(crate) fn host(object: &DynamicObject) -> Result<Host, String> {
    let spec = &object.data["spec"];
    let mut cidrs = texts(&spec["podCIDRs"]);
    cidrs.extend(spec["podCIDR"].as_str().filter(|text| !text.is_empty()).map(str::to_owned));
    let mut cidrs: Vec<IpNet> = cidrs.iter().filter_map(|text| network(text)).collect();
    cidrs.sort();
    cidrs.dedup();
    let addresses = object.data["status"]["addresses"].as_array().into_iter().flatten();
    let mut addresses: Vec<IpAddr> = addresses.filter_map(|entry| entry["address"].as_str()?.parse().ok()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(Host { cidrs, addresses })
}

/// A CiliumPodIPPool.
pub(crate) fn pool(object: &DynamicObject) -> Result<PoolView, String> {
    let spec = PoolObject::deserialize(&object.data["spec"]).map_err(|error| format!("spec: {error}"))?;
    let conditions = object.data["status"]["conditions"].as_array().into_iter().flatten();
    Ok(PoolView {
        created: object.creation_timestamp().map(|time| time.0),
        deleted: object.metadata.deletion_timestamp.is_some(),
        spec: PoolSpec {
            source: Source::pool(&object.name_any()),
            ipv4: spec.ipv4.map(|ranges| (ranges.cidrs, ranges.mask_size)),
            ipv6: spec.ipv6.map(|ranges| (ranges.cidrs, ranges.mask_size)),
        },
        conditions: conditions.filter_map(|condition| StatusCondition::deserialize(condition).ok()).collect(),
        version: object.resource_version().unwrap_or_default(),
    })
}

/// The content of an object of claims.
///
/// # Errors
/// What in it is not as the operator writes it. Such an object is not used: to guess would be to give blocks out twice.
pub(crate) fn claims(spec: &ClaimsSpec) -> Result<Claims, String> {
    let range = network(&spec.range).ok_or_else(|| format!("spec.range: {:?} is no CIDR", spec.range))?;
    let mut found = Claims::new(range);
    found.sequence = u64::try_from(spec.sequence).unwrap_or_default();
    let source = |mode: &str, pool: &str| {
        let mode = mode.parse::<Mode>()?;
        Ok::<_, String>(Source { mode, pool: pool.into() })
    };
    let block = |text: &str| {
        let parsed = network(text).filter(|block| range.contains(block));
        parsed.ok_or_else(|| format!("{text:?} is no block of {range}"))
    };
    // One node's name stands once in memory, however many blocks it has.
    let mut names: BTreeMap<&str, Name> = BTreeMap::new();
    for entry in &spec.claims {
        let source = source(&entry.mode, &entry.pool)?;
        let node = names.entry(&entry.node).or_insert_with(|| entry.node.as_str().into()).clone();
        for cidr in &entry.cidrs {
            let claim = Claim { node: node.clone(), source: source.clone() };
            if let Some(other) = found.claims.insert(block(cidr)?, claim) {
                return Err(format!("{cidr} is claimed for both {} and {}", other.node, entry.node));
            }
        }
    }
    for entry in &spec.released {
        let claim = Claim { node: entry.node.as_str().into(), source: source(&entry.mode, &entry.pool)? };
        let sequence = u64::try_from(entry.sequence).unwrap_or_default();
        found.released.insert(block(&entry.cidr)?, Released { claim, at: entry.at.clone(), sequence });
    }
    Ok(found)
}

/// An object's content as it is written.
pub(crate) fn spec(claims: &Claims) -> ClaimsSpec {
    let mut by_node: BTreeMap<(&Name, &Source), Vec<String>> = BTreeMap::new();
    for (block, claim) in &claims.claims {
        by_node.entry((&claim.node, &claim.source)).or_default().push(block.to_string());
    }
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    ClaimsSpec {
        range: claims.network.to_string(),
        sequence: i64::try_from(claims.sequence).unwrap_or_default(),
        claimed_blocks: number(claims.claims.len()),
        released_blocks: number(claims.released.len()),
        claims: by_node
            .into_iter()
            .map(|((node, source), cidrs)| NodeClaims {
                node: node.to_string(),
                mode: source.mode.to_string(),
                pool: source.pool.to_string(),
                cidrs,
            })
            .collect(),
        released: claims
            .released
            .iter()
            .map(|(block, released)| ReleasedBlock {
                cidr: block.to_string(),
                node: released.claim.node.to_string(),
                mode: released.claim.source.mode.to_string(),
                pool: released.claim.source.pool.to_string(),
                at: released.at.clone(),
                sequence: i64::try_from(released.sequence).unwrap_or_default(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn node_is_read_whatever_others_wrote_into_it() {
        let view = node(&object(json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNode",
            "metadata": {"name": "w1", "resourceVersion": "7", "annotations": {"ipam.kinesin.io/mode": "multi-pool"}},
            "spec": {"ipam": {
                "podCIDRs": ["10.0.0.0/24", "x"],
                "pools": {
                    "requested": [{"pool": "vac", "needed": {"ipv4-addrs": 9, "ipv6-addrs": -3}}, {"needed": 5}, 7],
                    "allocated": [{"pool": "vac", "cidrs": ["10.1.0.0/28"]}],
                },
            }},
            "status": {
                "ipam": {
                    "pod-cidrs": {"10.0.0.0/24": {"status": "depleted"}, "y": {"status": "in-use"}, "10.0.1.0/24": 5},
                    "operator-status": {"error": "allocator full"},
                },
                "conditions": [
                    {"type": "AddressesAvailable", "status": "True"},
                    {"type": "PodAddresses", "status": "False", "reason": "RangeFull", "message": "full"},
                ],
            },
        })));
        assert_eq!(view.mode, Some(Mode::MultiPool));
        assert_eq!(view.pod_cidrs, ["10.0.0.0/24", "x"]);
        assert_eq!(view.requested, BTreeMap::from([("vac".into(), Request { ipv4: 9, ipv6: 0 })]));
        assert_eq!(view.uses.len(), 1);
        assert_eq!(view.report.error, "allocator full");
        assert_eq!(view.report.condition, Some((false, "RangeFull".to_owned(), "full".to_owned())));
    }

    #[test]
    fn claims_are_read_as_they_were_written() {
        let mut claims = Claims::new("10.0.0.0/16".parse().expect("a network"));
        let claim = |node: &str, source| Claim { node: node.into(), source };
        let net = |text: &str| text.parse::<IpNet>().expect("a network");
        claims.sequence = 9;
        claims.claims.insert(net("10.0.0.0/24"), claim("w1", Source::cluster_pool()));
        claims.claims.insert(net("10.0.1.0/28"), claim("w1", Source::pool("vac")));
        claims.claims.insert(net("10.0.1.16/28"), claim("w1", Source::pool("vac")));
        let released = Released { claim: claim("w2", Source::pool("vac")), at: "now".to_owned(), sequence: 8 };
        claims.released.insert(net("10.0.2.0/24"), released);
        let written = spec(&claims);
        assert_eq!((written.claimed_blocks, written.released_blocks, written.claims.len()), (3, 1, 2));
        assert_eq!(super::claims(&written), Ok(claims));
    }

    #[test]
    fn edited_claims_are_refused() {
        let claim = |node: &str, cidr: &str| NodeClaims {
            node: node.to_owned(),
            mode: "cluster-pool".to_owned(),
            pool: String::new(),
            cidrs: vec![cidr.to_owned()],
        };
        let spec =
            |claims: Vec<NodeClaims>| ClaimsSpec { range: "10.0.0.0/16".to_owned(), claims, ..ClaimsSpec::default() };
        for (spec, reason) in [
            (ClaimsSpec::default(), "spec.range"),
            (spec(vec![claim("w1", "10.1.0.0/24")]), "no block of"),
            (spec(vec![claim("w1", "10.0.0.0/24"), claim("w2", "10.0.0.0/24")]), "both w1 and w2"),
            (spec(vec![NodeClaims { mode: "x".to_owned(), ..claim("w1", "10.0.0.0/24") }]), "no mode"),
        ] {
            let error = claims(&spec).expect_err("refused");
            assert!(error.contains(reason), "{error}");
        }
    }
}
