//! The references, each with one deliberate fault.

pub(crate) mod ipam;
pub(crate) mod routing;

/// One way to be wrong.
#[derive(Debug)]
pub(crate) struct Fault {
    /// What is wrong, as part of a test's name.
    pub(crate) name: &'static str,
    /// The behaviour that it breaks.
    pub(crate) breaks: &'static str,
    /// Behaviours that cannot hold either, or are seen to be broken only in some histories.
    pub(crate) also: &'static [&'static str],
}

const fn fault(name: &'static str, breaks: &'static str, also: &'static [&'static str]) -> Fault {
    Fault { name, breaks, also }
}
