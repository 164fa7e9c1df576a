//! How long a failing container, image or sandbox is left alone.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Delays that double, and are forgotten after twice the longest without a failure.
///
/// Source: `k8s.io/client-go/util/flowcontrol/backoff.go`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backoff {
    entry: Option<(i64, Timestamp)>,
}

/// The bounds of a [`Backoff`], in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) first_ms: i64,
    pub(crate) longest_ms: i64,
}

/// Containers and images, as kubelet has them.
pub(crate) const CRASH: Bounds = Bounds { first_ms: 10_000, longest_ms: 300_000 };
/// Sandboxes: kubelet tries again with its next sync; here one second, and up to ten.
pub(crate) const SANDBOX: Bounds = Bounds { first_ms: 1_000, longest_ms: 10_000 };

impl Backoff {
    /// Whether an attempt may be made now after what failed at `failed`; if not, the delay in force and what is left of it.
    pub(crate) fn may_try(
        &mut self,
        bounds: Bounds,
        failed: Timestamp,
        now: Timestamp,
    ) -> Result<(), (SignedDuration, SignedDuration)> {
        let forget = SignedDuration::from_millis(bounds.longest_ms * 2);
        let entry = self.entry.filter(|(_, updated)| failed.duration_since(*updated) <= forget);
        if let Some((delay, _)) = entry {
            let delay = SignedDuration::from_millis(delay);
            let left = delay - now.duration_since(failed);
            // A clock that was set back must not hold a container up for longer than its delay.
            if left > SignedDuration::ZERO && left <= delay {
                return Err((delay, left));
            }
        }
        let next = entry.map_or(bounds.first_ms, |(delay, _)| (delay * 2).min(bounds.longest_ms));
        self.entry = Some((next, now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_next_wait_longer_each_time() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.may_try(CRASH, at(0), at(0)), Ok(()));
        let (delay, left) = backoff.may_try(CRASH, at(1), at(2)).unwrap_err();
        assert_eq!((delay.as_secs(), left.as_secs()), (10, 9));
        assert_eq!(backoff.may_try(CRASH, at(1), at(11)), Ok(()));
        assert_eq!(backoff.may_try(CRASH, at(12), at(13)).unwrap_err().0.as_secs(), 20);
        let mut now = 100;
        for _ in 0..10 {
            now += 301;
            assert_eq!(backoff.may_try(CRASH, at(now - 301), at(now)), Ok(()));
        }
        assert_eq!(backoff.may_try(CRASH, at(now), at(now)).unwrap_err().0.as_secs(), 300);
        assert_eq!(backoff.may_try(CRASH, at(now + 601), at(now + 601)), Ok(()), "long good behaviour is rewarded");
        assert_eq!(backoff.may_try(CRASH, at(now + 602), at(now + 602)).unwrap_err().0.as_secs(), 10);
    }
}
