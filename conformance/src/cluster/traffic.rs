//! Traffic between places that goes on while something is disturbed.

use std::fmt::Write as _;

use super::{
    context::Context,
    place::Place,
    verdict::Stop,
    worker::{Count, FlowSpec},
};

/// Flows that run until they are judged or dropped.
#[derive(Debug)]
pub(super) struct Traffic<'a> {
    from: Vec<(&'a Place, Vec<FlowSpec>)>,
    is_running: bool,
}

impl<'a> Traffic<'a> {
    /// Starts flows between pairs of places in every family that both have, with so many open connections in all.
    pub(super) fn start(
        context: &Context<'_>,
        pairs: &[(&'a Place, &'a Place)],
        connections: usize,
    ) -> Result<Self, Stop> {
        let families = context.families();
        let each = connections.div_ceil(pairs.len() * families.len()).max(1);
        let mut traffic = Self { from: Vec::new(), is_running: false };
        for (from, to) in pairs {
            for is_ipv4 in &families {
                let (Some(_), Some(ends)) = (from.ip(*is_ipv4), to.ends(*is_ipv4)) else { continue };
                let name = format!("{from} to {to} over IPv{}", if *is_ipv4 { 4 } else { 6 });
                let spec = FlowSpec { name, tcp: ends.tcp, udp: ends.udp, key: to.key, connections: each };
                match traffic.from.iter_mut().find(|(place, _)| std::ptr::eq(*place, *from)) {
                    Some((_, specs)) => specs.push(spec),
                    None => traffic.from.push((from, vec![spec])),
                }
            }
        }
        traffic.is_running = true;
        for (place, specs) in &traffic.from {
            place.begin(specs)?;
        }
        Ok(traffic)
    }

    /// Ends the flows and judges them: nothing may be lost, no connection broken.
    pub(super) fn judge(mut self) -> Result<Count, Stop> {
        self.is_running = false;
        let mut told = String::new();
        let mut all = Count::default();
        for (place, specs) in &self.from {
            for (spec, count) in specs.iter().zip(place.end()?) {
                if !count.is_clean() {
                    let reasons = count.reasons.join("; ");
                    let such_as = if reasons.is_empty() { String::new() } else { format!(", such as: {reasons}") };
                    let _ = write!(told, "\n  {}: {count}{such_as}", spec.name);
                }
                if count.sent == 0 || count.answered == 0 || count.connected == 0 {
                    return Err(Stop::broken(format!("there was no traffic from {}: {count}", spec.name)));
                }
                all.add(count);
            }
        }
        if told.is_empty() { Ok(all) } else { Err(Stop::broken(format!("traffic was lost:{told}"))) }
    }
}

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        if self.is_running {
            for (place, _) in &self.from {
                // The case has failed already, and says why.
                let _ = place.end();
            }
        }
    }
}
