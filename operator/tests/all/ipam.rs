//! Blocks for nodes: operators against an API server in this process. Agents are played by hand.

mod cluster_pool;
mod faults;
mod pools;
mod scene;
mod upgrade;
