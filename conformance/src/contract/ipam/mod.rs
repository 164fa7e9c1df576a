//! The contract of [`kinesin_core::ipam::Ipam`].
//!
//! Each behaviour is judged twice: by a short story of its own, and by random histories (lease, release, restart,
//! change of blocks, exhaustion, giving back) against a model, of which only the breaches of that behaviour count.

mod behaviours;
mod growth;
mod harness;
mod history;
mod model;
mod owed;
mod pools;

pub use harness::Harness;

use super::Behaviour;

/// Every behaviour, by number.
pub const BEHAVIOURS: &[Behaviour<Harness>] = &[
    Behaviour {
        id: "IPAM-1",
        title: "addresses lie in applied blocks and are no network or broadcast address",
        judge: behaviours::ipam_1,
    },
    Behaviour { id: "IPAM-2", title: "no address is leased twice", judge: behaviours::ipam_2 },
    Behaviour { id: "IPAM-3", title: "same attachment same lease", judge: behaviours::ipam_3 },
    Behaviour { id: "IPAM-4", title: "every requested family or none", judge: behaviours::ipam_4 },
    Behaviour { id: "IPAM-5", title: "released addresses can be leased again", judge: behaviours::ipam_5 },
    Behaviour { id: "IPAM-6", title: "restore takes exactly the lease", judge: behaviours::ipam_6 },
    Behaviour { id: "IPAM-7", title: "a full pool says so with its counts", judge: behaviours::ipam_7 },
    Behaviour { id: "IPAM-8", title: "apply is idempotent and old blocks drain", judge: behaviours::ipam_8 },
    Behaviour { id: "IPAM-9", title: "reserved addresses are never leased", judge: behaviours::ipam_9 },
    Behaviour { id: "IPAM-10", title: "retire waits for leases and leaves nothing", judge: behaviours::ipam_10 },
    Behaviour { id: "IPAM-11", title: "addresses come from the requested pool", judge: pools::ipam_11 },
    Behaviour { id: "IPAM-12", title: "demand counts leases and owners that wait", judge: growth::ipam_12 },
    Behaviour { id: "IPAM-13", title: "blocks that were given back give no lease", judge: growth::ipam_13 },
    Behaviour { id: "IPAM-14", title: "what is left after giving back is what is wanted", judge: growth::ipam_14 },
    Behaviour { id: "IPAM-15", title: "a block that comes again gives leases again", judge: growth::ipam_15 },
    Behaviour { id: "IPAM-16", title: "who is forgotten waits no longer, and nobody else", judge: growth::ipam_16 },
];
