#![doc = include_str!("../README.md")]

pub mod outcome;

pub mod contract;

mod runner;

pub use runner::contracts;
