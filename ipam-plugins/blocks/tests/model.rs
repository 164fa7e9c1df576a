//! Two operators, their API server and the agents, in any order of steps: no block ever has two nodes, none is lost, and
//! in the end everybody has what he asks for.
//!
//! A script of numbers decides what happens next: a request reaches the API server, or is lost; an answer arrives, or is
//! lost; a watch delivers one event; an operator dies or starts from a state of any age; time passes; an agent asks for
//! more, gives back, is deleted, comes again, changes its mode.

#[path = "model/world.rs"]
mod world;

use kinesin_ipam_blocks::{Mode, PoolSpec, Pools, Source};
use proptest::{prelude::*, test_runner::TestCaseError};
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

/// Rule 2: what is claimed in two objects at once goes to one of them.
#[test]
fn blocks_of_two_sizes_that_overlap_are_claimed_at_once_and_one_yields() -> Result<(), TestCaseError> {
    let pools = pools(["10.0.0.0/22", "10.0.0.0/23"], 27, ("10.9.0.0/28", "fd00::/120"));
    let mut world = World::empty(pools, false);
    world.set_mode(1, Mode::MultiPool);
    world.ask(1, "default", 1);
    // This one has seen node 1 alone, and has its claim of 10.0.0.0/28 under way.
    world.start(1, 0);
    world.set_mode(0, Mode::ClusterPool);
    // This one has 10.0.0.0/27 under way, for node 0.
    world.start(0, 0);
    for _ in 0..200 {
        for which in [0, 1] {
            world.reach(which, 0);
            world.answer(which, 0);
            world.check()?;
        }
    }
    world.settle()?;
    assert_eq!((world.blocks(0).len(), world.blocks(1).len()), (1, 1));
    world.nothing_is_lost()
}

/// Rule 3: a claim that was confirmed before the CiliumNode was read says nothing about now.
#[test]
fn claim_of_before_a_conflict_is_not_published() -> Result<(), TestCaseError> {
    let pools = pools(["10.0.0.0/30", "10.0.0.0/31"], 30, ("10.9.0.0/28", "fd00::/120"));
    let mut world = World::empty(pools, false);
    world.set_mode(0, Mode::ClusterPool);
    world.start(0, 0);
    // Claim and the look at overlapping objects; what is left is the publication, which is late.
    for _ in 0..2 {
        world.reach(0, 0);
        world.answer(0, 0);
    }
    assert_eq!((world.requests(0), world.blocks(0).len()), (1, 0));
    // Meanwhile node 0 does not want it any more, and the only block there is goes to node 2.
    world.set_mode(0, Mode::Kubernetes);
    world.set_mode(2, Mode::ClusterPool);
    world.start(1, 0);
    world.run(1)?;
    world.pass(60);
    world.deliver(1, usize::MAX);
    world.run(1)?;
    assert_eq!(world.blocks(2).len(), 1);
    // Node 0 wants it again. The late publication conflicts, and whoever sent it reads the CiliumNode anew.
    world.set_mode(0, Mode::ClusterPool);
    world.run(0)?;
    assert!(world.blocks(0).is_empty());
    Ok(())
}

/// The model would notice.
#[test]
fn model_catches_a_block_with_two_nodes() {
    let mut world = World::new(pools(["10.0.0.0/30", "10.0.0.0/31"], 30, ("10.9.0.0/28", "fd00::/120")), false);
    world.set_mode(0, Mode::ClusterPool);
    world.publish_by_hand(0, "10.0.0.0/30");
    world.publish_by_hand(1, "10.0.0.0/30");
    assert!(world.check().is_err());
}
