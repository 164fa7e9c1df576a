//! What is installed in a lab: the agent, the operator and the demo, as objects.

use std::collections::BTreeMap;

use kinesin_core::config::{Config, Sources, to_config_map};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    LabError,
    cluster::parse_manifest,
    spec::{Spec, api_url},
};

const RBAC: &str = include_str!("../manifests/rbac.yaml");
const AGENT: &str = include_str!("../manifests/agent.yaml");
const OPERATOR: &str = include_str!("../manifests/operator.yaml");
const DEMO: &str = include_str!("../manifests/demo.yaml");
const VALUES: &str = include_str!("../manifests/values.yaml");

/// As the chart's `rollOutCiliumPods` has it: another configuration is another pod.
const CHECKSUM: &str = "cilium.io/cilium-configmap-checksum";

/// The keys of the ConfigMap `cilium-config`.
pub(crate) fn config(spec: &Spec) -> Result<BTreeMap<String, String>, LabError> {
    let refused = |reason: String| LabError::Manifest { origin: "the values file".to_owned(), reason };
    let parse =
        |text: &str| serde_yaml_ng::from_str::<Value>(text).map_err(|error| refused(format!("it is no YAML: {error}")));
    let mut values = parse(VALUES)?;
    // The families are a matter of the underlay, so the lab's own option decides.
    let families = json!({"ipv4": {"enabled": spec.families.ipv4()}, "ipv6": {"enabled": spec.families.ipv6()}});
    lay_over(&mut values, families);
    match parse(&spec.values)? {
        Value::Null => {}
        own @ Value::Object(_) => lay_over(&mut values, own),
        _ => return Err(refused("it is no mapping of keys to values".to_owned())),
    }
    let text = serde_yaml_ng::to_string(&values).map_err(|error| refused(error.to_string()))?;
    let mut map = to_config_map(&text)?;
    map.entry("k8s-api-server".to_owned()).or_insert_with(|| api_url(spec.families));
    // What every agent would refuse is told at once, or the lab would wait for agents that go on with what they had.
    let checked = Config::load(&Sources { flags: map.clone().into_iter().collect(), ..Sources::default() });
    checked.map_err(|error| refused(error.to_string().replace("flag --", "cilium-config, ")))?;
    Ok(map)
}

/// Mappings are merged, anything else is replaced, as Helm does with several values files.
fn lay_over(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// The agent and the operator with a configuration.
pub(crate) fn system(config: &BTreeMap<String, String>) -> Result<Vec<Value>, LabError> {
    let mut objects = parse_manifest("rbac.yaml", RBAC)?;
    objects.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cilium-config", "namespace": "kube-system"}, "data": config,
    }));
    let mut digest = Sha256::new();
    for (key, value) in config {
        digest.update(format!("{key}={value}\n"));
    }
    let checksum = hex::encode(digest.finalize());
    // The operator first: agents wait for the resource definitions that it brings.
    for (name, text) in [("operator.yaml", OPERATOR), ("agent.yaml", AGENT)] {
        for mut object in parse_manifest(name, text)? {
            object["spec"]["template"]["metadata"]["annotations"] = json!({CHECKSUM: checksum});
            objects.push(object);
        }
    }
    Ok(objects)
}

/// The demo for so many nodes.
pub(crate) fn demo(nodes: usize) -> Result<Vec<Value>, LabError> {
    let mut objects = parse_manifest("demo.yaml", DEMO)?;
    for object in objects.iter_mut().filter(|object| object["metadata"]["name"] == "whoami") {
        object["spec"]["replicas"] = json!(nodes);
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Families;

    fn load(config: &BTreeMap<String, String>) -> Config {
        let dir = tempfile::tempdir().expect("a directory");
        for (key, value) in config {
            std::fs::write(dir.path().join(key), value).expect("a key");
        }
        let sources = Sources { config_dir: Some(dir.path().to_owned()), ..Sources::default() };
        Config::load(&sources).expect("accepted")
    }

    #[test]
    fn the_agent_accepts_the_configuration_of_every_family() {
        for (families, v4, v6) in
            [(Families::Ipv4, true, false), (Families::Ipv6, false, true), (Families::Dual, true, true)]
        {
            let map = config(&Spec { families, ..Spec::default() }).expect("a configuration");
            let loaded = load(&map);
            assert_eq!(
                (map["enable-ipv4"].as_str(), map["enable-ipv6"].as_str()),
                (&*v4.to_string(), &*v6.to_string())
            );
            assert!(loaded.k8s.api_server.is_some_and(|url| url.starts_with("http://")), "{families}");
        }
    }

    #[test]
    fn values_are_laid_over_the_labs_own() {
        let values = "debug: {enabled: true}\ncluster: {name: other}".to_owned();
        let map = config(&Spec { values, ..Spec::default() }).expect("a configuration");
        assert_eq!((map["debug"].as_str(), map["cluster-name"].as_str()), ("true", "other"));
        assert_eq!(map["ipv4-native-routing-cidr"], "10.244.0.0/16");
        for (values, word) in [
            ("nonsense: true", "nonsense"),
            ("- list", "mapping"),
            ("a: [", "YAML"),
            ("routingMode: natve", "native, tunnel"),
            ("MTU: 67", "too small"),
            ("kubeProxyReplacement: true", "not built"),
            ("autoDirectNodeRoutes: true", "contradict"),
        ] {
            let error = config(&Spec { values: values.to_owned(), ..Spec::default() }).expect_err("refused");
            assert!(kinesin_core::causes::with_causes(&error).contains(word), "{error:?}");
        }
    }

    #[test]
    fn another_configuration_is_another_pod() {
        let checksum = |debug: &str| {
            let config = BTreeMap::from([("debug".to_owned(), debug.to_owned())]);
            let objects = system(&config).expect("objects");
            let set = objects.iter().find(|object| object["kind"] == "DaemonSet").expect("the agent").clone();
            set["spec"]["template"]["metadata"]["annotations"][CHECKSUM].as_str().expect("a checksum").to_owned()
        };
        assert_eq!(checksum("true"), checksum("true"));
        assert_ne!(checksum("true"), checksum("false"));
    }

    #[test]
    fn demo_grows_with_the_nodes() {
        let objects = demo(5).expect("objects");
        let whoami = objects.iter().find(|object| object["metadata"]["name"] == "whoami").expect("whoami");
        assert_eq!(whoami["spec"]["replicas"], 5);
    }
}
