//! What the engine asks of the API server, and what it is answered.

use ipnet::IpNet;

use crate::{
    claims::Claims,
    node::{NodeView, Pool},
    problem::Report,
    types::{Name, Version},
};

/// Something to be done. One at a time for each object and each CiliumNode; [`Engine::finish`](super::Engine::finish) takes the outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Create the object, or replace the one of this version.
    WriteClaims {
        /// Its name.
        object: Name,
        /// The version that it must have; nothing if it must not exist.
        version: Option<Version>,
        /// The content.
        claims: Claims,
    },
    /// Read an object from the API server, not from a cache.
    ReadClaims {
        /// Its name.
        object: Name,
    },
    /// Read all other objects whose network overlaps this one, from the API server.
    ListOverlaps {
        /// Name of the object that asks.
        object: Name,
        /// Its network.
        network: IpNet,
    },
    /// Put lists into a CiliumNode, if it has this version.
    PatchNode {
        /// Its name.
        node: Name,
        /// The version that it must have.
        version: Version,
        /// The new `spec.ipam.podCIDRs`.
        pod_cidrs: Option<Vec<String>>,
        /// The new `spec.ipam.pools.allocated`.
        allocated: Option<Vec<Pool>>,
    },
    /// Put a report into a CiliumNode's status, if it has this version.
    ReportNode {
        /// Its name.
        node: Name,
        /// The version that it must have.
        version: Version,
        /// The report.
        report: Report,
    },
    /// Read a CiliumNode from the API server.
    ReadNode {
        /// Its name.
        node: Name,
    },
    /// Read a CiliumNode from the API server and write it, under the guard of the version that was read, so that it has
    /// another.
    FenceNode {
        /// Its name.
        node: Name,
    },
}

/// Why an effect did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Another wrote in between, so nothing was written.
    Conflict,
    /// Nobody knows whether it was done: no answer, or another refusal.
    Unknown,
}

/// What came of an effect.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Of `WriteClaims`: the new version.
    ClaimsWritten(Result<Version, Failure>),
    /// Of `ReadClaims`: the object, or that there is none.
    ClaimsRead(Result<Option<(Version, Claims)>, Failure>),
    /// Of `ListOverlaps`.
    Overlaps(Result<Vec<(Name, Version, Claims)>, Failure>),
    /// Of everything on a CiliumNode: how it is now, or that there is none.
    Node(Result<Option<NodeView>, Failure>),
}
