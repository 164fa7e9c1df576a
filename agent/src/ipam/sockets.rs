//! Whether any socket of the node uses an address: a router address that one does must not be taken away.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// `TCP_TIME_WAIT` (Linux `include/net/tcp_states.h`): the connection is over, only its name is kept.
const TIME_WAIT: &str = "06";

/// Whether a socket in this process' network namespace is bound to the address, by TCP or UDP.
pub(crate) fn uses(address: IpAddr) -> io::Result<bool> {
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        match fs::read_to_string(format!("/proc/self/net/{table}")) {
            Ok(text) if names(&text, address) => return Ok(true),
            Ok(_) => {}
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Lines are `sl local_address rem_address st ...` (Linux `Documentation/networking/proc_net_tcp.rst`).
fn names(table: &str, address: IpAddr) -> bool {
    table.lines().skip(1).any(|line| {
        let mut cells = line.split_ascii_whitespace().skip(1);
        let (local, state) = (cells.next(), cells.nth(1));
        local.and_then(|cell| parse(cell.split(':').next()?)) == Some(address) && state != Some(TIME_WAIT)
    })
}

/// Words of 32 bits in the byte order of the machine, each as hexadecimal digits.
fn parse(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            let ip = Ipv6Addr::from(bytes);
            // A socket of both families has IPv4 peers under a mapped address.
            Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn bound_sockets_are_found_until_they_are_closed() {
        // Addresses of this machine's own loopback; another run of this test, which has another number, has another one.
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let four = IpAddr::V4(Ipv4Addr::new(127, a | 0x80, b, c.max(1)));
        let six: IpAddr = "::1".parse().expect("ip");
        assert!(!uses(four).expect("readable"));
        let udp = UdpSocket::bind((four, 0)).expect("bound");
        assert!(uses(four).expect("readable"));
        drop(udp);
        assert!(!uses(four).expect("readable"));
        if let Ok(tcp) = TcpListener::bind((six, 0)) {
            assert!(uses(six).expect("readable"));
            drop(tcp);
        }
    }

    #[test]
    fn connections_that_are_over_and_mapped_addresses() {
        let line =
            |address: &str, state: &str| format!("  sl  local_address\n   0: {address}:1F90 00000000:0000 {state} 0\n");
        let hex = |ip: Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(ip.octets()));
        let ip = Ipv4Addr::new(10, 0, 0, 7);
        assert!(names(&line(&hex(ip), "01"), IpAddr::V4(ip)));
        assert!(!names(&line(&hex(ip), "06"), IpAddr::V4(ip)));
        let mapped = format!("0000000000000000{:08X}{}", u32::from_ne_bytes([0, 0, 0xff, 0xff]), hex(ip));
        assert!(names(&line(&mapped, "01"), IpAddr::V4(ip)));
        assert!(!names("garbage\n:: x\n\n", IpAddr::V4(ip)));
    }
}
