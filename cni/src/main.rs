//! The plugin's program: environment and stdin in, one answer out.

use std::{env, io, process::ExitCode};

fn main() -> ExitCode {
    let answer = kinesin_cni::run(&|name| env::var_os(name), io::stdin());
    kinesin_cni::stdout::write(&answer)
}
