//! A node that is lost at once and comes back.

use std::time::Instant;

use crate::cluster::{
    context::Context,
    place::{Place, every_protocol, failures},
    traffic::Traffic,
    verdict::{Judged, Stop, told},
};

/// Meanwhile the other node's pods lose nothing among themselves; afterwards the node's pods run again and everybody
/// reaches everybody.
pub(in crate::cluster) fn restarted(context: &Context<'_>) -> Judged {
    let two = context.two_nodes();
    let stay = context.start_on(&two[..1], "stay", 2)?;
    let [a, b] = &stay[..] else { return Err(Stop::broken("there are not two pods")) };
    let named = |i| (format!("back-{i}"), two[1].name.clone());
    let names: Vec<(String, String)> = (0..2).map(named).collect();
    let lost = context.start(&names)?;
    judge(context, &stay, &lost)?;
    drop(lost);
    let traffic = Traffic::start(context, &[(a, b), (b, a)], context.scale.connections.min(100))?;
    let begun = Instant::now();
    context.target.restart_node(&two[1].name)?;
    let back = context.wait_for(&names)?;
    let took = begun.elapsed();
    let count = traffic.judge()?;
    let answered = judge(context, &stay, &back)?;
    Ok(format!("pods ran again after {:.1} s; {answered}; meanwhile {count}", took.as_secs_f64()))
}

fn judge(context: &Context<'_>, some: &[Place], others: &[Place]) -> Judged {
    let all: Vec<&Place> = some.iter().chain(others).collect();
    let mut questions = Vec::new();
    for from in &all {
        for to in all.iter().filter(|to| !std::ptr::eq(**to, *from)) {
            for is_ipv4 in context.families() {
                questions.extend(every_protocol(from, to, is_ipv4, context.random(), 64));
            }
        }
    }
    told(&failures(&questions)?, questions.len())
}
