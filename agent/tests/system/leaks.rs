//! What the node holds, as tests demand it; the places that are counted are those of `kinesin_conformance::leaks`.

use std::collections::BTreeSet;

pub(crate) use kinesin_conformance::leaks::Held;
use kinesin_conformance::leaks::{self, Site};

use crate::node::{Node, PATIENCE};

fn site(node: &Node) -> Site {
    let (netns, runtime) = (node.netns.clone(), node.runtime.handle().clone());
    // The tests are the runtime themselves.
    Site { netns, root: node.path("/"), runtime_dirs: Vec::new(), runtime }
}

/// Demands that all places agree.
pub(crate) fn consistent(node: &Node) -> Held {
    leaks::held(&site(node)).unwrap_or_else(|difference| panic!("{difference}"))
}

/// Demands that no pod has left anything.
pub(crate) fn nothing_left(node: &Node) {
    assert_eq!(consistent(node), Held::default());
    assert_eq!(site(node).queued(), 0);
}

/// What is held once what goes on has come to rest.
pub(crate) fn settled(node: &Node) -> Held {
    leaks::settled(&site(node), PATIENCE).unwrap_or_else(|difference| panic!("{difference}"))
}

/// What a node without pods has: devices, routes, pins, prefixes and processes.
pub(crate) fn surroundings(node: &Node) -> BTreeSet<String> {
    leaks::surroundings(&site(node)).unwrap_or_else(|error| panic!("{error}"))
}

/// Demands that every pinned link belongs to a device that exists; right after a start, which removes the others.
pub(crate) fn no_stale_pins(node: &Node) {
    assert_eq!(leaks::stale_pins(&site(node)), Ok(Vec::new()));
}
