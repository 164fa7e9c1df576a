//! The five traits of a Kinesin node, the values they speak of, the registry and the configuration.
//!
//! A backend implements one trait and registers itself with one `inventory::submit!`. The agent links every backend
//! crate; configuration alone decides which one runs. This crate names no backend and knows neither eBPF nor
//! Kubernetes.
//!
//! Reading order: [`values`], [`causes`], the traits ([`ipam`], [`routing`], [`load_balancer`], [`policy`], [`masquerade`]), the
//! seam under them ([`chassis`]), then [`capability`], [`registry`], [`combination`] and [`config`].

pub mod causes;
pub mod values;

pub mod chassis;
pub mod ipam;
pub mod load_balancer;
pub mod masquerade;
pub mod policy;
pub mod routing;

pub mod capability;
pub mod combination;
pub mod config;
pub mod registry;

// Backends register through the same version of `inventory` that the registry reads.
pub use inventory;
