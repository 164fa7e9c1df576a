//! One path, probed: small echoes, one as large as the path should carry, and the responder on TCP.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use kinesin_netlink::NetNs;
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    time::{Instant, timeout},
};

use super::echo::{Echo, EchoSocket, Lost};

/// How long an answer may take. Longer than any healthy network inside a cluster, and short beside the interval.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// The same for a connection and its answer: TCP sends a lost SYN again after one second (RFC 6298 section 2.1).
const HTTP_PATIENCE: Duration = Duration::from_secs(3);
/// Requests that must all be lost before a path is called broken (Cilium: `healthCheckICMPFailureThreshold`).
pub(crate) const ATTEMPTS: u16 = 3;
/// An echo as small as `ping`'s: any path carries it.
const SMALL_BYTES: u32 = 84;

/// What is to be probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) peer: IpAddr,
    pub(crate) port: u16,
    /// Bytes of the largest packet that the path should carry.
    pub(crate) mtu_bytes: u32,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Time of the first echo that was answered.
    pub(crate) icmp: Result<Duration, String>,
    /// Time until the responder had answered.
    pub(crate) http: Result<Duration, String>,
    /// Small echoes sent, and answered.
    pub(crate) sent: u32,
    pub(crate) answered: u32,
    pub(crate) large: Large,
}

/// What became of packets as large as the path should carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Large {
    /// They arrive, whole or, where somebody said what fits, in fragments.
    Carried,
    /// They vanish, and nobody says that they are too large.
    Vanish,
    /// Small ones are lost as well, or echoes cannot be sent.
    Unknown,
}

impl Outcome {
    /// Whether the path can be used at all.
    pub(crate) fn is_reachable(&self) -> bool {
        self.icmp.is_ok() || self.http.is_ok()
    }
}

/// Probes a path from a network namespace, or from the node's own.
pub(crate) async fn run(path: &Path, from: Option<&NetNs>) -> Outcome {
    let (echoes, http) = tokio::join!(echoes(path, from), fetch(path, from));
    let (icmp, sent, answered, large) = echoes;
    Outcome { icmp, http: http.map_err(|error| told(&error)), sent, answered, large }
}

async fn echoes(path: &Path, from: Option<&NetNs>) -> (Result<Duration, String>, u32, u32, Large) {
    let opened = opened_in(from, || EchoSocket::open(path.peer)).and_then(EchoSocket::watched);
    let echo = match opened {
        Ok(echo) => echo,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let reason = "the agent may not send echoes; give it the capability NET_RAW".to_owned();
            return (Err(reason), 0, 0, Large::Unknown);
        }
        Err(error) => return (Err(told(&error)), 0, 0, Large::Unknown),
    };
    let mut sequence = 0;
    let (icmp, sent) = ask(&echo, &mut sequence, SMALL_BYTES).await;
    let answered = u32::from(icmp.is_ok());
    let large = match &icmp {
        Err(_) => Large::Unknown,
        Ok(_) if ask(&echo, &mut sequence, path.mtu_bytes).await.0.is_ok() => Large::Carried,
        // Only if a small one still gets through: the path may have broken in between.
        Ok(_) if ask(&echo, &mut sequence, SMALL_BYTES).await.0.is_ok() => Large::Vanish,
        Ok(_) => Large::Unknown,
    };
    (icmp, sent, answered, large)
}

/// Asks until there is an answer; beside it, how often was asked.
async fn ask(echo: &Echo, sequence: &mut u16, bytes: u32) -> (Result<Duration, String>, u32) {
    let mut reason = String::new();
    let mut sent = 0;
    for _ in 0..ATTEMPTS {
        *sequence += 1;
        sent += 1;
        match echo.ask(*sequence, bytes, PATIENCE).await {
            Ok(time) => return (Ok(time), sent),
            Err(Lost::Silence) => reason = format!("no answer to {sent} echoes within {PATIENCE:?} each"),
            // After EMSGSIZE the kernel knows what fits and the next one goes in fragments: that path is no black hole.
            Err(Lost::Told(error)) => reason = told(&error),
        }
    }
    (Err(reason), sent)
}

/// Asks the responder for `/hello`.
async fn fetch(path: &Path, from: Option<&NetNs>) -> io::Result<Duration> {
    let domain = if path.peer.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = opened_in(from, || {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })?;
    let start = Instant::now();
    let exchange = async {
        let mut stream =
            TcpSocket::from_std_stream(socket.into()).connect(SocketAddr::new(path.peer, path.port)).await?;
        stream.write_all(b"GET /hello HTTP/1.0\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        if answer.starts_with(b"HTTP/1.") && answer.ends_with(b" 200") {
            Ok(start.elapsed())
        } else {
            Err(io::Error::new(ErrorKind::InvalidData, "something else than the responder of Kinesin listens there"))
        }
    };
    let late = || io::Error::new(ErrorKind::TimedOut, format!("no answer within {HTTP_PATIENCE:?}"));
    timeout(HTTP_PATIENCE, exchange).await.map_err(|_| late())?
}

fn opened_in<T: Send>(from: Option<&NetNs>, open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match from {
        Some(netns) => netns.run(open).map_err(io::Error::other)?,
        None => open(),
    }
}

/// The kernel's words without its number.
fn told(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        Path { peer: "127.0.0.1".parse().expect("an address"), port, mtu_bytes: 1500 }
    }

    async fn answering(text: &'static [u8]) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = [0; 64];
            let _ = stream.read(&mut request).await;
            stream.write_all(text).await.expect("written");
        });
        port
    }

    #[tokio::test]
    async fn only_the_responder_counts_as_an_answer() {
        let port = answering(b"HTTP/1.0 200 OK\r\n\r\n").await;
        assert!(fetch(&path(port), None).await.is_ok());
        let port = answering(b"SSH-2.0-something").await;
        let error = fetch(&path(port), None).await.expect_err("no responder");
        assert!(told(&error).contains("something else"), "{error}");
        let port = answering(b"HTTP").await;
        assert!(fetch(&path(port), None).await.is_err(), "an answer that ends too early");
    }

    #[tokio::test]
    async fn a_closed_port_is_told_in_the_kernels_words() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let error = fetch(&path(port), None).await.expect_err("closed");
        assert_eq!(told(&error), "Connection refused");
    }
}
