//! Keys that have an effect here.
//!
//! Three defaults differ from Cilium's: `ipam` is `kubernetes` (Cilium: `cluster-pool`), so that a cluster whose nodes have pod
//! CIDRs needs no operator to start; `auto-direct-node-routes` follows `routing-mode`, so that `native` alone makes nodes of
//! one segment reach each other's pods (Cilium: `false`; under a tunnel `true` is refused, there as here);
//! `underlay-protocol` is `auto` (Cilium: `ipv4`), so that tunnels work between nodes that have IPv6 alone.

use super::{
    Class::{Backend, Ours},
    Key,
    Kind::{Bool, Choice, Cidr, ClusterName, Duration, Int, List, Name, Names, Path, Text},
};
use crate::values::Family::{V4, V6};

/// IPAM modes of Cilium; the registry names are the same with `_`, but `kubernetes` is `host_scope`.
const IPAM_MODES: &[&str] =
    &["kubernetes", "cluster-pool", "multi-pool", "crd", "eni", "azure", "alibabacloud", "delegated-plugin"];

#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    // The choice of backends.
    Key::new("backends.chassis", "backends.chassis", Name, "ebpf", "Chassis, by registry name", Ours),
    Key::new("backends.ipam", "backends.ipam", Name, "", "IPAM backend by registry name; the alias is ipam", Ours),
    Key::new("backends.routing", "backends.routing", Name, "", "Routing backend by registry name; the aliases are routing-mode and tunnel-protocol", Ours),
    Key::new("backends.load-balancer", "backends.loadBalancer", Names, "", "Load-balancing backends by registry name", Ours),
    Key::new("backends.policy", "backends.policy", Name, "", "Policy backend by registry name", Ours),
    Key::new("backends.masquerade", "backends.masquerade", Name, "", "Masquerading backend by registry name", Ours),
    Key::new("ipam", "ipam.mode", Choice(IPAM_MODES), "kubernetes", "IPAM mode in Cilium's words", Ours),
    Key::new("routing-mode", "routingMode", Choice(&["native", "tunnel"]), "tunnel", "Whether other nodes are reached by routes or by a tunnel", Ours),
    Key::new("tunnel-protocol", "tunnelProtocol", Choice(&["vxlan", "geneve"]), "vxlan", "Carrier under routing-mode tunnel", Ours),

    // Addresses and routes.
    Key::new("enable-ipv4", "ipv4.enabled", Bool, "true", "Whether pods have IPv4 addresses", Ours),
    Key::new("enable-ipv6", "ipv6.enabled", Bool, "false", "Whether pods have IPv6 addresses", Ours),
    Key::new("ipv4-native-routing-cidr", "ipv4NativeRoutingCIDR", Cidr(V4), "", "IPv4 destinations that the network routes by itself", Ours),
    Key::new("ipv6-native-routing-cidr", "ipv6NativeRoutingCIDR", Cidr(V6), "", "IPv6 destinations that the network routes by itself", Ours),
    Key::new("auto-direct-node-routes", "autoDirectNodeRoutes", Bool, "true", "Whether routes to other nodes' pod CIDRs are set", Ours),
    Key::new("direct-routing-skip-unreachable", "directRoutingSkipUnreachable", Bool, "false", "Whether nodes on other segments are left out of the direct routes instead of reported", Ours),
    Key::new("underlay-protocol", "underlayProtocol", Choice(&["auto", "ipv4", "ipv6"]), "auto", "Family of the tunnels' outer headers; auto is IPv4 between nodes that both have it, else IPv6", Ours),
    Key::new("tunnel-port", "tunnelPort", Int(0, 65535), "0", "UDP port of the tunnel, closed to pods in every mode; 0 for the protocol's own", Ours),
    Key::new("tunnel-path", "tunnel.path", Choice(&["auto", "device", "bpf"]), "auto", "Who puts tunnels on and takes them off: the kernel's device, programs, or what suits the uplinks", Ours),

    // Devices.
    Key::new("devices", "devices", List, "", "Underlay devices; empty for detection; + at the end stands for any suffix", Ours),
    Key::new("force-device-detection", "forceDeviceDetection", Bool, "false", "Whether devices adds to what is detected", Ours),
    Key::new("mtu", "MTU", Int(0, 65535), "0", "MTU of the underlay in bytes; 0 for detection", Ours),
    Key::new("enable-tcx", "bpf.enableTCX", Bool, "true", "Whether programs are attached by tcx where the kernel has it", Ours),
    Key::new("bpf-root", "bpf.root", Path, "/sys/fs/bpf", "Where bpffs is mounted", Ours),

    // The agent.
    Key::new("debug", "debug.enabled", Bool, "false", "Whether the log has debug lines", Ours),
    Key::new("cluster-name", "cluster.name", ClusterName, "default", "Name of the cluster", Ours),
    Key::new("state-dir", "", Path, "/var/run/cilium", "Directory of the agent's run-time files", Ours),
    Key::new("socket-path", "", Path, "/var/run/cilium/cilium.sock", "Where the agent listens", Ours),
    Key::new("k8s-kubeconfig-path", "", Path, "", "Kubeconfig file; empty inside a cluster", Ours),
    Key::new("k8s-api-server", "", Text, "", "URL of the API server in place of the kubeconfig's", Ours),
    Key::new("enable-health-checking", "healthChecking", Bool, "true", "Whether nodes are probed", Ours),
    Key::new("enable-endpoint-health-checking", "endpointHealthChecking.enabled", Bool, "true", "Whether the node has a health endpoint", Ours),
    Key::new("cluster-health-port", "clusterHealthPort", Int(1, 65535), "4240", "TCP port of the responders of the node and its health endpoint", Ours),

    // CNI.
    Key::new("write-cni-conf-when-ready", "cni.hostConfDirMountPath", Path, "/etc/cni/net.d/05-cilium.conflist", "CNI configuration that the agent writes when it is ready", Ours),
    Key::new("custom-cni-conf", "cni.customConf", Bool, "false", "Whether the CNI configuration is left to someone else", Ours),
    Key::new("cni-log-file", "cni.logFile", Path, "/var/run/cilium/cilium-cni.log", "Log of the plugin", Ours),
    Key::new("cni-status-on-exhaustion", "cni.statusOnExhaustion", Bool, "false", "Whether CNI STATUS fails while a pool is full; a runtime may then mark the node NotReady and evict healthy pods", Ours),
    Key::new("cni-exclusive", "cni.exclusive", Bool, "true", "Whether other CNI configurations are set aside", Ours),

    // Options in Cilium's words of backends that a build may or may not have.
    Key::new("cluster-pool-ipv4-cidr", "ipam.operator.clusterPoolIPv4PodCIDRList", List, "10.0.0.0/8", "IPv4 networks that the operator cuts blocks from", Backend("cluster_pool")),
    Key::new("cluster-pool-ipv4-mask-size", "ipam.operator.clusterPoolIPv4MaskSize", Int(1, 32), "24", "Prefix length of a node's IPv4 block", Backend("cluster_pool")),
    Key::new("cluster-pool-ipv6-cidr", "ipam.operator.clusterPoolIPv6PodCIDRList", List, "fd00::/104", "IPv6 networks that the operator cuts blocks from", Backend("cluster_pool")),
    Key::new("cluster-pool-ipv6-mask-size", "ipam.operator.clusterPoolIPv6MaskSize", Int(1, 128), "120", "Prefix length of a node's IPv6 block", Backend("cluster_pool")),
    Key::new("auto-create-cilium-pod-ip-pools", "ipam.operator.autoCreateCiliumPodIPPools", Text, "", "Pools that the operator creates", Backend("multi_pool")),
    Key::new("ipam-cidr-quarantine", "ipam.operator.cidrQuarantine", Duration, "30s", "How long a block that a node gave back is not given to another, unless nothing else is free", Ours),
    Key::new("ipam-multi-pool-pre-allocation", "ipam.multiPoolPreAllocation", Text, "default=8", "Addresses kept ready per pool, as POOL=NUMBER separated by commas", Backend("multi_pool")),
    Key::new("ipam-default-ip-pool", "", Text, "default", "Pool of pods that name none", Backend("multi_pool")),
    Key::new("ipam-cilium-node-update-rate", "ipam.ciliumNodeUpdateRate", Duration, "15s", "How often a node's needs are published while its blocks cover them; what is lacking is published at once", Backend("multi_pool")),
];

/// Keys in Cilium's words that are options of a backend: key, backend, and the option in its section.
pub(super) const OPTIONS: &[(&str, &str, &str)] = &[
    ("ipam-multi-pool-pre-allocation", "multi_pool", "preAllocation"),
    ("ipam-default-ip-pool", "multi_pool", "defaultPool"),
    ("tunnel-path", "ebpf", "tunnelPath"),
];
