//! Maps and load-time constants, and the tables that the pipeline sees.

use aya_ebpf::{
    Global,
    btf_maps::{HashMap, LpmTrie, PerCpuArray, ProgramArray, RingBuf, lpm_trie::Key},
    helpers::{bpf_ktime_get_boot_ns, bpf_ktime_get_ns, bpf_map_lookup_elem},
    macros::btf_map,
};
use kinesin_abi::{
    Bucket, DeviceValue, ERRORS_PER_SECOND, EndpointKey, EndpointValue, IpcacheKey, IpcacheValue, MAX_TUNNEL_PORTS,
    Metric, PacketState, PathMtuValue, STAGES, map,
};
use kinesin_packet::Tables;

/// `BPF_F_NO_PREALLOC`: memory is taken as entries come.
const NO_PREALLOC: usize = 1;

#[btf_map]
static KIN_DEVICES: HashMap<u32, DeviceValue, { map::DEVICES_SIZE }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static KIN_ENDPOINTS: HashMap<EndpointKey, EndpointValue, { map::ENDPOINTS_SIZE }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static KIN_IPCACHE: LpmTrie<IpcacheKey, IpcacheValue, { map::IPCACHE_SIZE }> = LpmTrie::new();
#[btf_map]
static KIN_PATH_MTU: HashMap<EndpointKey, PathMtuValue, { map::PATH_MTU_SIZE }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub(crate) static KIN_METRICS: PerCpuArray<Metric, { map::METRICS_SIZE }> = PerCpuArray::new();
#[btf_map]
pub(crate) static KIN_EVENTS: RingBuf<(), { map::EVENTS_SIZE }> = RingBuf::new();
#[btf_map]
pub(crate) static KIN_STATE: PerCpuArray<PacketState, 1> = PerCpuArray::new();
#[btf_map]
static KIN_BUCKET: PerCpuArray<Bucket, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static KIN_SLOTS: ProgramArray<STAGES> = ProgramArray::new();

#[unsafe(no_mangle)]
static KIN_FEATURES: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KIN_SLOT_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static KIN_UPLINK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KIN_MTU: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KIN_ROUTER4: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KIN_ROUTER6: Global<[u32; 4]> = Global::new([0; 4]);
#[unsafe(no_mangle)]
static KIN_TUNNEL_PORTS: Global<[u16; MAX_TUNNEL_PORTS]> = Global::new([0; MAX_TUNNEL_PORTS]);
#[unsafe(no_mangle)]
static KIN_VXLAN_PORT: Global<u16> = Global::new(0);
#[unsafe(no_mangle)]
static KIN_GENEVE_PORT: Global<u16> = Global::new(0);
#[unsafe(no_mangle)]
static KIN_VXLAN_DEVICE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KIN_GENEVE_DEVICE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KIN_OVERLAYS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KIN_UNDERLAY4: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KIN_UNDERLAY6: Global<[u32; 4]> = Global::new([0; 4]);
#[unsafe(no_mangle)]
pub(crate) static KIN_HOST_DEVICE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KIN_HOST_ETH: Global<[u32; 3]> = Global::new([0; 3]);

/// The maps and constants of this object file.
pub(crate) struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn device(&self, ifindex: u32) -> Option<&DeviceValue> {
        // SAFETY: an entry is replaced as a whole and freed only after programs that see it have ended (RCU).
        unsafe { KIN_DEVICES.get(ifindex) }
    }

    #[inline(always)]
    fn endpoint(&self, key: &EndpointKey) -> Option<&EndpointValue> {
        // SAFETY: as for `device`.
        unsafe { KIN_ENDPOINTS.get(key) }
    }

    #[inline(always)]
    fn ipcache(&self, key: &IpcacheKey) -> Option<&IpcacheValue> {
        // 32 bits of family, 128 of address.
        KIN_IPCACHE.get(&Key::new(160, *key))
    }

    #[inline(always)]
    fn take_error_token(&self) -> bool {
        let Some(bucket) = KIN_BUCKET.get_ptr_mut(0) else {
            return false;
        };
        // SAFETY: the entry is this CPU's own, and a program is not moved to another CPU while it runs.
        let bucket = unsafe { &mut *bucket };
        // SAFETY: the helper has no precondition.
        let now = unsafe { bpf_ktime_get_ns() };
        if now.wrapping_sub(bucket.refilled) > 1_000_000_000 {
            bucket.refilled = now;
            bucket.tokens = ERRORS_PER_SECOND;
        }
        if bucket.tokens == 0 {
            return false;
        }
        bucket.tokens -= 1;
        true
    }

    #[inline(always)]
    fn learn(&self, prefix: &IpcacheKey, node: &EndpointKey, mtu_bytes: u16) {
        let key = Key::new(160, *prefix);
        // In place, so that the next packet is answered; every other prefix of the node gets it from the agent.
        // SAFETY: the map is one, and the key of its kind; the helper only reads both.
        let found = unsafe { bpf_map_lookup_elem((&raw const KIN_IPCACHE).cast_mut().cast(), (&raw const key).cast()) };
        let found: *mut IpcacheValue = found.cast();
        if !found.is_null() {
            // SAFETY: an entry is freed only after programs that see it have ended (RCU). Half a number is never seen: it is
            // aligned, and written in one instruction.
            unsafe { (&raw mut (*found).mtu).write_volatile(mtu_bytes) };
        }
        // SAFETY: the helper has no precondition. Kernel: 5.8.
        let told = unsafe { bpf_ktime_get_boot_ns() };
        let value = PathMtuValue { told, mtu: mtu_bytes.into(), pad: 0 };
        // A full table learns nothing more; the entry above is enough until the agent writes it anew.
        let _ = KIN_PATH_MTU.insert(node, value, 0);
    }

    #[inline(always)]
    fn features(&self) -> u32 {
        KIN_FEATURES.load()
    }

    #[inline(always)]
    fn slot_mask(&self) -> u32 {
        KIN_SLOT_MASK.load()
    }

    #[inline(always)]
    fn mtu(&self) -> u32 {
        KIN_MTU.load()
    }

    #[inline(always)]
    fn router4(&self) -> u32 {
        KIN_ROUTER4.load()
    }

    #[inline(always)]
    fn router6(&self) -> [u32; 4] {
        KIN_ROUTER6.load()
    }

    #[inline(always)]
    fn tunnel_ports(&self) -> [u16; MAX_TUNNEL_PORTS] {
        KIN_TUNNEL_PORTS.load()
    }

    #[inline(always)]
    fn vxlan_port(&self) -> u16 {
        KIN_VXLAN_PORT.load()
    }

    #[inline(always)]
    fn geneve_port(&self) -> u16 {
        KIN_GENEVE_PORT.load()
    }

    #[inline(always)]
    fn vxlan_device(&self) -> u32 {
        KIN_VXLAN_DEVICE.load()
    }

    #[inline(always)]
    fn geneve_device(&self) -> u32 {
        KIN_GENEVE_DEVICE.load()
    }

    #[inline(always)]
    fn overlays(&self) -> u32 {
        KIN_OVERLAYS.load()
    }

    #[inline(always)]
    fn underlay4(&self) -> u32 {
        KIN_UNDERLAY4.load()
    }

    #[inline(always)]
    fn underlay6(&self) -> [u32; 4] {
        KIN_UNDERLAY6.load()
    }

    #[inline(always)]
    fn host_eth(&self) -> [u32; 3] {
        KIN_HOST_ETH.load()
    }
}
