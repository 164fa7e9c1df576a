//! The real agent and the real plugin on a node of each test's own, under everything that goes wrong on real nodes.
//!
//! Needs root, `unshare` and `nsenter` (util-linux). A node is a network namespace, a mount namespace with its own
//! bpffs and `/run`, and an API server of the test; nothing of the machine is touched.

mod api;
mod basics;
mod cidrs;
mod claims;
mod cluster;
mod config;
mod devices;
mod follow;
mod leaks;
mod narrow;
mod node;
mod output;
mod pods;
mod state;
mod steps;
mod storm;
mod tracer;
mod traffic;
mod unprivileged;
mod wire;
