//! Peers that claim the same addresses.

use ipnet::IpNet;
use kinesin_core::routing::{Path, Peer, RoutingReport};

use super::{
    behaviours::sorted,
    harness::{Harness, Node, net, peer},
};
use crate::outcome::{Judged, Stop, ensure};

/// Names and ages of two nodes, the one first that keeps what both claim.
const PAIRS: [[(&str, Option<i64>); 2]; 5] = [
    [("w9", Some(1_000)), ("w1", Some(2_000))],
    [("w1", Some(1_000)), ("w9", Some(2_000))],
    [("w9", Some(1_000)), ("w1", None)],
    // Where age does not tell, the name does.
    [("w1", Some(1_000)), ("w9", Some(1_000))],
    [("w1", None), ("w9", None)],
];

/// What the first and the second of them claim.
const CLAIMS: [[&[&str]; 2]; 3] = [
    [&["10.246.1.0/24", "fd00:246:1::/64"], &["10.246.1.0/24", "fd00:246:1::/64"]],
    [&["10.246.0.0/16", "fd00:246::/32"], &["10.246.1.0/24", "10.246.2.0/24", "fd00:246:1::/64"]],
    [&["10.246.1.0/24", "10.246.2.0/24", "fd00:246:1::/64"], &["10.246.0.0/16", "fd00:246::/32"]],
];

pub(super) fn routing_9(harness: &Harness) -> Judged {
    harness.on_node(|node| {
        for [elder, younger] in PAIRS {
            for [of_elder, of_younger] in CLAIMS {
                let elder = (elder.0, claimant(2, elder.1, of_elder));
                contest(node, &elder, &(younger.0, claimant(3, younger.1, of_younger)))?;
            }
        }
        refused_claims_are_in_nobodys_way(node)
    })
}

/// A peer of this number, age and pod CIDRs.
fn claimant(number: u8, created_unix_seconds: Option<i64>, cidrs: &[&str]) -> Peer {
    let pod_cidrs = cidrs.iter().map(|cidr| net(cidr)).collect();
    Peer { pod_cidrs, created_unix_seconds, ..peer(number) }
}

/// The two come and go in every order, beside one whom it does not concern.
fn contest(node: &Node<'_>, elder: &(&str, Peer), younger: &(&str, Peer)) -> Judged {
    let routing = node.start()?;
    let bystander = ("w5", peer(5));
    let apply = |peers: &[&(&str, Peer)]| {
        let all: Vec<(&str, Peer)> = peers.iter().copied().chain([&bystander]).cloned().collect();
        node.apply(routing.as_ref(), &node.cluster(&all))
    };
    let by_itself = |of: &(&str, Peer)| -> Result<Vec<Path>, Stop> {
        let report = apply(&[of])?;
        ensure!(report.unreachable.is_empty(), "{} claims nobody else's: {:?}", of.0, report.unreachable);
        Ok(sorted(&report))
    };
    // The younger one is heard of first, then both, then the elder alone, then both, then the younger one alone.
    let of_younger = by_itself(younger)?;
    let both = apply(&[elder, younger])?;
    let of_elder = by_itself(elder)?;
    stands(&both, &of_elder, elder, younger)?;
    stands(&apply(&[elder, younger])?, &of_elder, elder, younger)?;
    let later = apply(&[younger])?;
    let (name, left) = (younger.0, elder.0);
    ensure!(sorted(&later) == of_younger, "{left} has left, and {name} is not carried at once: {later:?}");
    let told = &later.unreachable;
    ensure!(told.is_empty(), "{left} has left, and is still in the way of {name}: {told:?}");
    // Nobody who starts with both of them decides otherwise.
    let fresh = node.start()?;
    let report = node.apply(fresh.as_ref(), &node.cluster(&[elder.clone(), younger.clone(), bystander.clone()]))?;
    stands(&report, &of_elder, elder, younger)?;
    node.retire(fresh.as_ref())
}

/// The paths are those of the elder and of who is not concerned, and the younger one is told of the elder.
fn stands(report: &RoutingReport, of_elder: &[Path], elder: &(&str, Peer), younger: &(&str, Peer)) -> Judged {
    let found = sorted(report);
    ensure!(
        found == of_elder,
        "of {elder:?} and {younger:?} the first one keeps what both claim; the paths are {found:?} instead of {of_elder:?}"
    );
    let reason = report.unreachable.get(younger.0).is_some_and(|reason| reason.contains(elder.0));
    ensure!(reason, "{} is not told that {} is in its way: {:?}", younger.0, elder.0, report.unreachable);
    let told = report.unreachable.get(elder.0);
    ensure!(told.is_none(), "{} is reached, and called unreachable: {told:?}", elder.0);
    Ok(())
}

fn refused_claims_are_in_nobodys_way(node: &Node<'_>) -> Judged {
    let routing = node.start()?;
    let claims: [(&str, Peer); 3] = [
        ("w3", claimant(1, Some(1_000), &["10.246.1.0/24", "fd00:246:1::/64"])),
        ("w2", claimant(2, Some(2_000), &["10.246.0.0/16", "fd00:246::/32"])),
        ("w1", claimant(3, Some(3_000), &["10.246.2.0/24", "fd00:246:2::/64"])),
    ];
    let report = node.apply(routing.as_ref(), &node.cluster(&claims))?;
    for (name, peer) in [&claims[0], &claims[2]] {
        let wanted = node.cluster(&[(name, peer.clone())]).peers.remove(*name).unwrap_or_default();
        let carried = |cidr: &IpNet| report.paths.iter().any(|path| path.prefix == *cidr && of(peer, path));
        ensure!(wanted.pod_cidrs.iter().all(carried), "w2's claim is refused, and in the way of {name}: {report:?}");
    }
    let is_told = report.unreachable.contains_key("w2") && report.unreachable.len() == 1;
    ensure!(is_told, "w2 alone cannot be carried: {:?}", report.unreachable);
    node.retire(routing.as_ref())
}

fn of(peer: &Peer, path: &Path) -> bool {
    peer.addresses.contains(&path.node)
}
