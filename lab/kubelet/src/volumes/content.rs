//! What is in volumes that come from the API: ConfigMaps, Secrets, fields of the pod, tokens.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume};
use kube::Client;

use super::tree::Tree;

/// What only the kubelet knows of a pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extra<'a> {
    pub(crate) host_ips: &'a [IpAddr],
    pub(crate) pod_ips: &'a [IpAddr],
    /// The token of service accounts; nobody checks it in the lab.
    pub(crate) token: &'a str,
}

const MODE: i32 = 0o644;

/// The files of a volume; `None` for kinds that have none.
pub(super) async fn of_volume(
    client: &Client,
    pod: &Pod,
    volume: &Volume,
    extra: &Extra<'_>,
) -> Result<Option<Tree>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut tree = Tree::new();
    if let Some(source) = &volume.config_map {
        let found = super::config_map(client, namespace, &source.name).await?;
        let what = format!("configmap {:?}", source.name);
        pick(&mut tree, found, &what, source.items.as_deref(), source.optional, source.default_mode)?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let found = super::secret(client, namespace, name).await?;
        pick(
            &mut tree,
            found,
            &format!("secret {name:?}"),
            source.items.as_deref(),
            source.optional,
            source.default_mode,
        )?;
    } else if let Some(source) = &volume.downward_api {
        fields(&mut tree, pod, source.items.as_deref().unwrap_or_default(), source.default_mode, extra)?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode;
        for source in projected.sources.iter().flatten() {
            if let Some(map) = &source.config_map {
                let found = super::config_map(client, namespace, &map.name).await?;
                // Every real cluster has this map with the authority; here nothing is signed.
                let is_optional = map.optional.or((map.name == "kube-root-ca.crt").then_some(true));
                pick(&mut tree, found, &format!("configmap {:?}", map.name), map.items.as_deref(), is_optional, mode)?;
            }
            if let Some(secret) = &source.secret {
                let found = super::secret(client, namespace, &secret.name).await?;
                pick(
                    &mut tree,
                    found,
                    &format!("secret {:?}", secret.name),
                    secret.items.as_deref(),
                    secret.optional,
                    mode,
                )?;
            }
            if let Some(downward) = &source.downward_api {
                fields(&mut tree, pod, downward.items.as_deref().unwrap_or_default(), mode, extra)?;
            }
            if let Some(token) = &source.service_account_token {
                tree.insert(token.path.clone(), (extra.token.as_bytes().to_vec(), 0o600));
            }
        }
    } else {
        return Ok(None);
    }
    Ok(Some(tree))
}

fn pick(
    tree: &mut Tree,
    found: Option<BTreeMap<String, Vec<u8>>>,
    what: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: Option<i32>,
) -> Result<(), String> {
    let is_optional = optional.unwrap_or(false);
    let Some(mut found) = found else {
        return if is_optional { Ok(()) } else { Err(format!("{what} not found")) };
    };
    let mode_of = |own: Option<i32>| u32::try_from(own.or(mode).unwrap_or(MODE)).unwrap_or(0o644) & 0o777;
    match items {
        None => tree.extend(found.into_iter().map(|(key, content)| (key, (content, mode_of(None))))),
        Some(items) => {
            for item in items {
                match found.remove(&item.key) {
                    Some(content) => {
                        tree.insert(item.path.clone(), (content, mode_of(item.mode)));
                    }
                    None if is_optional => {}
                    None => {
                        return Err(format!(
                            "references non-existent {} key: {}",
                            what.split(' ').next().unwrap_or_default(),
                            item.key
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

fn fields(
    tree: &mut Tree,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: Option<i32>,
    extra: &Extra<'_>,
) -> Result<(), String> {
    for item in items {
        let Some(field) = &item.field_ref else {
            return Err(format!("{:?}: only fieldRef is supported in volumes", item.path));
        };
        let value = field_of(pod, &field.field_path, extra)?;
        let mode = u32::try_from(item.mode.or(mode).unwrap_or(MODE)).unwrap_or(0o644);
        tree.insert(item.path.clone(), (value.into_bytes(), mode & 0o777));
    }
    Ok(())
}

/// A field of a pod, as `fieldRef` names it. Source: `pkg/fieldpath` and `podFieldSelectorRuntimeValue` of Kubernetes.
pub(crate) fn field_of(pod: &Pod, path: &str, extra: &Extra<'_>) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let show = |map: Option<&BTreeMap<String, String>>| {
        map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join("\n")
    };
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = keyed("metadata.labels") {
        return Ok(meta.labels.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed("metadata.annotations") {
        return Ok(meta.annotations.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => show(meta.labels.as_ref()),
        "metadata.annotations" => show(meta.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => first(extra.host_ips),
        "status.hostIPs" => join(extra.host_ips),
        "status.podIP" => first(extra.pod_ips),
        "status.podIPs" => join(extra.pod_ips),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_pod_are_found_by_path() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "labels": {"a/b": "c"}},
            "spec": {"nodeName": "n", "containers": []}}))
        .unwrap();
        let ips = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let extra = Extra { host_ips: &ips, pod_ips: &[], token: "" };
        for (path, want) in [
            ("metadata.name", "p"),
            ("metadata.labels['a/b']", "c"),
            ("metadata.labels['x']", ""),
            ("metadata.labels", "a/b=\"c\""),
            ("spec.nodeName", "n"),
            ("status.hostIP", "10.0.0.1"),
            ("status.hostIPs", "10.0.0.1,fd00::1"),
            ("status.podIP", ""),
        ] {
            assert_eq!(field_of(&pod, path, &extra).as_deref(), Ok(want), "{path}");
        }
        assert!(field_of(&pod, "status.phase", &extra).is_err());
    }
}
