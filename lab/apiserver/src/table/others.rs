//! Leases, endpoint slices, network policies, ingresses, RBAC, budgets, definitions.

use serde_json::Value;

use super::age::age;
use super::core::{first_of, or_none};
use super::{AGE, Cells, Columns, NAME};
use crate::object::{at, int, list, name, text};
use crate::selectors::LabelSelector;

pub(super) const LEASES: (Columns, Cells) =
    (&[NAME, ("Holder", false), AGE], |o| vec![name(o).into(), text(o, &["spec", "holderIdentity"]).into(), age(o)]);

pub(super) const ENDPOINT_SLICES: (Columns, Cells) =
    (&[NAME, ("AddressType", false), ("Ports", false), ("Endpoints", false), AGE], |o| {
        let ports: Vec<String> = list(o, &["ports"])
            .iter()
            .map(|p| int(p, &["port"]).map_or_else(|| "*".to_owned(), |n| n.to_string()))
            .collect();
        let addresses: Vec<String> = list(o, &["endpoints"])
            .iter()
            .flat_map(|e| list(e, &["addresses"]))
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let unset = |text: String| if text == "<none>" { "<unset>".to_owned() } else { text };
        vec![
            name(o).into(),
            text(o, &["addressType"]).into(),
            unset(first_of(&ports, 3)).into(),
            unset(first_of(&addresses, 3)).into(),
            age(o),
        ]
    });

pub(super) const NETWORK_POLICIES: (Columns, Cells) = (&[NAME, ("Pod-Selector", false), AGE], |o| {
    let selector = LabelSelector::from_object(at(o, &["spec", "podSelector"]).unwrap_or(&Value::Null)).to_text();
    vec![name(o).into(), or_none(&selector).into(), age(o)]
});

pub(super) const INGRESSES: (Columns, Cells) =
    (&[NAME, ("Class", false), ("Hosts", false), ("Address", false), ("Ports", false), AGE], |o| {
        let hosts: Vec<String> = list(o, &["spec", "rules"])
            .iter()
            .map(|r| text(r, &["host"]).to_owned())
            .filter(|h| !h.is_empty())
            .collect();
        let addresses: Vec<&str> = list(o, &["status", "loadBalancer", "ingress"])
            .iter()
            .map(|i| if text(i, &["ip"]).is_empty() { text(i, &["hostname"]) } else { text(i, &["ip"]) })
            .collect();
        let ports = if list(o, &["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
        vec![
            name(o).into(),
            or_none(text(o, &["spec", "ingressClassName"])).into(),
            if hosts.is_empty() { "*".to_owned() } else { first_of(&hosts, 3) }.into(),
            addresses.join(",").into(),
            ports.into(),
            age(o),
        ]
    });

pub(super) const INGRESS_CLASSES: (Columns, Cells) =
    (&[NAME, ("Controller", false), ("Parameters", false), AGE], |o| {
        let parameters = match text(o, &["spec", "parameters", "kind"]) {
            "" => "<none>".to_owned(),
            kind => format!("{kind}/{}", text(o, &["spec", "parameters", "name"])),
        };
        vec![name(o).into(), text(o, &["spec", "controller"]).into(), parameters.into(), age(o)]
    });

pub(super) const CREATED_AT: (Columns, Cells) =
    (&[NAME, ("Created At", false)], |o| vec![name(o).into(), text(o, &["metadata", "creationTimestamp"]).into()]);

pub(super) const BINDINGS: (Columns, Cells) =
    (&[NAME, ("Role", false), AGE, ("Users", true), ("Groups", true), ("ServiceAccounts", true)], |o| {
        let subjects = |kind: &str| {
            let names: Vec<String> = list(o, &["subjects"])
                .iter()
                .filter(|s| text(s, &["kind"]) == kind)
                .map(|s| match text(s, &["namespace"]) {
                    "" => text(s, &["name"]).to_owned(),
                    namespace => format!("{namespace}/{}", text(s, &["name"])),
                })
                .collect();
            Value::from(names.join(", "))
        };
        vec![
            name(o).into(),
            format!("{}/{}", text(o, &["roleRef", "kind"]), text(o, &["roleRef", "name"])).into(),
            age(o),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    });

pub(super) const BUDGETS: (Columns, Cells) =
    (&[NAME, ("Min Available", false), ("Max Unavailable", false), ("Allowed Disruptions", false), AGE], |o| {
        let bound = |field: &str| match at(o, &["spec", field]) {
            Some(Value::String(text)) => text.clone(),
            Some(number) if !number.is_null() => number.to_string(),
            _ => "N/A".to_owned(),
        };
        vec![
            name(o).into(),
            bound("minAvailable").into(),
            bound("maxUnavailable").into(),
            int(o, &["status", "disruptionsAllowed"]).unwrap_or_default().into(),
            age(o),
        ]
    });
