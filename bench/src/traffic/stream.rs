//! One TCP connection, as fast as it goes.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::IpAddr,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use super::{Path, Timing, cpu::Meter, sockets};
use crate::metric::{Figures, Metric};

/// Bytes of one write, as iperf3 has it.
const WRITE: usize = 128 * 1024;
/// RFC 9293 section 3.7.1: what every IPv4 host takes; a packet that costs as much as a large one and carries little.
const SMALL_SEGMENT_BYTES: u32 = 536;

/// Who cuts the stream into packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segments {
    /// Nobody on a veth path: buffers of up to 64 KB go through it whole.
    Offloaded,
    /// The sender's kernel, so that each segment passes the path by itself. The device must have offload switched off.
    Packets,
}

pub(super) fn run(path: &Path, to: IpAddr, timing: Timing, segments: Segments) -> io::Result<Figures> {
    let (listener, address) = sockets::listen(&path.server, to)?;
    let max_segment = (segments == Segments::Packets).then_some(SMALL_SEGMENT_BYTES);
    let (received, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (tell, threads) = mpsc::channel();
        let tell_server = tell.clone();
        let (received, stop) = (&received, &stop);
        let server = scope.spawn(move || -> io::Result<()> {
            let mut stream = sockets::accept(&listener)?;
            let _ = tell_server.send(sockets::settle(timing.cpus.map(|(_, server)| server))?);
            let mut buffer = vec![0; WRITE];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => received.fetch_add(count as u64, Relaxed),
                };
            }
        });
        let client = scope.spawn(move || -> io::Result<()> {
            let mut stream = sockets::connect_tcp(&path.client, address, max_segment)?;
            let _ = tell.send(sockets::settle(timing.cpus.map(|(client, _)| client))?);
            let buffer = vec![0; WRITE];
            while !stop.load(Relaxed) {
                match stream.write(&buffer) {
                    Ok(_) => {}
                    // The path is slow, not broken, if the server has read meanwhile; the count tells.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let measure = || -> io::Result<Figures> {
            let thread = || threads.recv_timeout(sockets::PATIENCE * 2).map_err(|_| io::Error::other("no connection"));
            let meter = Meter::new([thread()?, thread()?]);
            thread::sleep(timing.warm_up);
            let (bytes, begun) = (received.load(Relaxed), meter.read()?);
            thread::sleep(timing.measured);
            let (bytes, ended) = (received.load(Relaxed) - bytes, meter.read()?);
            let spent = begun.until(&ended);
            if bytes == 0 {
                return Err(io::Error::new(ErrorKind::TimedOut, "nothing arrived"));
            }
            let gigabytes = bytes as f64 / 1e9;
            Ok(vec![
                (Metric::Throughput, gigabytes * 8.0 / spent.elapsed),
                (Metric::CpuPerGb, spent.own / gigabytes),
                (Metric::MachineCpuPerGb, spent.machine / gigabytes),
            ])
        };
        let measured = measure();
        stop.store(true, Relaxed);
        // An end that could not even begin says more than the lack of figures.
        for end in [client, server] {
            end.join().map_err(|_| io::Error::other("a thread panicked"))??;
        }
        measured
    })
}
