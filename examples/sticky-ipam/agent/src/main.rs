//! The Kinesin node agent with sticky addresses: naming a backend's crate here is all that it takes to have it.

use kinesin_ebpf_tc as _;
use kinesin_encap_vxlan as _;
use kinesin_native_routing as _;
use sticky_ipam as _;

fn main() -> std::process::ExitCode {
    kinesin_agent::main(std::env::args_os())
}
