//! Killed at one step after the other: the agent in ADD, DEL and at its start, the plugin in ADD and DEL.
//!
//! Each test counts the system calls of an undisturbed run and then kills before some of them, chosen anew in each run:
//! as many as `KINESIN_STEPS` says. What failed is repeated with the number that the failure names.

use std::{collections::BTreeSet, env, fs, thread, time::Duration};

use kinesin_agent_api::types::State;
use serde_json::Value;

use crate::{
    cidrs::reaches,
    cluster::{CIDRS, Cluster},
    leaks::{self, Held},
    node::{Node, PATIENCE, until},
    pods::{self, Pod},
    tracer::Tracer,
};

/// How many steps of each operation a test tries unless `KINESIN_STEPS` says otherwise.
const STEPS: usize = 10;

/// Numbers from 1 to `total`, one from each of equally long pieces.
fn steps(total: usize) -> impl Iterator<Item = usize> {
    let wanted = env::var("KINESIN_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(STEPS);
    let pieces = wanted.clamp(1, total);
    (0..pieces).map(move |piece| {
        let (first, next) = (piece * total / pieces, (piece + 1) * total / pieces);
        rand::random_range(first..next) + 1
    })
}

/// A node with an agent that is ready, and what it has while there are no pods.
fn start() -> (Node, Cluster, BTreeSet<String>) {
    let mut node = Node::new();
    let cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let surroundings = leaks::surroundings(&node);
    (node, cluster, surroundings)
}

/// Runs `work` while the agent is followed, and kills the agent then, if not before; the answers are that of `work` and
/// the number of system calls.
fn followed<T>(node: &Node, fatal: usize, work: impl FnOnce() -> T) -> (T, usize) {
    let tracer = Tracer::follow(node.pid(), fatal);
    let answer = work();
    (answer, tracer.finish(Duration::ZERO))
}

/// Ends the agent if it has not been killed yet, and starts the next one.
fn restart(node: &mut Node) {
    node.kill();
    node.start();
    node.ready();
}

/// Whether the pod has any device of ours.
fn connected(node: &Node, pod: &Pod) -> bool {
    node.links_of(&pod.netns).iter().any(|link| link.name == "eth0")
}

#[test]
fn agent_killed_at_any_step_of_add_leaves_nothing() {
    let (mut node, _cluster, surroundings) = start();
    let pod = Pod::new("undisturbed");
    let (outcome, total) = followed(&node, usize::MAX, || pod.add(&node));
    outcome.ok();
    pod.del(&node).ok();
    restart(&mut node);
    for step in steps(total) {
        eprintln!("step {step} of {total}");
        let pod = Pod::new(format!("c{step}"));
        let (outcome, _) = followed(&node, step, || pod.add(&node));
        restart(&mut node);
        let held = leaks::settled(&node);
        assert!(held.orphans.is_empty(), "step {step}: {held:?}");
        if outcome.success {
            assert_eq!(held.ids.len(), 1, "step {step}: an answered ADD is kept");
            assert_eq!(pod.add(&node).ok(), outcome.ok(), "step {step}");
        } else {
            // The runtime's DEL follows, but nothing may depend on it.
            assert_eq!((held, connected(&node, &pod)), (Held::default(), false), "step {step}: {outcome:?}");
        }
        pod.del(&node).ok();
        leaks::nothing_left(&node);
        assert_eq!(leaks::surroundings(&node), surroundings, "step {step}");
    }
}

#[test]
fn agent_killed_at_any_step_of_del_leaves_nothing() {
    let (mut node, _cluster, surroundings) = start();
    let pod = Pod::new("undisturbed");
    pod.add(&node).ok();
    let (outcome, total) = followed(&node, usize::MAX, || pod.del(&node));
    outcome.ok();
    restart(&mut node);
    for step in steps(total) {
        eprintln!("step {step} of {total}");
        let pod = Pod::new(format!("c{step}"));
        pod.add(&node).ok();
        let (outcome, _) = followed(&node, step, || pod.del(&node));
        // Kubernetes repeats until this succeeds; it must not have to wait for the agent.
        outcome.ok();
        restart(&mut node);
        assert_eq!(leaks::settled(&node), Held::default(), "step {step}");
        assert!(!connected(&node, &pod), "step {step}");
        assert_eq!(leaks::surroundings(&node), surroundings, "step {step}");
    }
}

#[test]
fn agent_killed_at_any_step_of_its_start_keeps_the_pods() {
    let (mut node, _cluster, surroundings) = start();
    let pods = Pod::several(2);
    let results: Vec<Value> = pods.iter().map(|pod| pod.add(&node).ok()).collect();
    let ips: Vec<_> = results.iter().map(pods::addresses).collect();
    let held = leaks::consistent(&node);
    node.kill();
    node.start();
    await_program(node.pid(), "kinesin-agent");
    let ready = || node.asked().is_ok_and(|status| status.cilium.state == State::Ok);
    let ((), total) = followed(&node, usize::MAX, || until("ready", ready));
    for step in steps(total) {
        eprintln!("step {step} of {total}");
        node.kill();
        node.start();
        await_program(node.pid(), "kinesin-agent");
        let tracer = Tracer::follow(node.pid(), step);
        tracer.finish(PATIENCE);
        for (from, to) in ips[0].iter().zip(&ips[1]) {
            assert!(reaches(&pods[0], *from, &pods[1], *to), "step {step}: {from} to {to} while no agent runs");
        }
        restart(&mut node);
        assert_eq!(leaks::settled(&node), held, "step {step}");
        for (pod, result) in pods.iter().zip(&results) {
            assert_eq!(pod.add(&node).ok(), *result, "step {step}");
        }
    }
    for pod in &pods {
        pod.del(&node).ok();
    }
    leaks::nothing_left(&node);
    assert_eq!(leaks::surroundings(&node), surroundings);
}

#[test]
fn agent_killed_at_any_step_of_its_first_start_leaves_no_half_node() {
    for number in 0..4 {
        let mut node = Node::new();
        let _cluster = Cluster::new(&node, &CIDRS);
        node.start();
        await_program(node.pid(), "kinesin-agent");
        // A first start takes some 1,500 calls here; a number that is too high kills a node that is ready.
        let step = rand::random_range(1..1500) / (number + 1) + 1;
        eprintln!("step {step}");
        let tracer = Tracer::follow(node.pid(), step);
        tracer.finish(Duration::from_secs(2));
        restart(&mut node);
        leaks::nothing_left(&node);
        leaks::no_stale_pins(&node);
        let pod = Pod::new("c1");
        pod.add(&node).ok();
        assert_eq!(leaks::consistent(&node).ids.len(), 1, "step {step}");
    }
}

#[test]
fn plugin_killed_at_any_step_of_add_leaves_nothing() {
    let (mut node, _cluster, surroundings) = start();
    let (_, total) = plugin_killed(&node, &Pod::new("undisturbed"), "ADD", usize::MAX);
    Pod::new("undisturbed").del(&node).ok();
    leaks::nothing_left(&node);
    for (number, step) in steps(total).enumerate() {
        eprintln!("step {step} of {total}");
        let pod = Pod::new(format!("c{step}"));
        let (success, calls) = plugin_killed(&node, &pod, "ADD", step);
        assert!(!success || calls < step, "step {step} of {calls}: it is killed");
        match number % 3 {
            // What Kubernetes does: the namespace is deleted, another pod is tried.
            0 => drop(pod.del(&node).ok()),
            // A runtime that repeats ADD.
            1 => {
                pod.add(&node).ok();
                assert_eq!(leaks::consistent(&node).ids.len(), 1, "step {step}");
                pod.del(&node).ok();
            }
            // A runtime that lost the pod.
            _ => {
                drop(pod);
                until("the devices are gone with the namespace", || {
                    node.links().iter().all(|link| !link.name.starts_with("lxc") || link.name == "lxc_health")
                });
                restart(&mut node);
            }
        }
        leaks::nothing_left(&node);
        assert_eq!(leaks::surroundings(&node), surroundings, "step {step}");
    }
}

#[test]
fn plugin_killed_at_any_step_of_del_leaves_nothing() {
    let (node, _cluster, surroundings) = start();
    let pod = Pod::new("undisturbed");
    pod.add(&node).ok();
    let (success, total) = plugin_killed(&node, &pod, "DEL", usize::MAX);
    assert!(success);
    for step in steps(total) {
        eprintln!("step {step} of {total}");
        let pod = Pod::new(format!("c{step}"));
        pod.add(&node).ok();
        let (success, calls) = plugin_killed(&node, &pod, "DEL", step);
        assert!(!success || calls < step, "step {step} of {calls}: it is killed");
        pod.del(&node).ok();
        assert!(!connected(&node, &pod), "step {step}");
        leaks::nothing_left(&node);
        assert_eq!(leaks::surroundings(&node), surroundings, "step {step}");
    }
}

/// Runs the plugin and kills it at a step after it was given its configuration.
fn plugin_killed(node: &Node, pod: &Pod, command: &str, step: usize) -> (bool, usize) {
    let mut child = pod.held(node, command);
    await_program(child.id(), "kinesin-cni");
    let tracer = Tracer::follow(child.id(), step);
    pods::feed(&mut child);
    let calls = tracer.finish(PATIENCE);
    (pods::finish(child).success, calls)
}

/// Waits until `nsenter` has become the program.
fn await_program(pid: u32, name: &str) {
    let path = format!("/proc/{pid}/exe");
    until("the program starts", || fs::read_link(&path).is_ok_and(|program| program.ends_with(name)));
    // Its first calls are the loader's, which change nothing.
    thread::sleep(Duration::from_millis(1));
}
