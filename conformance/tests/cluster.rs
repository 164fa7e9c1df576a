//! Every case on every combination of the daily selection, on labs: see `kinesin_conformance::cluster::trials`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kinesin_conformance::cluster::trials::main()
}
