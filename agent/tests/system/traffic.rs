//! Traffic that goes on while agents end and start.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use kinesin_netlink::NetNs;

use crate::{
    cluster::{CIDRS, Cluster},
    node::{Node, until},
    pods::{self, Pod},
};

/// What has not come back by then is lost: nothing here takes a hundredth of it.
const LOST: Duration = Duration::from_secs(5);
/// Between two rounds of a flow, so that the flows leave a small machine some time.
const PACE: Duration = Duration::from_micros(500);

/// Something that sends and receives until it is stopped.
struct Flow {
    name: String,
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Flow {
    /// Repeats `round` in a thread; its first error ends the flow.
    fn start(name: String, mut round: impl FnMut(u64) -> Result<(), String> + Send + 'static) -> Self {
        let (rounds, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&rounds), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = counted.load(Ordering::Relaxed);
                round(number).map_err(|error| format!("round {number}: {error}"))?;
                counted.store(number + 1, Ordering::Relaxed);
                thread::sleep(PACE);
            }
            Ok(())
        });
        Self { name, rounds, stop, thread }
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Ends it; the answer is the number of rounds, none of which failed.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self.thread.join().expect("ended");
        assert_eq!(outcome, Ok(()), "{}", self.name);
        self.rounds.load(Ordering::Relaxed)
    }
}

fn inside<T: Send>(netns: &NetNs, work: impl FnOnce() -> std::io::Result<T> + Send) -> T {
    netns.run(work).expect("enter").expect("socket")
}

/// Datagrams there and back, one after the other: each that is lost is noticed.
fn datagrams(name: &str, from: &NetNs, from_ip: IpAddr, to: &NetNs, to_ip: IpAddr) -> [Flow; 2] {
    let answering = inside(to, || UdpSocket::bind(SocketAddr::new(to_ip, 0)));
    let asking = inside(from, || UdpSocket::bind(SocketAddr::new(from_ip, 0)));
    answering.set_read_timeout(Some(Duration::from_millis(100))).expect("socket");
    asking.set_read_timeout(Some(LOST)).expect("socket");
    asking.connect(answering.local_addr().expect("address")).expect("a route");
    let answers = Flow::start(format!("{name}, answers"), move |_| {
        let mut buffer = [0; 64];
        loop {
            match answering.recv_from(&mut buffer) {
                Ok((length, peer)) => drop(answering.send_to(&buffer[..length], peer).map_err(|e| e.to_string())?),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
    });
    let asks = Flow::start(name.to_owned(), move |number| {
        let mut buffer = [0; 64];
        asking.send(&number.to_be_bytes()).map_err(|error| format!("sending: {error}"))?;
        let length = asking.recv(&mut buffer).map_err(|error| format!("lost: {error}"))?;
        if buffer[..length] == number.to_be_bytes() { Ok(()) } else { Err("another answer".to_owned()) }
    });
    [asks, answers]
}

/// A connection that stays, with data both ways.
fn stream(name: &str, from: &NetNs, to: &NetNs, to_ip: IpAddr) -> [Flow; 2] {
    let listener = inside(to, || TcpListener::bind(SocketAddr::new(to_ip, 0)));
    let address = listener.local_addr().expect("address");
    let mut asking = inside(from, || TcpStream::connect_timeout(&address, LOST));
    let (mut answering, _) = listener.accept().expect("connected");
    answering.set_read_timeout(Some(Duration::from_millis(100))).expect("socket");
    asking.set_read_timeout(Some(LOST)).expect("socket");
    let answers = Flow::start(format!("{name}, answers"), move |_| {
        let mut buffer = [0; 4096];
        loop {
            match answering.read(&mut buffer) {
                // The other side ends first.
                Ok(0) => return Ok(()),
                Ok(length) => answering.write_all(&buffer[..length]).map_err(|error| error.to_string())?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
    });
    let asks = Flow::start(name.to_owned(), move |number| {
        // More than a segment, of content that differs in each round.
        let sent: Vec<u8> = number.to_be_bytes().into_iter().cycle().take(4096).collect();
        let mut received = vec![0; sent.len()];
        asking.write_all(&sent).and_then(|()| asking.read_exact(&mut received)).map_err(|error| error.to_string())?;
        if received == sent { Ok(()) } else { Err("other bytes".to_owned()) }
    });
    [asks, answers]
}

/// Connections that are made anew all the time.
fn connections(name: &str, from: &Arc<NetNs>, to: &NetNs, to_ip: IpAddr) -> [Flow; 2] {
    let listener = inside(to, || TcpListener::bind(SocketAddr::new(to_ip, 0)));
    let address = listener.local_addr().expect("address");
    listener.set_nonblocking(true).expect("socket");
    let answers = Flow::start(format!("{name}, answers"), move |_| match listener.accept() {
        Ok((mut stream, _)) => {
            stream.set_nonblocking(false).map_err(|error| error.to_string())?;
            stream.write_all(b"hello").map_err(|error| error.to_string())
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.to_string()),
    });
    let netns = Arc::clone(from);
    let asks = Flow::start(name.to_owned(), move |_| {
        let connected = netns.run(|| TcpStream::connect_timeout(&address, LOST)).map_err(|error| error.to_string())?;
        let mut stream = connected.map_err(|error| format!("refused: {error}"))?;
        stream.set_read_timeout(Some(LOST)).map_err(|error| error.to_string())?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(|error| error.to_string())?;
        if text == "hello" { Ok(()) } else { Err(format!("{text:?}")) }
    });
    [asks, answers]
}

#[test]
fn restarts_lose_no_packet_and_reset_no_connection() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let pods = Pod::several(2);
    let ips: Vec<_> = pods.iter().map(|pod| pods::addresses(&pod.add(&node).ok())).collect();
    let (from, to) = (&pods[0].netns, &pods[1].netns);

    let mut flows = Vec::new();
    for (from_ip, to_ip) in ips[0].iter().copied().zip(ips[1].iter().copied()) {
        flows.extend(datagrams(&format!("datagrams to {to_ip}"), from, from_ip, to, to_ip));
        flows.extend(stream(&format!("stream to {to_ip}"), from, to, to_ip));
        flows.extend(connections(&format!("connections to {to_ip}"), from, to, to_ip));
        // The node's own stack takes another way: over cilium_host.
        let any = if to_ip.is_ipv4() { "0.0.0.0" } else { "::" }.parse().expect("an address");
        flows.extend(datagrams(&format!("datagrams from the node to {to_ip}"), &node.netns, any, to, to_ip));
    }
    let (asks, answers): (Vec<_>, Vec<_>) = flows.into_iter().partition(|flow| !flow.name.ends_with("answers"));
    for restart in 0..6 {
        if restart % 2 == 0 {
            node.kill();
        } else {
            assert!(node.terminate().success());
        }
        let before: Vec<u64> = asks.iter().map(Flow::rounds).collect();
        // Everything goes on without an agent; what has failed has ended and is told at the end.
        until("every flow goes on", || {
            asks.iter().zip(&before).all(|(flow, before)| flow.rounds() > *before + 3 || flow.thread.is_finished())
        });
        node.start();
        node.ready();
        Pod::new("late").add(&node).ok();
    }
    // Those that ask end first: who answers waits for more until nobody asks.
    for flow in asks.into_iter().chain(answers) {
        let name = flow.name.clone();
        eprintln!("{name}: {} rounds", flow.finish());
    }
}
