//! One byte to and fro, one at a time; every response time is kept.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use super::{Path, Timing, sockets};
use crate::{
    metric::{Figures, Metric},
    stats::percentile_of_sorted,
};

pub(super) fn tcp(path: &Path, to: IpAddr, timing: Timing) -> io::Result<Figures> {
    let (listener, address) = sockets::listen(&path.server, to)?;
    thread::scope(|scope| {
        let server = scope.spawn(move || -> io::Result<()> {
            let mut stream = sockets::accept(&listener)?;
            sockets::settle(timing.cpus.map(|(_, server)| server))?;
            let mut byte = [0];
            // Ends with the client's end.
            while stream.read(&mut byte)? == 1 {
                stream.write_all(&byte)?;
            }
            Ok(())
        });
        let client = scope.spawn(move || -> io::Result<Figures> {
            let mut stream = sockets::connect_tcp(&path.client, address, None)?;
            sockets::settle(timing.cpus.map(|(client, _)| client))?;
            let mut byte = [0];
            ask(timing, || {
                stream.write_all(&byte)?;
                stream.read_exact(&mut byte)
            })
        });
        let figures = client.join().map_err(|_| io::Error::other("a thread panicked"))?;
        let served = server.join().map_err(|_| io::Error::other("a thread panicked"))?;
        let figures = figures?;
        served.map(|()| figures)
    })
}

pub(super) fn udp(path: &Path, to: IpAddr, timing: Timing) -> io::Result<Figures> {
    let server = sockets::open_udp(&path.server, to)?;
    server.set_read_timeout(Some(Duration::from_millis(50)))?;
    let client = sockets::connect_udp(&path.client, server.local_addr()?)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let echo = scope.spawn(move || echo(&server, stop, timing));
        let client = scope.spawn(move || -> io::Result<Figures> {
            sockets::settle(timing.cpus.map(|(client, _)| client))?;
            let mut byte = [0];
            ask(timing, || client.send(&byte).and_then(|_| client.recv(&mut byte)).map(|_| ()))
        });
        let figures = client.join().map_err(|_| io::Error::other("a thread panicked"));
        stop.store(true, Relaxed);
        let served = echo.join().map_err(|_| io::Error::other("a thread panicked"))?;
        let figures = figures??;
        served.map(|()| figures)
    })
}

fn echo(server: &UdpSocket, stop: &AtomicBool, timing: Timing) -> io::Result<()> {
    sockets::settle(timing.cpus.map(|(_, server)| server))?;
    let mut byte = [0];
    while !stop.load(Relaxed) {
        match server.recv_from(&mut byte) {
            Ok((_, from)) => _ = server.send_to(&byte, from)?,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Asks again and again; those of the warm-up are not counted.
fn ask(timing: Timing, mut once: impl FnMut() -> io::Result<()>) -> io::Result<Figures> {
    let mut micros = Vec::with_capacity(1 << 16);
    let warm = Instant::now() + timing.warm_up;
    let end = warm + timing.measured;
    loop {
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        once()?;
        if begun >= warm {
            micros.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    if micros.is_empty() {
        return Err(io::Error::new(ErrorKind::TimedOut, "no answer while it was measured"));
    }
    micros.sort_by(f64::total_cmp);
    Ok(vec![
        (Metric::RoundTripP50, percentile_of_sorted(&micros, 0.5)),
        (Metric::RoundTripP99, percentile_of_sorted(&micros, 0.99)),
    ])
}
