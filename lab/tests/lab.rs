//! Labs as their users see them. Need root, and `target/debug/kinesin` (`cargo build -p kinesin-cli`).

use std::{
    collections::BTreeSet,
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kinesin_lab::{Families, Lab, LabError, PodInfo, Silent, Spec, UPLINK};
use kube::{
    Api, ResourceExt,
    api::PostParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;

/// A lab of one test; removed also when the test fails.
struct Trial {
    spec: Spec,
    _dir: tempfile::TempDir,
}

impl Trial {
    fn new(test: &str) -> Self {
        let dir = tempfile::tempdir_in("/tmp").expect("a directory");
        let spec = Spec {
            name: format!("{test}-{}", std::process::id()),
            base: dir.path().join("labs"),
            nodes: 2,
            agent: false,
            workloads: false,
            ..Spec::default()
        };
        Self { spec, _dir: dir }
    }

    async fn up(&self) -> Lab {
        Lab::up(&self.spec, &Silent)
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
    }

    fn down(&self) -> bool {
        Lab::down(&self.spec.base, &self.spec.name).expect("down")
    }

    /// What of this lab can be found on the machine.
    fn traces(&self) -> Vec<String> {
        let mark = self.spec.base.to_string_lossy().into_owned();
        let mut traces: Vec<String> =
            processes_with(&mark).into_iter().map(|found| format!("process {found}")).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        traces.extend(mounts.lines().filter(|line| line.contains(&mark)).map(|line| format!("mount {line}")));
        let cgroup = cgroup2().join(format!("kinesin-lab-{}", self.spec.name));
        traces.extend(cgroup.exists().then(|| format!("cgroup {}", cgroup.display())));
        traces.extend(self.spec.base.exists().then(|| format!("files {mark}")));
        traces
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = Lab::down(&self.spec.base, &self.spec.name);
    }
}

fn cgroup2() -> PathBuf {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.exists() { unified.to_owned() } else { "/sys/fs/cgroup".into() }
}

fn processes_with(mark: &str) -> Vec<String> {
    let numbers = fs::read_dir("/proc").expect("/proc").flatten();
    numbers
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(mark))
        .collect()
}

/// What a lab must not change on the machine: devices, named namespaces, mounts.
fn machine() -> (BTreeSet<String>, BTreeSet<String>, String) {
    let names = |dir: &str| {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let routes = ["/proc/net/route", "/proc/net/ipv6_route"].map(|file| fs::read_to_string(file).unwrap_or_default());
    (names("/sys/class/net"), names("/run/netns"), routes.concat())
}

fn text(lab: &Lab, node: &str, command: &[&str]) -> String {
    let output = lab.node(node).expect("a node").output(command.iter().copied()).expect("run");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn lab_comes_up_and_leaves_nothing_behind() {
    let trial = Trial::new("whole");
    let before = machine();
    let lab = trial.up().await;
    assert_eq!(machine(), before, "the machine is as it was");
    assert!(lab.is_whole());

    assert_eq!(text(&lab, "cilium-w1", &["hostname"]), "cilium-w1");
    let addresses = text(&lab, "cilium-w1", &["ip", "-br", "address", "show", UPLINK]);
    assert!(addresses.contains("192.168.10.101/24") && addresses.contains("fd00:192:168:10::101/64"), "{addresses}");
    let connect = |to: &'static str| {
        let within = Duration::from_secs(2);
        let netns = lab.node("cilium-w1").expect("a node").netns().expect("a namespace");
        netns.run(|| TcpStream::connect_timeout(&to.parse().expect("an address"), within)).expect("entered")
    };
    connect("192.168.10.1:6443").expect("the API over IPv4");
    connect("[fd00:192:168:10::1]:6443").expect("the API over IPv6");
    connect("192.168.10.100:6443").expect_err("nobody listens on the other node, but it is there to say so");

    // A node writes where it likes, and the machine does not see it.
    let file = format!("/etc/{}", lab.name());
    text(
        &lab,
        "cilium-ctr",
        &["sh", "-c", &format!("echo x > {file} && echo x > /usr/{0} && test -e {file}", lab.name())],
    );
    assert!(!Path::new(&file).exists() && !Path::new("/usr").join(lab.name()).exists());
    let node = lab.node("cilium-ctr").expect("a node");
    assert!(!node.output(["sh", "-c", "echo 1 > /proc/sys/kernel/printk"]).expect("run").status.success());
    assert_eq!(node.output(["sh", "-c", "exit 7"]).expect("run").status.code(), Some(7));
    let kinds = text(&lab, "cilium-ctr", &["stat", "-f", "-c", "%T", "/sys/fs/bpf", "/sys/fs/cgroup", "/run/netns"]);
    assert_eq!(kinds.lines().collect::<Vec<_>>(), ["bpf_fs", "cgroup2fs", "tmpfs"]);
    assert_eq!(text(&lab, "cilium-ctr", &["grep", "^0::", "/proc/self/cgroup"]), "0::/", "its cgroup is its root");
    assert!(text(&lab, "cilium-ctr", &["cilium", "--version"]).contains(env!("CARGO_PKG_VERSION")));

    let rows = lab.node_rows().await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["cilium-ctr", "cilium-w1"]);
    assert!(rows.iter().all(|row| row.node == "Up" && row.pod_cidrs.len() == 2), "{rows:?}");

    assert!(trial.down());
    assert_eq!(trial.traces(), Vec::<String>::new());
    assert_eq!(machine(), before, "the machine is as it was");
    assert!(!trial.down(), "a second time there is nothing");
    assert!(matches!(Lab::open(&trial.spec.base, &trial.spec.name), Err(LabError::NoSuchLab { .. })));
}

#[tokio::test]
async fn killed_parts_are_healed_and_removed() {
    let trial = Trial::new("killed");
    let lab = trial.up().await;
    let url = fs::read_to_string(lab.layout().kubeconfig()).expect("a kubeconfig");
    let kill = |lab: &Lab| {
        let holder = lab.node("cilium-w1").expect("a node").holder().expect("a holder");
        let control = lab.control_pid().and_then(kinesin_lab::Process::find).expect("a control process");
        for process in [holder, control] {
            process.kill().expect("killed");
            let until = Instant::now() + Duration::from_secs(5);
            while process.is_alive() {
                assert!(Instant::now() < until, "{process:?} does not end");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    };
    kill(&lab);
    assert!(!lab.is_whole());
    assert!(matches!(lab.node("cilium-w1").expect("a node").output(["true"]), Err(LabError::NodeDown { .. })));

    let lab = trial.up().await;
    assert!(lab.is_whole());
    assert_eq!(fs::read_to_string(lab.layout().kubeconfig()).expect("a kubeconfig"), url, "kubeconfigs stay right");
    assert!(text(&lab, "cilium-w1", &["ip", "-br", "address", "show", UPLINK]).contains("192.168.10.101/24"));

    kill(&lab);
    assert!(trial.down());
    assert_eq!(trial.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn cable_of_which_only_one_end_is_left_is_laid_anew() {
    let trial = Trial::new("cable");
    let lab = trial.up().await;
    let node = lab.nodes()[1].name().to_owned();
    // An end whose other one went with its namespace is still there for a moment; this one is there for longer.
    let half = "ip link del eth1 && ip link add eth1 type veth peer name stray";
    text(&lab, &node, &["sh", "-c", half]);
    let lab = trial.up().await;
    assert!(!text(&lab, &node, &["ip", "link"]).contains("stray"));
    assert!(text(&lab, &node, &["ip", "addr", "show", UPLINK]).contains("192.168.10.101/24"));
    assert!(trial.down());
}

#[tokio::test]
async fn restarted_api_server_has_its_objects_and_its_watchers_go_on() {
    let trial = Trial::new("api");
    let mut lab = trial.up().await;
    let maps: Api<ConfigMap> = Api::namespaced(lab.client().expect("a client"), "default");
    let create = async |name: &str| {
        let object: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}})).expect("an object");
        maps.create(&PostParams::default(), &object).await
    };
    create("before").await.expect("created");
    let mut watch = std::pin::pin!(watcher(maps.clone(), watcher::Config::default()).default_backoff());
    let mut told = async |wanted: &str| {
        let tells = async {
            while let Some(event) = watch.next().await {
                match event {
                    Ok(Event::Apply(map) | Event::InitApply(map)) if map.name_any() == wanted => return,
                    // Broken off, or too far behind: it lists anew.
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), tells)
            .await
            .unwrap_or_else(|_| panic!("nobody tells of {wanted}"));
    };
    told("before").await;
    let old = lab.control_pid();
    lab.restart_api(Duration::from_millis(100)).expect("restarted");
    assert!(lab.is_whole() && lab.control_pid() != old);
    assert!(
        create("before").await.is_err_and(|error| matches!(error, kube::Error::Api(refused) if refused.code == 409))
    );
    create("after").await.expect("created");
    told("after").await;
}

#[tokio::test]
async fn lost_files_do_not_keep_down_from_its_work() {
    let trial = Trial::new("lost");
    trial.up().await;
    fs::remove_dir_all(&trial.spec.base).expect("removed");
    assert!(trial.down());
    assert_eq!(trial.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn another_shape_is_refused_and_another_name_is_another_lab() {
    let trial = Trial::new("shape");
    let lab = trial.up().await;
    let other = Spec { families: Families::Ipv6, ..trial.spec.clone() };
    let error = Lab::up(&other, &Silent).await.expect_err("refused");
    assert!(error.to_string().contains("families dual"), "{error}");

    let mut second = Trial::new("shape-ipv6");
    second.spec = Spec { families: Families::Ipv6, nodes: 1, ..second.spec.clone() };
    let beside = second.up().await;
    let addresses = text(&beside, "cilium-ctr", &["ip", "-br", "address", "show", UPLINK]);
    assert!(!addresses.contains("192.168.") && addresses.contains("fd00:192:168:10::100/64"), "{addresses}");
    assert!(second.down());
    assert!(lab.is_whole(), "the first does not notice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ups_at_once_make_one_lab() {
    let trial = Trial::new("twice");
    let (one, other) = tokio::join!(tokio::spawn(up(trial.spec.clone())), tokio::spawn(up(trial.spec.clone())));
    let (one, other) = (one.expect("joined").expect("up"), other.expect("joined").expect("up"));
    assert!(one.is_whole());
    assert_eq!(one.control_pid(), other.control_pid());
}

async fn up(spec: Spec) -> Result<Lab, LabError> {
    // The lock is waited for in the thread, so each of the two needs one of its own.
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(Lab::up(&spec, &Silent)))
}

#[tokio::test]
async fn check_tells_who_is_reached_and_who_is_not() {
    let trial = Trial::new("check");
    let lab = trial.up().await;
    let mut pods = Vec::new();
    for (index, node, name) in [(0, "cilium-ctr", "a"), (0, "cilium-ctr", "b"), (1, "cilium-w1", "c")] {
        let host = if name == "b" { 3 } else { 2 };
        let (v4, v6) = (format!("10.244.{index}.{host}"), format!("fd00:10:244:{index}::{host}"));
        let script = format!(
            "ip netns add {name} && ip link add v{name} type veth peer name eth0 netns {name} && ip link set v{name} up &&
             ip -n {name} link set lo up && ip -n {name} link set eth0 up &&
             ip -n {name} addr add {v4}/32 dev eth0 && ip -n {name} addr add {v6}/128 dev eth0 nodad &&
             ip addr replace 169.254.1.1/32 dev v{name} && ip addr replace fe80::1/64 dev v{name} nodad &&
             ip -n {name} route add 169.254.1.1 dev eth0 && ip -n {name} route add default via 169.254.1.1 &&
             ip -n {name} -6 route add default via fe80::1 dev eth0 &&
             ip route add {v4} dev v{name} && ip -6 route add {v6} dev v{name} && sysctl -qw net.ipv4.conf.v{name}.proxy_arp=1"
        );
        text(&lab, node, &["sh", "-ec", &script]);
        pods.push(PodInfo {
            name: name.to_owned(),
            node: node.to_owned(),
            ips: vec![v4.parse().expect("an address"), v6.parse().expect("an address")],
        });
    }
    for (node, peer, index) in [("cilium-ctr", 101, 1), ("cilium-w1", 100, 0)] {
        let script = format!(
            "ip route add 10.244.{index}.0/24 via 192.168.10.{peer} &&
             ip -6 route add fd00:10:244:{index}::/64 via fd00:192:168:10::{peer}"
        );
        text(&lab, node, &["sh", "-ec", &script]);
    }
    let report = lab.check_pods(pods.clone()).await.expect("a report");
    let failures =
        |report: &kinesin_lab::Report| report.probes.iter().filter_map(|p| p.failure.clone()).collect::<Vec<_>>();
    assert_eq!((report.probes.len(), failures(&report)), (3 * 2 * 2 * 3, vec![]));
    assert!(report.passed());
    assert_eq!(report.probes.iter().filter(|probe| report.is_local(probe)).count(), 2 * 2 * 3);

    text(&lab, "cilium-ctr", &["ip", "-n", "a", "route", "replace", "unreachable", "default"]);
    let report = lab.check_pods(pods.clone()).await.expect("a report");
    assert!(!report.passed());
    let failed = |from: usize, v4: bool| {
        let of = report.probes.iter().filter(|p| p.from == from && p.address.is_ipv4() == v4);
        of.filter(|p| p.failure.is_some()).count()
    };
    assert_eq!(failed(0, true), 2 * 3, "a has no way out in IPv4");
    assert_eq!((failed(0, false), failed(1, false), failed(2, false)), (0, 0, 0), "IPv6 is not concerned");

    pods[1].ips = vec!["10.244.9.9".parse().expect("an address")];
    let report = lab.check_pods(pods).await.expect("a report");
    assert!(report.absent.len() == 1 && report.absent[0].contains("10.244.9.9"), "{:?}", report.absent);
    assert!(!report.passed());
}
