//! A node in namespaces of its own: an API server in this process, the kubelet as a program, a CNI plugin of shell.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Event, Pod};
use kinesin_apiserver::{ApiServer, Config};
use kinesin_netlink::Netlink;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How long anything may take, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(60);

/// Connects a pod by a veth pair; `refuse` beside it makes ADD fail, `calls` has what it was asked.
const PLUGIN: &str = r#"#!/bin/sh
dir=$(dirname "$0")
cat > "$dir/stdin.$CNI_COMMAND"
echo "$CNI_COMMAND id=$CNI_CONTAINERID netns=$CNI_NETNS ifname=$CNI_IFNAME args=$CNI_ARGS" >> "$dir/calls"
[ "$CNI_COMMAND" = ADD ] || exit 0
if [ -e "$dir/refuse" ]; then echo '{"cniVersion":"1.0.0","code":11,"msg":"no address is free"}'; exit 1; fi
# Calls may run side by side; the place in the list is each one's own.
n=$(($(grep '^ADD' "$dir/calls" | grep -n "id=$CNI_CONTAINERID" | cut -d: -f1) + 1))
exec 3>&1 >/dev/null 2>"$dir/errors"
set -e
ip link add "pod$n" type veth peer name eth0 netns "$CNI_NETNS"
ip link set "pod$n" up
ip addr add 10.9.255.1/32 dev "pod$n"
nsenter --net="$CNI_NETNS" sh -c "ip link set eth0 up; ip addr add 10.9.0.$n/32 dev eth0; ip addr add fd09::$n/128 dev eth0 nodad;
  ip route add 10.9.255.1 dev eth0; ip route add default via 10.9.255.1"
ip route add "10.9.0.$n/32" dev "pod$n"
cat >&3 <<END
{"cniVersion":"1.0.0","interfaces":[{"name":"pod$n"},{"name":"eth0","sandbox":"$CNI_NETNS"}],
 "ips":[{"interface":1,"address":"10.9.0.$n/32"},{"interface":1,"address":"fd09::$n/128"}]}
END
"#;

pub struct Lab {
    pub client: Client,
    pub url: String,
    pub dir: PathBuf,
    server: ApiServer,
    kubelet: Option<Child>,
    _temp: tempfile::TempDir,
}

/// Runs a test in a thread with network and mounts of its own; what it starts is there, too.
pub fn in_lab<F: Future<Output = Result<()>>>(test: impl FnOnce(&'static str, LabMaker) -> F + Send + 'static) {
    let outcome = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("this test needs root")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(test("n1", LabMaker(())))
    });
    outcome.join().expect("the test does not panic").expect("the test passes");
}

pub struct LabMaker(());

impl LabMaker {
    pub async fn make(self) -> Result<Lab> {
        let netlink = Netlink::new()?;
        netlink.set_up(netlink.link("lo").await?.index).await?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server =
            ApiServer::start(Config { listeners: vec![listener], controllers: true, ..Config::default() }).await?;
        let url = format!("http://{}", server.local_addrs()[0]);
        let client = Client::try_from(kube::Config::new(url.parse()?))?;
        let temp = tempfile::tempdir()?;
        let dir = temp.path().to_owned();
        for name in ["conf", "bin", "images"] {
            fs::create_dir(dir.join(name))?;
        }
        let plugin = dir.join("bin/fake-cni");
        fs::write(&plugin, PLUGIN)?;
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755))?;
        let mut lab = Lab { client, url, dir, server, kubelet: None, _temp: temp };
        lab.start_kubelet()?;
        Ok(lab)
    }
}

impl Lab {
    /// Gives the node its network configuration.
    pub fn configure_network(&self) -> Result<()> {
        let conf = json!({"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "fake-cni", "mark": 7}]});
        Ok(fs::write(self.dir.join("conf/05-test.conflist"), conf.to_string())?)
    }

    pub fn start_kubelet(&mut self) -> Result<()> {
        let at = |name: &str| self.dir.join(name);
        let config = json!({
            "node_name": "n1", "internal_ips": ["127.0.0.1", "::1"], "api_server_url": self.url, "cni_conf_dir": at("conf"),
            "cni_bin_dir": at("bin"), "socket": at("kubelet.sock"), "pods_dir": at("pods"), "log_dir": at("logs"),
            "netns_dir": at("netns"), "bin_dir": at("images"), "labels": {"lab": "yes"},
        });
        fs::write(at("kubelet.json"), config.to_string())?;
        let kubelet = Command::new(env!("CARGO_BIN_EXE_kinesin-kubelet"))
            .arg("run")
            .arg(at("kubelet.json"))
            .env("RUST_LOG", "kinesin_kubelet=debug")
            .stderr(fs::File::options().create(true).append(true).open(at("kubelet.log"))?)
            .spawn()?;
        self.kubelet = Some(kubelet);
        Ok(())
    }

    /// Kills the kubelet as the kernel would.
    pub fn kill_kubelet(&mut self) -> Result<()> {
        if let Some(mut kubelet) = self.kubelet.take() {
            kubelet.kill()?;
            kubelet.wait()?;
        }
        Ok(())
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    pub async fn create(&self, pod: Value) -> Result<Pod> {
        Ok(self.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?)
    }

    /// A pod of one container with a short grace.
    pub async fn create_simple(&self, name: &str, container: Value) -> Result<Pod> {
        let mut container = container;
        container["name"] = "c".into();
        let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container]});
        self.create(json!({"metadata": {"name": name}, "spec": spec})).await
    }

    pub async fn delete(&self, name: &str) -> Result<()> {
        self.pods().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until a pod is as it should be; it is shown when that does not come.
    pub async fn until_pod(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let start = Instant::now();
        loop {
            let pod = serde_json::to_value(self.pods().get_opt(name).await?)?;
            if is_so(&pod) {
                return Ok(pod);
            }
            if start.elapsed() > LIMIT {
                let log = fs::read_to_string(self.dir.join("kubelet.log")).unwrap_or_default();
                bail!("pod {name} is still {:#}\nevents: {:#?}\n{log}", pod["status"], self.events(name).await?);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    pub async fn until_ready(&self, name: &str) -> Result<Value> {
        self.until_pod(name, is_ready).await
    }

    pub async fn until_gone(&self, name: &str) -> Result<()> {
        self.until_pod(name, Value::is_null).await.map(drop)
    }

    /// Reason and message of each event about a pod.
    pub async fn events(&self, pod: &str) -> Result<Vec<(String, String)>> {
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        let all = events.list(&ListParams::default()).await?;
        let of_pod = all.into_iter().filter(|e| e.involved_object.name.as_deref() == Some(pod));
        Ok(of_pod.map(|e| (e.reason.unwrap_or_default(), e.message.unwrap_or_default())).collect())
    }

    pub async fn until_event(&self, pod: &str, reason: &str, text: &str) -> Result<String> {
        let start = Instant::now();
        loop {
            let events = self.events(pod).await?;
            if let Some((_, message)) = events.iter().find(|(r, m)| r == reason && m.contains(text)) {
                return Ok(message.clone());
            }
            if start.elapsed() > LIMIT {
                bail!("no event {reason} with {text:?} of {pod}: {events:#?}");
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Every call of the plugin.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("bin/calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Runs kubectl; its code, stdout and stderr.
    pub async fn kubectl(&self, arguments: &[&str], stdin: &str) -> Result<(i32, String, String)> {
        use tokio::io::AsyncWriteExt as _;
        let mut child = tokio::process::Command::new("kubectl")
            .args(["--server", &self.url, "--cache-dir"])
            .arg(self.dir.join("kubectl"))
            .args(arguments)
            .env_remove("KUBECONFIG")
            .env("HOME", &self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("kubectl")?;
        let mut input = child.stdin.take().context("stdin")?;
        input.write_all(stdin.as_bytes()).await?;
        drop(input);
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.context("kubectl hangs")??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
    }

    /// The process that a pod's container `c` has.
    pub fn process(&self, uid: &str) -> Option<i32> {
        let state = self.states(&self.dir.join("pods").join(uid)).into_iter().next()?;
        state["process"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
    }

    fn states(&self, pod: &Path) -> Vec<Value> {
        let subdirs =
            |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>();
        let runs = subdirs(&pod.join("containers")).into_iter().flat_map(|container| subdirs(&container));
        runs.filter_map(|run| serde_json::from_slice(&fs::read(run.join("state.json")).ok()?).ok()).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Containers outlive their kubelet, so they are ended one by one, with the numbers it noted.
        let _ = self.kill_kubelet();
        for pod in fs::read_dir(self.dir.join("pods")).into_iter().flatten().flatten() {
            for state in self.states(&pod.path()) {
                for which in ["process", "shim"] {
                    let pid =
                        state[which]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1);
                    if let Some(pid) = pid.filter(|_| state["exit"].is_null()) {
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                }
            }
        }
        for netns in fs::read_dir(self.dir.join("netns")).into_iter().flatten().flatten() {
            let _ = kinesin_netlink::NetNs::remove(netns.path());
        }
    }
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

pub fn state(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]
}

pub fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}
