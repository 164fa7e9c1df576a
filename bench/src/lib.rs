#![doc = include_str!("../README.md")]
//!
//! Reading order: [`case`] (what can be measured, between whom), `arena` (where they stand), [`traffic`] and [`cni`]
//! (how it is measured), [`nodes`] and [`agent`] (what else is), [`schedule`] and [`run`] (in which order), [`stats`] (what the figures say), [`report`].

pub mod agent;
pub mod arena;
pub mod args;
pub mod budget;
pub mod case;
pub mod cni;
mod error;
pub mod facts;
pub mod ipam;
pub mod metric;
pub mod nodes;
pub mod output;
pub mod programs;
pub mod report;
pub mod run;
pub mod schedule;
pub mod stats;
pub mod traffic;

pub use error::BenchError;
