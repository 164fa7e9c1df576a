//! Loops that keep something as it should be, and the record of how they fare.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use kinesin_agent_api::types::ControllerStatus;
use kinesin_core::causes::with_causes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Wait after a first failure; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Changes that come within this time are handled together.
const COALESCE: Duration = Duration::from_millis(20);

/// How every loop of the agent fares, by name.
#[derive(Debug, Default)]
pub(crate) struct Controllers {
    records: Mutex<BTreeMap<&'static str, Record>>,
}

#[derive(Debug, Default)]
struct Record {
    last_success: Option<Instant>,
    last_error: Option<Instant>,
    consecutive_errors: u64,
    message: String,
}

impl Controllers {
    /// Notes an outcome; the answer is the number of failures in a row.
    pub(crate) fn note(&self, name: &'static str, outcome: anyhow::Result<()>) -> u64 {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.entry(name).or_default();
        match outcome {
            Ok(()) => {
                if record.consecutive_errors > 0 {
                    tracing::info!(controller = name, failures = record.consecutive_errors, "works again");
                }
                record.last_success = Some(Instant::now());
                record.consecutive_errors = 0;
                record.message.clear();
            }
            Err(error) => {
                let message = with_causes(error.as_ref());
                // The same failure again and again is one line, not one per attempt.
                if record.message != message {
                    tracing::warn!(controller = name, error = message, "failed; it is tried again");
                }
                record.last_error = Some(Instant::now());
                record.consecutive_errors += 1;
                record.message = message;
            }
        }
        record.consecutive_errors
    }

    /// Every record, sorted by name.
    pub(crate) fn report(&self) -> Vec<ControllerStatus> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = |time: Option<Instant>| time.map(|time| time.elapsed().as_secs());
        records
            .iter()
            .map(|(name, record)| ControllerStatus {
                name: (*name).to_owned(),
                last_success_seconds: ago(record.last_success),
                last_error_seconds: ago(record.last_error),
                consecutive_errors: record.consecutive_errors,
                message: record.message.clone(),
            })
            .collect()
    }
}

/// A loop: its name, what wakes it, and how often it runs unasked.
#[derive(Debug, Clone)]
pub(crate) struct Loop {
    pub(crate) name: &'static str,
    pub(crate) wake: Arc<Notify>,
    pub(crate) period: Duration,
    pub(crate) controllers: Arc<Controllers>,
    pub(crate) stop: CancellationToken,
}

impl Loop {
    /// Runs `step` at once, whenever it is woken, every period, and again after failures with growing waits, until the
    /// agent stops. Wakes during a run lead to one more run.
    pub(crate) async fn run<F, R, E>(self, mut step: F)
    where
        F: FnMut() -> R,
        R: Future<Output = Result<(), E>>,
        E: Into<anyhow::Error>,
    {
        loop {
            let outcome = tokio::select! {
                outcome = step() => outcome,
                () = self.stop.cancelled() => return,
            };
            let failures = self.controllers.note(self.name, outcome.map_err(Into::into));
            let wait = if failures == 0 { self.period } else { backoff(failures).min(self.period) };
            tokio::select! {
                () = self.wake.notified() => {
                    tokio::time::sleep(COALESCE).await;
                    // What came meanwhile is covered by the run that follows.
                    let _ = self.wake.notified().now_or_never();
                }
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }
}

fn backoff(failures: u64) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        assert_eq!(backoff(1), FIRST_WAIT);
        assert_eq!(backoff(3), FIRST_WAIT * 4);
        assert_eq!(backoff(u64::MAX), LONGEST_WAIT);
    }

    #[test]
    fn success_clears_the_message() {
        let controllers = Controllers::default();
        assert_eq!(controllers.note("a", Err(anyhow::anyhow!("broken"))), 1);
        assert_eq!(controllers.note("a", Err(anyhow::anyhow!("broken"))), 2);
        assert_eq!(controllers.report()[0].message, "broken");
        assert_eq!(controllers.note("a", Ok(())), 0);
        let report = controllers.report();
        assert_eq!((report[0].consecutive_errors, report[0].message.as_str()), (0, ""));
        assert!(report[0].last_error_seconds.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_retried_and_wakes_coalesce() {
        let runs = Arc::new(AtomicU32::new(0));
        let controllers = Arc::new(Controllers::default());
        let stop = CancellationToken::new();
        let wake = Arc::new(Notify::new());
        let spec = Loop {
            name: "test",
            wake: wake.clone(),
            period: Duration::from_secs(3600),
            controllers: controllers.clone(),
            stop: stop.clone(),
        };
        let counted = runs.clone();
        let task = tokio::spawn(spec.run(move || {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move { if run < 2 { Err(anyhow::anyhow!("not yet")) } else { Ok(()) } }
        }));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        for _ in 0..5 {
            wake.notify_one();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 4);
        stop.cancel();
        task.await.expect("ends");
    }
}
