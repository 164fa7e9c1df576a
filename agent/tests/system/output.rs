//! Readers that go away early.

use std::{
    io,
    process::{Command, Output, Stdio},
};

use kinesin_agent_api::types::State;

use crate::{
    cluster::{CIDRS, Cluster},
    node::{Node, built, until},
};

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_that_has_heard_enough_is_no_error() {
    for argument in ["backends", "doctor", "--help", "--version"] {
        let mut command = Command::new(built("kinesin-agent"));
        let Output { status, stderr, .. } = command.arg(argument).stdout(unread()).output().expect("run");
        let said = String::from_utf8_lossy(&stderr);
        assert!(status.success() && said.is_empty(), "{argument}: {status}, {said}");
    }
}

#[test]
fn an_agent_whose_log_nobody_reads_goes_on() {
    let node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    let mut agent = node.agent_command(&[]).stderr(unread()).spawn().expect("run");
    until("it serves", || node.asked().is_ok_and(|status| status.cilium.state == State::Ok));
    assert!(agent.try_wait().expect("asked").is_none(), "it runs");
    agent.kill().expect("killed");
    agent.wait().expect("waited for");
}
