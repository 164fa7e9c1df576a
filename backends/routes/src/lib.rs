#![doc = include_str!("../README.md")]

mod cidrs;

mod plan;

mod ledger;

mod kernel;

mod outcome;

mod keeper;

pub use keeper::{Keeper, Turn};
pub use kernel::Kernel;
pub use outcome::{Outcome, Way};
pub use plan::bare_route;
