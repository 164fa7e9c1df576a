//! Work on many pods under one limit for all of them, so that those in trouble keep neither each other nor anybody else.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::time::{Instant, timeout};

/// How long pods that do not answer may hold a pass, and whoever waits for its end: about as long as a runtime's user notices.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// More for each pod that there is: one takes a millisecond, on a machine that is busy with other things many times that.
const EACH: Duration = Duration::from_millis(20);
/// Pods that are worked on at a time: each holds a few open files.
pub(crate) const PARALLEL: usize = 32;

/// What became of a pod's turn.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn<T> {
    /// It ended by itself.
    Ended(T),
    /// It took too long, and was broken off.
    Slow,
    /// It had none: the others had used up the time.
    None,
}

/// What is left of a pass's time for pods.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance(Duration);

impl Allowance {
    /// Of a node with so many pods.
    pub(crate) fn of(pods: usize) -> Self {
        Self(PATIENCE + EACH * u32::try_from(pods).unwrap_or(u32::MAX))
    }

    /// Does `jobs`, several at a time: first those that never took too long, last those that did so in the latest pass, whose
    /// number `slow_in` tells. So each has its turn after some passes, however many hang.
    pub(crate) async fn spend<K: Copy, T>(
        &mut self,
        mut jobs: Vec<(K, impl Future<Output = T>)>,
        slow_in: impl Fn(&K) -> Option<u64>,
    ) -> Vec<(K, Turn<T>)> {
        jobs.sort_by_key(|(name, _)| slow_in(name));
        let begun = Instant::now();
        let end = begun + self.0;
        let turns = jobs.into_iter().map(|(name, job)| async move {
            let patience = PATIENCE.min(end.saturating_duration_since(Instant::now()));
            if patience.is_zero() {
                return (name, Turn::None);
            }
            (name, timeout(patience, job).await.map_or(Turn::Slow, Turn::Ended))
        });
        let done = stream::iter(turns).buffer_unordered(PARALLEL).collect().await;
        self.0 = self.0.saturating_sub(begun.elapsed());
        done
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::future::BoxFuture;

    use super::*;

    fn jobs(
        names: impl IntoIterator<Item = usize>,
        stuck: impl Fn(usize) -> bool,
    ) -> Vec<(usize, BoxFuture<'static, ()>)> {
        let job = |name: usize| -> BoxFuture<'static, ()> {
            if stuck(name) { Box::pin(pending()) } else { Box::pin(ready(())) }
        };
        names.into_iter().map(|name| (name, job(name))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_hang_take_no_longer_than_one_and_keep_nobody() {
        let mut allowance = Allowance::of(40);
        let begun = Instant::now();
        let done = allowance.spend(jobs(0..40, |name| name % 2 == 0), |_| None).await;
        assert_eq!(begun.elapsed(), PATIENCE);
        for (name, turn) in &done {
            let expected = if name % 2 == 0 { Turn::Slow } else { Turn::Ended(()) };
            assert_eq!(*turn, expected, "{name}");
        }
        assert_eq!(done.len(), 40);
        // What is left is for whoever comes next in the same pass.
        let done = allowance.spend(jobs([1, 2], |name| name == 2), |_| None).await;
        assert_eq!(done, [(1, Turn::Ended(())), (2, Turn::Slow)]);
        assert_eq!(begun.elapsed(), PATIENCE + 40 * EACH);
        assert_eq!(allowance.spend(jobs([1], |_| false), |_| None).await, [(1, Turn::None)]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_had_no_turn_is_first_in_the_next_pass() {
        let count = 3 * PARALLEL;
        let (mut slow_in, mut tried) = (vec![None; count], vec![0; count]);
        for pass in 1..=9 {
            let done = Allowance::of(0).spend(jobs(0..count, |_| true), |name| slow_in[*name]).await;
            for (name, _) in done.iter().filter(|(_, turn)| *turn == Turn::Slow) {
                slow_in[*name] = Some(pass);
                tried[*name] += 1;
            }
            assert!(tried.iter().all(|times| *times <= pass / 3 + 1 && *times >= pass / 3), "{pass}: {tried:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_are_well_come_before_those_that_hung() {
        let count = 2 * PARALLEL;
        let stuck = |name: usize| name < PARALLEL;
        let mut allowance = Allowance::of(0);
        let first = allowance.spend(jobs(0..count, stuck), |_| None).await;
        assert!(first.iter().all(|(name, turn)| stuck(*name) || *turn == Turn::None), "{first:?}");
        let mut allowance = Allowance::of(0);
        let second = allowance.spend(jobs(0..count, stuck), |name| stuck(*name).then_some(1)).await;
        assert!(second.iter().all(|(name, turn)| stuck(*name) != (*turn == Turn::Ended(()))), "{second:?}");
    }
}
