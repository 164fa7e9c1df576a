//! Blocks for nodes: operators against an API server in this process. Agents are played by hand.

mod cluster_pool;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod pools;
mod scene;
mod upgrade;
