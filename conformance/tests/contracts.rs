//! Every backend of this distribution, run through the contracts.

use std::process::ExitCode;

use kinesin_host_scope as _;
use kinesin_native_routing as _;

fn main() -> ExitCode {
    kinesin_conformance::contracts()
}
