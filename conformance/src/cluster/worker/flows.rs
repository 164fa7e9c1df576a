//! Traffic that goes on while something is disturbed, and what was lost of it.

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    ask::ask,
    socket::{Room, in_time},
};

/// A datagram every so often.
const PACE: Duration = Duration::from_millis(2);
/// A new connection every so often.
const CONNECT: Duration = Duration::from_millis(20);
/// Exchanges a second over all connections of a flow that stay open: a thousand of them share the processors with the
/// cluster.
const EXCHANGES: u32 = 500;
/// How long the last answers may take.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// An open connection that is answered later than this stands still.
const STALL: Duration = Duration::from_secs(10);
/// Connections that are made at once.
const AT_ONCE: usize = 32;
/// Reasons that are kept; the rest is only counted.
const TOLD: usize = 3;

/// One flow: datagrams at a steady pace, connections that stay open, and connections that are made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSpec {
    /// How it is told: `a on n1 to b on n2, IPv4`.
    pub name: String,
    /// Where TCP is answered.
    pub tcp: SocketAddr,
    /// Where UDP is answered.
    pub udp: SocketAddr,
    /// The mark that answers must have.
    pub key: u8,
    /// Connections that stay open.
    pub connections: usize,
}

/// What came of one flow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that nobody answered.
    pub lost: u64,
    /// Connections that stayed open.
    pub kept: u64,
    /// Questions answered on them.
    pub answered: u64,
    /// Connections that were made anew and answered.
    pub connected: u64,
    /// Connections that were reset.
    pub reset: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Connections that ended, stood still or were not made for another reason.
    pub broken: u64,
    /// The first reasons of those three.
    pub reasons: Vec<String>,
    /// The longest time between a question and its answer on an open connection, in milliseconds.
    pub longest_pause_ms: u64,
    /// Segments that the senders' TCP sent again, for whatever reason; a busy machine makes it do so as well.
    pub retransmitted: u64,
}

impl Count {
    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.kept += other.kept;
        self.answered += other.answered;
        self.connected += other.connected;
        self.reset += other.reset;
        self.refused += other.refused;
        self.broken += other.broken;
        self.reasons.extend(other.reasons);
        self.reasons.truncate(TOLD);
        self.longest_pause_ms = self.longest_pause_ms.max(other.longest_pause_ms);
        self.retransmitted += other.retransmitted;
    }

    /// Whether nothing was lost and no connection broke.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.reset == 0 && self.refused == 0 && self.broken == 0
    }

    fn failed(&mut self, what: &str, error: &io::Error) {
        *match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => &mut self.reset,
            ErrorKind::ConnectionRefused => &mut self.refused,
            _ => &mut self.broken,
        } += 1;
        if self.reasons.len() < TOLD {
            self.reasons.push(format!("{what}: {error}"));
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, lost, kept, answered, connected, reset, refused, broken, .. } = self;
        write!(
            f,
            "{lost} of {sent} datagrams lost; {reset} connections reset, {refused} refused, {broken} broken otherwise, \
             of {kept} open ones ({answered} answers, the slowest after {} ms, {} segments sent again) and {connected} \
             made anew",
            self.longest_pause_ms, self.retransmitted
        )
    }
}

/// Flows of one place that run until they are stopped.
#[derive(Debug)]
pub(super) struct Flows {
    stop: watch::Sender<bool>,
    /// With the index of the flow.
    parts: JoinSet<(usize, Count)>,
    flows: usize,
    retransmitted: u64,
}

impl Flows {
    /// Begins; each connection and the datagrams were answered once when this returns, so that what is lost later is not
    /// a beginning that failed.
    pub(super) async fn start(room: &Arc<Room>, specs: &[FlowSpec]) -> Result<Self, String> {
        let (stop, stopped) = watch::channel(false);
        let mut parts = JoinSet::new();
        for (flow, spec) in specs.iter().enumerate() {
            let failed = |error: io::Error| format!("{}, before anything was disturbed: {error}", spec.name);
            let opened = (0..spec.connections).map(|_| open(room, spec));
            let streams: Vec<TcpStream> =
                stream::iter(opened).buffer_unordered(AT_ONCE).try_collect().await.map_err(failed)?;
            let socket = room.udp_to(spec.udp).map_err(failed)?;
            socket.send(b"ready").await.map_err(failed)?;
            in_time(STALL, socket.recv(&mut [0; 8])).await.map_err(failed)?;
            let pace =
                PACE.max(Duration::from_secs(1) * u32::try_from(spec.connections).unwrap_or(u32::MAX) / EXCHANGES);
            for stream in streams {
                let stopped = stopped.clone();
                parts.spawn(async move { (flow, keep(stream, pace, stopped).await) });
            }
            let (key, until) = (spec.key, stopped.clone());
            parts.spawn(async move { (flow, datagrams(&socket, key, until).await) });
            let (room, tcp, until) = (Arc::clone(room), spec.tcp, stopped.clone());
            parts.spawn(async move { (flow, reconnect(&room, tcp, key, until).await) });
        }
        Ok(Self { stop, parts, flows: specs.len(), retransmitted: room.retransmitted() })
    }

    /// Ends them; one count for each flow.
    pub(super) async fn stop(mut self, room: &Room) -> Result<Vec<Count>, String> {
        // All parts may have ended already.
        let _ = self.stop.send(true);
        let mut counts = vec![Count::default(); self.flows];
        while let Some(ended) = self.parts.join_next().await {
            let (flow, count) = ended.map_err(|error| format!("a flow ended early: {error}"))?;
            counts[flow].add(count);
        }
        // The kernel counts for the whole place.
        if let Some(first) = counts.first_mut() {
            first.retransmitted = room.retransmitted().saturating_sub(self.retransmitted);
        }
        Ok(counts)
    }
}

async fn open(room: &Room, spec: &FlowSpec) -> io::Result<TcpStream> {
    let mut stream = room.connect(spec.tcp).await?;
    exchange(&mut stream, 0).await?;
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let mut answer = [0; 8];
    in_time(STALL, async {
        stream.write_all(&number.to_be_bytes()).await?;
        stream.read_exact(&mut answer).await
    })
    .await?;
    Ok(())
}

/// Numbered datagrams at a steady pace, whether they are answered or not.
async fn datagrams(socket: &UdpSocket, key: u8, mut stop: watch::Receiver<bool>) -> Count {
    let mut count = Count::default();
    let mut open: BTreeSet<u64> = BTreeSet::new();
    let mut buffer = [0; 64];
    let number = |bytes: &[u8]| Some(u64::from_be_bytes(<[u8; 8]>::try_from(bytes).ok()?.map(|byte| byte ^ key)));
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            _ = ticks.tick() => {
                // A datagram that the kernel refuses is lost as well.
                let _ = socket.send(&count.sent.to_be_bytes()).await;
                open.insert(count.sent);
                count.sent += 1;
            }
            heard = socket.recv(&mut buffer) => {
                if let Some(number) = heard.ok().and_then(|length| number(&buffer[..length])) {
                    open.remove(&number);
                }
            }
        }
    }
    let stragglers = async {
        while !open.is_empty() {
            if let Some(number) = socket.recv(&mut buffer).await.ok().and_then(|length| number(&buffer[..length])) {
                open.remove(&number);
            }
        }
    };
    let _ = timeout(STRAGGLERS, stragglers).await;
    count.lost = open.len() as u64;
    count
}

/// Question and answer on one connection.
async fn keep(mut stream: TcpStream, pace: Duration, mut stop: watch::Receiver<bool>) -> Count {
    let mut count = Count { kept: 1, ..Count::default() };
    while !*stop.borrow() {
        let asked = Instant::now();
        if let Err(error) = exchange(&mut stream, count.answered).await {
            count.failed(&format!("an open connection, after {} answers", count.answered), &error);
            return count;
        }
        let took = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        count.longest_pause_ms = count.longest_pause_ms.max(took);
        count.answered += 1;
        let _ = timeout(pace, stop.changed()).await;
    }
    count
}

/// New connections, one after the other.
async fn reconnect(room: &Room, to: SocketAddr, key: u8, mut stop: watch::Receiver<bool>) -> Count {
    let mut count = Count::default();
    while !*stop.borrow() {
        match ask(room, &super::Ask::Tcp { to, key, seed: count.connected, length: 8 }).await {
            Ok(_) => count.connected += 1,
            Err(error) => count.failed("a new connection", &error),
        }
        let _ = timeout(CONNECT, stop.changed()).await;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Ends, echo},
        *,
    };

    const KEY: u8 = 9;

    async fn run(meanwhile: impl FnOnce(&mut JoinSet<()>)) -> Count {
        let room = Arc::new(Room(None));
        let mut echoes = JoinSet::new();
        let Ends { tcp, udp } = echo::listen(&room, [127, 0, 0, 1].into(), KEY, &mut echoes).expect("listening");
        let spec = FlowSpec { name: "here".to_owned(), tcp, udp, key: KEY, connections: 5 };
        let flows = Flows::start(&room, &[spec]).await.expect("started");
        tokio::time::sleep(Duration::from_millis(150)).await;
        meanwhile(&mut echoes);
        tokio::time::sleep(Duration::from_millis(150)).await;
        let mut counts = flows.stop(&room).await.expect("stopped");
        assert_eq!(counts.len(), 1);
        counts.remove(0)
    }

    #[tokio::test]
    async fn what_is_answered_is_not_lost() {
        let count = run(|_| {}).await;
        assert!(count.is_clean(), "{count}: {:?}", count.reasons);
        assert!(count.sent > 10 && count.answered > 10 && count.connected > 1 && count.kept == 5, "{count}");
    }

    #[tokio::test]
    async fn what_is_not_answered_is_counted() {
        let count = run(|echoes| echoes.abort_all()).await;
        assert!(count.lost > 0 && count.lost < count.sent, "{count}");
        assert!(count.refused > 0 && count.reset + count.broken >= 5 && !count.is_clean(), "{count}");
        assert_eq!(count.reasons.len(), TOLD);
    }

    #[tokio::test]
    async fn flow_that_nobody_answers_does_not_begin() {
        let spec = FlowSpec {
            name: "a to b".to_owned(),
            tcp: "127.0.0.1:1".parse().expect("an address"),
            udp: "127.0.0.1:1".parse().expect("an address"),
            key: KEY,
            connections: 1,
        };
        let refused = Flows::start(&Arc::new(Room(None)), &[spec]).await.expect_err("refused");
        assert!(refused.contains("a to b") && refused.contains("before anything"), "{refused}");
    }
}
