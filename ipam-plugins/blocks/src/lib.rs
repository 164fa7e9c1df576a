#![doc = include_str!("../README.md")]

mod range;

mod pools;

mod types;

mod claims;

mod node;

mod problem;

mod taken;

mod engine;

pub use claims::{Claim, Claims, Released};
pub use engine::{Counts, Effect, Engine, Failure, Outcome, Settings};
pub use node::{BlockUse, NodeView, Pool, Request};
pub use pools::{PoolSpec, Pools, Source};
pub use problem::{Problem, Report};
pub use range::{BLOCKS_PER_OBJECT, BlockRange, object_name, parse_object_name, usable_addresses};
pub use types::{Mode, Name, Version};
