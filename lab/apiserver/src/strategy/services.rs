//! Services: cluster addresses, node ports, defaults.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::error::{ApiError, Cause};
use crate::kinds::Kind;
use crate::object;
use crate::ops::Api;

/// First address of the services' range 10.96.0.0/12, as kubeadm sets it.
const V4_BASE: u32 = u32::from_be_bytes([10, 96, 0, 0]);
const V4_SIZE: u32 = 1 << 20;
/// The services' range fd00:10:96::/112.
const V6_BASE: u128 = 0xfd00_0010_0096_0000_0000_0000_0000_0000;
const V6_SIZE: u128 = 1 << 16;
/// Node ports, as kube-apiserver hands them out.
const NODE_PORTS: std::ops::Range<i64> = 30_000..32_768;

pub(super) fn set_defaults(service: &mut Value) {
    object::set_default(service, &["spec"], json!({}));
    object::set_default(service, &["spec", "type"], "ClusterIP");
    object::set_default(service, &["spec", "sessionAffinity"], "None");
    let kind = object::text(service, &["spec", "type"]).to_owned();
    if kind != "ExternalName" {
        object::set_default(service, &["spec", "internalTrafficPolicy"], "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        object::set_default(service, &["spec", "externalTrafficPolicy"], "Cluster");
    }
    for port in service["spec"].get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        object::set_default(port, &["protocol"], "TCP");
        let number = port["port"].clone();
        object::set_default(port, &["targetPort"], number);
    }
}

pub(super) fn prepare_create(api: &Api, kind: &Kind, service: &mut Value) -> Result<(), ApiError> {
    object::set_default(service, &["spec"], json!({}));
    service["status"] = json!({"loadBalancer": {}});
    allocate(api, kind, service)
}

pub(super) fn prepare_update(api: &Api, kind: &Kind, old: &Value, service: &mut Value) -> Result<(), ApiError> {
    let becomes_external = object::text(service, &["spec", "type"]) == "ExternalName";
    if !becomes_external {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = object::at(old, &["spec", field]) {
                object::set_default(service, &["spec", field], value.clone());
            }
        }
        let was = object::text(old, &["spec", "clusterIP"]);
        let is = object::text(service, &["spec", "clusterIP"]);
        if !was.is_empty() && was != is {
            let cause = Cause::invalid("spec.clusterIPs[0]", &is.into(), "may not change once set");
            return Err(ApiError::invalid(kind, object::name(service), &[cause]));
        }
        // Node ports stay with their ports.
        let old_ports = object::list(old, &["spec", "ports"]).to_vec();
        for port in service["spec"].get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let same = old_ports.iter().find(|p| p["port"] == port["port"] && p["protocol"] == port["protocol"]);
            if let Some(number) = same.and_then(|p| p.get("nodePort")) {
                object::set_default(port, &["nodePort"], number.clone());
            }
        }
    }
    allocate(api, kind, service)
}

/// Gives a service its cluster addresses and node ports where it has none.
fn allocate(api: &Api, kind: &Kind, service: &mut Value) -> Result<(), ApiError> {
    let service_type = object::text(service, &["spec", "type"]).to_owned();
    if service_type == "ExternalName" {
        return Ok(());
    }
    let name = object::name(service).to_owned();
    let others: Vec<_> = api
        .all("services")
        .into_iter()
        .filter(|s| (object::namespace(s), object::name(s)) != (object::namespace(service), object::name(service)))
        .collect();
    let taken: BTreeSet<&str> =
        others.iter().flat_map(|s| object::list(s, &["spec", "clusterIPs"])).filter_map(Value::as_str).collect();

    let families = families(service);
    object::set(service, &["spec", "ipFamilies"], families.clone());
    object::set_default(service, &["spec", "ipFamilyPolicy"], "SingleStack");
    let asked = object::text(service, &["spec", "clusterIP"]).to_owned();
    let mut addresses: Vec<String> =
        object::list(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if asked == "None" {
        addresses = vec!["None".to_owned()];
    } else {
        if addresses.is_empty() && !asked.is_empty() {
            addresses.push(asked);
        }
        for (i, address) in addresses.iter().enumerate() {
            if taken.contains(address.as_str()) {
                let cause = Cause::invalid(
                    format!("spec.clusterIPs[{i}]"),
                    &address.as_str().into(),
                    "provided IP is already allocated",
                );
                return Err(ApiError::invalid(kind, &name, &[cause]));
            }
        }
        for family in families.iter().skip(addresses.len()) {
            let free = free_address(family, &taken).ok_or_else(|| {
                ApiError::internal(format!("the range of {family} service addresses is full; delete services"))
            })?;
            addresses.push(free);
        }
        addresses.truncate(families.len());
    }
    object::set(service, &["spec", "clusterIP"], addresses.first().cloned().unwrap_or_default());
    object::set(service, &["spec", "clusterIPs"], addresses);

    let wants_node_ports = matches!(service_type.as_str(), "NodePort" | "LoadBalancer");
    let mut used: BTreeSet<i64> = others
        .iter()
        .flat_map(|s| object::list(s, &["spec", "ports"]))
        .filter_map(|p| object::int(p, &["nodePort"]))
        .collect();
    for (i, port) in service["spec"].get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        if !wants_node_ports {
            object::unset(port, &["nodePort"]);
            continue;
        }
        match object::int(port, &["nodePort"]).filter(|p| *p != 0) {
            Some(number) if used.contains(&number) || !NODE_PORTS.contains(&number) => {
                let why =
                    format!("provided port is already allocated or not in {}-{}", NODE_PORTS.start, NODE_PORTS.end - 1);
                let cause = Cause::invalid(format!("spec.ports[{i}].nodePort"), &number.into(), &why);
                return Err(ApiError::invalid(kind, &name, &[cause]));
            }
            Some(number) => {
                used.insert(number);
            }
            None => {
                let free = NODE_PORTS
                    .clone()
                    .find(|p| !used.contains(p))
                    .ok_or_else(|| ApiError::internal("all node ports are in use; delete services of type NodePort"))?;
                used.insert(free);
                object::set(port, &["nodePort"], free);
            }
        }
    }
    Ok(())
}

/// The families a service asks for, in order; IPv4 alone unless it says otherwise.
fn families(service: &Value) -> Vec<String> {
    let mut families: Vec<String> =
        object::list(service, &["spec", "ipFamilies"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if families.is_empty() {
        let first = if object::text(service, &["spec", "clusterIP"]).contains(':') { "IPv6" } else { "IPv4" };
        families.push(first.to_owned());
    }
    match object::text(service, &["spec", "ipFamilyPolicy"]) {
        "PreferDualStack" | "RequireDualStack" if families.len() == 1 => {
            let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
            families.push(other.to_owned());
        }
        "SingleStack" => families.truncate(1),
        _ => {}
    }
    families
}

fn free_address(family: &str, taken: &BTreeSet<&str>) -> Option<String> {
    // .1 belongs to the service `kubernetes` and .10 to DNS by convention; the others start above.
    if family == "IPv6" {
        (0x20..V6_SIZE).map(|n| Ipv6Addr::from(V6_BASE + n).to_string()).find(|a| !taken.contains(a.as_str()))
    } else {
        (0x20..V4_SIZE).map(|n| Ipv4Addr::from(V4_BASE + n).to_string()).find(|a| !taken.contains(a.as_str()))
    }
}

pub(super) fn validate(service: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = object::text(service, &["spec", "type"]);
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        let allowed = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"].map(str::to_owned);
        causes.push(Cause::not_supported("spec.type", &kind.into(), &allowed));
    }
    if kind == "ExternalName" && object::text(service, &["spec", "externalName"]).is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    let ports = object::list(service, &["spec", "ports"]);
    if ports.is_empty() && kind != "ExternalName" && object::text(service, &["spec", "clusterIP"]) != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (i, port) in ports.iter().enumerate() {
        let number = object::int(port, &["port"]).unwrap_or_default();
        if !(1..=65535).contains(&number) {
            let field = format!("spec.ports[{i}].port");
            causes.push(Cause::invalid(field, &number.into(), "must be between 1 and 65535, inclusive"));
        }
        if ports.len() > 1 && object::text(port, &["name"]).is_empty() {
            causes.push(Cause::required(format!("spec.ports[{i}].name"), ""));
        }
    }
    causes
}
