//! Datagrams of 64 bytes, one system call each, as an application sends them.

use std::{
    io::{self, ErrorKind},
    net::IpAddr,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};

use super::{Path, Timing, cpu::Meter, sockets};
use crate::metric::{Figures, Metric};

const PAYLOAD: usize = 64;
/// Room for some tens of milliseconds of datagrams, so that a receiver that is off its CPU for a moment loses none.
const RECEIVE_BUFFER: usize = 16 << 20;

pub(super) fn run(path: &Path, to: IpAddr, timing: Timing) -> io::Result<Figures> {
    let server = sockets::open_udp(&path.server, to)?;
    setsockopt(&server, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    server.set_read_timeout(Some(Duration::from_millis(50)))?;
    let client = sockets::connect_udp(&path.client, server.local_addr()?)?;
    let (sent, received, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (tell, threads) = mpsc::channel();
        let tell_server = tell.clone();
        let (sent, received, stop) = (&sent, &received, &stop);
        let receiver = scope.spawn(move || -> io::Result<()> {
            let _ = tell_server.send(sockets::settle(timing.cpus.map(|(_, server)| server))?);
            let mut buffer = [0; PAYLOAD];
            while !stop.load(Relaxed) {
                match server.recv(&mut buffer) {
                    Ok(_) => _ = received.fetch_add(1, Relaxed),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let sender = scope.spawn(move || -> io::Result<()> {
            let _ = tell.send(sockets::settle(timing.cpus.map(|(client, _)| client))?);
            while !stop.load(Relaxed) {
                match client.send(&[0; PAYLOAD]) {
                    Ok(_) => _ = sent.fetch_add(1, Relaxed),
                    // A full queue drops; what arrives is what counts.
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::OutOfMemory) => {}
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let measure = || -> io::Result<Figures> {
            let thread = || threads.recv_timeout(sockets::PATIENCE).map_err(|_| io::Error::other("no thread"));
            let meter = Meter::new([thread()?, thread()?]);
            thread::sleep(timing.warm_up);
            let (out, got, begun) = (sent.load(Relaxed), received.load(Relaxed), meter.read()?);
            thread::sleep(timing.measured);
            let (out, got, ended) = (sent.load(Relaxed) - out, received.load(Relaxed) - got, meter.read()?);
            let spent = begun.until(&ended);
            if got == 0 {
                return Err(io::Error::new(ErrorKind::TimedOut, "nothing arrived"));
            }
            Ok(vec![
                (Metric::PacketRate, got as f64 / spent.elapsed / 1e3),
                (Metric::PacketsPerCore, got as f64 / spent.own / 1e3),
                (Metric::CpuPerPacket, spent.own * 1e6 / got as f64),
                (Metric::Loss, out.saturating_sub(got) as f64 / out.max(1) as f64 * 100.0),
            ])
        };
        let measured = measure();
        stop.store(true, Relaxed);
        for end in [sender, receiver] {
            end.join().map_err(|_| io::Error::other("a thread panicked"))??;
        }
        measured
    })
}
