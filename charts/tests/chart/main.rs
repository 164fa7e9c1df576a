//! The chart, rendered by a real helm.
//!
//! What is rendered is compared with core (`config`, `refusals`), with the types of the Kubernetes API and the lab's own
//! manifests (`objects`), applied to an API server (`server`), and its roles are asked about everything that the programs
//! do (`rights`). `kind` looks at what needs Docker to run as far as it can be looked at without.

mod config;
mod helm;
mod kind;
mod objects;
mod rbac;
mod refusals;
mod rights;
mod server;
