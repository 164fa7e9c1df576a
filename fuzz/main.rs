//! Every fuzz target. What feeds a crate is in the crate's own `fuzz/` directory.

#[path = "../datapath/abi/fuzz/records.rs"]
mod abi_records;
#[path = "../agent/fuzz/files.rs"]
mod agent_files;
#[path = "../agent/fuzz/selector.rs"]
mod agent_selector;
#[path = "../ipam-plugins/allocator/fuzz/leases.rs"]
mod allocator_leases;
#[path = "../agent/api/fuzz/bodies.rs"]
mod api_bodies;
#[path = "../agent/api/fuzz/queue.rs"]
mod api_queue;
#[path = "../cluster/fuzz/objects.rs"]
mod cluster_objects;
#[path = "../cni/fuzz/stdin.rs"]
mod cni_stdin;
#[path = "../core/fuzz/config.rs"]
mod core_config;
#[path = "../datapath/packet/fuzz/packets.rs"]
mod packets;

use std::process::ExitCode;

use kinesin_fuzz::Target;

const TARGETS: &[Target] = &[
    Target { name: "abi-records", corpus: "datapath/abi/fuzz/corpus/records", max_bytes: 512, run: abi_records::run },
    Target { name: "agent-files", corpus: "agent/fuzz/corpus/files", max_bytes: 4096, run: agent_files::run },
    Target { name: "agent-selector", corpus: "agent/fuzz/corpus/selector", max_bytes: 256, run: agent_selector::run },
    Target {
        name: "allocator-leases",
        corpus: "ipam-plugins/allocator/fuzz/corpus/leases",
        max_bytes: 4096,
        run: allocator_leases::run,
    },
    Target { name: "api-bodies", corpus: "agent/api/fuzz/corpus/bodies", max_bytes: 4096, run: api_bodies::run },
    Target { name: "api-queue", corpus: "agent/api/fuzz/corpus/queue", max_bytes: 1024, run: api_queue::run },
    Target {
        name: "cluster-objects",
        corpus: "cluster/fuzz/corpus/objects",
        max_bytes: 8192,
        run: cluster_objects::run,
    },
    Target {
        name: "cni-environment",
        corpus: "cni/fuzz/corpus/environment",
        max_bytes: 2048,
        run: cni_stdin::environment,
    },
    Target { name: "cni-stdin", corpus: "cni/fuzz/corpus/stdin", max_bytes: 4096, run: cni_stdin::stdin },
    Target { name: "core-layers", corpus: "core/fuzz/corpus/layers", max_bytes: 4096, run: core_config::layers },
    Target { name: "core-values", corpus: "core/fuzz/corpus/values", max_bytes: 8192, run: core_config::values },
    Target { name: "core-texts", corpus: "core/fuzz/corpus/texts", max_bytes: 64, run: core_config::texts },
    Target {
        name: "packet-packets",
        corpus: "datapath/packet/fuzz/corpus/packets",
        max_bytes: 2048,
        run: packets::packets,
    },
    Target {
        name: "packet-tables",
        corpus: "datapath/packet/fuzz/corpus/tables",
        max_bytes: 1024,
        run: packets::tables,
    },
    Target {
        name: "packet-tunnels",
        corpus: "datapath/packet/fuzz/corpus/tunnels",
        max_bytes: 1024,
        run: packets::tunnels,
    },
];

fn main() -> ExitCode {
    kinesin_fuzz::main(TARGETS)
}
