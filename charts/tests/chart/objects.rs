//! The rendered objects: of the API's types, in agreement with each other and with the lab's own manifests.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{ConfigMap, ServiceAccount},
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::helm::{FIXTURES, fixture, object, rendered, root};

/// Names of fields that the type does not have.
fn strangers<T: DeserializeOwned + Serialize>(object: &Value) -> Vec<String> {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{object:#}: {error}"));
    let mut found = Vec::new();
    compare(object, &serde_json::to_value(typed).expect("JSON"), "", &mut found);
    found
}

fn compare(written: &Value, read: &Value, path: &str, found: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (name, value) in written {
                match read.get(name) {
                    Some(other) => compare(value, other, &format!("{path}.{name}"), found),
                    None => found.push(format!("{path}.{name}")),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            for (index, (value, other)) in written.iter().zip(read).enumerate() {
                compare(value, other, &format!("{path}[{index}]"), found);
            }
        }
        (written, read) if written == read => {}
        (written, read) => found.push(format!("{path}: {written} is read as {read}")),
    }
}

#[test]
fn objects_have_only_fields_of_their_types() {
    for name in FIXTURES {
        for object in rendered(&fixture(name)) {
            let found = match object["kind"].as_str().expect("a kind") {
                "DaemonSet" => strangers::<DaemonSet>(&object),
                "Deployment" => strangers::<Deployment>(&object),
                "ConfigMap" => strangers::<ConfigMap>(&object),
                "ServiceAccount" => strangers::<ServiceAccount>(&object),
                "PodDisruptionBudget" => strangers::<PodDisruptionBudget>(&object),
                "ClusterRole" => strangers::<ClusterRole>(&object),
                "ClusterRoleBinding" => strangers::<ClusterRoleBinding>(&object),
                "Role" => strangers::<Role>(&object),
                "RoleBinding" => strangers::<RoleBinding>(&object),
                other => panic!("the chart renders a {other}; say here what type it is"),
            };
            assert!(found.is_empty(), "{name}, {} {}: {found:?}", object["kind"], object["metadata"]["name"]);
        }
    }
    let broken = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "dat": {}});
    assert_eq!(strangers::<ConfigMap>(&broken), [".dat"], "a misspelt field is noticed");
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object().expect("labels");
    !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value)
}

#[test]
fn selectors_volumes_and_accounts_meet() {
    for name in FIXTURES {
        let objects = rendered(&fixture(name));
        let names: BTreeSet<_> = objects
            .iter()
            .map(|object| {
                (object["kind"].as_str().expect("a kind"), object["metadata"]["name"].as_str().expect("a name"))
            })
            .collect();
        assert_eq!(names.len(), objects.len(), "{name}: an object is there twice");
        for set in objects.iter().filter(|object| object["spec"]["template"].is_object()) {
            let template = &set["spec"]["template"];
            assert!(selects(&set["spec"]["selector"], &template["metadata"]["labels"]), "{name}: {set:#}");
            let volumes: BTreeSet<_> = texts(&template["spec"]["volumes"], "name").collect();
            let mut mounted = BTreeSet::new();
            for containers in ["initContainers", "containers"] {
                for container in template["spec"][containers].as_array().into_iter().flatten() {
                    mounted.extend(texts(&container["volumeMounts"], "name"));
                }
            }
            assert_eq!(volumes, mounted, "{name}: volumes and mounts of {}", set["metadata"]["name"]);
            let account = template["spec"]["serviceAccountName"].as_str().expect("an account");
            let bound = objects.iter().any(|object| {
                object["kind"] == "ClusterRoleBinding"
                    && object["subjects"][0]["name"] == account
                    && object["subjects"][0]["namespace"] == set["metadata"]["namespace"]
                    && names.contains(&("ClusterRole", object["roleRef"]["name"].as_str().expect("a role")))
            });
            assert!(bound, "{name}: nothing is granted to {account}");
        }
        if let Some(budget) = objects.iter().find(|object| object["kind"] == "PodDisruptionBudget") {
            let operator = object(&objects, "Deployment", "cilium-operator");
            assert!(selects(&budget["spec"]["selector"], &operator["spec"]["template"]["metadata"]["labels"]));
        }
    }
}

fn texts<'a>(list: &'a Value, field: &'a str) -> impl Iterator<Item = &'a str> {
    list.as_array().into_iter().flatten().map(move |item| item[field].as_str().expect("text"))
}

#[test]
fn names_and_labels_are_those_of_cilium() {
    let objects = rendered("");
    let agent = object(&objects, "DaemonSet", "cilium");
    assert_eq!(agent["spec"]["template"]["metadata"]["labels"]["k8s-app"], "cilium");
    assert_eq!(agent["spec"]["template"]["spec"]["containers"][0]["name"], "cilium-agent");
    let operator = object(&objects, "Deployment", "cilium-operator");
    assert_eq!(operator["spec"]["template"]["metadata"]["labels"]["io.cilium/app"], "operator");
    // Labels that a user gives cannot take the pods from their set.
    let other = rendered(&fixture("other-names"));
    let labels = &object(&other, "DaemonSet", "cilium")["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["k8s-app"], &labels["c"], &labels["team"]), (&"cilium".into(), &"d".into(), &"net".into()));
}

#[test]
fn agent_has_named_capabilities_and_only_the_mount_is_privileged() {
    let objects = rendered("");
    let pod = &object(&objects, "DaemonSet", "cilium")["spec"]["template"]["spec"];
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["privileged"], Value::Null);
    assert_eq!(context["capabilities"]["drop"][0], "ALL");
    let added: BTreeSet<_> = context["capabilities"]["add"].as_array().expect("a list").iter().cloned().collect_texts();
    assert_eq!(
        added,
        BTreeSet::from(["BPF", "NET_ADMIN", "NET_RAW", "PERFMON", "SYS_ADMIN", "SYS_RESOURCE"].map(String::from))
    );
    for container in pod["initContainers"].as_array().expect("a list") {
        let mounts_to_the_host = container["volumeMounts"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|mount| mount["mountPropagation"] == "Bidirectional");
        // What the API server insists on, and what nobody else shall have.
        assert_eq!(container["securityContext"]["privileged"] == true, mounts_to_the_host, "{}", container["name"]);
    }
    assert_eq!(pod["containers"][0]["volumeMounts"][0]["mountPropagation"], "HostToContainer");
    // Network namespaces of pods that start later than the agent, whose MTU it changes.
    let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("a list");
    let namespaces = mounts.iter().find(|mount| mount["mountPath"] == "/var/run/netns").expect("a mount");
    assert_eq!(namespaces["mountPropagation"], "HostToContainer");
    let volumes = pod["volumes"].as_array().expect("a list");
    let volume = volumes.iter().find(|volume| volume["name"] == namespaces["name"]).expect("its volume");
    assert_eq!(volume["hostPath"]["path"], "/var/run/netns");
}

trait CollectTexts {
    fn collect_texts(self) -> BTreeSet<String>;
}

impl<I: Iterator<Item = Value>> CollectTexts for I {
    fn collect_texts(self) -> BTreeSet<String> {
        self.map(|value| value.as_str().expect("text").to_owned()).collect()
    }
}

/// The lab makes its objects without helm; what both say of a pod must be the same.
#[test]
fn lab_and_chart_agree() {
    let objects = rendered("");
    let read = |name: &str| -> Value {
        let path = root().join("lab/manifests").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_yaml_ng::from_str(&text).expect("YAML")
    };
    for (file, kind) in [("agent.yaml", "DaemonSet"), ("operator.yaml", "Deployment")] {
        let lab = read(file);
        let name = lab["metadata"]["name"].as_str().expect("a name");
        let chart = object(&objects, kind, name);
        let (ours, theirs) = (&chart["spec"]["template"], &lab["spec"]["template"]);
        assert_eq!(chart["metadata"]["labels"], lab["metadata"]["labels"], "{file}");
        assert_eq!(chart["spec"]["selector"], lab["spec"]["selector"], "{file}");
        assert_eq!(ours["metadata"]["labels"], theirs["metadata"]["labels"], "{file}");
        for field in ["hostNetwork", "serviceAccountName", "priorityClassName", "tolerations"] {
            assert_eq!(ours["spec"][field], theirs["spec"][field], "{file}: {field}");
        }
        let (ours, theirs) = (&ours["spec"]["containers"][0], &theirs["spec"]["containers"][0]);
        assert_eq!((&ours["name"], &ours["command"]), (&theirs["name"], &theirs["command"]), "{file}");
        let places = |container: &Value| {
            texts(&container["volumeMounts"], "mountPath").map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let missing: Vec<_> = places(theirs).difference(&places(ours)).cloned().collect();
        assert!(missing.is_empty(), "{file}: the chart does not mount {missing:?}");
        let probe = |container: &Value| container["readinessProbe"]["httpGet"].clone();
        assert_eq!(probe(ours), probe(theirs), "{file}: the probe");
        let env = |container: &Value| texts(&container["env"], "name").map(str::to_owned).collect::<BTreeSet<_>>();
        // Only a lab has its API server's address in the ConfigMap.
        let missing: Vec<_> =
            env(theirs).difference(&env(ours)).filter(|name| *name != "K8S_API_SERVER").cloned().collect();
        assert!(missing.is_empty(), "{file}: the chart does not set {missing:?}");
    }
}

#[test]
fn another_configuration_is_another_pod_if_wanted() {
    let checksum = |values: &str| {
        let objects = rendered(values);
        let pod = &object(&objects, "DaemonSet", "cilium")["spec"]["template"]["metadata"];
        pod["annotations"]["cilium.io/cilium-configmap-checksum"].clone()
    };
    assert_eq!(checksum(""), Value::Null);
    let (one, other) = (checksum("rollOutCiliumPods: true"), checksum("{rollOutCiliumPods: true, MTU: 1400}"));
    assert!(one.is_string() && other.is_string() && one != other, "{one} {other}");
}
