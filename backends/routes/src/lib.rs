#![doc = include_str!("../README.md")]

mod pathfinder;

mod claims;

mod cidrs;

mod outcome;

mod plan;

mod ledger;

mod kernel;

mod keeper;

pub use kernel::Kernel;
pub use outcome::{Outcome, Way};
pub use pathfinder::{Pathfinder, RouteKeeping};
pub use plan::bare_route;
