//! The compiled programs, with maps of the same content as the tables of the host's pipeline.

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        HashMap, MapData, PerCpuArray, PerCpuValues,
        lpm_trie::{Key, LpmTrie},
    },
    programs::SchedClassifier,
    util::nr_cpus,
};
use kinesin_abi::{Bucket, DeviceValue, EndpointKey, EndpointValue, Entry, IpcacheKey, IpcacheValue, map};
use kinesin_ebpf_tc::OBJECT;
use kinesin_netlink::{Netlink, Route, Sysctl, VethSpec};
use kinesin_packet::{host::HostTables, samples::node::DEVICE};
use nix::sched::{CloneFlags, unshare};

pub(crate) const PROGRAMS: [&str; 9] = [
    "from_container",
    "to_container",
    "from_netdev",
    "from_l3_netdev",
    "from_host",
    "from_overlay",
    "cont_next",
    "cont_deliver",
    "cont_drop",
];

/// The compiled programs, loaded and with filled maps. Nothing is attached or pinned.
pub(crate) struct Kernel {
    ebpf: Ebpf,
}

impl Kernel {
    /// The calling thread moves to a network namespace of its own, where every destination has a route.
    pub(crate) fn load(tables: &HostTables) -> Self {
        enter_routed_namespace();
        let constants = tables.constants;
        let mut ebpf = EbpfLoader::new()
            .override_global("KIN_FEATURES", &constants.features, true)
            .override_global("KIN_SLOT_MASK", &constants.slot_mask, true)
            .override_global("KIN_UPLINK", &constants.uplink, true)
            .override_global("KIN_MTU", &constants.mtu, true)
            .override_global("KIN_ROUTER4", &constants.router4, true)
            .override_global("KIN_ROUTER6", &constants.router6, true)
            .override_global("KIN_TUNNEL_PORTS", &constants.tunnel_ports, true)
            .override_global("KIN_VXLAN_PORT", &constants.vxlan_port, true)
            .override_global("KIN_GENEVE_PORT", &constants.geneve_port, true)
            .override_global("KIN_VXLAN_DEVICE", &constants.vxlan_device, true)
            .override_global("KIN_GENEVE_DEVICE", &constants.geneve_device, true)
            .override_global("KIN_OVERLAYS", &constants.overlays, true)
            .override_global("KIN_UNDERLAY4", &constants.underlay4, true)
            .override_global("KIN_UNDERLAY6", &constants.underlay6, true)
            .override_global("KIN_HOST_DEVICE", &constants.host_device, true)
            .override_global("KIN_HOST_ETH", &constants.host_eth, true)
            .load(OBJECT)
            .expect("the object loads");
        for name in PROGRAMS {
            let program: &mut SchedClassifier = ebpf.program_mut(name).expect(name).try_into().expect(name);
            program.load().unwrap_or_else(|error| panic!("{name}: {error:#?}"));
        }
        let mut kernel = Self { ebpf };
        let mut devices: HashMap<_, u32, DeviceValue> = kernel.map(map::DEVICES);
        for (key, value) in &tables.devices {
            devices.insert(key, value, 0).unwrap();
        }
        let mut endpoints: HashMap<_, EndpointKey, EndpointValue> = kernel.map(map::ENDPOINTS);
        for (key, value) in &tables.endpoints {
            endpoints.insert(key, value, 0).unwrap();
        }
        let mut ipcache: LpmTrie<_, IpcacheKey, IpcacheValue> = kernel.map(map::IPCACHE);
        for ((length, key), value) in &tables.ipcache {
            // 32 bits of family come before the address.
            ipcache.insert(&Key::new(32 + u32::from(*length), *key), value, 0).unwrap();
        }
        kernel.set_bucket(Bucket::default());
        kernel
    }

    pub(crate) fn map<'a, T: TryFrom<&'a mut aya::maps::Map>>(&'a mut self, name: &str) -> T {
        let map = self.ebpf.map_mut(name).unwrap_or_else(|| panic!("no map {name}"));
        T::try_from(map).unwrap_or_else(|_| panic!("map {name} is of another kind"))
    }

    /// Sets the token bucket of every CPU; the default is empty and due for a refill.
    pub(crate) fn set_bucket(&mut self, bucket: Bucket) {
        let cpus = nr_cpus().expect("the number of CPUs");
        let mut buckets: PerCpuArray<&mut MapData, Bucket> = self.map(map::BUCKET);
        buckets.set(0, PerCpuValues::try_from(vec![bucket; cpus]).unwrap(), 0).unwrap();
    }

    pub(crate) fn program(&mut self, name: &str) -> &mut SchedClassifier {
        self.ebpf.program_mut(name).expect(name).try_into().expect(name)
    }
}

/// A test run happens in the caller's namespace, whose routing tables programs may ask.
fn enter_routed_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("root may make namespaces");
    for family in ["ipv4", "ipv6"] {
        Sysctl::here().set(&format!("{family}/conf/all/forwarding"), "1").expect("forwarding");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let netlink = Netlink::new().expect("socket");
        let (name, peer_name) = ("uplink0", "uplink1");
        let pair = VethSpec { name, mac: None, peer_name, peer_mac: None, peer_netns: None, mtu: None };
        netlink.add_veth(&pair).await.expect("veth pair");
        for name in ["lo", peer_name, name] {
            netlink.set_up(netlink.link(name).await.expect("device").index).await.expect("up");
        }
        let uplink = netlink.link(name).await.expect("device").index;
        for everything in ["0.0.0.0/0", "::/0"] {
            let route = Route::new(everything.parse().expect("a network"), uplink, 4);
            netlink.replace_route(&route).await.expect("route");
        }
    });
}

pub(crate) fn name_of(entry: Entry) -> &'static str {
    match entry {
        Entry::FromContainer => "from_container",
        Entry::ToContainer => "to_container",
        Entry::FromNetdev => "from_netdev",
        Entry::FromHost => "from_host",
        Entry::FromOverlay => "from_overlay",
    }
}

/// `struct __sk_buff` of include/uapi/linux/bpf.h (6.18), with what a test run lets one set.
pub(crate) fn context(segment_size: usize, mark: u32) -> Vec<u8> {
    let mut context = vec![0; 192];
    let mut set = |offset: usize, value: u32| context[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    // mark, ifindex, gso_segs, gso_size.
    set(8, mark);
    set(40, DEVICE);
    if segment_size != 0 {
        set(164, 2);
        set(176, segment_size as u32);
    }
    context
}
