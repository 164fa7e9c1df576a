//! Whether everybody reaches everybody: every ordered pair, every protocol, every family.

use crate::cluster::{
    context::Context,
    place::{Place, Question, every_protocol, failures},
    verdict::{Judged, told},
};

/// Bytes of a question that nothing splits.
const LENGTH: usize = 64;

/// Two pods on each of two nodes: pairs on one node, and pairs across.
pub(in crate::cluster) fn pods(context: &Context<'_>) -> Judged {
    let pods = context.start_on(&context.two_nodes(), "pod", 2)?;
    let pairs = pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to)));
    judge(context, pairs.filter(|(from, to)| !std::ptr::eq(*from, *to)))
}

/// Every node and every pod, own and other node, in both directions.
pub(in crate::cluster) fn nodes(context: &Context<'_>) -> Judged {
    let two = context.two_nodes();
    let pods = context.start_on(&two, "pod", 1)?;
    let nodes = context.node_places(&two)?;
    let pairs = nodes.iter().flat_map(|node| pods.iter().flat_map(move |pod| [(node, pod), (pod, node)]));
    judge(context, pairs)
}

fn judge<'a>(context: &Context<'_>, pairs: impl Iterator<Item = (&'a Place, &'a Place)>) -> Judged {
    let mut questions: Vec<Question<'a>> = Vec::new();
    for (from, to) in pairs {
        for is_ipv4 in context.families() {
            questions.extend(every_protocol(from, to, is_ipv4, context.random(), LENGTH));
        }
    }
    told(&failures(&questions)?, questions.len())
}
