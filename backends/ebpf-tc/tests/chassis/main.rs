//! The chassis on real devices with real packets: every node, pod and wire is a namespace of the test's own. Needs root.
//!
//! Tests are named after the behaviour of `Chassis` that they prove.

mod attachments;
mod contract;
mod disturbed;
mod errors;
mod healing;
mod narrow;
mod node;
mod nodes;
mod outage;
mod pod;
mod router;
mod slot;
mod spoofing;
mod stock;
mod sys;
mod told;
mod trial;
mod tunnel_answers;
mod tunnel_bare;
mod tunnel_device;
mod tunnel_merging;
mod tunnel_segments;
mod tunnel_strangers;
mod tunnel_switch;
mod tunnels;
mod watch;
