//! Volumes: directories of the pod, filled and refilled as a kubelet does.

mod content;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, HostPathVolumeSource, Pod, Secret, Volume};
use kube::Client;
use kube::api::Api;

use crate::launch::Bind;
use crate::{KubeletError, files};

pub(crate) use content::field_of;

/// Sets up, or brings up to date, every volume of a pod; where each one is.
///
/// # Errors
/// `Volume` with the first that cannot be had.
pub(crate) async fn prepare(
    client: &Client,
    pod: &Pod,
    dir: &Path,
    extra: &content::Extra<'_>,
) -> Result<BTreeMap<String, PathBuf>, KubeletError> {
    let mut found = BTreeMap::new();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let place = prepare_one(client, pod, volume, dir, extra)
            .await
            .map_err(|reason| KubeletError::Volume { volume: volume.name.clone(), reason })?;
        found.insert(volume.name.clone(), place);
    }
    Ok(found)
}

pub(crate) use content::Extra;

async fn prepare_one(
    client: &Client,
    pod: &Pod,
    volume: &Volume,
    dir: &Path,
    extra: &Extra<'_>,
) -> Result<PathBuf, String> {
    if let Some(source) = &volume.host_path {
        return host_path(source);
    }
    let place = dir.join("volumes").join(&volume.name);
    files::make_dir(&place).map_err(|error| error.to_string())?;
    if volume.empty_dir.is_some() {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&place, mode).map_err(|error| error.to_string())?;
        return Ok(place);
    }
    let Some(tree) = content::of_volume(client, pod, volume, extra).await? else {
        return Err("this kind of volume is not supported; there are configMap, secret, projected, downwardAPI, emptyDir and hostPath".to_owned());
    };
    tree::replace(&place, &tree).map_err(|error| format!("{}: {error}", place.display()))?;
    Ok(place)
}

/// Source: `pkg/volume/hostpath` of Kubernetes.
fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, String> {
    let path = PathBuf::from(&source.path);
    if !path.is_absolute() {
        return Err(format!("hostPath {path:?} is not an absolute path"));
    }
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" | "" if !path.exists() => files::make_dir(&path).map_err(|error| error.to_string())?,
        "FileOrCreate" if !path.exists() => fs::write(&path, "").map_err(|error| error.to_string())?,
        _ => {}
    }
    let is_right = match kind {
        "Directory" | "DirectoryOrCreate" => path.is_dir(),
        "File" | "FileOrCreate" => path.is_file(),
        _ => path.exists(),
    };
    if !is_right {
        return Err(format!("hostPath type check failed: {} is not a {}", path.display(), kind.to_lowercase()));
    }
    fs::canonicalize(&path).map_err(|error| error.to_string())
}

/// The mounts of a container, from where the volumes are.
///
/// # Errors
/// `ContainerConfig` for a sub-path that leaves its volume or cannot be made.
pub(crate) fn binds(
    container: &k8s_openapi::api::core::v1::Container,
    places: &BTreeMap<String, PathBuf>,
    expand: impl Fn(&str) -> String,
) -> Result<Vec<Bind>, KubeletError> {
    let mut binds = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let Some(place) = places.get(&mount.name) else {
            return Err(KubeletError::ContainerConfig(format!(
                "volume {:?} of mount {:?} is not there",
                mount.name, mount.mount_path
            )));
        };
        let sub = mount.sub_path.clone().or_else(|| mount.sub_path_expr.as_deref().map(&expand)).unwrap_or_default();
        if Path::new(&sub).is_absolute() || sub.split('/').any(|part| part == "..") {
            return Err(KubeletError::ContainerConfig(format!("subPath {sub:?} must stay inside its volume")));
        }
        let source = if sub.is_empty() { place.clone() } else { place.join(&sub) };
        if !sub.is_empty() && !source.exists() {
            files::make_dir(&source)?;
        }
        let source = fs::canonicalize(&source).map_err(KubeletError::file("find", &source))?;
        let target = Path::new("/").join(&mount.mount_path);
        binds.push(Bind { source, target, read_only: mount.read_only.unwrap_or(false) });
    }
    Ok(binds)
}

/// The names of the ConfigMaps and Secrets a pod's volumes are made from.
pub(crate) fn sources(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
    (maps, secrets)
}

/// Every key of a ConfigMap with its bytes; `None` when there is no such map.
pub(crate) async fn config_map(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let Some(map) = maps.get_opt(name).await.map_err(|error| error.to_string())? else { return Ok(None) };
    let text = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    Ok(Some(text.chain(map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0))).collect()))
}

/// Every key of a Secret with its bytes; `None` when there is no such secret.
pub(crate) async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let Some(secret) = secrets.get_opt(name).await.map_err(|error| error.to_string())? else { return Ok(None) };
    let text = secret.string_data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    Ok(Some(secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).chain(text).collect()))
}
