//! The agent's REST types and a client for its unix socket.
//!
//! The paths and field names are Cilium's where Cilium has them (`reference` section "Agent REST API"), so that a
//! tool written against Cilium's socket finds what it knows. Two deviations, both additions:
//!
//! - `PUT /v1/endpoint/{id}` answers with the whole endpoint, its addresses and the routes and MTU that the plugin
//!   must set, so that one request does the whole CNI ADD.
//! - `GET /v1/backends` lists the backends that are compiled into the running agent.
//!
//! This crate leaves the server to `kinesin-agent` and all policy about retries to its callers.

pub mod client;
pub mod delete_queue;
pub mod types;

pub use client::{Client, ClientError, DEFAULT_SOCKET, SOCKET_ENV};
pub use delete_queue::{DeleteQueue, QueueError, QueueLock, QueuedDelete};
pub use types::*;
