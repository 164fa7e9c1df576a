//! Every backend of this distribution, run through the contracts.

use std::process::ExitCode;

use kinesin_cluster_pool as _;
use kinesin_encap_geneve as _;
use kinesin_encap_vxlan as _;
use kinesin_host_scope as _;
use kinesin_multi_pool as _;
use kinesin_native_routing as _;

fn main() -> ExitCode {
    kinesin_conformance::contracts()
}
