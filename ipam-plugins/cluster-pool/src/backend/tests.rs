use std::time::Instant;

use kinesin_core::ipam::{AllocateRequest, Block, IpamDesired, IpamError, Lease, Owner};
use proptest::prelude::*;

use super::*;

const V4: Families = Families { v4: true, v6: false };

fn pool(config: Config) -> Asking<ClusterPool> {
    new(config.validate().expect("valid"), Families::DUAL)
}

fn block(cidr: &str) -> Block {
    Block { pool: POOL.to_owned(), cidr: cidr.parse().expect("a network") }
}

fn apply(ipam: &Asking<ClusterPool>, cidrs: &[&str]) {
    let desired = IpamDesired { blocks: cidrs.iter().map(|cidr| block(cidr)).collect(), ..IpamDesired::default() };
    ipam.growing().apply(&desired).expect("valid");
}

fn allocate(ipam: &Asking<ClusterPool>, who: usize, families: Families, now: Instant) -> Result<Lease, IpamError> {
    let owner = Owner::Pod { namespace: "default".to_owned(), name: format!("p{who}") };
    let request = AllocateRequest { attachment: format!("c{who}:eth0"), owner, families, pool: None };
    ipam.growing().allocate(&request, now)
}

fn is_low(ipam: &Asking<ClusterPool>, now: Instant) -> bool {
    let capacity: u64 =
        ipam.growing().snapshot().blocks.iter().filter(|used| !used.draining).map(|it| it.capacity).sum();
    ipam.demand_at(now).of(POOL, Family::V4).is_some_and(|found| found.wanted > capacity)
}

#[test]
fn a_29_is_low_from_its_fifth_lease_on() {
    let (ipam, now) = (pool(Config::default()), Instant::now());
    apply(&ipam, &["10.0.0.0/29"]);
    for (leased, low) in [(1, false), (2, false), (3, false), (4, false), (5, true), (6, true)] {
        allocate(&ipam, leased, V4, now).expect("free");
        assert_eq!(is_low(&ipam, now), low, "{leased} of 6 leased");
    }
}

#[test]
fn watermark_grows_with_the_block_and_can_be_set() {
    let (ipam, now) = (pool(Config::default()), Instant::now());
    apply(&ipam, &["10.0.0.0/24"]);
    assert_eq!(ipam.demand_at(now).of(POOL, Family::V4).map(|found| found.wanted), Some(31));
    let ipam = pool(Config { low_watermark: 5, ..Config::default() });
    apply(&ipam, &["10.0.0.0/24"]);
    assert_eq!(ipam.demand_at(now).of(POOL, Family::V4).map(|found| found.wanted), Some(5));
}

#[test]
fn without_growth_nothing_more_is_asked_for_and_the_reason_is_told() {
    let (ipam, now) = (pool(Config { grow: false, ..Config::default() }), Instant::now());
    apply(&ipam, &["10.0.0.0/29", "10.0.1.0/29"]);
    let demand = ipam.demand_at(now);
    assert!(demand.bounded.is_some_and(|why| why.contains("backendConfig.cluster_pool.grow")));
    assert!(ipam.give_back_at(now + Duration::from_secs(60)).is_empty(), "what it was given stays");
}

#[test]
fn an_unneeded_block_is_given_back_after_a_while_and_one_stays() {
    let (ipam, now) = (pool(Config::default()), Instant::now());
    apply(&ipam, &["10.0.0.0/29", "10.0.1.0/29"]);
    for who in 0..8 {
        allocate(&ipam, who, V4, now).expect("free");
    }
    for who in 2..8 {
        ipam.growing().release(&format!("c{who}:eth0"));
    }
    let later = |seconds| now + Duration::from_secs(seconds);
    assert!(ipam.give_back_at(now).is_empty(), "a rolling update would need it again");
    assert!(ipam.give_back_at(later(4)).is_empty());
    assert_eq!(ipam.give_back_at(later(5)), [block("10.0.1.0/29")]);
    assert_eq!(ipam.give_back_at(later(500)), [block("10.0.1.0/29")], "the first stays");
    // The state names it still: nothing is leased from it.
    for who in 10..14 {
        let lease = allocate(&ipam, who, V4, now).expect("free");
        assert_eq!(lease.addresses[0].block, block("10.0.0.0/29"));
    }
    let refused = allocate(&ipam, 14, V4, now).expect_err("full");
    assert!(matches!(refused, IpamError::Exhausted { leased: 6, capacity: 6, .. }), "{refused}");
    apply(&ipam, &["10.0.0.0/29", "10.0.1.0/29"]);
    allocate(&ipam, 15, V4, now).expect_err("given back until it has left");
    apply(&ipam, &["10.0.0.0/29"]);
    apply(&ipam, &["10.0.0.0/29", "10.0.1.0/29"]);
    allocate(&ipam, 15, V4, now).expect("a block like any other");
}

#[test]
fn a_pod_that_found_nothing_is_asked_for() {
    let (ipam, now) = (pool(Config::default()), Instant::now());
    apply(&ipam, &["10.0.0.0/30", "fd00::/120"]);
    for who in 0..2 {
        allocate(&ipam, who, Families::DUAL, now).expect("free");
    }
    allocate(&ipam, 2, Families::DUAL, now).expect_err("no IPv4");
    allocate(&ipam, 2, Families::DUAL, now).expect_err("no IPv4 again");
    let demand = ipam.demand_at(now);
    let of = |family| demand.of(POOL, family).map(|found| (found.in_use, found.waiting));
    assert_eq!((of(Family::V4), of(Family::V6)), (Some((2, 1)), Some((2, 0))));
}

proptest! {
    /// IPAM-13 and IPAM-14 over random histories, with an operator that gives a block whenever the node is low.
    #[test]
    fn asking_and_giving_back_come_to_rest(steps in prop::collection::vec((0_usize..40, any::<bool>()), 1..120)) {
        let ipam = pool(Config { release_after_seconds: 0, ..Config::default() });
        let now = Instant::now();
        let all: Vec<String> = (0..12).map(|number| format!("10.0.{number}.0/29")).collect();
        let mut listed: Vec<&str> = vec![&all[0]];
        apply(&ipam, &listed);
        for (who, add) in steps {
            if add {
                let _ = allocate(&ipam, who, V4, now);
            } else {
                ipam.growing().release(&format!("c{who}:eth0"));
            }
            let mut moves = 0;
            loop {
                let given: Vec<String> = ipam.give_back_at(now).iter().map(|block| block.cidr.to_string()).collect();
                for lease in ipam.growing().snapshot().leases.values() {
                    prop_assert!(!given.contains(&lease.addresses[0].block.cidr.to_string()));
                }
                let before = listed.len();
                listed.retain(|cidr| !given.contains(&(*cidr).to_owned()));
                apply(&ipam, &listed);
                if listed.len() == before {
                    let spare = all.iter().find(|cidr| !listed.contains(&cidr.as_str()));
                    match spare.filter(|_| is_low(&ipam, now)) {
                        Some(spare) => listed.push(spare),
                        None => break,
                    }
                    apply(&ipam, &listed);
                }
                moves += 1;
                prop_assert!(moves < 30, "it never comes to rest");
            }
            prop_assert!(!listed.is_empty(), "one block stays");
        }
    }
}
