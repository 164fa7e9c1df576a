//! ADD and CHECK of pods that work.

use std::time::{Duration, Instant};

use kinesin_netlink::{NetNs, Netlink, Sysctl, VethSpec, has_feature};
use serde_json::{Value, json};

use crate::node::{CONTAINER, Node, pod};

fn link_named(node: &Node, netns: &NetNs, name: &str) -> kinesin_netlink::Link {
    node.links(netns).into_iter().find(|link| link.name == name).unwrap_or_else(|| panic!("no device {name}"))
}

#[test]
fn added_pod_reaches_its_gateways_over_both_families() {
    let node = Node::new();
    let (netns, path) = pod();
    // What some runtimes hand out.
    Sysctl::of(&netns).set("ipv6/conf/all/disable_ipv6", "1").expect("sysctl");
    Sysctl::of(&node.netns).set("ipv4/conf/default/rp_filter", "1").expect("sysctl");
    let outcome = node.command("ADD", &path, json!({}));
    let result = outcome.ok();
    assert_eq!(outcome.stderr, "");
    assert_eq!(result["interfaces"][1]["sandbox"], path);
    assert_eq!(result["ips"][0]["address"], "10.1.0.101/32");
    assert_eq!(result["ips"][1]["address"], "fd00:1::1:1/128");

    let host = link_named(&node, &node.netns, result["interfaces"][0]["name"].as_str().expect("name"));
    let inside = link_named(&node, &netns, "eth0");
    assert_eq!((host.up, inside.up, host.mtu, inside.mtu), (true, true, 1480, 1480));
    assert!(link_named(&node, &netns, "lo").up);
    assert_eq!(Sysctl::of(&node.netns).read(&format!("ipv4/conf/{}/rp_filter", host.name)).expect("read"), "0");
    let routes = node.block_on(async { Netlink::in_netns(&netns).expect("socket").routes().await.expect("routes") });
    let mtus: Vec<_> = routes.iter().filter(|route| route.dst.prefix_len() == 0).map(|route| route.mtu).collect();
    assert_eq!(mtus, [Some(1430), Some(1430)]);
    let switched = || kinesin_netlink::switch_features("eth0", &["tx-udp-segmentation"], false);
    assert!(!netns.run(switched).expect("inside").expect("switched"), "the agent asked for it, and it is off already");
    assert_eq!(node.connect_from(&netns, &result), 2);

    let shared = node.agent().shared();
    let spec = &shared.endpoints.values().next().expect("endpoint").spec;
    assert_eq!((&*spec.k8s_namespace, &*spec.k8s_pod_name, &*spec.k8s_uid), ("default", "web-0", "u-1"));
    assert_eq!((&*spec.container_id, &*spec.container_netns_path), (CONTAINER, &*path));
    assert_eq!(spec.netns_cookie, netns.cookie().expect("cookie"));
    assert_eq!(shared.up_at_put, Some(false), "the host end is down until its datapath is complete");
}

#[test]
fn repeated_add_gives_the_same_answer_and_the_same_devices() {
    let node = Node::new();
    let (netns, path) = pod();
    let first = node.command("ADD", &path, json!({})).ok();
    let before = (node.links(&node.netns), node.links(&netns));
    assert_eq!(node.command("ADD", &path, json!({})).ok(), first);
    assert_eq!((node.links(&node.netns), node.links(&netns)), before);
    assert_eq!(node.connect_from(&netns, &first), 2);
}

/// MTU of the pod's device and of its default routes, of its host end, and whether it makes UDP superpackets.
fn told(node: &Node, netns: &NetNs) -> (u32, Vec<Option<u32>>, u32, bool) {
    let (device, routes) = node.block_on(async {
        let inside = Netlink::in_netns(netns).expect("socket");
        let routes = inside.routes().await.expect("routes").into_iter().filter(|route| route.dst.prefix_len() == 0);
        (inside.link("eth0").await.expect("eth0"), routes.map(|route| route.mtu).collect())
    });
    let host = node.links(&node.netns).into_iter().find(|link| Some(link.index) == device.peer_index);
    let superpackets = netns.run(|| has_feature("eth0", "tx-udp-segmentation")).expect("enter").expect("asked");
    (device.mtu, routes, host.expect("host end").mtu, superpackets)
}

#[test]
fn repeated_add_does_not_undo_what_the_agent_changes_meanwhile() {
    let node = Node::new();
    let (netns, path) = pod();
    let first = node.command("ADD", &path, json!({})).ok();
    assert_eq!(node.agent().shared().requests.len(), 1, "a new pod is changed by nobody else");
    assert_eq!(told(&node, &netns), (1480, vec![Some(1430); 2], 1480, false));
    // Right after it has answered, the agent takes the pod to another carrier, once or twice: what the plugin writes then is
    // what the pod had before. The last one comes first.
    for changes in [vec![(1400, 1400, false)], vec![(1300, 1230, true), (1500, 1500, false)]] {
        let (device, route, no_superpackets) = changes[0];
        node.agent().shared().changes = changes;
        let again = node.command("ADD", &path, json!({})).ok();
        assert_eq!((&again["ips"], &again["interfaces"][1]["mtu"]), (&first["ips"], &json!(device)));
        assert_eq!(told(&node, &netns), (device, vec![Some(route); 2], device, !no_superpackets));
    }
    assert_eq!(node.connect_from(&netns, &first), 2);

    // One that never settles is told, and the pod stays as it is.
    node.agent().shared().changes = (0..40).map(|number| (1400 + number, 1400, true)).collect();
    let error = node.command("ADD", &path, json!({})).error(11);
    assert!(error.contains("changed the pod's network 8 times"), "{error}");
    assert_eq!(node.connect_from(&netns, &first), 2);
}

#[test]
fn interrupted_add_is_completed_by_the_next_one() {
    let node = Node::new();
    let (netns, path) = pod();
    let name = node.command("ADD", &path, json!({})).ok()["interfaces"][0]["name"].as_str().expect("name").to_owned();
    // As if the first plugin had been killed after the pair: no endpoint, both ends down, no addresses.
    node.agent().shared().endpoints.clear();
    node.block_on(async {
        let netlink = Netlink::in_netns(&node.netns).expect("socket");
        netlink.delete_link_by_name(&name).await.expect("delete");
        let spec =
            VethSpec { name: &name, mac: None, peer_name: "eth0", peer_mac: None, peer_netns: Some(&netns), mtu: None };
        netlink.add_veth(&spec).await.expect("pair");
    });
    let result = node.command("ADD", &path, json!({})).ok();
    assert_eq!(node.connect_from(&netns, &result), 2);
}

#[test]
fn host_end_of_a_lost_namespace_and_its_endpoint_are_made_anew() {
    let node = Node::new();
    let (_old, old_path) = pod();
    node.command("ADD", &old_path, json!({})).ok();
    // The same attachment in another namespace: the old host end and the agent's endpoint are both stale.
    let (netns, path) = pod();
    let result = node.command("ADD", &path, json!({})).ok();
    assert_eq!(node.host_ends().len(), 1);
    assert_eq!(node.connect_from(&netns, &result), 2);
    let requests = node.agent().shared().requests.clone();
    let id = format!("cni-attachment-id:{CONTAINER}:eth0");
    let put = format!("PUT {id}");
    assert_eq!(requests, [put.clone(), put.clone(), format!("DELETE {CONTAINER}:eth0"), put]);
    assert_eq!(node.agent().shared().endpoints[&id].spec.netns_cookie, netns.cookie().expect("cookie"));
}

#[test]
fn mac_that_the_agent_chose_is_set_and_answered() {
    let node = Node::new();
    let (netns, path) = pod();
    node.agent().shared().mac = Some("02:aa:bb:cc:dd:ee".to_owned());
    let result = node.command("ADD", &path, json!({})).ok();
    assert_eq!(result["interfaces"][1]["mac"], "02:aa:bb:cc:dd:ee");
    assert_eq!(link_named(&node, &netns, "eth0").mac, [0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]);
    node.command("CHECK", &path, json!({"prevResult": result})).ok();
}

#[test]
fn single_family_pods_get_only_their_family() {
    for (address, gateway) in [("10.1.0.7", "10.1.0.1"), ("fd00:1::7", "fd00:1::1")] {
        let node = Node::new();
        let (netns, path) = pod();
        Sysctl::of(&netns).set("ipv6/conf/all/disable_ipv6", "1").expect("sysctl");
        node.agent().shared().networking = Some(kinesin_agent_api::EndpointNetworking {
            addressing: vec![kinesin_agent_api::AddressPair { ip: address.parse().expect("ip"), pool: "p".into() }],
            gateways: vec![gateway.parse().expect("ip")],
            gateway_mac: String::new(),
            device_mtu: 1500,
            route_mtu: 1500,
            no_udp_segmentation: false,
        });
        let result = node.command("ADD", &path, json!({"mtu": 1400})).ok();
        assert_eq!(node.connect_from(&netns, &result), 1);
        let switched = || kinesin_netlink::switch_features("eth0", &["tx-udp-segmentation"], false);
        assert!(netns.run(switched).expect("inside").expect("switched"), "the agent did not ask for it, and it was on");
        assert_eq!(result["interfaces"][1]["mtu"], 1400);
        let off = Sysctl::of(&netns).read("ipv6/conf/all/disable_ipv6").expect("read");
        assert_eq!(off == "1", address.contains('.'), "IPv6 stays off in a pod without an IPv6 address");
    }
}

#[test]
fn interface_names_with_unusual_characters_work() {
    let node = Node::new();
    let (_netns, path) = pod();
    let name = "a?b#c\u{e4}";
    let env = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", name), ("CNI_NETNS", &path)];
    let result = node.run(&env, &crate::node::config(json!({}))).ok();
    assert_eq!(result["interfaces"][1]["name"], name);
    let id = format!("cni-attachment-id:c1:{name}");
    assert!(node.agent().shared().endpoints.contains_key(&id));
}

#[test]
fn check_passes_after_add_and_names_what_is_lost() {
    let node = Node::new();
    let (netns, path) = pod();
    let result = node.command("ADD", &path, json!({})).ok();
    let check = || node.command("CHECK", &path, json!({"prevResult": result}));
    assert_eq!(check().ok(), Value::Null);

    let inside = link_named(&node, &netns, "eth0");
    let host = link_named(&node, &node.netns, result["interfaces"][0]["name"].as_str().expect("name"));
    let netlink = node.block_on(async { Netlink::in_netns(&netns).expect("socket") });
    let in_node = node.block_on(async { Netlink::in_netns(&node.netns).expect("socket") });
    let default = node
        .block_on(netlink.routes())
        .expect("routes")
        .into_iter()
        .find(|route| route.via.is_some())
        .expect("default");
    node.block_on(netlink.delete_route(&default)).expect("delete");
    assert!(check().error(102).contains("route to 0.0.0.0/0 via 10.1.0.1"));
    node.block_on(netlink.replace_route(&default)).expect("restore");
    check().ok();

    node.block_on(in_node.set_down(host.index)).expect("down");
    assert!(check().error(102).contains(&format!("host end {:?}", host.name)));
    node.block_on(in_node.set_up(host.index)).expect("up");

    let address = "10.1.0.101/32".parse().expect("address");
    node.block_on(netlink.delete_address(inside.index, address)).expect("delete");
    assert!(check().error(102).contains("address 10.1.0.101/32"));
    node.block_on(in_node.delete_link(host.index)).expect("delete");
    assert!(check().error(102).contains("interface \"eth0\""));
}

#[test]
fn check_tells_an_unhealthy_endpoint_from_an_unreachable_agent() {
    let mut node = Node::new();
    let (_netns, path) = pod();
    let result = node.command("ADD", &path, json!({})).ok();
    let check = |node: &Node| node.command("CHECK", &path, json!({"prevResult": result}));
    let id = format!("cni-attachment-id:{CONTAINER}:eth0");
    let set = |node: &Node, state, message: &str| {
        let status = &mut node.agent().shared();
        let status = &mut status.endpoints.get_mut(&id).expect("endpoint").status;
        status.state = state;
        status.message = message.to_owned();
    };
    use kinesin_agent_api::{EndpointState, ErrorBody, ErrorKind};
    set(&node, EndpointState::NotReady, "no program");
    assert!(check(&node).error(101).contains("no program"));
    set(&node, EndpointState::Creating, "");
    check(&node).error(11);
    set(&node, EndpointState::Restoring, "");
    check(&node).ok();
    node.agent().shared().refuse_get = Some((500, ErrorBody { kind: ErrorKind::Internal, message: "map".into() }));
    assert!(check(&node).error(100).contains("map"));
    node.agent().shared().refuse_get = None;
    node.agent().shared().endpoints.get_mut(&id).expect("endpoint").status.networking.addressing.pop();
    assert!(check(&node).error(101).contains("fd00:1::1:1"));
    node.agent().shared().endpoints.clear();
    assert!(check(&node).error(101).contains("does not know"));
    node.stop_agent();
    check(&node).error(11);
    assert!(node.command("CHECK", &path, json!({})).error(7).contains("prevResult"));
}

#[test]
fn hundred_pods_come_and_go_quickly() {
    let node = Node::new();
    let (mut adds, mut deletes) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let (_netns, path) = pod();
        let start = Instant::now();
        node.command("ADD", &path, json!({})).ok();
        adds.push(start.elapsed());
        let start = Instant::now();
        node.command("DEL", &path, json!({})).ok();
        deletes.push(start.elapsed());
    }
    for (name, times) in [("ADD", &mut adds), ("DEL", &mut deletes)] {
        times.sort();
        eprintln!("{name}: p50 {:?}, p99 {:?}, max {:?}", times[49], times[98], times[99]);
        // Far above what a quiet machine needs, far below what a pod's start would notice.
        assert!(times[49] < Duration::from_millis(200), "{name}: {:?}", times[49]);
    }
    assert!(node.host_ends().is_empty() && node.agent().shared().endpoints.is_empty());
}
