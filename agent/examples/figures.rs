//! How long the agent takes to start, how much memory it keeps, and how long a pod waits for its network.
//!
//! Builds of which these are the figures, as root:
//!
//! ```text
//! cargo build --release -p kinesin-agent -p kinesin-cni
//! cargo run --release -p kinesin-agent --example figures
//! ```
//!
//! Everything happens on a node of its own, a few namespaces, against the lab's API server in this process. Nothing is
//! asserted: a loaded machine is slower.

#![expect(clippy::print_stdout, reason = "the figures are the output")]

#[expect(dead_code, reason = "shared with the system tests, which use more of it")]
#[path = "../tests/system/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "shared with the system tests, which use more of it")]
#[path = "../tests/system/node.rs"]
mod node;
#[expect(dead_code, reason = "shared with the system tests, which use more of it")]
#[path = "../tests/system/pods.rs"]
mod pods;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    cluster::{CIDRS, Cluster},
    node::Node,
    pods::Pod,
};

/// Pods of the full node, as many as the pod CIDR has addresses for.
const PODS: usize = 250;
/// How often each start is measured.
const STARTS: usize = 9;
/// How long the agent is left alone before its memory is read.
const REST: Duration = Duration::from_secs(3);

fn main() {
    println!("build                          {}", if cfg!(debug_assertions) { "dev" } else { "release" });
    let first: Vec<Duration> = (0..STARTS).map(|_| first_start()).collect();
    line("first start to ready", &first);

    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    restarts(&mut node, "restart to ready, no pods");
    println!("resident, no pods              {}", resident(&node));

    let mut pods: Vec<Pod> = Vec::new();
    let single: Vec<Duration> = (0..100).map(|number| timed_add(&node, &mut pods, number)).collect();
    line("ADD, one after the other", &single);
    line("ADD, 10 at once", &parallel(&node, &mut pods, 10, 5));
    line("ADD, 100 at once", &parallel(&node, &mut pods, 100, 1));
    println!("resident, {} pods             {}", PODS, resident(&node));
    assert_eq!(pods.len(), PODS);
    restarts(&mut node, "restart to ready, 250 pods");
    println!("resident, {} pods, restarted  {}", PODS, resident(&node));
    let single: Vec<Duration> = pods.iter().take(100).map(|pod| timed(|| drop(pod.del(&node).ok()))).collect();
    line("DEL, one after the other", &single);
    let nothing: Vec<Duration> =
        (0..100).map(|_| timed(|| assert!(node.command("true").status().expect("run").success()))).collect();
    line("of each: entering the node", &nothing);
}

/// One line: the median, the worst of a hundred, the worst.
fn line(what: &str, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index between 0 and the length"
        )]
        let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len());
        sorted[index - 1].as_secs_f64() * 1e3
    };
    println!(
        "{what:<30} p50 {:7.1} ms   p99 {:7.1} ms   max {:7.1} ms   n {}",
        at(0.5),
        at(0.99),
        at(1.0),
        sorted.len()
    );
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn first_start() -> Duration {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    let begun = node.start();
    node.ready();
    begun.elapsed()
}

fn restarts(node: &mut Node, what: &str) {
    let (mut times, mut computing) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        node.kill();
        let begun = node.start();
        node.ready();
        times.push(begun.elapsed());
        computing.push(computed(node));
        // What follows the start is not part of the next one.
        thread::sleep(Duration::from_millis(200));
    }
    line(what, &times);
    line("  of it on a processor", &computing);
}

/// How long the agent's threads have run, which a loaded machine makes no longer.
fn computed(node: &Node) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", node.pid())).expect("it runs");
    let nanoseconds = |task: fs::DirEntry| -> u64 {
        // Time on a processor, time waiting for one, number of turns (Linux `Documentation/scheduler/sched-stats.rst`).
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
    };
    Duration::from_nanos(tasks.flatten().map(nanoseconds).sum())
}

fn timed_add(node: &Node, pods: &mut Vec<Pod>, number: usize) -> Duration {
    let pod = Pod::new(format!("single-{number}"));
    let took = timed(|| drop(pod.add(node).ok()));
    pods.push(pod);
    took
}

/// Times of each of `count` requests that start together, `rounds` times.
fn parallel(node: &Node, pods: &mut Vec<Pod>, count: usize, rounds: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for round in 0..rounds {
        let new: Vec<Pod> = (0..count).map(|number| Pod::new(format!("p{count}-{round}-{number}"))).collect();
        times.extend(thread::scope(|scope| {
            let threads: Vec<_> =
                new.iter().map(|pod| scope.spawn(move || timed(|| drop(pod.add(node).ok())))).collect();
            threads.into_iter().map(|thread| thread.join().expect("added")).collect::<Vec<_>>()
        }));
        pods.extend(new);
    }
    times
}

/// `VmRSS` and its parts, once the agent has come to rest.
fn resident(node: &Node) -> String {
    thread::sleep(REST);
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let megabytes = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key)).expect("a key of procfs");
        let kilobytes: f64 = value.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes / 1024.0
    };
    let (all, heap, files) = (megabytes("VmRSS:"), megabytes("RssAnon:"), megabytes("RssFile:"));
    format!("{all:.1} MiB ({heap:.1} anonymous, {files:.1} of files)   peak {:.1} MiB", megabytes("VmHWM:"))
}
