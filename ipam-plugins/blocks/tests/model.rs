//! Two operators, their API server and the agents, in any order of steps: no block ever has two nodes, none is lost, and
//! in the end everybody has what he asks for.
//!
//! A script of numbers decides what happens next: a request reaches the API server, or is lost; an answer arrives, or is
//! lost; a watch delivers one event; an operator dies or starts from a state of any age; time passes; an agent asks for
//! more, gives back, is deleted, comes again, changes its mode.

#[path = "model/world.rs"]
mod world;

use kinesin_ipam_blocks::{Mode, PoolSpec, Pools, Source};
use proptest::prelude::*;
use world::World;

fn pools([cluster, pool]: [&str; 2], mask: u8, other: (&str, &str)) -> Pools {
    let part = |text: &str, mask| Some((vec![text.to_owned()], mask));
    Pools::check(&[
        // Ranges of two modes, one inside the other, with two sizes: so their objects of claims overlap.
        PoolSpec { source: Source::cluster_pool(), ipv4: part(cluster, mask), ipv6: None },
        PoolSpec { source: Source::pool("default"), ipv4: part(pool, mask + 1), ipv6: None },
        PoolSpec { source: Source::pool("other"), ipv4: part(other.0, 30), ipv6: part(other.1, 124) },
    ])
}

fn script() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(any::<u16>(), 1..500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// More blocks than anybody asks for: a block rests before another node has it, always.
    #[test]
    fn blocks_have_one_node_and_rest_before_another_when_there_is_room(script in script()) {
        let mut world = World::new(pools(["10.0.0.0/22", "10.0.0.0/23"], 27, ("10.9.0.0/25", "fd00::/118")), true);
        world.play(&script)?;
        world.settle()?;
        world.nothing_is_lost()?;
    }

    /// Fewer blocks than are asked for.
    #[test]
    fn blocks_have_one_node_when_the_range_is_full(script in script()) {
        let mut world = World::new(pools(["10.0.0.0/28", "10.0.0.0/29"], 30, ("10.9.0.0/28", "fd00::/120")), false);
        world.play(&script)?;
        world.settle()?;
        world.nothing_is_lost()?;
    }
}

/// The model finds what it is there for: operators that skip the fence give a block to two nodes.
#[test]
fn model_catches_a_publication_by_an_old_claim() {
    let mut world = World::new(pools(["10.0.0.0/30", "10.0.0.0/31"], 30, ("10.9.0.0/28", "fd00::/120")), false);
    world.set_mode(0, Mode::ClusterPool);
    world.publish_by_hand(0, "10.0.0.0/30");
    world.publish_by_hand(1, "10.0.0.0/30");
    assert!(world.check().is_err());
}
