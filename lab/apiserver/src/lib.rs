//! A small Kubernetes API server and the controllers of a lab cluster.
//!
//! It speaks plain HTTP/1.1 to `kubectl` and to `kube` clients: discovery, tables, watches with
//! bookmarks and 410, all four patch languages, server-side apply, custom resources with schemas,
//! finalizers and owners. The controllers of [`Config::controllers`] do what kube-controller-manager
//! and kube-scheduler do for a small cluster.
//!
//! What it leaves out, and says when asked: authentication and authorisation (RBAC objects are
//! stored, not enforced), CEL rules of CRDs (not evaluated), conversion webhooks (all versions of a
//! CRD share one schema), admission plug-ins, SPDY, port forwarding. Protobuf is read from
//! Go clients and never written.
//!
//! # Examples
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use kinesin_apiserver::{ApiServer, Config};
//!
//! let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
//! let server = ApiServer::start(Config { listeners: vec![listener], ..Config::default() }).await.unwrap();
//! println!("http://{}", server.local_addrs()[0]);
//! server.shutdown().await;
//! # });
//! ```

mod controllers;
mod crds;
mod error;
mod http;
mod jsonpath;
mod kinds;
mod kinds_builtin;
mod names;
mod object;
mod ops;
mod patch;
mod schema;
mod selectors;
mod server;
mod store;
mod strategy;
mod table;

pub use error::StartError;
pub use server::{ApiServer, Config, PodCidrRange};
