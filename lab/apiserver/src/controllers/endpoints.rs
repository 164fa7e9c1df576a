//! Endpoints and EndpointSlices of services with a selector.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Controller, pods};
use crate::object;
use crate::ops::{Api, DeleteOptions, Write};
use crate::selectors::LabelSelector;

const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Endpoints per slice, as kube-controller-manager has it by default.
const SLICE_LIMIT: usize = 100;

#[derive(Debug)]
pub(super) struct Endpoints;

impl Controller for Endpoints {
    const WATCHES: &'static [&'static str] = &["services", "pods", "endpointslices.discovery.k8s.io", "endpoints"];

    fn pass(&mut self, api: &Api) -> Option<Duration> {
        for service in api.all("services") {
            if object::map(&service, &["spec", "selector"]).is_some_and(|s| !s.is_empty())
                && !object::is_deleting(&service)
                && object::text(&service, &["spec", "type"]) != "ExternalName"
            {
                let pods = selected(api, &service);
                write_slices(api, &service, plan_slices(&service, &pods));
                write_endpoints(api, &service, &pods);
            }
        }
        None
    }
}

fn selected(api: &Api, service: &Value) -> Vec<Arc<Value>> {
    let selector = object::map(service, &["spec", "selector"]).cloned().unwrap_or_default();
    let selector = LabelSelector::from_map(&selector);
    let mut pods = api.store.list("pods", Some(object::namespace(service))).0;
    pods.retain(|pod| {
        selector.matches(pod)
            && !object::text(pod, &["status", "podIP"]).is_empty()
            && !matches!(object::text(pod, &["status", "phase"]), "Succeeded" | "Failed")
    });
    pods
}

/// A pod's address of a family.
fn address<'a>(pod: &'a Value, family: &str) -> Option<&'a str> {
    let listed = object::list(pod, &["status", "podIPs"]).iter().map(|p| object::text(p, &["ip"]));
    listed
        .chain([object::text(pod, &["status", "podIP"])])
        .find(|ip| !ip.is_empty() && ip.contains(':') == (family == "IPv6"))
}

/// The ports of a service on one pod: named target ports are looked up in its containers.
fn ports_on(service: &Value, pod: &Value) -> Vec<Value> {
    object::list(service, &["spec", "ports"])
        .iter()
        .filter_map(|port| {
            let protocol = object::text(port, &["protocol"]);
            let number = match &port["targetPort"] {
                Value::String(name) => object::list(pod, &["spec", "containers"])
                    .iter()
                    .flat_map(|c| object::list(c, &["ports"]))
                    .find(|p| object::text(p, &["name"]) == name && object::text(p, &["protocol"]) == protocol)
                    .and_then(|p| object::int(p, &["containerPort"]))?,
                number => number.as_i64()?,
            };
            let mut entry = json!({"name": object::text(port, &["name"]), "port": number, "protocol": protocol});
            object::carry(port, &mut entry, &["appProtocol"]);
            Some(entry)
        })
        .collect()
}

/// The slices a service should have, by name.
fn plan_slices(service: &Value, pods: &[Arc<Value>]) -> BTreeMap<String, Value> {
    let mut slices = BTreeMap::new();
    let publishes_all = object::flag(service, &["spec", "publishNotReadyAddresses"]);
    for family in object::list(service, &["spec", "ipFamilies"]).iter().filter_map(Value::as_str) {
        let mut groups: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
        for pod in pods {
            let Some(ip) = address(pod, family) else { continue };
            let ports = ports_on(service, pod);
            let is_serving = object::is_true(pod, "Ready") || publishes_all;
            let is_going = object::is_deleting(pod);
            let mut endpoint = json!({
                "addresses": [ip],
                "conditions": {"ready": is_serving && !is_going, "serving": is_serving, "terminating": is_going},
                "targetRef": {"kind": "Pod", "namespace": object::namespace(pod), "name": object::name(pod), "uid": object::uid(pod)},
            });
            object::carry(&pod["spec"], &mut endpoint, &["nodeName"]);
            let group = groups.entry(json!(ports).to_string()).or_insert_with(|| (ports, Vec::new()));
            group.1.push(endpoint);
        }
        if groups.is_empty() {
            // A service without pods has one empty slice, which says so.
            groups.insert(String::new(), (Vec::new(), Vec::new()));
        }
        for (ports, endpoints) in groups.into_values() {
            let chunks: Vec<&[Value]> =
                if endpoints.is_empty() { vec![&[]] } else { endpoints.chunks(SLICE_LIMIT).collect() };
            for (i, chunk) in chunks.into_iter().enumerate() {
                // The name follows from what tells the slices apart, so that they are found again.
                let hash = object::short_hash(&json!([family, ports, i]));
                let name = format!("{}-{}", object::name(service), &hash[..hash.len().min(5)]);
                let mut labels = object::map(service, &["metadata", "labels"]).cloned().unwrap_or_default();
                labels.insert(SERVICE.to_owned(), object::name(service).into());
                labels.insert(MANAGED_BY.to_owned(), MANAGER.into());
                if object::text(service, &["spec", "clusterIP"]) == "None" {
                    labels.insert("service.kubernetes.io/headless".to_owned(), "".into());
                }
                slices.insert(name.clone(), json!({
                    "metadata": {"name": name, "labels": labels, "ownerReferences": [pods::owner_reference(service)]},
                    "addressType": family, "ports": ports, "endpoints": chunk,
                }));
            }
        }
    }
    slices
}

fn write_slices(api: &Api, service: &Value, planned: BTreeMap<String, Value>) {
    let kind = api.builtin("discovery.k8s.io", "endpointslices");
    let namespace = object::namespace(service);
    let present: BTreeSet<String> = api
        .store
        .list("endpointslices.discovery.k8s.io", Some(namespace))
        .0
        .iter()
        .filter(|s| object::text(s, &["metadata", "labels", SERVICE]) == object::name(service))
        .filter(|s| object::text(s, &["metadata", "labels", MANAGED_BY]) == MANAGER)
        .map(|s| object::name(s).to_owned())
        .collect();
    let write = || Write::by("kube-controller-manager");
    for name in present.iter().filter(|name| !planned.contains_key(*name)) {
        // Gone already is as good.
        let _ = api.delete(&kind, namespace, name, &DeleteOptions::default());
    }
    for (name, slice) in planned {
        let outcome = if present.contains(&name) {
            api.change(&kind, namespace, &name, &mut write(), |next| {
                for field in ["ports", "endpoints"] {
                    next[field] = slice[field].clone();
                }
                object::carry(&slice, next, &["metadata", "labels"]);
            })
        } else {
            api.create(&kind, namespace, slice, &mut write())
        };
        if let Err(error) = outcome {
            tracing::debug!(message = error.message, "an endpoint slice was not written");
        }
    }
}

/// Ports, ready addresses and the others of a subset.
type Subset = (Vec<Value>, Vec<Value>, Vec<Value>);

fn write_endpoints(api: &Api, service: &Value, pods: &[Arc<Value>]) {
    let family = object::list(service, &["spec", "ipFamilies"]).first().and_then(Value::as_str).unwrap_or("IPv4");
    let publishes_all = object::flag(service, &["spec", "publishNotReadyAddresses"]);
    let mut groups: BTreeMap<String, Subset> = BTreeMap::new();
    for pod in pods.iter().filter(|p| !object::is_deleting(p)) {
        let Some(ip) = address(pod, family) else { continue };
        let ports = ports_on(service, pod);
        let group = groups.entry(json!(ports).to_string()).or_insert_with(|| (ports, Vec::new(), Vec::new()));
        let mut entry = json!({"ip": ip, "targetRef": {"kind": "Pod", "namespace": object::namespace(pod),
            "name": object::name(pod), "uid": object::uid(pod)}});
        object::carry(&pod["spec"], &mut entry, &["nodeName"]);
        if object::is_true(pod, "Ready") || publishes_all { group.1.push(entry) } else { group.2.push(entry) }
    }
    let subsets: Vec<Value> = groups
        .into_values()
        .map(|(ports, ready, not_ready)| {
            let mut subset = json!({"ports": ports});
            for (field, list) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
                if !list.is_empty() {
                    subset[field] = list.into();
                }
            }
            subset
        })
        .collect();
    let kind = api.builtin("", "endpoints");
    let (namespace, name) = (object::namespace(service), object::name(service));
    let write = &mut Write::by("kube-controller-manager");
    let outcome = if api.store.get("endpoints", namespace, name).is_some() {
        api.change(&kind, namespace, name, write, |next| {
            if subsets.is_empty() {
                object::unset(next, &["subsets"]);
            } else {
                next["subsets"] = subsets.clone().into();
            }
        })
    } else {
        let mut endpoints = json!({"metadata": {"name": name, "ownerReferences": [pods::owner_reference(service)]}});
        object::carry(service, &mut endpoints, &["metadata", "labels"]);
        if !subsets.is_empty() {
            endpoints["subsets"] = subsets.into();
        }
        api.create(&kind, namespace, endpoints, write)
    };
    if let Err(error) = outcome {
        tracing::debug!(message = error.message, "endpoints were not written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_cut_by_family_and_by_resolved_ports() {
        let service = json!({"metadata": {"name": "s", "namespace": "n", "uid": "u"}, "spec": {"ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP", "name": ""}]}});
        let pod = |name: &str, port: u16, ready: &str| {
            Arc::new(json!({
            "metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"nodeName": "w", "containers": [{"ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}]}]},
            "status": {"podIP": format!("10.0.0.{port}"), "podIPs": [{"ip": format!("10.0.0.{port}")}, {"ip": format!("fd00::{port}")}],
                "conditions": [{"type": "Ready", "status": ready}]}}))
        };
        let slices = plan_slices(&service, &[pod("a", 1, "True"), pod("b", 1, "False"), pod("c", 2, "True")]);
        let shown: BTreeSet<(String, String, usize)> = slices
            .values()
            .map(|s| {
                (
                    s["addressType"].to_string(),
                    s["ports"][0]["port"].to_string(),
                    s["endpoints"].as_array().unwrap().len(),
                )
            })
            .collect();
        assert_eq!(shown.len(), 4);
        assert!(shown.contains(&("\"IPv6\"".to_owned(), "1".to_owned(), 2)));
        let not_ready = slices
            .values()
            .flat_map(|s| s["endpoints"].as_array().unwrap())
            .filter(|e| e["conditions"]["ready"] == false);
        assert_eq!(not_ready.count(), 2, "one pod, both families");
    }
}
