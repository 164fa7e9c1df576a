//! Links, addresses, routes and namespaces over rtnetlink.
//!
//! One [`Netlink`] is one netlink socket, bound to the network namespace in which it was opened for as long as it
//! lives. Every method is idempotent where that is what callers mean: adding what is there and removing what is not
//! there succeed. This crate leaves to others which devices, addresses and routes a node should have.
//!
//! Source: rtnetlink(7), Linux `include/uapi/linux/rtnetlink.h` and `if_link.h`.

mod address;
mod error;
mod feature;
mod filter;
mod handle;
mod link;
mod mirror;
mod neighbour;
mod netns;
mod route;
mod sys;
mod sysctl;
mod watch;

pub use error::NetlinkError;
pub use feature::{BEFORE_TUNNELS, TUNNEL_PORTS, TUNNEL_SEGMENTATION, driver_of, has_feature, switch_features};
pub use filter::BpfFilter;
pub use handle::Netlink;
pub use link::{Link, LinkKind, TunnelKind, TunnelSpec, VethSpec};
pub use mirror::{Mirror, MirrorSpec, Seen, routes_to};
pub use netns::NetNs;
pub use route::{Route, RouteScope, TABLE_MAIN};
pub use sysctl::{Sysctl, SysctlError};
pub use watch::{Announcement, Watch};
