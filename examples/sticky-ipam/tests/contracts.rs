//! Every behaviour that the trait asks for, as a test of its own.

use sticky_ipam as _;

fn main() -> std::process::ExitCode {
    kinesin_conformance::contracts()
}
