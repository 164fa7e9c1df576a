//! CHASSIS-6: the agent goes and comes back under traffic, and nothing is lost.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use kinesin_core::values::Family;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::{
    node::{Node, Ways},
    pod::Pod,
};

/// A stream of numbered datagrams, about two thousand a second.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    sender: thread::JoinHandle<u64>,
    receiver: thread::JoinHandle<u64>,
}

impl Stream {
    pub(crate) fn start(from: &Pod, to: &Pod, family: Family) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (source, sink) = (from.udp(family, 0), to.udp(family, 0));
        source.connect(sink.local_addr().expect("address")).expect("connect");
        sink.set_read_timeout(Some(Duration::from_millis(500))).expect("timeout");
        // The default is full after a tenth of a second; on a busy machine the receiver may wait longer for its turn.
        setsockopt(&sink, RcvBufForce, &(8 << 20)).expect("buffer");
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || send(&source, &stopped));
        let stopped = Arc::clone(&stop);
        let receiver = thread::spawn(move || receive(&sink, &stopped));
        Self { stop, sender, receiver }
    }

    /// Ends the stream; the answer is how many were sent and how many of them arrived.
    pub(crate) fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        (self.sender.join().expect("sender"), self.receiver.join().expect("receiver"))
    }
}

fn send(socket: &UdpSocket, stop: &AtomicBool) -> u64 {
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        socket.send(&count.to_be_bytes()).expect("send");
        count += 1;
        thread::sleep(Duration::from_micros(500));
    }
    count
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> u64 {
    let (mut count, mut bytes) = (0, [0; 8]);
    loop {
        // The last one may be sent after this look, so that only a whole time-out later nothing can come any more.
        let was_over = stop.load(Ordering::Relaxed);
        match socket.recv(&mut bytes) {
            Ok(_) => count += 1,
            Err(_) if was_over => return count,
            // A sender that has to wait for its turn is not at its end.
            Err(_) => {}
        }
    }
}

#[test]
fn chassis_6_restarts_of_the_agent_lose_nothing() {
    for ways in Ways::ALL {
        let mut node = Node::alone(ways);
        let (a, b) = (node.pod(10), node.pod(11));
        let streams = Family::ALL.map(|family| Stream::start(&a, &b, family));
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(50));
            node.restart();
            thread::sleep(Duration::from_millis(20));
            assert!(node.apply().expect("apply").failed.is_empty());
        }
        for stream in streams {
            let (sent, arrived) = stream.end();
            eprintln!("{ways:?}: {arrived} of {sent} arrived");
            assert!(sent > 100, "{sent}");
            assert_eq!(arrived, sent, "{ways:?}");
        }
    }
}

#[test]
fn chassis_6_a_change_of_the_node_loses_nothing() {
    let mut node = Node::alone(Ways::Default);
    let (a, b) = (node.pod(10), node.pod(11));
    let stream = Stream::start(&a, &b, Family::V4);
    for port in 7000..7006 {
        // Another constant, so another generation of programs.
        node.spec.tunnel_ports = vec![8472, port];
        thread::sleep(Duration::from_millis(50));
        assert!(node.apply().expect("apply").changes > 0);
    }
    let (sent, arrived) = stream.end();
    assert_eq!(arrived, sent);
}
