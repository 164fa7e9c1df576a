//! Running pods follow the carriers in use and the uplink: MTUs and offloads change in their own namespaces.

use std::{
    env,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown},
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kinesin_netlink::{NetNs, Netlink, has_feature};

use crate::{
    cidrs::reaches,
    cluster::{CIDRS, Cluster, PEER_ADDRESSES, PEER_CIDRS},
    node::{Node, until},
    pods::{self, Pod},
    wire::{Datagrams, Went, Wire},
};

/// In a tunnel, and to be split before one.
const OFFLOAD: &str = "tx-udp-segmentation";
/// A node that is reached natively unless another one wants it otherwise.
const NATIVE: [&str; 2] = ["--routing-mode=native", "--auto-direct-node-routes=true"];
/// What is not on the wire by then never comes.
const LOST: Duration = Duration::from_secs(5);
/// Longer than a carrier is held after nobody wants it any more.
const HELD: Duration = Duration::from_secs(40);

/// What a pod's kernel was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    device_mtu: u32,
    /// Of IPv4 and IPv6.
    route_mtus: [u32; 2],
    superpackets: bool,
}

fn told(device_mtu: u32, route_mtu: u32, superpackets: bool) -> Told {
    Told { device_mtu, route_mtus: [route_mtu; 2], superpackets }
}

impl Told {
    fn of(node: &Node, netns: &NetNs) -> Self {
        let read = async {
            let inside = Netlink::in_netns(netns).expect("socket");
            let link = inside.link("eth0").await.expect("eth0");
            let routes = inside.routes().await.expect("routes");
            let mtu = |is_ipv4: bool| {
                let default = routes.iter().find(|route| {
                    route.dst.prefix_len() == 0 && route.dst.addr().is_ipv4() == is_ipv4 && route.dev == link.index
                });
                default.expect("a default route").mtu.expect("an MTU")
            };
            (link.mtu, [mtu(true), mtu(false)])
        };
        let (device_mtu, route_mtus) = node.runtime.block_on(read);
        let superpackets = netns.run(|| has_feature("eth0", OFFLOAD)).expect("enter").expect("asked");
        Self { device_mtu, route_mtus, superpackets }
    }
}

/// Waits until device and routes of these pods have this MTU.
pub(crate) fn wait_for_mtu(node: &Node, pods: &[&Pod], mtu: u32) {
    until(&format!("pods get the MTU {mtu}"), || {
        let followed = |pod: &&Pod| {
            let told = Told::of(node, &pod.netns);
            told.device_mtu == mtu && told.route_mtus.iter().all(|route| *route <= mtu)
        };
        pods.iter().all(followed)
    });
}

fn wait_for(node: &Node, pods: &[&Pod], wanted: Told) {
    let mut last = Vec::new();
    let deadline = Instant::now() + HELD;
    while Instant::now() < deadline {
        last = pods.iter().map(|pod| Told::of(node, &pod.netns)).collect();
        if last.iter().all(|told| *told == wanted) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("pods do not become {wanted:?}: {last:?}");
}

/// MTU of the host ends of all pods, each once.
fn host_mtus(node: &Node) -> Vec<u32> {
    let pods = node.links().into_iter().filter(|link| link.name.starts_with("lxc") && link.name != "lxc_health");
    let mut mtus: Vec<u32> = pods.map(|link| link.mtu).collect();
    mtus.sort_unstable();
    mtus.dedup();
    mtus
}

/// The other node's end of the uplink answers for its addresses; nothing else is there.
fn bring_up_peer(node: &Node) {
    node.runtime.block_on(async {
        let world = Netlink::in_netns(&node.world).expect("socket");
        let uplink = world.link("eth0").await.expect("its end").index;
        for (address, length) in PEER_ADDRESSES.iter().zip([24, 64]) {
            let address = format!("{address}/{length}").parse().expect("an address");
            world.add_address(uplink, address).await.expect("address");
        }
    });
}

/// Addresses in the other node's pod CIDRs.
fn far_pods() -> [IpAddr; 2] {
    PEER_CIDRS.map(|cidr| cidr.replace("0/24", "5").replace("::/64", "::5").parse().expect("an address"))
}

/// Datagrams that go on until they are stopped, one at a time.
struct Sending {
    stop: Arc<AtomicBool>,
    /// Rounds in a row in which every kind went by the tunnel, or in which none did.
    alike: Arc<[AtomicU64; 2]>,
    thread: JoinHandle<Vec<(String, Vec<Went>)>>,
}

impl Sending {
    /// A datagram of each kind in turn; one that is lost ends it.
    fn start(wire: Wire, mut kinds: Vec<Datagrams>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let alike = Arc::<[AtomicU64; 2]>::default();
        let (stopped, counted) = (stop.clone(), alike.clone());
        let thread = thread::spawn(move || {
            let mut went: Vec<(String, Vec<Went>)> = kinds.iter().map(|kind| (kind.name.clone(), Vec::new())).collect();
            // The first of each may be lost while its neighbour is looked for.
            for kind in &mut kinds {
                let first = (0..20).find_map(|_| wire.next(kind, Duration::from_millis(250)));
                assert!(first.is_some(), "{}: nothing arrives", kind.name);
            }
            while !stopped.load(Ordering::Relaxed) {
                let mut ways = [false; 2];
                for (kind, (name, went)) in kinds.iter_mut().zip(&mut went) {
                    let Some(found) = wire.next(kind, LOST) else {
                        panic!("{name}: datagram {} is lost after {:?}", went.len(), went.last())
                    };
                    went.push(found);
                    ways[usize::from(found.tunnelled)] = true;
                }
                for (way, counted) in counted.iter().enumerate() {
                    let count = if ways[1 - way] { 0 } else { counted.load(Ordering::Relaxed) + 1 };
                    counted.store(count, Ordering::Relaxed);
                }
            }
            went
        });
        let sending = Self { stop, alike, thread };
        sending.wait_for(false);
        sending
    }

    /// Waits until everything goes by the tunnel, or nothing.
    fn wait_for(&self, tunnelled: bool) {
        let what = if tunnelled { "everything goes by the tunnel" } else { "nothing goes by the tunnel" };
        until(what, || self.thread.is_finished() || self.alike[usize::from(tunnelled)].load(Ordering::Relaxed) > 20);
    }

    fn finish(self) -> Vec<(String, Vec<Went>)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|lost| std::panic::resume_unwind(lost))
    }
}

/// Node and pod to both families of the other node's pods: the pod in datagrams that fill its device, the node in small ones.
fn datagrams(node: &Node, pod: &Pod, ips: &[IpAddr]) -> Vec<Datagrams> {
    let mut all = Vec::new();
    for (from, to) in ips.iter().zip(far_pods()) {
        let headers = if to.is_ipv4() { 28 } else { 48 };
        all.push(Datagrams::new("pod", &pod.netns, *from, to, 1500 - headers));
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().expect("an address");
        all.push(Datagrams::new("node", &node.netns, any, to, 64));
    }
    all
}

/// The pods' MTU is lowered before the first packet enters the tunnel and raised after the last, and no datagram is lost:
/// those that fill the device are cut by the pod's own kernel.
#[test]
fn running_pods_follow_the_carriers_and_lose_nothing() {
    let mut node = Node::new();
    let cluster = Cluster::new(&node, &CIDRS);
    bring_up_peer(&node);
    node.start_with(node.agent_command(&NATIVE));
    node.ready();
    // How long many take is seen by a larger number.
    let count = env::var("KINESIN_PODS").ok().and_then(|count| count.parse().ok()).unwrap_or(3);
    let pods = Pod::several(count);
    let ips: Vec<_> = pods.iter().map(|pod| pods::addresses(&pod.add(&node).ok())).collect();
    let all: Vec<&Pod> = pods.iter().collect();
    cluster.set_peer(&node, "native");
    node.status_when("routed", |status| status.routing.peers == 1 && status.routing.unreachable.is_empty());
    wait_for(&node, &all, told(1500, 1500, true));

    let sending = Sending::start(Wire::new(&node.world), datagrams(&node, &pods[0], &ips[0]));
    cluster.set_peer(&node, "vxlan:8472");
    let begun = Instant::now();
    wait_for(&node, &all, told(1500, 1450, false));
    eprintln!("{count} pods have the tunnel's MTU after {:?}", begun.elapsed());
    sending.wait_for(true);
    // A pod that starts now is like those that were there.
    let late = Pod::new("late");
    late.add(&node).ok();
    assert_eq!(Told::of(&node, &late.netns), told(1500, 1450, false));
    cluster.set_peer(&node, "native");
    sending.wait_for(false);
    let everybody: Vec<&Pod> = all.iter().copied().chain([&late]).collect();
    wait_for(&node, &everybody, told(1500, 1500, true));
    for (name, went) in sending.finish() {
        let inside: Vec<usize> = went.iter().filter(|went| went.tunnelled).map(|went| went.largest).collect();
        let largest = inside.iter().max();
        assert!(largest.is_some_and(|largest| *largest <= 1450), "{name}: {largest:?} bytes within the tunnel");
        assert!(went.last().is_some_and(|last| !last.tunnelled), "{name}: the last one is still in the tunnel");
        eprintln!("{name}: {} datagrams, {} in the tunnel, none lost", went.len(), inside.len());
    }
    assert!(reaches(&pods[0], ips[0][0], &pods[1], ips[1][0]) && reaches(&pods[0], ips[0][1], &pods[1], ips[1][1]));
}

/// Nor is anything lost, by pods or by the node itself, if a node changes its carrier while no agent hears of it.
#[test]
fn a_carrier_that_changes_while_the_agent_is_away_costs_nothing() {
    let mut node = Node::new();
    let cluster = Cluster::new(&node, &CIDRS);
    bring_up_peer(&node);
    node.start_with(node.agent_command(&NATIVE));
    node.ready();
    let pod = Pod::new("c1");
    let ips = pods::addresses(&pod.add(&node).ok());
    cluster.set_peer(&node, "native");
    node.status_when("routed", |status| status.routing.peers == 1 && status.routing.unreachable.is_empty());

    let sending = Sending::start(Wire::new(&node.world), datagrams(&node, &pod, &ips));
    for (carrier, wanted) in [("vxlan:8472", told(1500, 1450, false)), ("native", told(1500, 1500, true))] {
        node.kill();
        cluster.set_peer(&node, carrier);
        node.start_with(node.agent_command(&NATIVE));
        node.ready();
        sending.wait_for(carrier != "native");
        wait_for(&node, &[&pod], wanted);
    }
    for (name, went) in sending.finish() {
        let inside = went.iter().filter(|went| went.tunnelled).count();
        let parted = went.iter().filter(|went| went.parted).count();
        assert!(inside > 0, "{name}: none of {} went by the tunnel", went.len());
        eprintln!("{name}: {} datagrams, {inside} in the tunnel, {parted} of them in part, none lost", went.len());
    }
}

/// Keeps a namespace under a path of the node, as a container runtime does, or puts another in its place.
pub(crate) fn keep(node: &Node, netns: &NetNs, name: &str) -> String {
    let (pid, fd) = (std::process::id(), netns.as_raw_fd());
    let path = format!("/run/netns/{name}");
    let kept = format!("{path}.{fd}");
    // By a link, which is replaced at once: an agent that looks meanwhile finds the former one or the new one.
    node.shell(&format!(
        "mkdir -p /run/netns
         [ -e {kept} ] || {{ : > {kept}; mount --bind /proc/{pid}/fd/{fd} {kept}; }}
         ln -s {kept} {path}.new
         mv -T {path}.new {path}"
    ));
    path
}

#[test]
fn running_pods_follow_the_uplink_and_one_in_trouble_keeps_nobody() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.start_with(node.agent_command(&NATIVE));
    node.ready();
    let [near, other, lost, swapped, half] = ["near", "other", "lost", "swapped", "half"].map(Pod::new);
    let ips: Vec<_> = [&near, &other].map(|pod| pods::addresses(&pod.add(&node).ok())).into();
    for pod in [&lost, &swapped, &half] {
        let path = keep(&node, &pod.netns, &pod.container);
        pod.add_in(&node, &path).ok();
    }
    let stranger = Pod::new("stranger");
    node.shell("rm /run/netns/lost");
    keep(&node, &stranger.netns, "swapped");
    // Somebody in the pod has chosen less than anybody needs.
    half.netns
        .run(|| std::process::Command::new("ip").args(["link", "set", "eth0", "mtu", "1300"]).status())
        .expect("enter")
        .expect("iproute2 is installed");

    node.shell("ip link set eth0 mtu 1400");
    wait_for(&node, &[&near, &other], told(1400, 1400, true));
    for pod in [&lost, &swapped] {
        assert_eq!(Told::of(&node, &pod.netns), told(1500, 1500, true), "{}", pod.container);
    }
    let status = node.status_when("told", |status| status.cilium.msg.contains("2 running pod(s)"));
    for part in ["default/lost", "/run/netns/lost", "default/swapped", "is not its network namespace"] {
        assert!(status.cilium.msg.contains(part), "{}", status.cilium.msg);
    }
    for (from, to) in ips[0].iter().zip(&ips[1]) {
        assert!(reaches(&near, *from, &other, *to), "{from} to {to}");
    }

    // The next pass tries again and is silent about what is known; whoever is back by then follows.
    keep(&node, &lost.netns, "lost");
    node.shell("ip link set eth0 mtu 1390");
    wait_for(&node, &[&near, &other, &lost], told(1390, 1390, true));
    node.status_when("told", |status| status.cilium.msg.contains("1 running pod(s)"));
    let said = node.said();
    let warnings = |pod: &str| said.lines().filter(|line| line.contains("keeps its MTU") && line.contains(pod)).count();
    assert_eq!((warnings("default/lost"), warnings("default/swapped")), (1, 1), "{said}");

    // A pod that ends is nobody's trouble any more, and an agent that starts goes on where the last one was.
    swapped.del(&node).ok();
    node.kill();
    node.start_with(node.agent_command(&[NATIVE[0], NATIVE[1], "--mtu=1360"]));
    node.ready();
    wait_for(&node, &[&near, &other, &lost], told(1360, 1360, true));
    node.status_when("without complaint", |status| status.cilium.msg.is_empty());
    node.kill();
    node.shell("ip link set eth0 mtu 1500");
    node.start_with(node.agent_command(&NATIVE));
    node.ready();
    wait_for(&node, &[&near, &other, &lost], told(1500, 1500, true));
    assert_eq!(Told::of(&node, &half.netns).device_mtu, 1300, "what the pod has chosen stays");
    until("host ends follow", || host_mtus(&node) == [1500]);
    let health = |node: &Node| node.links().into_iter().find(|link| link.name == "lxc_health").map(|link| link.mtu);
    until("the health endpoint follows", || health(&node) == Some(1500));
    node.shell("ip link set eth0 mtu 1480");
    until("the health endpoint follows", || health(&node) == Some(1480));
    for (from, to) in ips[0].iter().zip(&ips[1]) {
        assert!(reaches(&near, *from, &other, *to), "{from} to {to}");
    }
}

/// Stands between the agent and who asks it. What the agent says on the first connection is kept back until it is let go.
struct Between {
    /// Whether the agent has said something, and whether that may go on.
    answered: Arc<AtomicBool>,
    released: Arc<AtomicBool>,
}

impl Between {
    fn start(node: &Node) -> Self {
        node.shell("mv /run/cilium/cilium.sock /run/cilium/agent.sock");
        let listener = UnixListener::bind(node.path("/run/cilium/cilium.sock")).expect("a socket");
        let agent = node.path("/run/cilium/agent.sock");
        let between = Self { answered: Arc::default(), released: Arc::default() };
        let (answered, released) = (between.answered.clone(), between.released.clone());
        // The threads end with their connections, the first one with the test's process.
        thread::spawn(move || {
            for (number, asking) in listener.incoming().flatten().enumerate() {
                let agent = UnixStream::connect(&agent).expect("the agent serves");
                let (answered, released) = (answered.clone(), released.clone());
                let (mut from, mut to) =
                    (asking.try_clone().expect("a descriptor"), agent.try_clone().expect("a descriptor"));
                thread::spawn(move || io::copy(&mut from, &mut to));
                thread::spawn(move || {
                    let (mut from, mut to, mut buffer) = (agent, asking, [0; 4096]);
                    while let Ok(length @ 1..) = from.read(&mut buffer) {
                        answered.store(true, Ordering::Relaxed);
                        while number == 0 && !released.load(Ordering::Relaxed) {
                            thread::sleep(Duration::from_millis(5));
                        }
                        if to.write_all(&buffer[..length]).is_err() {
                            return;
                        }
                    }
                    // Whoever asked may be gone.
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        });
        between
    }
}

#[test]
fn an_add_that_is_repeated_while_pods_follow_does_not_undo_it() {
    let mut node = Node::new();
    let cluster = Cluster::new(&node, &CIDRS);
    bring_up_peer(&node);
    node.start_with(node.agent_command(&NATIVE));
    node.ready();
    let pod = Pod::new("c1");
    let first = pod.add(&node).ok();
    cluster.set_peer(&node, "native");
    node.status_when("routed", |status| status.routing.peers == 1 && status.routing.unreachable.is_empty());
    assert_eq!(Told::of(&node, &pod.netns), told(1500, 1500, true));

    // The agent answers, then takes the pod to the tunnel's MTU, and only then the plugin hears the answer.
    let between = Between::start(&node);
    let plugin = pod.start(&node, "ADD");
    until("the agent answers", || between.answered.load(Ordering::Relaxed));
    cluster.set_peer(&node, "vxlan:8472");
    wait_for(&node, &[&pod], told(1500, 1450, false));
    between.released.store(true, Ordering::Relaxed);
    assert_eq!(pods::addresses(&pods::finish(plugin).ok()), pods::addresses(&first));
    assert_eq!(Told::of(&node, &pod.netns), told(1500, 1450, false));
}
