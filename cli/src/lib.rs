//! The command line of Kinesin.
//!
//! On a node it asks the agent over its socket and prints what it says, in Cilium's forms; elsewhere it asks the
//! Kubernetes API. It holds no state and decides nothing.
//!
//! Reading order: [`args`] (what can be asked), `run` (who answers), then one file per answer ([`status`], `lists`,
//! `config_view`, `cluster`, `cluster_health`, `ipam`, `lab`, `conformance`), [`table`] and [`output`] underneath.

mod absent;
pub mod args;
mod cluster;
mod cluster_health;
mod config_view;
mod conformance;
mod hand_over;
mod ipam;
mod lab;
mod lists;
mod new_backend;
pub mod output;
mod run;
pub mod status;
pub mod table;

pub use run::run;
