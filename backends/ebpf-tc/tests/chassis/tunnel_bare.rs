//! Tunnels over uplinks without Ethernet header: two tun devices, whose packets the test carries from one to the other.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use kinesin_core::{
    routing::Path,
    values::{Carrier, Family},
};
use kinesin_netlink::Netlink;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    node::{Node, Ways},
    pod::{exchanges_tcp, exchanges_udp, pings},
    sys::make_tun,
    tunnels::{open_to, underlay},
};

/// The wire between two tun devices.
struct Wire {
    ends: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl Wire {
    fn between(one: File, other: File) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ends);
        let carrier = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let ready = [&one, &other].map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN));
                let _ = poll(&mut { ready }, PollTimeout::from(50_u8));
                carry(&one, &other);
                carry(&other, &one);
            }
        });
        Self { ends, carrier: Some(carrier) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

/// Carries over what there is; a device that is down or full loses it, as a wire does.
fn carry(mut from: &File, mut to: &File) {
    let mut packet = [0; 65_536];
    loop {
        match from.read(&mut packet) {
            Ok(length) => _ = to.write(&packet[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Gives a node its uplink, a tun device, before its first `apply`.
fn connect(node: &mut Node) -> File {
    node.spec.uplinks = vec!["tun0".to_owned()];
    let file = node.run(|_| {
        let options = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        let file = options().expect("tun devices");
        make_tun(&file, "tun0").expect("a tun device");
        file
    });
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(flags)).expect("without waiting");
    let addresses = node.spec.addresses.clone();
    node.block(move || async move {
        let netlink = Netlink::new().expect("socket");
        let index = netlink.link("tun0").await.expect("device").index;
        netlink.set_mtu(index, 1500).await.expect("MTU");
        for name in ["lo", "tun0"] {
            netlink.set_up(netlink.link(name).await.expect("device").index).await.expect("up");
        }
        for address in addresses {
            let length = if address.is_ipv4() { 24 } else { 64 };
            netlink.add_address(index, ipnet::IpNet::new(address, length).expect("length")).await.expect("address");
        }
    });
    file
}

fn pair(path: &'static str, under: Family) -> (Node, Node, Wire) {
    let (mut a, mut b) = (Node::new(1, Ways::Default), Node::new(2, Ways::Default));
    let wire = Wire::between(connect(&mut a), connect(&mut b));
    let paths = |to: &Node| -> Vec<Path> {
        let node = underlay(to, under);
        let path = |prefix| Path { prefix, node, carrier: Carrier::Vxlan, next_hop: None, mtu_bytes: None };
        to.spec.pod_cidrs.iter().copied().map(path).collect()
    };
    (a.paths, b.paths) = (paths(&b), paths(&a));
    let (of_a, of_b) = (a.spec.addresses.clone(), b.spec.addresses.clone());
    open_to(&mut a, &of_b);
    open_to(&mut b, &of_a);
    for node in [&mut a, &mut b] {
        node.spec.route_mtu_bytes = 1430;
        node.tunnel_path = path;
        node.restart();
    }
    (a, b, wire)
}

#[test]
fn an_uplink_without_ethernet_carries_tunnels_by_the_kernels_device() {
    for under in Family::ALL {
        let (mut a, mut b, _wire) = pair("auto", under);
        for node in [&a, &b] {
            let report = node.apply().expect("apply");
            let vxlan = report.tunnel_paths.iter().find(|found| found.carrier == Carrier::Vxlan).expect("VXLAN");
            assert_eq!((vxlan.uplink.as_str(), vxlan.path), ("tun0", "device"));
            assert_eq!(vxlan.reason, "it has no Ethernet header");
        }
        let (from, to) = (a.pod(10), b.pod(20));
        for family in Family::ALL {
            assert!(pings(&from.netns, to.ip(family)), "echo, {family} over {under}");
            assert!(exchanges_udp(&to.udp(family, 0), &from.udp(family, 0)), "UDP back, {family} over {under}");
            assert!(exchanges_tcp(&from.netns, &to.netns, to.ip(family)), "TCP, {family} over {under}");
        }
        for node in [&a, &b] {
            assert_eq!(node.drops(), []);
            assert_eq!(node.apply().expect("apply").changes, 0);
        }
    }
}
