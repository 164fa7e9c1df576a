//! Namespaces, services, endpoints, config maps, secrets, service accounts, events; and the plain
//! table of kinds without columns of their own.

use serde_json::Value;

use super::age::{age, age_since};
use super::{AGE, Cells, Columns, NAME};
use crate::object::{int, list, map, name, text};

pub(super) const PLAIN: (Columns, Cells) = (&[NAME, AGE], |o| vec![name(o).into(), age(o)]);

pub(super) const NAMESPACES: (Columns, Cells) =
    (&[NAME, ("Status", false), AGE], |o| vec![name(o).into(), text(o, &["status", "phase"]).into(), age(o)]);

pub(super) const SERVICES: (Columns, Cells) = (
    &[
        NAME,
        ("Type", false),
        ("Cluster-IP", false),
        ("External-IP", false),
        ("Port(s)", false),
        AGE,
        ("Selector", true),
    ],
    |o| {
        let cluster_ip = text(o, &["spec", "clusterIP"]);
        vec![
            name(o).into(),
            text(o, &["spec", "type"]).into(),
            if cluster_ip.is_empty() { "<none>" } else { cluster_ip }.into(),
            external_ip(o).into(),
            ports(o).into(),
            age(o),
            labels_text(o, &["spec", "selector"]).into(),
        ]
    },
);

fn external_ip(service: &Value) -> String {
    let mut all: Vec<&str> = list(service, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    match text(service, &["spec", "type"]) {
        "ExternalName" => return text(service, &["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            let ingress = list(service, &["status", "loadBalancer", "ingress"]);
            all.extend(
                ingress
                    .iter()
                    .map(|i| if text(i, &["ip"]).is_empty() { text(i, &["hostname"]) } else { text(i, &["ip"]) }),
            );
            if all.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => {}
    }
    or_none(&all.join(","))
}

fn ports(service: &Value) -> String {
    let ports: Vec<String> = list(service, &["spec", "ports"])
        .iter()
        .map(|p| {
            let (port, protocol) = (int(p, &["port"]).unwrap_or_default(), text(p, &["protocol"]));
            match int(p, &["nodePort"]) {
                Some(node) if node > 0 => format!("{port}:{node}/{protocol}"),
                _ => format!("{port}/{protocol}"),
            }
        })
        .collect();
    or_none(&ports.join(","))
}

pub(super) const ENDPOINTS: (Columns, Cells) = (&[NAME, ("Endpoints", false), AGE], |o| {
    let mut all = Vec::new();
    for subset in list(o, &["subsets"]) {
        for address in list(subset, &["addresses"]) {
            let ip = text(address, &["ip"]);
            let ports = list(subset, &["ports"]);
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().filter_map(|p| int(p, &["port"])).map(|port| host_port(ip, port)));
        }
    }
    vec![name(o).into(), first_of(&all, 3).into(), age(o)]
});

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(super) const CONFIG_MAPS: (Columns, Cells) = (&[NAME, ("Data", false), AGE], |o| {
    let count = |field| map(o, &[field]).map_or(0, serde_json::Map::len);
    vec![name(o).into(), (count("data") + count("binaryData")).into(), age(o)]
});

pub(super) const SECRETS: (Columns, Cells) = (&[NAME, ("Type", false), ("Data", false), AGE], |o| {
    vec![name(o).into(), text(o, &["type"]).into(), map(o, &["data"]).map_or(0, serde_json::Map::len).into(), age(o)]
});

pub(super) const SERVICE_ACCOUNTS: (Columns, Cells) =
    (&[NAME, ("Secrets", false), AGE], |o| vec![name(o).into(), list(o, &["secrets"]).len().into(), age(o)]);

pub(super) const EVENTS: (Columns, Cells) = (
    &[
        ("Last Seen", false),
        ("Type", false),
        ("Reason", false),
        ("Object", false),
        ("Subobject", true),
        ("Source", true),
        ("Message", false),
        ("First Seen", true),
        ("Count", true),
        ("Name", true),
    ],
    |o| {
        let either = |core: &[&'static str], group: &[&'static str]| {
            let value = text(o, core);
            if value.is_empty() { text(o, group).to_owned() } else { value.to_owned() }
        };
        let when = |core: &'static str, group: &'static str| {
            let moment = either(&[core], &[group]);
            if moment.is_empty() { age_since(text(o, &["eventTime"])) } else { age_since(&moment) }
        };
        let kind = either(&["involvedObject", "kind"], &["regarding", "kind"]).to_lowercase();
        let of = either(&["involvedObject", "name"], &["regarding", "name"]);
        let last = match text(o, &["series", "lastObservedTime"]) {
            "" => when("lastTimestamp", "deprecatedLastTimestamp"),
            series => age_since(series),
        };
        let source = either(&["source", "component"], &["deprecatedSource", "component"]);
        let host = either(&["source", "host"], &["deprecatedSource", "host"]);
        let source = if source.is_empty() { either(&["reportingComponent"], &["reportingController"]) } else { source };
        let count = int(o, &["series", "count"]).or_else(|| int(o, &["count"])).unwrap_or(1);
        vec![
            last.into(),
            text(o, &["type"]).into(),
            text(o, &["reason"]).into(),
            format!("{kind}/{of}").into(),
            either(&["involvedObject", "fieldPath"], &["regarding", "fieldPath"]).into(),
            if host.is_empty() { source } else { format!("{source}, {host}") }.into(),
            either(&["message"], &["note"]).trim().into(),
            when("firstTimestamp", "deprecatedFirstTimestamp").into(),
            count.into(),
            name(o).into(),
        ]
    },
);

/// A map as `a=b,c=d`, or `<none>`.
pub(super) fn labels_text(object: &Value, path: &[&str]) -> String {
    let pairs: Vec<String> = map(object, path)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    or_none(&pairs.join(","))
}

pub(super) fn or_none(text: &str) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text.to_owned() }
}

/// The first few, and how many more.
pub(super) fn first_of(all: &[String], most: usize) -> String {
    if all.len() > most {
        format!("{} + {} more...", all[..most].join(","), all.len() - most)
    } else {
        or_none(&all.join(","))
    }
}
