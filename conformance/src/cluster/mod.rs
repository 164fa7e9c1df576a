//! Cases that need a whole cluster: real agents, real pods, real packets.
//!
//! Reading order: [`combination`] and [`catalogue`] (what there is to choose), [`plan`] (what is chosen), [`Case`] and
//! `cases` (what is judged), `context`, `workload`, `place`, `traffic` and [`worker`] (what cases have at hand), `lab` and
//! `lease` (labs that cases share), `own` (labs that cases have for themselves), [`run`] (all of it as a library),
//! [`trials`] (all of it as tests of nextest).

pub mod catalogue;
pub mod combination;
pub mod plan;
pub mod run;
pub mod trials;
pub mod worker;

mod case;
mod cases;
mod context;
mod keeper;
mod lab;
mod lease;
mod own;
mod place;
pub(crate) mod random;
mod storm;
mod traffic;
mod verdict;
mod workload;

pub(crate) mod hidden;

pub use case::{Case, Scale, Spread, cases};
pub use context::Context;
pub use own::OwnLab;
pub use place::{Place, Question};
pub use verdict::{Judged, Stop, Verdict};
