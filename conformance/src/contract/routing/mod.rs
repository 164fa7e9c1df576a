//! The contract of [`kinesin_core::routing::Routing`].
//!
//! Effects are judged from outside: by what devices, addresses and routes the kernel of a node has, and by what it
//! announces. What a backend keeps elsewhere (neighbour tables, BPF maps) is not looked at here; packets are for the
//! cluster cases.

mod behaviours;
mod claims;
mod damage;
mod harness;
mod view;
mod watch;

pub use harness::Harness;

use super::Behaviour;

/// Every behaviour, by number.
pub const BEHAVIOURS: &[Behaviour<Harness>] = &[
    Behaviour { id: "ROUTING-1", title: "every peer has a path or a reason", judge: behaviours::routing_1 },
    Behaviour { id: "ROUTING-2", title: "the same state changes nothing", judge: behaviours::routing_2 },
    Behaviour { id: "ROUTING-3", title: "what left the state is removed alone", judge: behaviours::routing_3 },
    Behaviour { id: "ROUTING-4", title: "what is missing or altered is put back", judge: behaviours::routing_4 },
    Behaviour { id: "ROUTING-5", title: "one bad peer harms no other", judge: behaviours::routing_5 },
    Behaviour { id: "ROUTING-6", title: "what others made is never touched", judge: behaviours::routing_6 },
    Behaviour { id: "ROUTING-7", title: "retire removes what any run made", judge: behaviours::routing_7 },
    Behaviour { id: "ROUTING-8", title: "a plan changes nothing and comes true", judge: behaviours::routing_8 },
    Behaviour { id: "ROUTING-9", title: "of overlapping claims the elder's stands", judge: claims::routing_9 },
];
