//! The router's address moves, and at no moment is a pod out of the node's reach.

use std::{
    io::ErrorKind,
    net::{Ipv6Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use kinesin_core::values::Family;

use crate::{
    node::{Node, Ways},
    pod::Pod,
};

/// How often the router moves.
const MOVES: u8 = 4;
/// An answer of a pod on the same node takes microseconds, on a busy machine some more.
const LATE: Duration = Duration::from_millis(500);

/// Questions of the node to a pod.
struct Flow {
    /// The question that is asked now.
    number: Arc<AtomicU64>,
    /// How many were answered, and what became of the others.
    outcome: thread::JoinHandle<(usize, Vec<String>)>,
}

impl Flow {
    /// Waits until no question is open that was asked before this call.
    fn turn_over(&self) {
        let asked = self.number.load(Ordering::SeqCst);
        while self.number.load(Ordering::SeqCst) == asked && !self.outcome.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The node asks a pod by datagrams whose source the routes decide each time.
///
/// The pod answers until the asker has ended: one that stopped with it could leave the last question open.
fn ask(node: &Node, pod: &Pod, family: Family, stop: Arc<AtomicBool>) -> Flow {
    let echo = pod.udp(family, 0);
    let to = echo.local_addr().expect("address");
    let asker_ended = Arc::new(AtomicBool::new(false));
    let has_ended = Arc::clone(&asker_ended);
    let answers = thread::spawn(move || {
        echo.set_read_timeout(Some(LATE)).expect("timeout");
        let mut bytes = [0; 8];
        while !has_ended.load(Ordering::Relaxed) {
            match echo.recv_from(&mut bytes) {
                Ok((length, from)) => drop(echo.send_to(&bytes[..length], from)),
                Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}"),
            }
        }
    });
    let any = if to.is_ipv4() { "0.0.0.0".parse().expect("ip") } else { Ipv6Addr::UNSPECIFIED.into() };
    let any: std::net::IpAddr = any;
    let socket = node.netns.run(|| UdpSocket::bind((any, 0))).expect("namespace").expect("socket");
    let number = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&number);
    let outcome = thread::spawn(move || {
        socket.set_read_timeout(Some(LATE)).expect("timeout");
        let (mut answered, mut lost) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
            let mut bytes = [0; 8];
            let came = socket.send_to(&number.to_be_bytes(), to).and_then(|_| socket.recv(&mut bytes));
            match came {
                Ok(_) if u64::from_be_bytes(bytes) == number => answered += 1,
                Ok(_) => lost.push(format!("{number}: answered late")),
                Err(error) => lost.push(format!("{number}: {error}")),
            }
        }
        asker_ended.store(true, Ordering::Relaxed);
        answers.join().expect("the pod answers to the end");
        (answered, lost)
    });
    Flow { number, outcome }
}

#[test]
fn chassis_3_router_address_moves_without_loss() {
    let mut node = Node::alone(Ways::Default);
    let pod = node.pod(10);
    let stop = Arc::new(AtomicBool::new(false));
    let flows = Family::ALL.map(|family| ask(&node, &pod, family, Arc::clone(&stop)));
    let first = node.spec.router.clone();
    for number in 1..=MOVES {
        let ip = |text: String| text.parse().expect("an address");
        let next = vec![ip(format!("10.244.1.{}", 200 + number)), ip(format!("fd00:10:244:1::{number}:1"))];
        // As the agent does: the old one stays beside the new one for answers on their way.
        let old = std::mem::replace(&mut node.spec.router, next.clone());
        node.spec.router.extend(old);
        node.apply().expect("both");
        flows.iter().for_each(Flow::turn_over);
        node.spec.router = next;
        node.apply().expect("the new one");
    }
    assert_ne!(node.spec.router, first);
    stop.store(true, Ordering::Relaxed);
    for (family, flow) in Family::ALL.into_iter().zip(flows) {
        let (answered, lost) = flow.outcome.join().expect("no panic");
        assert!(answered > 100, "{answered} answers over {family}");
        assert!(lost.is_empty(), "over {family}, beside {answered} answers: {lost:?}");
    }
}
