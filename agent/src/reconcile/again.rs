//! When another pass follows although nothing is known to have changed.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    engine::{Engine, State},
    ipam::sockets,
};

/// How often it is looked whether anything uses a router address that was replaced.
const UNUSED: Duration = Duration::from_secs(1);
/// Wait after a pass that could not finish for reasons that go by themselves; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Engine {
    /// Wakes another pass soon if plugins were at work on pods or the chassis could not finish, later and later while that
    /// stays so.
    pub(super) fn look_again_soon(self: &Arc<Self>, state: &mut State, is_early: bool) {
        if !is_early && state.datapath.as_ref().is_none_or(|datapath| datapath.chassis.pending.is_empty()) {
            state.unsettled_passes = 0;
            return;
        }
        let wait = FIRST_WAIT.saturating_mul(1 << state.unsettled_passes.min(16)).min(LONGEST_WAIT);
        state.unsettled_passes = state.unsettled_passes.saturating_add(1);
        if self.is_looking_again.swap(true, Ordering::SeqCst) {
            return;
        }
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(engine) = engine.upgrade() {
                engine.is_looking_again.store(false, Ordering::SeqCst);
                engine.wakes.datapath.notify_one();
            }
        });
    }

    /// Wakes the next pass when no socket uses these addresses of the router any more.
    pub(super) fn look_again_when_unused(self: &Arc<Self>, addresses: Vec<IpAddr>) {
        if addresses.is_empty() || self.is_waiting_for_sockets.swap(true, Ordering::SeqCst) {
            return;
        }
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UNUSED).await;
                let Some(engine) = engine.upgrade() else { return };
                if !addresses.iter().any(|ip| sockets::uses(*ip).unwrap_or(true)) {
                    engine.is_waiting_for_sockets.store(false, Ordering::SeqCst);
                    engine.wakes.datapath.notify_one();
                    return;
                }
            }
        });
    }
}
