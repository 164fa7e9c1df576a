//! Somewhere that packets come from and go to: a pod, or a node itself.

use std::{fmt, net::IpAddr, thread};

use super::{
    verdict::Stop,
    worker::{Answer, Ask, Count, Ends, FlowSpec, Hands, Request, Told},
};

/// A place that asks, and answers under its own key.
#[derive(Debug)]
pub struct Place {
    /// How it is told: `a on cilium-w1`.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// What its answers are marked with.
    pub key: u8,
    ends: Vec<Ends>,
    hands: Box<dyn Hands>,
}

impl Place {
    /// Begins to answer at all addresses.
    ///
    /// # Errors
    /// When an address is not there, for example.
    pub fn new(name: String, node: String, ips: Vec<IpAddr>, hands: Box<dyn Hands>, key: u8) -> Result<Self, Stop> {
        match hands.ask(Request::Listen { ips: ips.clone(), key }) {
            Ok(Answer::Listening(ends)) if ends.len() == ips.len() => Ok(Self { name, node, ips, key, ends, hands }),
            Ok(other) => Err(Stop::broken(format!("{name} answers a request to listen by {other:?}"))),
            Err(reason) => Err(Stop::broken(format!("{name}: {reason}"))),
        }
    }

    /// Its address of a family.
    #[must_use]
    pub fn ip(&self, is_ipv4: bool) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| ip.is_ipv4() == is_ipv4)
    }

    /// Where it answers in a family.
    #[must_use]
    pub fn ends(&self, is_ipv4: bool) -> Option<Ends> {
        self.ends.iter().copied().find(|ends| ends.tcp.is_ipv4() == is_ipv4)
    }

    /// Asks others; the answers are in the order of the questions.
    ///
    /// # Errors
    /// When it cannot ask at all.
    pub fn ask(&self, questions: &[Ask]) -> Result<Vec<Result<Told, String>>, Stop> {
        match self.hands.ask(Request::Ask(questions.to_vec())) {
            Ok(Answer::Asked(told)) if told.len() == questions.len() => Ok(told),
            Ok(other) => Err(Stop::broken(format!("{self} answers {} questions by {other:?}", questions.len()))),
            Err(reason) => Err(Stop::broken(format!("{self}: {reason}"))),
        }
    }

    /// Begins flows.
    ///
    /// # Errors
    /// When one cannot begin.
    pub fn begin(&self, flows: &[FlowSpec]) -> Result<(), Stop> {
        self.hands
            .ask(Request::Start(flows.to_vec()))
            .map(drop)
            .map_err(|reason| Stop::broken(format!("{self}: {reason}")))
    }

    /// Ends them.
    ///
    /// # Errors
    /// When none were begun.
    pub fn end(&self) -> Result<Vec<Count>, Stop> {
        match self.hands.ask(Request::Stop) {
            Ok(Answer::Stopped(counts)) => Ok(counts),
            Ok(other) => Err(Stop::broken(format!("{self} ends its flows by {other:?}"))),
            Err(reason) => Err(Stop::broken(format!("{self}: {reason}"))),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A question of one place to another, and how it is told.
#[derive(Debug)]
pub struct Question<'a> {
    /// Who asks.
    pub from: &'a Place,
    /// What is asked.
    pub ask: Ask,
    /// How it is told: `a on n1 to b on n2, UDP of 9 bytes over IPv4`.
    pub name: String,
}

/// TCP, UDP and ICMP with so many bytes each from one place to another, in one family; nothing where one has none.
pub(crate) fn every_protocol<'a>(
    from: &'a Place,
    to: &Place,
    is_ipv4: bool,
    seed: u64,
    length: usize,
) -> Vec<Question<'a>> {
    let (Some(_), Some(ends)) = (from.ip(is_ipv4), to.ends(is_ipv4)) else { return Vec::new() };
    let key = to.key;
    let asks = [
        ("TCP", Ask::Tcp { to: ends.tcp, key, seed, length }),
        ("UDP", Ask::Udp { to: ends.udp, key, seed, length }),
        ("ICMP", Ask::Ping { to: ends.tcp.ip(), seed, length, hop_limit: None }),
    ];
    let named = |(protocol, ask)| Question { from, ask, name: name(from, to, protocol, is_ipv4, length) };
    asks.into_iter().map(named).collect()
}

/// How a question is told.
pub(crate) fn name(from: &Place, to: &Place, protocol: &str, is_ipv4: bool, length: usize) -> String {
    format!("{from} to {to}, {protocol} of {length} bytes over IPv{}", if is_ipv4 { 4 } else { 6 })
}

/// Asks everything, all places at once, and returns what was not answered as it shall be, and why.
///
/// # Errors
/// When a place cannot ask at all.
pub(crate) fn failures(questions: &[Question<'_>]) -> Result<Vec<String>, Stop> {
    let mut by_place: Vec<(&Place, Vec<&Question<'_>>)> = Vec::new();
    for question in questions {
        match by_place.iter_mut().find(|(place, _)| std::ptr::eq(*place, question.from)) {
            Some((_, own)) => own.push(question),
            None => by_place.push((question.from, vec![question])),
        }
    }
    let asked: Vec<Result<Vec<String>, Stop>> = thread::scope(|scope| {
        let ask = |(place, own): (&Place, Vec<&Question<'_>>)| {
            let asks: Vec<Ask> = own.iter().map(|question| question.ask.clone()).collect();
            let failed = |(question, told): (&Question<'_>, Result<Told, String>)| match told {
                Ok(Told::Answered) => None,
                Ok(other) => Some(format!("{}: {other:?}", question.name)),
                Err(reason) => Some(format!("{}: {reason}", question.name)),
            };
            Ok(own.into_iter().zip(place.ask(&asks)?).filter_map(failed).collect())
        };
        let threads: Vec<_> = by_place.into_iter().map(|part| scope.spawn(move || ask(part))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(Stop::broken("a thread that asks has panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let asked: Vec<Vec<String>> = asked.into_iter().collect::<Result<_, _>>()?;
    Ok(asked.concat())
}
