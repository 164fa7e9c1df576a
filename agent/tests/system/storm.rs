//! Pods that come and go many at a time while agents and plugins are killed at random.

use std::{env, process::Child, thread, time::Duration};

use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use crate::{
    cluster::{CIDRS, Cluster},
    leaks,
    node::{Node, until},
    pods::{self, Pod},
};

/// How often everything is killed and looked at; `KINESIN_ROUNDS` says otherwise.
const ROUNDS: usize = 6;
/// How many requests are under way at once.
const AT_ONCE: usize = 8;
/// An ADD takes about this long.
const WHILE: Duration = Duration::from_millis(60);

/// A pod, and whether the runtime believes that it is connected.
struct Running {
    pod: Pod,
    added: bool,
}

/// One request under way.
struct Request {
    slot: usize,
    adds: bool,
    killed: bool,
    plugin: Child,
}

#[test]
fn storm_of_kills_leaves_nothing() {
    let seed = env::var("KINESIN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random::<u64>);
    let rounds = env::var("KINESIN_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    eprintln!("KINESIN_SEED={seed} KINESIN_ROUNDS={rounds}");
    let mut random = StdRng::seed_from_u64(seed);

    let mut node = Node::new();
    let cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let surroundings = leaks::surroundings(&node);
    let mut running: Vec<Running> =
        Pod::several(2 * AT_ONCE).into_iter().map(|pod| Running { pod, added: false }).collect();

    for round in 0..rounds {
        let requests = start(&mut random, &node, &running);
        thread::sleep(WHILE.mul_f64(random.random_range(0.0..1.5)));
        let requests = kill_some(&mut random, requests);
        let agent_dies = random.random_bool(0.7);
        if agent_dies {
            node.kill();
        }
        let doubtful = settle(requests, &mut running);
        if agent_dies {
            node.start();
            node.ready();
        }
        // What nobody answered for may be there or not, but wholly.
        leaks::settled(&node);
        repair(&mut random, &node, &mut running, doubtful);
        let held = leaks::settled(&node);
        let added = running.iter().filter(|found| found.added).count();
        assert_eq!((held.ids.len(), held.addresses.len()), (added, 2 * added), "round {round}: {held:?}");
        assert!(held.orphans.is_empty(), "round {round}: {held:?}");
    }

    for Running { pod, .. } in &running {
        pod.del(&node).ok();
        assert!(node.links_of(&pod.netns).iter().all(|link| link.name != "eth0"));
    }
    leaks::nothing_left(&node);
    node.kill();
    node.start();
    node.ready();
    leaks::nothing_left(&node);
    leaks::no_stale_pins(&node);
    assert_eq!(leaks::surroundings(&node), surroundings);
    until("no pod is published", || cluster.published_endpoints(&node).is_empty());
}

/// Starts requests for some pods at once, each what the runtime would ask for.
fn start(random: &mut impl Rng, node: &Node, running: &[Running]) -> Vec<Request> {
    let mut slots: Vec<usize> = (0..running.len()).collect();
    slots.shuffle(random);
    slots.truncate(AT_ONCE);
    let request = |slot: usize| {
        let Running { pod, added } = &running[slot];
        let plugin = pod.start(node, if *added { "DEL" } else { "ADD" });
        Request { slot, adds: !added, killed: false, plugin }
    };
    slots.into_iter().map(request).collect()
}

fn kill_some(random: &mut impl Rng, mut requests: Vec<Request>) -> Vec<Request> {
    for request in &mut requests {
        if random.random_bool(0.25) {
            // One that has ended already cannot be killed, and its answer counts.
            request.killed = request.plugin.try_wait().expect("wait").is_none() && request.plugin.kill().is_ok();
        }
    }
    requests
}

/// Waits for all answers; those of doubt are the pods whose plugin failed or was killed.
fn settle(requests: Vec<Request>, running: &mut [Running]) -> Vec<(usize, bool)> {
    let mut doubtful = Vec::new();
    for Request { slot, adds, killed, plugin } in requests {
        let outcome = pods::finish(plugin);
        if outcome.success {
            running[slot].added = adds;
        } else {
            assert!(adds || killed, "DEL does not fail: {outcome:?}");
            doubtful.push((slot, adds));
        }
    }
    doubtful
}

/// Does what a runtime does about requests that failed: it repeats a DEL, and repeats an ADD or gives the pod up.
fn repair(random: &mut impl Rng, node: &Node, running: &mut [Running], doubtful: Vec<(usize, bool)>) {
    for (slot, adds) in doubtful {
        let Running { pod, added } = &mut running[slot];
        let again = adds && random.random_bool(0.5);
        if again {
            drop(pod.add(node).ok())
        } else {
            drop(pod.del(node).ok())
        }
        *added = again;
    }
}
