//! The node agent: from the Kubernetes API to desired state, from desired state to backends.
//!
//! The agent is a library with a binary of ten lines, so that a third party can build one with backends of its own: a
//! `main` that calls [`main`], and one `use the_crate as _;` per backend.
//!
//! Reading order: [`main`] and `args` (what was asked), `startup` (from configuration to a running node), `engine` (the
//! state of the node, and the one lock over it), `endpoint` (ADD, DEL, GC, restore), `reconcile` (tables to backends),
//! `routing` and `carriers` (which backend reaches which node), `ipam` (modes, pools, what is asked of the operator), `api`
//! (the REST socket), then the small ones: `health`, `cni_conf`, `publish`, `config_watch`, `connectivity`,
//! `device_watch`, `status`, `metrics`, `memory`.

mod api;
mod args;
mod carriers;
mod cni_conf;
mod config_watch;
mod connectivity;
mod controller;
mod device_watch;
mod endpoint;
mod engine;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod ipam;
mod listing;
mod loops;
mod memory;
mod metrics;
mod node;
mod path_mtu;
mod publish;
mod reconcile;
mod routing;
mod selection;
mod serve;
mod startup;
mod status;
mod store;
mod watches;

use std::{ffi::OsString, io::Write as _, process::ExitCode};

/// Runs the agent, or the command that the arguments name; errors go to stderr.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    memory::keep_little();
    let asked = match args::parse(arguments) {
        Ok(asked) => asked,
        Err(error) => {
            // clap knows which stream help and errors belong to, and their exit codes.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match startup::answer(asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done if stderr is gone as well.
            let _ = writeln!(std::io::stderr(), "Error: {}", kinesin_core::causes::with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
