use std::{collections::BTreeMap, time::Instant};

use kinesin_core::ipam::{Block, IpamDesired, Lease, Owner};
use proptest::prelude::*;

use super::*;

const V4: Families = Families { v4: true, v6: false };

fn pools(families: Families) -> Asking<MultiPool> {
    new(Config::default().validate().expect("valid"), families)
}

fn block(pool: &str, cidr: &str) -> Block {
    Block { pool: pool.to_owned(), cidr: cidr.parse().expect("a network") }
}

fn apply(ipam: &Asking<MultiPool>, blocks: &[Block]) {
    ipam.growing().apply(&IpamDesired { blocks: blocks.to_vec(), ..IpamDesired::default() }).expect("valid");
}

fn request(who: &str, families: Families, pool: Option<&str>) -> AllocateRequest {
    let owner = Owner::Pod { namespace: "default".to_owned(), name: who.to_owned() };
    AllocateRequest { attachment: format!("{who}:eth0"), owner, families, pool: pool.map(str::to_owned) }
}

fn wanted(ipam: &Asking<MultiPool>, pool: &str, family: Family, now: Instant) -> u64 {
    ipam.demand_at(now).of(pool, family).map_or(0, |found| found.wanted)
}

#[test]
fn demand_is_ciliums() {
    let ipam = pools(V4);
    let now = Instant::now();
    apply(&ipam, &[block("default", "10.0.0.0/24")]);
    let mut asked = vec![wanted(&ipam, "default", Family::V4, now)];
    for number in 1..=17 {
        ipam.allocate_at(&request(&format!("p{number}"), V4, None), now).expect("free");
        asked.push(wanted(&ipam, "default", Family::V4, now));
    }
    let mut expected = vec![8];
    expected.extend([16; 7]);
    expected.push(16);
    expected.extend([24; 8]);
    expected.push(32);
    assert_eq!(asked, expected);
}

#[test]
fn the_seeds_node_has_two_blocks_and_one_of_a_pool_that_is_used() {
    let ipam = pools(V4);
    let now = Instant::now();
    apply(&ipam, &[block("default", "172.20.0.0/28")]);
    for own in ["router", "health"] {
        ipam.allocate_at(&request(own, V4, None), now).expect("free");
    }
    assert_eq!(wanted(&ipam, "default", Family::V4, now), 16, "more than the 14 of a /28");
    assert_eq!(wanted(&ipam, "vac", Family::V4, now), 0);
    let error = ipam.allocate_at(&request("web", V4, Some("vac")), now).expect_err("nothing yet");
    assert!(matches!(&error, IpamError::PoolNotReady { pool, .. } if pool == "vac"), "{error}");
    assert_eq!(wanted(&ipam, "vac", Family::V4, now), 1);
    // A retry with another sandbox is the same pod.
    let again = AllocateRequest { attachment: "other:eth0".to_owned(), ..request("web", V4, Some("vac")) };
    ipam.allocate_at(&again, now).expect_err("nothing yet");
    assert_eq!(wanted(&ipam, "vac", Family::V4, now), 1);
    assert_eq!(wanted(&ipam, "vac", Family::V4, now + Duration::from_secs(300)), 0, "it gave up");
    apply(&ipam, &[block("default", "172.20.0.0/28"), block("vac", "10.100.0.0/29")]);
    let lease = ipam.allocate_at(&again, now).expect("free");
    assert_eq!((lease.addresses[0].block.pool.as_str(), wanted(&ipam, "vac", Family::V4, now)), ("vac", 1));
}

#[test]
fn a_family_that_a_pool_lacks_is_named_and_nothing_is_leased() {
    let ipam = pools(Families::DUAL);
    let now = Instant::now();
    apply(&ipam, &[block("default", "10.0.0.0/28"), block("default", "fd00::/120"), block("four", "10.1.0.0/28")]);
    let error = ipam.allocate_at(&request("a", Families::DUAL, Some("four")), now).expect_err("IPv4 only");
    assert!(matches!(error, IpamError::PoolNotReady { family: Family::V6, .. }), "{error}");
    assert!(ipam.growing().snapshot().leases.is_empty());
    assert_eq!((wanted(&ipam, "four", Family::V4, now), wanted(&ipam, "four", Family::V6, now)), (0, 1));
}

#[test]
fn what_the_node_withholds_is_asked_for_on_top() {
    let ipam = pools(V4);
    let reserved = vec!["10.0.0.1".parse().expect("an address")];
    let desired = IpamDesired { blocks: vec![block("default", "10.0.0.0/28")], reserved, ..IpamDesired::default() };
    ipam.growing().apply(&desired).expect("valid");
    assert_eq!(wanted(&ipam, "default", Family::V4, Instant::now()), 9);
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8, bool),
    Delete(u8),
    Operator,
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u8..40, any::<bool>()).prop_map(|(who, vac)| Step::Add(who, vac)),
        4 => (0_u8..40).prop_map(Step::Delete),
        4 => Just(Step::Operator),
        2 => Just(Step::Tick),
    ];
    prop::collection::vec(step, 1..150)
}

/// An operator that adds whole blocks until what is asked for is there (reference 5.4).
fn serve(ipam: &Asking<MultiPool>, listed: &mut Vec<Block>, next: &mut u16, now: Instant) -> bool {
    let mut changed = false;
    for found in ipam.demand_at(now).pools {
        let usable = |listed: &[Block]| listed.iter().filter(|it| it.pool == found.pool).count() as u64 * 6;
        while usable(listed) < found.wanted {
            listed.push(block(&found.pool, &format!("10.{}.{}.0/29", *next / 256, *next % 256)));
            *next += 1;
            changed = true;
        }
    }
    changed
}

proptest! {
    #[test]
    fn no_address_is_lost_or_given_twice_and_everybody_agrees_in_the_end(steps in steps()) {
        let ipam = pools(V4);
        let (mut now, mut next) = (Instant::now(), 0);
        let mut listed: Vec<Block> = Vec::new();
        let mut model: BTreeMap<u8, Lease> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add(who, vac) => {
                    let asked = request(&format!("p{who}"), V4, vac.then_some("vac"));
                    if let Ok(lease) = ipam.allocate_at(&asked, now) {
                        prop_assert!(listed.contains(&lease.addresses[0].block), "out of what the node has");
                        let ip = lease.addresses[0].ip;
                        let other = model.iter().find(|(other, held)| **other != who && held.addresses[0].ip == ip);
                        prop_assert!(other.is_none(), "{} is leased twice", ip);
                        model.insert(who, lease);
                    }
                }
                Step::Delete(who) => {
                    let ended = ipam.growing().release(&format!("p{who}:eth0"));
                    prop_assert_eq!(ended, model.remove(&who));
                }
                Step::Operator => {
                    serve(&ipam, &mut listed, &mut next, now);
                }
                Step::Tick => now += Duration::from_secs(3),
            }
            let given = ipam.give_back_at(now);
            for lease in model.values() {
                prop_assert!(!given.contains(&lease.addresses[0].block), "in use and given back");
            }
            // The API takes the removal; the operator may give the same block again, or another.
            listed.retain(|block| !given.contains(block));
            apply(&ipam, &listed);
        }
        // Left alone, node and operator come to rest with neither too little nor a whole block too much.
        for round in 0.. {
            prop_assert!(round < 10, "it never comes to rest");
            now += Duration::from_secs(10);
            let given = ipam.give_back_at(now);
            listed.retain(|block| !given.contains(block));
            let added = serve(&ipam, &mut listed, &mut next, now);
            apply(&ipam, &listed);
            if given.is_empty() && !added && round > 1 {
                break;
            }
        }
        for found in ipam.demand_at(now).pools {
            let capacity = listed.iter().filter(|block| block.pool == found.pool).count() as u64 * 6;
            prop_assert!(capacity >= found.wanted);
        }
    }
}
