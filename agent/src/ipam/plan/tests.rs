use kinesin_core::ipam::BlockUse;

use super::*;

const NODE: BlockSource = BlockSource::NodePodCidrs;
const CLUSTER: BlockSource = BlockSource::GivenPodCidrs;
const POOLS: BlockSource = BlockSource::GivenPools;

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn block(pool: &str, cidr: &str) -> Block {
    Block { pool: pool.to_owned(), cidr: net(cidr) }
}

fn held(blocks: &[(&str, &str, u64)]) -> IpamSnapshot {
    let used = |(pool, cidr, leased): &(&str, &str, u64)| BlockUse {
        block: block(pool, cidr),
        leased: *leased,
        capacity: 6,
        draining: false,
    };
    IpamSnapshot { blocks: blocks.iter().map(used).collect(), leases: BTreeMap::new() }
}

fn wants(pool: &str, family: Family, wanted: u64) -> PoolDemand {
    PoolDemand { pool: pool.to_owned(), family, in_use: 0, waiting: 0, wanted }
}

fn facts(preferred: BlockSource, sources: &[(BlockSource, IpamSnapshot)]) -> Facts {
    Facts { preferred: Some(preferred), held: sources.to_vec(), ..Facts::default() }
}

fn view(pod_cidrs: &[&str], allocated: &[(&str, &str)]) -> OwnCiliumNode {
    OwnCiliumNode {
        pod_cidrs: pod_cidrs.iter().map(|cidr| net(cidr)).collect(),
        allocated: allocated.iter().map(|(pool, cidr)| ((*pool).to_owned(), net(cidr))).collect(),
        ..OwnCiliumNode::default()
    }
}

fn states(change: &NodeIpamChange) -> Vec<String> {
    let states = change.cidr_status.clone().unwrap_or_default();
    states.into_iter().map(|(cidr, state)| format!("{cidr} {state}")).collect()
}

#[test]
fn ranges_of_the_node_are_copied_and_taken_out_when_they_are_empty() {
    let mut facts = facts(NODE, &[(NODE, held(&[("default", "10.244.1.0/24", 0)]))]);
    facts.node_cidrs = BTreeSet::from([net("10.244.1.0/24"), net("10.244.9.0/24")]);
    let change = plan(&view(&["10.244.9.0/24"], &[]), &facts);
    assert_eq!(change.add_pod_cidrs, [net("10.244.1.0/24")]);
    assert_eq!(change.remove_pod_cidrs, [net("10.244.9.0/24")]);
    assert!(plan(&view(&["10.244.1.0/24"], &[]), &facts).is_empty());
    // An entry of somebody else's stays.
    assert!(plan(&view(&["10.244.1.0/24", "10.7.0.0/24"], &[]), &facts).remove_pod_cidrs.is_empty());
}

#[test]
fn a_draining_nodes_range_stays_while_it_holds_a_lease() {
    let snapshot = held(&[("default", "10.0.0.0/29", 3)]);
    let of = |leased| {
        let mut facts =
            facts(CLUSTER, &[(CLUSTER, snapshot.clone()), (NODE, held(&[("default", "10.244.1.0/24", leased)]))]);
        facts.node_cidrs = BTreeSet::from([net("10.244.1.0/24")]);
        plan(&view(&["10.244.1.0/24", "10.0.0.0/29"], &[]), &facts)
    };
    assert!(of(1).remove_pod_cidrs.is_empty());
    assert_eq!(of(0).remove_pod_cidrs, [net("10.244.1.0/24")]);
    assert_eq!(states(&of(0)), ["10.0.0.0/29 in-use"]);
}

#[test]
fn a_low_node_asks_once_and_not_again_before_the_new_block_counts() {
    let low = |blocks: &[(&str, &str, u64)]| {
        let mut facts = facts(CLUSTER, &[(CLUSTER, held(blocks))]);
        facts.demand.pools = vec![wants("default", Family::V4, 7)];
        facts
    };
    let one = low(&[("default", "10.0.0.0/29", 5)]);
    assert!(!one.covered());
    assert_eq!(states(&plan(&view(&["10.0.0.0/29"], &[]), &one)), ["10.0.0.0/29 depleted"]);
    // The second has come, but the mode does not know it yet.
    assert_eq!(states(&plan(&view(&["10.0.0.0/29", "10.0.0.8/29"], &[]), &one)), ["10.0.0.0/29 depleted"]);
    let two = low(&[("default", "10.0.0.0/29", 5), ("default", "10.0.0.8/29", 0)]);
    assert!(two.covered());
    let change = plan(&view(&["10.0.0.0/29", "10.0.0.8/29"], &[]), &two);
    assert_eq!(states(&change), ["10.0.0.0/29 in-use", "10.0.0.8/29 in-use"]);
    let mut bounded = one;
    bounded.demand.bounded = Some("growth is off".to_owned());
    assert_eq!(states(&plan(&view(&["10.0.0.0/29"], &[]), &bounded)), ["10.0.0.0/29 in-use"]);
}

#[test]
fn unneeded_blocks_are_reported_to_the_operator_or_taken_off_the_list() {
    let mut cluster =
        facts(CLUSTER, &[(CLUSTER, held(&[("default", "10.0.0.0/29", 2), ("default", "10.0.0.8/29", 0)]))]);
    cluster.given_back = BTreeSet::from([block("default", "10.0.0.8/29")]);
    let change = plan(&view(&["10.0.0.0/29", "10.0.0.8/29"], &[]), &cluster);
    assert_eq!(states(&change), ["10.0.0.0/29 in-use", "10.0.0.8/29 released"]);
    assert!(change.remove_pod_cidrs.is_empty(), "the operator's to remove");

    let mut pools = facts(POOLS, &[(POOLS, held(&[("vac", "10.1.0.0/29", 2), ("vac", "10.1.0.8/29", 0)]))]);
    pools.given_back = BTreeSet::from([block("vac", "10.1.0.8/29")]);
    let change = plan(&view(&[], &[("vac", "10.1.0.0/29"), ("vac", "10.1.0.8/29")]), &pools);
    assert_eq!(change.remove_allocated, [("vac".to_owned(), net("10.1.0.8/29"))]);
}

#[test]
fn blocks_of_a_mode_that_drains_go_one_by_one() {
    let old_pools = held(&[("default", "10.1.0.0/28", 1), ("vac", "10.2.0.0/29", 0)]);
    let new = held(&[("default", "10.0.0.0/29", 2)]);
    let facts = facts(CLUSTER, &[(CLUSTER, new), (POOLS, old_pools)]);
    let mut seen = view(&["10.0.0.0/29"], &[("default", "10.1.0.0/28"), ("vac", "10.2.0.0/29")]);
    seen.requested = vec![PoolNeed { pool: "default".to_owned(), ipv4: 16, ipv6: 0 }];
    let change = plan(&seen, &facts);
    assert_eq!(change.remove_allocated, [("vac".to_owned(), net("10.2.0.0/29"))]);
    assert_eq!(change.requested, Some(vec![]), "it asks for nothing more");

    let old_cluster = held(&[("default", "10.0.0.0/29", 1)]);
    let facts = self::facts(POOLS, &[(POOLS, held(&[])), (CLUSTER, old_cluster)]);
    let change = plan(&view(&["10.0.0.0/29", "10.0.0.8/29"], &[]), &facts);
    assert_eq!(states(&change), ["10.0.0.0/29 in-use", "10.0.0.8/29 released"]);
}

#[test]
fn a_block_with_leases_is_put_back_when_somebody_removed_it() {
    let cluster = facts(CLUSTER, &[(CLUSTER, held(&[("default", "10.0.0.0/29", 2)]))]);
    assert_eq!(plan(&view(&[], &[]), &cluster).add_pod_cidrs, [net("10.0.0.0/29")]);
    let pools = facts(POOLS, &[(POOLS, held(&[("vac", "10.1.0.0/29", 2), ("vac", "10.1.0.8/29", 0)]))]);
    assert_eq!(plan(&view(&[], &[]), &pools).add_allocated, [("vac".to_owned(), net("10.1.0.0/29"))]);
}

#[test]
fn needs_of_both_families_are_one_request_sorted_by_pool() {
    let mut facts = facts(POOLS, &[(POOLS, held(&[]))]);
    facts.demand.pools = vec![wants("a", Family::V4, 16), wants("a", Family::V6, 8), wants("b", Family::V6, 1)];
    let expected =
        vec![PoolNeed { pool: "a".to_owned(), ipv4: 16, ipv6: 8 }, PoolNeed { pool: "b".to_owned(), ipv4: 0, ipv6: 1 }];
    let change = plan(&OwnCiliumNode::default(), &facts);
    assert_eq!(change.requested.as_ref(), Some(&expected));
    assert!(plan(&OwnCiliumNode { requested: expected, ..OwnCiliumNode::default() }, &facts).is_empty());
}
