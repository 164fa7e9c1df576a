//! CHASSIS-3: the same state changes nothing, and what somebody altered is put back, in every way of attaching.

use std::{fs, io, path::Path};

use aya::maps::{HashMap, LpmTrie, Map, MapData, lpm_trie::Key};
use kinesin_abi::{DeviceValue, DropReason, EndpointKey, EndpointValue, IpcacheKey, IpcacheValue};
use kinesin_core::values::Family;
use kinesin_loader::Direction;
use kinesin_netlink::{Netlink, Sysctl};
use kinesin_packet::samples::packets::{draft, udp as datagram};
use libbpf_rs::Link;

use crate::{
    attachments::{ENDPOINT, delete_clsact, on_devices, take_filter},
    contract::{host_and_pod_reach_each_other, talk_in_every_way},
    node::{Node, Ways},
    outage::Stream,
    pod::{Pod, pings},
    watch::{NEW_FILTER, Watch},
};

#[test]
fn chassis_3_same_state_touches_nothing() {
    for ways in Ways::ALL {
        let mut node = Node::alone(ways);
        let pods = [node.pod(10), node.pod(11)];
        assert_eq!(node.apply().expect("apply").changes, 0, "attach had left nothing to do");
        let watch = Watch::of(&node);
        let before = on_devices(&node);
        for _ in 0..2 {
            assert_eq!(node.apply().expect("apply").changes, 0, "{ways:?}");
        }
        assert_eq!(watch.heard(), Vec::<u16>::new(), "{ways:?}");
        assert_eq!(on_devices(&node), before, "{ways:?}");
        // Had anything been replaced, it would have been heard or seen.
        node.spec.tunnel_ports.push(7000);
        assert_eq!(node.apply().expect("apply").changes, 7, "{ways:?}: a generation and six programs");
        let replaced = watch.heard().into_iter().filter(|kind| *kind == NEW_FILTER).count();
        assert_eq!(replaced, 6 - ways.links(), "{ways:?}");
        assert_ne!(on_devices(&node), before, "{ways:?}");
        drop(pods);
    }
}

/// What somebody may do to a node.
struct Damage {
    what: &'static str,
    /// Changes that undo it.
    changes: usize,
    inflict: fn(&Node, &Pod),
}

const fn damage(what: &'static str, changes: usize, inflict: fn(&Node, &Pod)) -> Damage {
    Damage { what, changes, inflict }
}

const DAMAGES: [Damage; 10] = [
    damage("entry of a device removed", 1, |node, pod| {
        let index = pod.endpoint.ifindex;
        in_hash(node, "KIN_DEVICES", move |map: &mut HashMap<MapData, u32, DeviceValue>| {
            map.remove(&index).expect("remove");
        });
    }),
    damage("identity of a device changed", 1, |node, pod| {
        let index = pod.endpoint.ifindex;
        in_hash(node, "KIN_DEVICES", move |map: &mut HashMap<MapData, u32, DeviceValue>| {
            let value = map.get(&index, 0).expect("entry");
            map.insert(index, DeviceValue { identity: value.identity + 1, ..value }, 0).expect("insert");
        });
    }),
    damage("all addresses removed, a foreign one added", 11, |node, _| {
        in_hash(node, "KIN_ENDPOINTS", |map: &mut HashMap<MapData, EndpointKey, EndpointValue>| {
            let keys: Vec<_> = map.keys().map(|key| key.expect("key")).collect();
            assert_eq!(keys.len(), 10, "of two pods, the node, its router and its broadcast addresses");
            keys.iter().for_each(|key| map.remove(key).expect("remove"));
            let foreign = EndpointKey { addr: [7; 4], ..keys[0] };
            map.insert(foreign, EndpointValue::default(), 0).expect("insert");
        });
    }),
    damage("prefixes removed", 2, |node, _| {
        in_map(node, "KIN_IPCACHE", |map| {
            let mut map: LpmTrie<_, IpcacheKey, IpcacheValue> = map.try_into().expect("a prefix table");
            let keys: Vec<Key<IpcacheKey>> = map.keys().map(|key| key.expect("key")).collect();
            keys.iter().for_each(|key| map.remove(key).expect("remove"));
        });
    }),
    damage("forwarding switched off", 2, |node, _| {
        node.run(|_| {
            for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                assert!(Sysctl::here().set(key, "0").expect("sysctl"));
            }
        });
    }),
    damage("sources checked against routes", 2, |node, pod| {
        let device = pod.endpoint.device.clone();
        node.run(move |_| {
            for device in ["all", "cilium_host", &device] {
                assert!(Sysctl::here().set(&format!("ipv4/conf/{device}/rp_filter"), "1").expect("sysctl"));
            }
        });
    }),
    damage("a device's MTU changed and the device set down", 2, |node, _| {
        node.block(|| async {
            let netlink = Netlink::new().expect("socket");
            let index = netlink.link("cilium_net").await.expect("device").index;
            netlink.set_mtu(index, 1400).await.expect("MTU");
            netlink.set_down(index).await.expect("down");
        });
    }),
    damage("pin of a table removed", 1, |node, _| {
        let pin = node.pins().join("maps/KIN_ENDPOINTS");
        node.run(move |_| fs::remove_file(pin).expect("remove"));
    }),
    damage("pin of another map in a table's place", 1, |node, _| {
        let maps = node.pins().join("maps");
        node.run(move |_| {
            fs::remove_file(maps.join("KIN_DEVICES")).expect("remove");
            let other = MapData::from_pin(maps.join("KIN_METRICS")).expect("pin");
            other.pin(maps.join("KIN_DEVICES")).expect("pin");
        });
    }),
    damage("pin of the slots removed", 7, |node, _| {
        let pins = node.pins();
        node.run(move |_| {
            let slots = fs::read_dir(pins).expect("pins").map(|entry| entry.expect("entry").path().join("KIN_SLOTS"));
            let slots: Vec<_> = slots.filter(|path| path.exists()).collect();
            assert_eq!(slots.len(), 1, "one generation");
            fs::remove_file(&slots[0]).expect("remove");
        });
    }),
];

#[test]
fn chassis_3_tables_pins_and_sysctls_are_put_back() {
    for ways in Ways::ALL {
        let mut node = Node::alone(ways);
        let (a, b) = (node.pod(10), node.pod(11));
        for Damage { what, changes, inflict } in DAMAGES {
            inflict(&node, &a);
            assert_eq!(node.apply().expect("apply").changes, changes, "{ways:?}: {what}");
            assert_eq!(node.apply().expect("apply").changes, 0, "{ways:?}: {what}");
            for family in Family::ALL {
                assert!(pings(&a.netns, b.ip(family)), "{ways:?}: {what}: pod to pod over {family}");
                assert!(pings(&node.netns, a.ip(family)), "{ways:?}: {what}: node to pod over {family}");
            }
        }
        let key = format!("ipv4/conf/{}/rp_filter", a.endpoint.device);
        assert_eq!(node.run(move |_| Sysctl::here().read(&key).expect("sysctl")), "0");
    }
}

#[test]
fn chassis_3_a_change_of_one_node_writes_its_prefixes_alone_and_what_others_removed_is_put_back() {
    let mut node = Node::alone(Ways::Default);
    let path = |number: u8| kinesin_core::routing::Path {
        prefix: format!("10.199.{number}.0/24").parse().expect("a network"),
        node: [192, 168, 10, number].into(),
        carrier: kinesin_core::values::Carrier::Native,
        next_hop: None,
        mtu_bytes: None,
    };
    node.paths = vec![path(1), path(2)];
    assert_eq!(node.apply().expect("apply").changes, 2);
    for (what, changed) in [("one comes", vec![path(1), path(2), path(3)]), ("one goes", vec![path(1), path(2)])] {
        in_map(&node, "KIN_IPCACHE", |map| {
            let mut map: LpmTrie<_, IpcacheKey, IpcacheValue> = map.try_into().expect("a prefix table");
            let keys = map.keys().map(|key| key.expect("key"));
            let is_first = |key: &Key<IpcacheKey>| key.data().addr[0].to_ne_bytes() == [10, 199, 1, 0];
            let first: Vec<_> = keys.filter(is_first).collect();
            assert_eq!(first.len(), 1);
            map.remove(&first[0]).expect("remove");
        });
        node.paths = changed;
        assert_eq!(node.apply().expect("apply").changes, 1, "{what}: the others are taken to be there");
        assert_eq!(node.apply().expect("apply").changes, 1, "{what}: the same state again is a repair");
        assert_eq!(node.apply().expect("apply").changes, 0, "{what}");
    }
}

#[test]
fn chassis_3_pins_are_put_back_without_loss_and_serve_the_next_agent() {
    for ways in Ways::ALL {
        let mut node = Node::alone(ways);
        let (a, b) = (node.pod(10), node.pod(11));
        let streams = Family::ALL.map(|family| Stream::start(&a, &b, family));
        let counted = node.counted(kinesin_abi::FORWARDED);
        // Everything but the links, whose programs leave their devices with their pins.
        let (maps, pins) = (node.pins().join("maps"), node.pins());
        node.run(move |_| {
            remove_files(&maps).expect("remove");
            fs::remove_dir(maps).expect("remove");
            for entry in fs::read_dir(pins).expect("pins").map(|entry| entry.expect("entry").path()) {
                if entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gen-")) {
                    remove_files(&entry).expect("remove");
                    fs::remove_dir(entry).expect("remove");
                }
            }
        });
        assert_eq!(node.apply().expect("apply").changes, 15, "{ways:?}: eight maps, a generation, six programs");
        assert_eq!(node.apply().expect("apply").changes, 0, "{ways:?}");
        node.restart();
        assert!(node.apply().expect("apply").failed.is_empty());
        for stream in streams {
            let (sent, arrived) = stream.end();
            assert_eq!(arrived, sent, "{ways:?}: {:?}", node.drops());
        }
        assert!(node.counted(kinesin_abi::FORWARDED) > counted, "{ways:?}: the next agent has the same counters");
    }
}

#[test]
fn chassis_3_filters_and_links_that_somebody_removed_are_put_back() {
    for ways in Ways::ALL {
        let mut node = Node::alone(ways);
        let (a, b) = (node.pod(10), node.pod(11));
        let links = node.pins().join("links");
        let removed = links.clone();
        node.run(move |_| remove_files(&removed).expect("remove"));
        assert_eq!(node.apply().expect("apply").changes, ways.links(), "{ways:?}: links without a pin");
        node.run(move |_| {
            for entry in fs::read_dir(links).expect("links") {
                // The pin stays, and what it holds leads nowhere.
                Link::open(entry.expect("entry").path()).expect("pin").detach().expect("detach");
            }
        });
        assert_eq!(node.apply().expect("apply").changes, ways.links(), "{ways:?}: links that were detached");
        if ways != Ways::Links {
            let device = a.endpoint.device.clone();
            assert!(take_filter(&node, &device, Direction::Ingress, "from_container"));
            assert_eq!(node.apply().expect("apply").changes, 1, "{ways:?}: one filter");
            talk_in_every_way(&a, &b);
            delete_clsact(&node, a.endpoint.ifindex);
            for (program, direction) in ENDPOINT {
                assert!(!take_filter(&node, &device, direction, program), "{program} went with the qdisc");
            }
            assert_eq!(node.apply().expect("apply").changes, 2, "{ways:?}: both filters");
        }
        assert_eq!(node.apply().expect("apply").changes, 0, "{ways:?}");
        talk_in_every_way(&a, &b);
        host_and_pod_reach_each_other(&node, &a);
        // What the programs are for: a pod cannot use the address of another.
        let foreign = draft(&b.ip(Family::V4).to_string(), "192.168.10.101", 17, datagram(1, 2, 8)).bytes();
        let before = node.counted(DropReason::InvalidSource as u8);
        a.send_frame(&foreign);
        assert_eq!(node.counted(DropReason::InvalidSource as u8), before + 1);
    }
}

#[test]
fn chassis_3_addresses_routes_and_devices_of_the_node_are_put_back() {
    let mut node = Node::alone(Ways::Default);
    let a = node.pod(10);
    node.block(|| async {
        let netlink = Netlink::new().expect("socket");
        let host = netlink.link("cilium_host").await.expect("cilium_host").index;
        for route in netlink.routes().await.expect("list").iter().filter(|route| route.dev == host) {
            netlink.delete_route(route).await.expect("remove");
        }
        for address in netlink.addresses_of(host).await.expect("list") {
            netlink.delete_address(host, address).await.expect("remove");
        }
    });
    assert!(node.apply().expect("apply").changes >= 5, "two addresses, three routes");
    assert_eq!(node.apply().expect("apply").changes, 0);
    host_and_pod_reach_each_other(&node, &a);

    node.block(|| async {
        let netlink = Netlink::new().expect("socket");
        assert!(netlink.delete_link_by_name("cilium_host").await.expect("remove"));
    });
    assert!(node.apply().expect("apply").changes > 0);
    assert_eq!(node.apply().expect("apply").changes, 0);
    host_and_pod_reach_each_other(&node, &a);
}

fn remove_files(directory: &Path) -> io::Result<()> {
    fs::read_dir(directory)?.try_for_each(|entry| fs::remove_file(entry?.path()))
}

/// Works on a pinned map of the node.
fn in_map(node: &Node, name: &str, work: impl FnOnce(Map) + Send + 'static) {
    let pin = node.pins().join("maps").join(name);
    node.run(move |_| work(Map::from_map_data(MapData::from_pin(pin).expect("pin")).expect("map")));
}

/// Works on a pinned hash table of the node.
fn in_hash<K: aya::Pod, V: aya::Pod>(
    node: &Node,
    name: &str,
    work: impl FnOnce(&mut HashMap<MapData, K, V>) + Send + 'static,
) {
    in_map(node, name, |map| work(&mut map.try_into().expect("a hash table")));
}
