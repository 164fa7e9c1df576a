//! Sockets in pods, and threads on CPUs.

use std::{
    ffi::OsString,
    fs, io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

use kinesin_netlink::NetNs;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt},
    unistd::{Pid, gettid},
};

/// What connections use: cubic, Linux' default, or the machine's own where that is not to be had.
#[must_use]
pub fn congestion_control() -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    if read("tcp_available_congestion_control").split_ascii_whitespace().any(|found| found == "cubic") {
        return "cubic".to_owned();
    }
    read("tcp_congestion_control").trim().to_owned()
}

/// No system call waits longer: a path that breaks ends the run with an error instead of holding it up.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn listen(netns: &NetNs, at: IpAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = netns.run(|| TcpListener::bind((at, 0))).map_err(io::Error::other)??;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Accepts one connection within [`PATIENCE`].
pub(super) fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd as _;
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?;
    if poll(&mut ready, timeout)? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody connected"));
    }
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects from a pod; the maximum segment, if given, is announced with the first packet.
pub(super) fn connect_tcp(netns: &NetNs, to: SocketAddr, max_segment: Option<u32>) -> io::Result<TcpStream> {
    let open = || -> io::Result<TcpStream> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        if let Some(bytes) = max_segment {
            setsockopt(&fd, sockopt::TcpMaxSeg, &bytes)?;
        }
        // One that paces, such as bbr, would measure its own model of the path instead of what the path costs.
        setsockopt(&fd, sockopt::TcpCongestion, &OsString::from(congestion_control()))?;
        // SO_SNDTIMEO bounds connect as well (socket(7)).
        let stream = TcpStream::from(fd);
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        connect(stream.as_raw_fd(), &SockaddrStorage::from(to))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    netns.run(open).map_err(io::Error::other)?
}

pub(super) fn open_udp(netns: &NetNs, at: IpAddr) -> io::Result<UdpSocket> {
    let socket = netns.run(|| UdpSocket::bind((at, 0))).map_err(io::Error::other)??;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// A client's socket, connected to a server's.
pub(super) fn connect_udp(netns: &NetNs, to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let open = || UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(to).map(|()| socket));
    let socket = netns.run(open).map_err(io::Error::other)??;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Ties the calling thread to a CPU and tells its number.
pub(super) fn settle(cpu: Option<usize>) -> io::Result<Pid> {
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &set)?;
    }
    Ok(gettid())
}
