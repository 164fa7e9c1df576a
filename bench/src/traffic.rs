//! The traffic generator: sockets in two network namespaces, one thread each, for a bounded time.
//!
//! Own code instead of iperf3 or netperf, for four reasons: both ends are opened in the pods' namespaces, so that
//! nothing has to be installed in them; every single response time is kept, so percentiles are exact; CPU time is read
//! for exactly the threads that send and receive, from the first measured byte to the last; and all loads are bounded
//! and counted in the same way.

mod cpu;
mod latency;
mod packets;
mod sockets;
mod stream;
mod sys;

pub use sockets::congestion_control;

use std::{net::IpAddr, sync::Arc, time::Duration};

use kinesin_netlink::NetNs;

use crate::{
    BenchError,
    case::{Family, Load},
    metric::Figures,
    run::first_cpu,
};

/// Two pods: who asks and who answers.
#[derive(Debug)]
pub struct Path {
    /// The client's network namespace.
    pub client: Arc<NetNs>,
    /// Its device; segmentation is switched there.
    pub client_device: String,
    /// The server's network namespace.
    pub server: Arc<NetNs>,
    /// The server's IPv4 and IPv6 addresses.
    pub server_addresses: Vec<IpAddr>,
}

impl Path {
    fn to(&self, family: Family) -> Result<IpAddr, BenchError> {
        let found = self.server_addresses.iter().find(|address| address.is_ipv4() == (family == Family::V4));
        found.copied().ok_or_else(|| BenchError::Scene(format!("the server has no address of family {family:?}")))
    }
}

/// How long a run is and where it runs.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Before anything is measured: slow start, neighbours, caches.
    pub warm_up: Duration,
    /// What is measured.
    pub measured: Duration,
    /// CPUs of client and server; `None` leaves both to the scheduler.
    pub cpus: Option<(usize, usize)>,
}

impl Timing {
    /// Both ends on the client's CPU, or the first one where none is chosen.
    fn on_one_cpu(self) -> Self {
        let cpu = self.cpus.map(|(client, _)| client).or_else(first_cpu);
        Self { cpus: cpu.map(|cpu| (cpu, cpu)), ..self }
    }
}

/// Sends `load` along `path` once.
///
/// # Errors
/// `Traffic` when the two do not reach each other or nothing arrives.
pub fn run(load: Load, family: Family, path: &Path, timing: Timing) -> Result<Figures, BenchError> {
    let to = path.to(family)?;
    let what = || format!("{load:?} to {to}");
    let measured = match load {
        Load::TcpStream => stream::run(path, to, timing, stream::Segments::Offloaded),
        Load::TcpSegmented => {
            let _off = sys::SegmentationOff::on(&path.client, &path.client_device)
                .map_err(|source| BenchError::Traffic { what: what(), source })?;
            stream::run(path, to, timing, stream::Segments::Packets)
        }
        Load::Udp64 => packets::run(path, to, timing),
        Load::TcpRr => latency::tcp(path, to, timing),
        Load::UdpRr => latency::udp(path, to, timing),
        Load::TcpRrOneCpu => latency::tcp(path, to, timing.on_one_cpu()),
    };
    measured.map_err(|source| BenchError::Traffic { what: what(), source })
}
