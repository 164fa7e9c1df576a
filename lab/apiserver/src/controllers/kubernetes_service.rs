//! The service `kubernetes`: how pods find this server.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::Controller;
use crate::object;
use crate::ops::{Api, Write};

/// First address of the services' range, which this service has by convention.
const ADDRESS: &str = "10.96.0.1";
const NAME: &str = "kubernetes";

#[derive(Debug)]
pub(super) struct KubernetesService {
    pub(super) addresses: Vec<SocketAddr>,
}

impl Controller for KubernetesService {
    const WATCHES: &'static [&'static str] = &["services"];

    fn pass(&mut self, api: &Api) -> Option<Duration> {
        // IPv4 addresses that pods may reach; the others are no way to this server.
        let reachable: Vec<&SocketAddr> = self
            .addresses
            .iter()
            .filter(|a| a.is_ipv4() && !a.ip().is_loopback() && !a.ip().is_unspecified())
            .collect();
        let port = reachable.first().or(self.addresses.first().as_ref()).map_or(6443, |a| a.port());
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let mut slice_labels = labels.clone();
        slice_labels["kubernetes.io/service-name"] = NAME.into();
        let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
        let ips: Vec<Value> = reachable.iter().map(|a| json!({"ip": a.ip().to_string()})).collect();
        let endpoints: Vec<Value> = reachable
            .iter()
            .map(|a| json!({"addresses": [a.ip().to_string()], "conditions": {"ready": true}}))
            .collect();
        ensure(
            api,
            "",
            "services",
            &json!({
                "metadata": {"name": NAME, "labels": labels},
                "spec": {"clusterIP": ADDRESS, "ports": [{"name": "https", "port": 443, "targetPort": port, "protocol": "TCP"}]},
            }),
        );
        ensure(
            api,
            "discovery.k8s.io",
            "endpointslices",
            &json!({
                "metadata": {"name": NAME, "labels": slice_labels},
                "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
            }),
        );
        let subsets = if ips.is_empty() { json!([]) } else { json!([{"addresses": ips, "ports": ports}]) };
        ensure(
            api,
            "",
            "endpoints",
            &json!({
                "metadata": {"name": NAME, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
                "subsets": subsets,
            }),
        );
        None
    }
}

fn ensure(api: &Api, group: &str, plural: &str, object: &Value) {
    let kind = api.builtin(group, plural);
    let write = &mut Write::by("kinesin-apiserver");
    let outcome = if api.store.get(&kind.storage, "default", NAME).is_none() {
        api.create(&kind, "default", object.clone(), write)
    } else {
        // A restart may have moved the server to another address or port.
        api.change(&kind, "default", NAME, write, |next| {
            for field in ["ports", "endpoints", "subsets"] {
                if let Some(value) = object.get(field) {
                    next[field] = value.clone();
                }
            }
            if let Some(ports) = object::at(object, &["spec", "ports"]) {
                object::set(next, &["spec", "ports"], ports.clone());
            }
        })
    };
    if let Err(error) = outcome {
        tracing::warn!(plural, message = error.message, "the service of this server could not be written");
    }
}
