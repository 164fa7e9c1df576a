//! The commands of the spec, one file each.

mod add;
mod check;
mod del;
mod gc;
mod status;

use kinesin_agent_api::Client;

use crate::{config::Config, log::Log};

pub use add::add;
pub use check::check;
pub use del::del;
pub use gc::gc;
pub use status::status;

/// What every command works with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The network configuration.
    pub config: &'a Config,
    /// The agent.
    pub client: &'a Client,
    /// The log.
    pub log: &'a Log,
}
