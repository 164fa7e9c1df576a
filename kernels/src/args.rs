//! The command line; `./x kernels` gives what the programs need.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Boots kernels in virtual machines and tries Kinesin under each.
#[derive(Debug, Parser)]
#[command(name = "kinesin-kernels", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot kernels one after another and print what each can run.
    Run(RunArgs),
    /// In a virtual machine: run every step and write the answers to a serial line.
    #[command(hide = true)]
    Guest {
        /// The serial line.
        report: PathBuf,
    },
    /// Load every program by itself and print what the kernel said, as JSON.
    Trial,
}

/// `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Releases, such as 6.1.0-50-cloud-amd64: directories below --kernels.
    #[arg(required = true, value_name = "RELEASE")]
    pub releases: Vec<String>,
    /// Where each release has a directory with vmlinuz, modules.cpio and package.
    #[arg(long, value_name = "DIRECTORY")]
    pub kernels: PathBuf,
    /// The programs and what they need, a cpio archive.
    #[arg(long, value_name = "FILE")]
    pub image: PathBuf,
    /// The emulator.
    #[arg(long, value_name = "FILE")]
    pub qemu: PathBuf,
    /// Seconds after which a machine is stopped.
    #[arg(long, default_value_t = 2400, value_name = "SECONDS")]
    pub limit: u64,
    /// Rewrite docs/kernels.md with this run.
    #[arg(long)]
    pub record: bool,
}
