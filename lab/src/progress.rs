//! How whoever waits for a lab hears how far it is.

/// Told of each step while a lab comes up.
pub trait Progress: Sync {
    /// A phase begins; the one before it has ended.
    fn phase(&self, name: &str);
    /// How far the phase has come; called again only when that has changed.
    fn state(&self, text: &str);
    /// The last phase has ended.
    fn done(&self);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _: &str) {}
    fn state(&self, _: &str) {}
    fn done(&self) {}
}
