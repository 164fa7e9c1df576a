//! One node twice: tables in memory for the host's pipeline, and the compiled programs with maps of the same content.

use std::net::IpAddr;

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, PerCpuArray, PerCpuValues, lpm_trie::{Key, LpmTrie}},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
    util::nr_cpus,
};
use kinesin_abi::{
    Bucket, Constants, DeviceValue, Direction, DropReason, EndpointKey, EndpointValue, Entry, IpcacheKey, IpcacheValue,
    Mark, Metric, carrier, endpoint_flag, feature, identity, ipcache_flag, map, metric_index,
};
use kinesin_packet::{
    Verdict,
    host::{self, Buffer, HostTables, table_address},
};

use crate::packets::{HOST_MAC, POD_MAC};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kinesin-tc.o"));

/// Index of the device that packets come from: `lo`, the one device that every network namespace has.
pub const DEVICE: u32 = 1;
/// Index of the other pod's device; it need not exist, since a test run carries out no redirect.
pub const NEIGHBOUR: u32 = 2;
/// MTU of the way to other nodes.
pub const MTU: u32 = 1400;
/// The other pod's MAC and its device's.
pub const NEIGHBOUR_ETH: [u8; 12] = [2, 0, 0, 0, 1, 11, 2, 0, 0, 0, 0, 11];

pub const PROGRAMS: [&str; 7] =
    ["from_container", "to_container", "from_netdev", "from_host", "cont_next", "cont_deliver", "cont_drop"];

/// What a hook did with a packet, as far as a test run shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// On to the next program or the stack, with this mark.
    Pass { mark: u32, bytes: Vec<u8> },
    /// Redirected. A test run does not say where to; the MACs in the bytes do.
    Redirect { bytes: Vec<u8> },
    /// Dropped and counted under this reason, once.
    Drop(DropReason),
}

fn words(text: &str) -> [u32; 4] {
    table_address(text.parse().unwrap()).0
}

fn eth(bytes: &[u8]) -> [u32; 3] {
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    [word(0), word(4), word(8)]
}

fn endpoint(text: &str, ifindex: u32, flags: u16, identity: u32, macs: &[u8]) -> (EndpointKey, EndpointValue) {
    let (addr, family) = table_address(text.parse().unwrap());
    let value = EndpointValue { ifindex, id: ifindex as u16, flags, identity, eth: eth(macs), ..Default::default() };
    (EndpointKey { addr, family, pad: [0; 3] }, value)
}

fn prefix(text: &str, node: &str, carrier: u8, flags: u16, identity: u32) -> ((u8, IpcacheKey), IpcacheValue) {
    let (address, length) = text.split_once('/').unwrap();
    let (addr, family) = table_address(address.parse().unwrap());
    let (node, node_family) = node.parse::<IpAddr>().map_or(([0; 4], 0), table_address);
    let value = IpcacheValue { identity, node, node_family, carrier, flags, ..Default::default() };
    ((length.parse().unwrap(), IpcacheKey { family: [family, 0, 0, 0], addr }), value)
}

/// The content of every table.
pub fn tables() -> HostTables {
    let macs: Vec<u8> = POD_MAC.into_iter().chain(HOST_MAC).collect();
    let ready = endpoint_flag::READY;
    let host = endpoint_flag::READY | endpoint_flag::HOST;
    let mut tables = HostTables {
        constants: Constants {
            features: feature::IPV4 | feature::IPV6,
            slot_mask: 0,
            uplink: DEVICE,
            mtu: MTU,
            router4: words("10.244.1.1")[0],
            router6: words("fd00:10:244:1::1"),
            tunnel_ports: [8472_u16.to_be(), 6081_u16.to_be(), 0, 0],
        },
        ..HostTables::default()
    };
    let pod = DeviceValue {
        addr4: words("10.244.1.10")[0],
        addr6: words("fd00:10:244:1::a"),
        identity: 0x01_2345,
        id: 10,
        flags: ready,
        eth: eth(&macs),
        ..Default::default()
    };
    tables.devices.insert(DEVICE, pod);
    tables.endpoints.extend([
        endpoint("10.244.1.10", DEVICE, ready, 0x01_2345, &macs),
        endpoint("fd00:10:244:1::a", DEVICE, ready, 0x01_2345, &macs),
        endpoint("10.244.1.11", NEIGHBOUR, ready, identity::INIT, &NEIGHBOUR_ETH),
        endpoint("fd00:10:244:1::b", NEIGHBOUR, ready, identity::INIT, &NEIGHBOUR_ETH),
        endpoint("10.244.1.12", 3, 0, identity::INIT, &NEIGHBOUR_ETH),
        endpoint("10.244.1.1", 0, host, identity::HOST, &[0; 12]),
        endpoint("fd00:10:244:1::1", 0, host, identity::HOST, &[0; 12]),
        endpoint("192.168.10.101", 0, host, identity::HOST, &[0; 12]),
        endpoint("fd00:192:168:10::101", 0, host, identity::HOST, &[0; 12]),
    ]);
    tables.ipcache.extend([
        prefix("10.244.1.0/24", "", carrier::LOCAL, ipcache_flag::LOCAL_CIDR, identity::INIT),
        prefix("fd00:10:244:1::/64", "", carrier::LOCAL, ipcache_flag::LOCAL_CIDR, identity::INIT),
        prefix("10.244.2.0/24", "192.168.10.102", carrier::NATIVE, 0, identity::INIT),
        prefix("fd00:10:244:2::/64", "fd00:192:168:10::102", carrier::NATIVE, 0, identity::INIT),
        prefix("10.244.3.0/24", "192.168.10.103", carrier::VXLAN, 0, identity::INIT),
        prefix("192.168.10.102/32", "", carrier::LOCAL, ipcache_flag::NODE, identity::REMOTE_NODE),
        prefix("fd00:192:168:10::102/128", "", carrier::LOCAL, ipcache_flag::NODE, identity::REMOTE_NODE),
    ]);
    tables
}

/// The compiled programs, loaded and with filled maps. Nothing is attached or pinned.
pub struct Kernel {
    ebpf: Ebpf,
}

impl Kernel {
    pub fn load(tables: &HostTables) -> Self {
        let constants = tables.constants;
        let mut ebpf = EbpfLoader::new()
            .override_global("KIN_FEATURES", &constants.features, true)
            .override_global("KIN_SLOT_MASK", &constants.slot_mask, true)
            .override_global("KIN_UPLINK", &constants.uplink, true)
            .override_global("KIN_MTU", &constants.mtu, true)
            .override_global("KIN_ROUTER4", &constants.router4, true)
            .override_global("KIN_ROUTER6", &constants.router6, true)
            .override_global("KIN_TUNNEL_PORTS", &constants.tunnel_ports, true)
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

    fn map<'a, T: TryFrom<&'a mut aya::maps::Map>>(&'a mut self, name: &str) -> T {
        let map = self.ebpf.map_mut(name).unwrap_or_else(|| panic!("no map {name}"));
        T::try_from(map).unwrap_or_else(|_| panic!("map {name} is of another kind"))
    }

    /// Sets the token bucket of every CPU; the default is empty and due for a refill.
    pub fn set_bucket(&mut self, bucket: Bucket) {
        let cpus = nr_cpus().expect("the number of CPUs");
        let mut buckets: PerCpuArray<&mut MapData, Bucket> = self.map(map::BUCKET);
        buckets.set(0, PerCpuValues::try_from(vec![bucket; cpus]).unwrap(), 0).unwrap();
    }

    fn dropped(&mut self, entry: Entry) -> Vec<(DropReason, u64)> {
        let direction = if entry == Entry::FromContainer { Direction::Egress } else { Direction::Ingress };
        let metrics: PerCpuArray<&mut MapData, Metric> = self.map(map::METRICS);
        let count = |reason: DropReason| {
            let values = metrics.get(&metric_index(reason as u8, direction), 0).unwrap();
            values.iter().map(|metric| metric.packets).sum()
        };
        DropReason::ALL.iter().map(|reason| (*reason, count(*reason))).collect()
    }

    pub fn program(&mut self, name: &str) -> &mut SchedClassifier {
        self.ebpf.program_mut(name).expect(name).try_into().expect(name)
    }

    /// Runs a packet through one entry point.
    pub fn run(&mut self, entry: Entry, packet: &Buffer) -> Fate {
        let before = self.dropped(entry);
        let context = context(packet.segment_size);
        let (mut context_out, mut bytes) = (vec![0; context.len()], vec![0; packet.bytes.len() + 256]);
        let options = TestRunOptions {
            data_in: Some(&packet.bytes),
            data_out: Some(&mut bytes),
            ctx_in: Some(&context),
            ctx_out: Some(&mut context_out),
            ..TestRunOptions::new()
        };
        let result = self.program(name_of(entry)).test_run(options).expect("the kernel runs the packet");
        bytes.truncate(result.data_size_out as usize);
        match result.return_value as i32 {
            -1 => Fate::Pass { mark: u32::from_ne_bytes(context_out[8..12].try_into().unwrap()), bytes },
            7 => Fate::Redirect { bytes },
            2 => {
                let after = self.dropped(entry);
                let counted: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old.1 != new.1).collect();
                match counted[..] {
                    [(old, new)] if new.1 == old.1 + 1 => Fate::Drop(new.0),
                    _ => panic!("a drop is counted once under one reason, not as {counted:?}"),
                }
            }
            other => panic!("{entry:?} returned {other}"),
        }
    }
}

/// The same packet through the pipeline on the host.
pub fn on_host(tables: &HostTables, entry: Entry, packet: &Buffer) -> (Verdict, Fate) {
    let mut packet = packet.clone();
    let verdict = host::run(entry, &mut packet, tables, DEVICE);
    let bytes = packet.bytes;
    let fate = match verdict {
        Verdict::Pass => Fate::Pass { mark: 0, bytes },
        Verdict::ToStack(Mark(mark)) => Fate::Pass { mark, bytes },
        Verdict::Deliver { .. } | Verdict::Carry(_) | Verdict::Answer(_) => Fate::Redirect { bytes },
        Verdict::Drop(reason) => Fate::Drop(reason),
        Verdict::Slot(stage) => panic!("no slot is filled, yet {stage:?} was asked for"),
    };
    (verdict, fate)
}

pub fn name_of(entry: Entry) -> &'static str {
    match entry {
        Entry::FromContainer => "from_container",
        Entry::ToContainer => "to_container",
        Entry::FromNetdev => "from_netdev",
        Entry::FromHost => "from_host",
    }
}

/// `struct __sk_buff` of include/uapi/linux/bpf.h (6.18), with what a test run lets one set.
pub fn context(segment_size: usize) -> Vec<u8> {
    let mut context = vec![0; 192];
    let mut set = |offset: usize, value: u32| context[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    // ifindex, gso_segs, gso_size.
    set(40, DEVICE);
    if segment_size != 0 {
        set(164, 2);
        set(176, segment_size as u32);
    }
    context
}
