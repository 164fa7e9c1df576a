//! The configuration: one typed tree from defaults, a file or directory, the environment and flags.
//!
//! [`Config::load`] reads the [`Sources`], lays them over each other, checks every value against one table of keys
//! ([`keys`]) and answers with a [`Config`] or with everything that is wrong ([`ConfigError`]). It reads files and
//! nothing else, so a running agent may try a new configuration and go on with the old one if it is refused.
//!
//! All layers speak one language inside: the key of Cilium's ConfigMap and its value as text. A values file
//! ([`to_config_map`]) and the environment are translated to it first.

mod coerce;
mod error;
mod helm;
pub mod keys;
mod layers;
mod resolve;
pub mod schema;
mod section;
mod tree;

pub use error::{ConfigError, Problem};
pub use helm::to_config_map;
pub use layers::Sources;
pub use section::Section;
pub use tree::{Config, Entry};
