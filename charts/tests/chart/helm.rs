//! Runs helm over the chart.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use serde::Deserialize as _;
use serde_json::Value;

/// Values files that stand for what people write.
pub(crate) const FIXTURES: &[&str] = &[
    "seed-cluster-pool",
    "seed-cluster-pool-grown",
    "seed-multi-pool",
    "native",
    "dual-stack",
    "tunnel",
    "geneve-by-registry-name",
    "registry-names",
    "other-names",
];

/// The workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The chart.
pub(crate) fn chart() -> PathBuf {
    root().join("charts/kinesin")
}

/// A values file of the tests.
pub(crate) fn fixture(name: &str) -> String {
    let path = root().join("charts/tests/values").join(format!("{name}.yaml"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// On PATH, or where `./x test` puts it.
pub(crate) fn helm() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let on_path = env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
        let tools = env::var_os("KINESIN_TOOLS").map(PathBuf::from);
        let tools = tools.or_else(|| cache.map(|cache| cache.join("kinesin/tools")));
        let releases = tools.and_then(|tools| std::fs::read_dir(tools).ok()).into_iter().flatten().flatten();
        let found = on_path.chain(releases.map(|entry| entry.path().join("bin"))).map(|dir| dir.join("helm"));
        let mut found = found.filter(|path| path.is_file());
        found.next().expect("helm is missing: `./x test` fetches it, or put helm 3.17 or newer on PATH")
    })
}

/// Runs helm with a values file; nothing of the user's own helm is read or written.
pub(crate) fn run(arguments: &[&str], values: &str) -> Output {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("values.yaml");
    std::fs::write(&file, values).expect("values");
    let mut command = Command::new(helm());
    command.args(arguments).arg("--values").arg(&file);
    for (name, place) in
        [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data"), ("HOME", "home")]
    {
        command.env(name, home.path().join(place));
    }
    command.env_remove("KUBECONFIG").output().expect("helm runs")
}

/// What `helm template` says: the objects, or the error.
pub(crate) fn template(values: &str) -> Result<Vec<Value>, String> {
    let chart = chart();
    let chart = chart.to_str().expect("UTF-8");
    let output = run(&["template", "cilium", chart, "--namespace", "kube-system"], values);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    let objects = documents.map(|document| Value::deserialize(document).expect("YAML"));
    Ok(objects.filter(|object| !object.is_null()).collect())
}

/// The objects of values that have to be accepted.
pub(crate) fn rendered(values: &str) -> Vec<Value> {
    template(values).unwrap_or_else(|error| panic!("{values}\n{error}"))
}

/// The one object of a kind and a name.
pub(crate) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let first = found.next().unwrap_or_else(|| panic!("there is no {kind} {name}"));
    assert!(found.next().is_none(), "{kind} {name} is there twice");
    first
}

/// Data of the ConfigMap.
pub(crate) fn config_map(objects: &[Value]) -> BTreeMap<String, String> {
    serde_json::from_value(object(objects, "ConfigMap", "cilium-config")["data"].clone()).expect("text for each key")
}
