//! What is known from announcements, compared with what the kernel lists. Needs root.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use ipnet::IpNet;
use kinesin_netlink::{Mirror, MirrorSpec, NetNs, Netlink, Route, VethSpec};
use rtnetlink::{RouteMessageBuilder, RouteNextHopBuilder};

const DEVICES: [(&str, &str); 2] = [("a0", "a1"), ("b0", "b1")];

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

/// Runs a test in a namespace with two devices, whose numbers it gets.
fn inside<F: Future<Output = ()>>(test: impl FnOnce(Netlink, [u32; 2]) -> F + Send) {
    let netns = NetNs::anonymous().expect("root");
    let test = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let netlink = Netlink::new().expect("socket");
            let mut indices = [0; 2];
            for (number, (name, peer_name)) in DEVICES.into_iter().enumerate() {
                let spec = VethSpec { name, mac: None, peer_name, peer_mac: None, peer_netns: None, mtu: None };
                netlink.add_veth(&spec).await.expect("veth");
                for name in [name, peer_name] {
                    netlink.set_up(netlink.link(name).await.expect("there").index).await.expect("up");
                }
                indices[number] = netlink.link(name).await.expect("there").index;
                let address = net(&format!("10.{number}.0.1/24"));
                netlink.add_address(indices[number], address).await.expect("address");
            }
            test(netlink, indices).await;
        });
    };
    netns.run(test).expect("the test in the namespace");
}

/// What the kernel lists, once it has come to rest: it makes link-local routes whenever it gets round to it.
async fn assert_same(mirror: &mut Mirror, netlink: &Netlink, what: &str) {
    for attempt in 0.. {
        mirror.look().await.expect("look");
        let routes: BTreeSet<Route> = netlink.routes().await.expect("routes").into_iter().collect();
        let same = mirror.routes() == &routes
            && mirror.links() == netlink.links().await.expect("links")
            && mirror.addresses() == netlink.addresses().await.expect("addresses");
        if same {
            return;
        }
        let ours: Vec<_> = mirror.routes().symmetric_difference(&routes).collect();
        assert!(attempt < 200, "{what}: {ours:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn as_root_single_routes_are_followed_without_reading_all() {
    inside(async |netlink, [a, b]| {
        let mut mirror = Mirror::new(MirrorSpec::default()).expect("socket");
        let first = mirror.look().await.expect("look");
        assert!(first.all && first.devices);
        assert_same(&mut mirror, &netlink, "at first").await;
        let readings = mirror.readings();
        let v4 = Route::new(net("10.9.0.0/24"), a, 4);
        let v6 = Route { metric: 1024, ..Route::new(net("fd00:9::/64"), a, 4) };
        for route in [&v4, &v6] {
            let dst = route.dst;
            let has = |mirror: &Mirror, route: &Route| mirror.routes_to(dst).collect::<Vec<_>>() == [route];
            netlink.add_route(route).await.expect("added");
            assert!(mirror.look().await.expect("look").routes.contains(&dst));
            assert!(has(&mirror, route), "{:?}", mirror.routes());
            // By the time that a request is answered, everybody has been told.
            let other = Route { dev: b, mtu: Some(1400), ..route.clone() };
            netlink.replace_route(&other).await.expect("replaced");
            assert!(mirror.look().await.expect("look").routes.contains(&dst) && has(&mirror, &other));
            let second = Route { metric: 7, table: 99, ..route.clone() };
            netlink.add_route(&second).await.expect("added");
            mirror.look().await.expect("look");
            assert_eq!(mirror.routes_to(dst).count(), 2);
            for gone in [&other, &second] {
                netlink.delete_route(gone).await.expect("removed");
            }
            mirror.look().await.expect("look");
            assert_eq!(mirror.routes_to(dst).count(), 0);
        }
        assert_eq!(mirror.look().await.expect("look").routes.len(), 0, "nothing happened");
        assert_eq!(mirror.readings(), readings);
        assert_same(&mut mirror, &netlink, "at last").await;
    });
}

#[test]
fn as_root_what_the_kernel_does_not_tell_is_found_out() {
    inside(async |netlink, [a, b]| {
        let mut mirror = Mirror::new(MirrorSpec::default()).expect("socket");
        let route = |number: u8, dev| Route::new(net(&format!("10.9.{number}.0/24")), dev, 4);
        for number in 0..20 {
            netlink.add_route(&route(number, [a, b][usize::from(number % 2)])).await.expect("added");
        }
        assert_same(&mut mirror, &netlink, "at first").await;

        netlink.set_down(a).await.expect("down");
        assert_same(&mut mirror, &netlink, "a device is down").await;
        netlink.set_up(a).await.expect("up");
        netlink.add_route(&route(0, a)).await.expect("added");
        assert_same(&mut mirror, &netlink, "it is up again").await;

        let own = net("10.7.0.1/32");
        netlink.add_address(b, own).await.expect("address");
        netlink.add_route(&Route { src: Some(own.addr()), ..route(30, a) }).await.expect("added");
        assert_same(&mut mirror, &netlink, "a route has a source").await;
        netlink.delete_address(b, own).await.expect("removed");
        assert_same(&mut mirror, &netlink, "its source is gone").await;

        // Two next hops in one route, which is listed by nobody, in the place of one that was.
        let (connection, handle, _) = rtnetlink::new_connection().expect("socket");
        let connection = tokio::spawn(connection);
        let hop = |dev| RouteNextHopBuilder::new_ipv4().interface(dev).build();
        let several = || RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(Ipv4Addr::new(10, 9, 1, 0), 24);
        handle
            .route()
            .add(several().multipath(vec![hop(a), hop(b)]).build())
            .replace()
            .execute()
            .await
            .expect("replaced");
        assert_same(&mut mirror, &netlink, "a route has several next hops").await;
        netlink.replace_route(&route(1, b)).await.expect("replaced");
        assert_same(&mut mirror, &netlink, "and one again").await;
        connection.abort();

        netlink.delete_link(b).await.expect("removed");
        assert_same(&mut mirror, &netlink, "a device is gone").await;
    });
}

#[test]
fn as_root_an_overflow_makes_everything_be_read() {
    inside(async |netlink, [a, b]| {
        let mut mirror = Mirror::new(MirrorSpec { buffer_bytes: 4096, ..MirrorSpec::default() }).expect("socket");
        assert_same(&mut mirror, &netlink, "at first").await;
        let readings = mirror.readings();
        for number in 0..100 {
            netlink.add_route(&Route::new(net(&format!("10.9.{number}.0/24")), a, 4)).await.expect("added");
        }
        assert_same(&mut mirror, &netlink, "after an overflow").await;
        assert!(mirror.readings() > readings);
        let readings = mirror.readings();
        netlink.add_route(&Route::new(net("10.8.0.0/24"), b, 4)).await.expect("added");
        assert_same(&mut mirror, &netlink, "later").await;
        assert_eq!(mirror.readings(), readings, "it hears again");
    });
}

#[test]
fn as_root_only_what_is_wanted_is_kept() {
    inside(async |netlink, [a, _]| {
        let spec = MirrorSpec { keep: |route| route.dst.prefix_len() == 0, ..MirrorSpec::default() };
        let mut mirror = Mirror::new(spec).expect("socket");
        mirror.look().await.expect("look");
        netlink.add_route(&Route::new(net("10.9.0.0/24"), a, 4)).await.expect("added");
        assert!(mirror.look().await.expect("look").routes.is_empty() && mirror.routes().is_empty());
        let default = Route::new(net("0.0.0.0/0"), a, 4);
        netlink.add_route(&default).await.expect("added");
        mirror.look().await.expect("look");
        assert_eq!(mirror.routes().iter().collect::<Vec<_>>(), [&default]);
    });
    inside(async |netlink, [a, _]| {
        let spec = MirrorSpec { keep: |route| route.protocol == 4, ..MirrorSpec::default() };
        let mut mirror = Mirror::new(spec).expect("socket");
        let ours = Route::new(net("10.9.0.0/24"), a, 4);
        netlink.add_route(&ours).await.expect("added");
        mirror.look().await.expect("look");
        assert_eq!(mirror.routes_to(ours.dst).count(), 1);
        // What takes its place is none of those that are kept.
        netlink.replace_route(&Route { protocol: 17, ..ours.clone() }).await.expect("replaced");
        assert!(mirror.look().await.expect("look").routes.contains(&ours.dst));
        assert_eq!(mirror.routes_to(ours.dst).count(), 0);
    });
}
