//! The prefix table, without reading all of it for every node that comes, goes or changes.
//!
//! The kernel tells nobody when a map changes, so what the table holds is known only as far as nobody else writes to it.
//! What is known is taken for true while the cluster changes, and compared with the kernel whenever the same state is applied
//! again, which is how a repair is asked for, after an error, and once in a while in any case.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kinesin_abi::{IpcacheKey, IpcacheValue};
use kinesin_loader::{LoaderError, PrefixTable};

/// After this, the kernel is compared whatever changes.
const COMPARED_EVERY: Duration = Duration::from_secs(60);

/// The content of the table.
pub(crate) type Content = BTreeMap<(u32, IpcacheKey), IpcacheValue>;

/// The table and what is known of it.
#[derive(Debug)]
pub(crate) struct Prefixes {
    table: PrefixTable<IpcacheKey, IpcacheValue>,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    content: Content,
    /// When the kernel was compared.
    compared: Instant,
    /// Whether it was set since it was applied last.
    is_ahead: bool,
}

impl Prefixes {
    pub(crate) fn new(table: PrefixTable<IpcacheKey, IpcacheValue>) -> Self {
        Self { table, known: None }
    }

    /// Makes the table hold exactly this, whatever somebody did to it, if it is to hold the same as before; else as
    /// [`Self::set`]. The answer is the number of changes.
    pub(crate) fn apply(&mut self, desired: Content) -> Result<usize, LoaderError> {
        let is_repair = self.known.as_ref().is_some_and(|known| !known.is_ahead && known.content == desired);
        if is_repair {
            self.known = None;
        }
        let changes = self.set(desired)?;
        if let Some(known) = &mut self.known {
            known.is_ahead = false;
        }
        Ok(changes)
    }

    /// Writes where this differs from what is known. The answer is the number of changes.
    pub(crate) fn set(&mut self, desired: Content) -> Result<usize, LoaderError> {
        // Nothing is known after an error.
        let known = self.known.take().filter(|known| known.compared.elapsed() < COMPARED_EVERY);
        let (changes, compared) = match &known {
            Some(known) if known.content == desired => (0, known.compared),
            Some(known) => (self.table.change(&known.content, &desired)?, known.compared),
            None => (self.table.sync(&desired)?, Instant::now()),
        };
        let is_ahead = changes > 0 || known.is_some_and(|known| known.is_ahead);
        self.known = Some(Known { content: desired, compared, is_ahead });
        Ok(changes)
    }
}
