//! From a container of the API to what its shim reads: command, environment, mounts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

use crate::expand::expand;
use crate::images::{self, Image};
use crate::kubelet::Node;
use crate::launch::{Bind, Process, RunSpec};
use crate::record::PodRecord;
use crate::volumes::{self, Extra};
use crate::{KubeletError, files, node};

/// Where Kinesin's binaries are inside its images.
const KINESIN: &str = "/usr/lib/kinesin";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where real pods have the token of their account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How clients in pods find the API server, which speaks plain HTTP and so is no in-cluster one.
const KUBECONFIG: &str = "/var/run/secrets/lab.kinesin.io/kubeconfig";
/// Nobody checks it.
pub(crate) const TOKEN: &str = "lab";

/// Works out the next run of a container; its directories are made.
///
/// # Errors
/// `ContainerConfig` for what the pod's author can mend, `File` for the node's own troubles.
pub(crate) async fn plan(
    node: &Node,
    record: &PodRecord,
    container: &Container,
    image: &Image,
    places: &BTreeMap<String, PathBuf>,
) -> Result<RunSpec, KubeletError> {
    let config = &node.config;
    let pod = &record.pod;
    let spec = pod.spec.as_ref();
    let is_host_network = is_host_network(pod);
    let env = environment(node, record, container).await?;
    let value_of = |name: &str| env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let all = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, value_of)).collect()
    };
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let (own, arguments) = (all(&container.command), all(&container.args));
    // A command replaces both of the image's; arguments alone replace its second.
    let mut command = if own.is_empty() { owned(image.entrypoint) } else { own.clone() };
    command.extend(if arguments.is_empty() && own.is_empty() { owned(image.cmd) } else { arguments });

    let mut binds = volumes::binds(container, places, |text| expand(text, value_of))?;
    let is_covered = |binds: &[Bind], target: &str| binds.iter().any(|bind| bind.target == Path::new(target));
    let etc = write_etc(node, record).await?;
    for (name, target) in [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")]
    {
        // The machine's own file may be a link, which a mount would follow out of place.
        let is_nodes = is_host_network && name == "hostname";
        if !is_nodes && !is_covered(&binds, target) {
            binds.push(Bind { source: etc.join(name), target: target.into(), read_only: false });
        }
    }
    if spec.and_then(|s| s.automount_service_account_token) != Some(false) {
        for (name, target) in [("account", ACCOUNT), ("kubeconfig", KUBECONFIG)] {
            if !is_covered(&binds, target) {
                binds.push(Bind { source: etc.join(name), target: target.into(), read_only: true });
            }
        }
    }
    binds.push(Bind { source: node.program.clone(), target: images::PROGRAM.into(), read_only: true });
    let mut links = Vec::new();
    if image.has_kinesin {
        binds.push(Bind { source: config.bin_dir.clone(), target: KINESIN.into(), read_only: true });
        links = kinesin_links(&config.bin_dir);
    }
    let run_dir = record.run_dir(&config.pods_dir, &container.name);
    let attempt = record.containers.get(&container.name).map_or(0, |c| c.attempt);
    let log = record.log(&config.log_dir, &container.name, attempt);
    files::make_dir(&run_dir.join("root"))?;
    files::make_dir(log.parent().unwrap_or(&config.log_dir))?;
    let context = container.security_context.as_ref();
    let pod_context = spec.and_then(|s| s.security_context.as_ref());
    let id = |own: Option<i64>, pods: Option<i64>| own.or(pods).and_then(|id| u32::try_from(id).ok());
    let is_tty = container.tty.unwrap_or(false);
    Ok(RunSpec {
        process: Process {
            command,
            env,
            cwd: container.working_dir.as_deref().map_or_else(|| "/".into(), |dir| Path::new("/").join(dir)),
            user: id(context.and_then(|c| c.run_as_user), pod_context.and_then(|c| c.run_as_user)),
            group: id(context.and_then(|c| c.run_as_group), pod_context.and_then(|c| c.run_as_group)),
            tty: is_tty,
        },
        netns: record.sandbox.as_ref().and_then(|s| s.netns.clone()),
        hostname: (!is_host_network).then(|| hostname(pod)),
        host_pid: spec.and_then(|s| s.host_pid).unwrap_or(false),
        cgroup: config.cgroup.as_ref().map(|dir| dir.join(format!("pod{}", record.uid()))),
        binds,
        links,
        scratch: run_dir.join("root"),
        state: run_dir.join("state.json"),
        log,
        stdin: container.stdin.unwrap_or(false).then(|| run_dir.join("stdin")),
        stdin_once: container.stdin_once.unwrap_or(false),
    })
}

/// Whether the pod lives in the node's network.
pub(crate) fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

fn hostname(pod: &Pod) -> String {
    let own = pod.spec.as_ref().and_then(|s| s.hostname.clone());
    let mut name = own.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    // The kernel takes 64 bytes; kubelet cuts at 63 and leaves no dash or dot at the end.
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

fn kinesin_links(bin_dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    let place = |name: &str| Path::new("/usr/bin").join(name);
    let names: Vec<String> = std::fs::read_dir(bin_dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("kinesin") && !name.contains('.'))
        .collect();
    let aliases = images::ALIASES.iter().filter(|(_, to)| names.iter().any(|name| name == to));
    let links = aliases.map(|(alias, to)| (place(alias), Path::new(KINESIN).join(to)));
    links.chain(names.iter().map(|name| (place(name), Path::new(KINESIN).join(name)))).collect()
}

async fn environment(
    node: &Node,
    record: &PodRecord,
    container: &Container,
) -> Result<Vec<(String, String)>, KubeletError> {
    let pod = &record.pod;
    let host_name = if is_host_network(pod) { node.config.node_name.clone() } else { hostname(pod) };
    let mut env: Vec<(String, String)> =
        vec![("PATH".into(), PATH.into()), ("HOSTNAME".into(), host_name), ("HOME".into(), "/root".into())];
    if container.tty.unwrap_or(false) {
        env.push(("TERM".into(), "xterm".into()));
    }
    if pod.spec.as_ref().and_then(|s| s.automount_service_account_token) != Some(false) {
        env.push(("KUBECONFIG".into(), KUBECONFIG.into()));
    }
    let namespace = record.namespace();
    let failed = KubeletError::ContainerConfig;
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (found, what, is_optional) = if let Some(map) = &source.config_map_ref {
            let found = volumes::config_map(&node.client, namespace, &map.name).await.map_err(failed)?;
            (found, format!("configmap {:?}", map.name), map.optional)
        } else if let Some(secret) = &source.secret_ref {
            let found = volumes::secret(&node.client, namespace, &secret.name).await.map_err(failed)?;
            (found, format!("secret {:?}", secret.name), secret.optional)
        } else {
            continue;
        };
        let Some(found) = found else {
            if is_optional == Some(true) {
                continue;
            }
            return Err(failed(format!("{what} not found")));
        };
        let values = found
            .into_iter()
            .map(|(key, value)| (format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned()));
        env.extend(values);
    }
    for variable in container.env.iter().flatten() {
        let value_of = |name: &str| env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let value = match &variable.value {
            Some(text) => Some(expand(text, value_of)),
            None => value_from(node, record, container, variable).await?,
        };
        if let Some(value) = value {
            env.push((variable.name.clone(), value));
        }
    }
    // Later ones count, and a program should see each name once.
    let mut seen = std::collections::BTreeSet::new();
    env.reverse();
    env.retain(|(name, _)| seen.insert(name.clone()));
    env.reverse();
    Ok(env)
}

async fn value_from(
    node: &Node,
    record: &PodRecord,
    container: &Container,
    variable: &EnvVar,
) -> Result<Option<String>, KubeletError> {
    let failed = KubeletError::ContainerConfig;
    let Some(source) = &variable.value_from else { return Ok(Some(String::new())) };
    if let Some(field) = &source.field_ref {
        let host_ips = node.config.host_ips();
        let pod_ips = record.sandbox.as_ref().map(|s| s.ips.clone()).unwrap_or_default();
        let extra = Extra { host_ips: &host_ips, pod_ips: &pod_ips, token: TOKEN };
        return volumes::field_of(&record.pod, &field.field_path, &extra).map(Some).map_err(failed);
    }
    let (found, what, key, is_optional) = if let Some(map) = &source.config_map_key_ref {
        let found = volumes::config_map(&node.client, record.namespace(), &map.name).await.map_err(failed)?;
        (found, ("configmap", "ConfigMap", &map.name), &map.key, map.optional)
    } else if let Some(secret) = &source.secret_key_ref {
        let found = volumes::secret(&node.client, record.namespace(), &secret.name).await.map_err(failed)?;
        (found, ("secret", "Secret", &secret.name), &secret.key, secret.optional)
    } else if let Some(resource) = &source.resource_field_ref {
        return resource_of(container, &resource.resource).map(Some).map_err(failed);
    } else {
        return Err(failed(format!("variable {}: this source of values is not supported", variable.name)));
    };
    let is_optional = is_optional == Some(true);
    let Some(mut found) = found else {
        return if is_optional { Ok(None) } else { Err(failed(format!("{} {:?} not found", what.0, what.2))) };
    };
    match found.remove(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        None if is_optional => Ok(None),
        None => Err(failed(format!("couldn't find key {key} in {} {}/{}", what.1, record.namespace(), what.2))),
    }
}

/// A limit or request in units of one; what is not limited is what the node has.
fn resource_of(container: &Container, path: &str) -> Result<String, String> {
    let (list, name) = path.split_once('.').ok_or_else(|| format!("unsupported resource: {path}"))?;
    let resources = container.resources.as_ref();
    let amounts = match list {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(format!("unsupported resource: {path}")),
    };
    match amounts.and_then(|a| a.get(name)) {
        Some(quantity) => parse_quantity(&quantity.0)
            .map(|n| n.to_string())
            .ok_or_else(|| format!("invalid quantity {:?}", quantity.0)),
        None if list == "requests" => Ok("0".to_owned()),
        None if name == "cpu" => Ok(node::cpus().to_string()),
        None => Ok((node::memory_kib() * 1024).to_string()),
    }
}

/// A whole number of units, rounded up, as the downward API shows it.
fn parse_quantity(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let amount: f64 = digits.parse().ok().filter(|n: &f64| *n >= 0.0)?;
    let unit = match &text[digits.len()..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and saturating")]
    Some((amount * unit).ceil() as u64)
}

/// The files that every container of a pod sees in `/etc`, and those by which it finds the API.
async fn write_etc(node: &Node, record: &PodRecord) -> Result<PathBuf, KubeletError> {
    let pod = &record.pod;
    let dir = record.dir(&node.config.pods_dir).join("etc");
    files::make_dir(&dir.join("account"))?;
    let put = |name: &str, content: &str| {
        let path = dir.join(name);
        // A file that is mounted somewhere must stay the same file.
        if std::fs::read_to_string(&path).is_ok_and(|is| is == content) {
            return Ok(());
        }
        std::fs::write(&path, content).map_err(KubeletError::file("write", &path))
    };
    if is_host_network(pod) {
        put("hosts", &std::fs::read_to_string("/etc/hosts").unwrap_or_default())?;
    } else {
        put("hosts", &hosts(record))?;
        put("hostname", &format!("{}\n", hostname(pod)))?;
    }
    put("resolv.conf", &resolv_conf(node, record).await)?;
    put("account/namespace", record.namespace())?;
    put("account/token", TOKEN)?;
    let kubeconfig = serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": node.config.api_server_url}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "pod", "namespace": record.namespace()}}],
        "users": [{"name": "pod", "user": {}}]});
    put("kubeconfig", &kubeconfig.to_string())?;
    Ok(dir)
}

fn hosts(record: &PodRecord) -> String {
    let mut text =
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
    for ip in record.sandbox.iter().flat_map(|s| &s.ips) {
        text.push_str(&format!("{ip}\t{}\n", hostname(&record.pod)));
    }
    let aliases = record.pod.spec.iter().flat_map(|s| s.host_aliases.iter().flatten());
    for alias in aliases {
        text.push_str(&format!(
            "{}\t{}\n",
            alias.ip,
            alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t")
        ));
    }
    text
}

/// Cluster DNS where the cluster has it, and the node's own otherwise, as kubelet does without `clusterDNS`.
async fn resolv_conf(node: &Node, record: &PodRecord) -> String {
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let spec = record.pod.spec.as_ref();
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let is_cluster = policy == "ClusterFirstWithHostNet" || policy == "ClusterFirst" && !is_host_network(&record.pod);
    let services: kube::Api<k8s_openapi::api::core::v1::Service> =
        kube::Api::namespaced(node.client.clone(), "kube-system");
    let dns = match is_cluster {
        true => services.get_opt("kube-dns").await.ok().flatten().and_then(|s| s.spec).and_then(|s| s.cluster_ip),
        false => None,
    };
    match dns {
        Some(ip) => {
            let namespace = record.namespace();
            format!(
                "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\nnameserver {ip}\noptions ndots:5\n"
            )
        }
        None => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_whole_units_rounded_up() {
        for (text, want) in [
            ("1", Some(1)),
            ("100m", Some(1)),
            ("1500m", Some(2)),
            ("2Gi", Some(2 << 30)),
            ("1.5Ki", Some(1536)),
            ("x", None),
            ("1x", None),
        ] {
            assert_eq!(parse_quantity(text), want, "{text}");
        }
    }

    #[test]
    fn a_host_name_fits_the_kernel() {
        let mut pod = Pod::default();
        pod.metadata.name = Some(format!("{}-tail", "a".repeat(62)));
        assert_eq!(hostname(&pod), "a".repeat(62));
    }
}
