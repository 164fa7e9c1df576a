//! `kinesin-kernels`: see the crate's documentation and `--help`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use kinesin_core::causes::with_causes;
use kinesin_kernels::{
    KernelsError,
    args::{Cli, Command},
    guest, run, trial,
};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::main(&args),
        Command::Guest { report } => guest::main(&report)
            .map(|()| ExitCode::SUCCESS)
            .map_err(|source| KernelsError::File { action: "write to", path: report, source }),
        Command::Trial => trial::main().and_then(|answer| run::print(&answer)).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "kernels: {}", with_causes(&error));
        ExitCode::FAILURE
    })
}
