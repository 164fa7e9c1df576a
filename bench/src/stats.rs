//! Medians, their spread, and the interval of a ratio.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;

use crate::metric::Summed;

/// Resamples of a bootstrap; more changes the last shown digit of nothing.
const RESAMPLES: usize = 2000;
/// Bootstraps start here, so that the same figures give the same interval.
const SEED: u64 = 0x6b69_6e65;

/// The value below which the share `p` (0 to 1) of `values` lies, by linear interpolation between neighbours.
///
/// 0 of no values: callers have at least one.
#[must_use]
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile_of_sorted(&sorted, p)
}

/// As [`percentile`], of values that are in order already.
#[must_use]
pub fn percentile_of_sorted(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = p.clamp(0.0, 1.0) * last as f64;
    let (below, share) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * share
}

/// The figures of all rounds as one value.
#[must_use]
pub fn sum_up(values: &[f64], how: Summed) -> f64 {
    match how {
        Summed::Median => percentile(values, 0.5),
        Summed::Largest => values.iter().copied().fold(0.0, f64::max),
    }
}

/// One contender's rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Median of the rounds (or their largest, where the metric is a maximum).
    pub value: f64,
    /// First quartile of the rounds.
    pub q1: f64,
    /// Third quartile of the rounds.
    pub q3: f64,
    /// One figure a round, in the order of the rounds.
    pub rounds: Vec<f64>,
}

impl Summary {
    /// Sums up the rounds.
    #[must_use]
    pub fn of(rounds: Vec<f64>, how: Summed) -> Self {
        let (q1, q3) = (percentile(&rounds, 0.25), percentile(&rounds, 0.75));
        Self { value: sum_up(&rounds, how), q1, q3, rounds }
    }

    /// Interquartile range in percent of the value: how noisy the machine was.
    #[must_use]
    pub fn spread_percent(&self) -> f64 {
        if self.value == 0.0 { 0.0 } else { (self.q3 - self.q1) / self.value * 100.0 }
    }
}

/// How many times as good as another Kinesin is: above 1 it is better, whichever way the metric goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Advantage {
    /// Ratio of the two values.
    pub ratio: f64,
    /// Lower end of the 95 % bootstrap interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
}

impl Advantage {
    /// Compares the rounds of two contenders. Rounds are drawn as pairs, since what disturbed a round disturbed both.
    ///
    /// `None` without a common round, or where a value of 0 has no ratio.
    #[must_use]
    pub fn of(ours: &[f64], theirs: &[f64], more_is_better: bool, how: Summed) -> Option<Self> {
        let rounds = ours.len().min(theirs.len());
        let ratio = |ours: &[f64], theirs: &[f64]| {
            let (ours, theirs) = (sum_up(ours, how), sum_up(theirs, how));
            let (better, worse) = if more_is_better { (ours, theirs) } else { (theirs, ours) };
            (worse > 0.0 && better > 0.0).then(|| better / worse)
        };
        let measured = ratio(&ours[..rounds], &theirs[..rounds])?;
        let mut random = StdRng::seed_from_u64(SEED);
        let mut drawn: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| {
                let picks: Vec<usize> = (0..rounds).map(|_| random.random_range(0..rounds)).collect();
                let pick = |of: &[f64]| picks.iter().map(|&round| of[round]).collect::<Vec<_>>();
                ratio(&pick(ours), &pick(theirs))
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        let (low, high) = (percentile_of_sorted(&drawn, 0.025), percentile_of_sorted(&drawn, 0.975));
        Some(Self { ratio: measured, low, high })
    }

    /// `better`, `worse`, or `equal` where the interval holds 1: the runs do not tell.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.low > 1.0, self.high < 1.0) {
            (true, _) => "better",
            (_, true) => "worse",
            _ => "equal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate_between_neighbours() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(percentile(&values, 0.5), 2.5);
        assert_eq!(percentile(&values, 0.0), 1.0);
        assert_eq!(percentile(&values, 1.0), 4.0);
        assert_eq!(percentile(&values, 0.25), 1.75);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn advantage_is_above_one_where_kinesin_is_better() {
        let (fast, slow) = ([20.0, 21.0, 19.0, 20.0], [10.0, 10.5, 9.5, 10.0]);
        let more = Advantage::of(&fast, &slow, true, Summed::Median).expect("a ratio");
        assert_eq!((more.ratio, more.verdict()), (2.0, "better"));
        let less = Advantage::of(&fast, &slow, false, Summed::Median).expect("a ratio");
        assert_eq!((less.ratio, less.verdict()), (0.5, "worse"));
    }

    #[test]
    fn noise_that_hits_both_leaves_the_interval_narrow() {
        // The machine is half as fast in every second round.
        let theirs: Vec<f64> = (0..10).map(|round| if round % 2 == 0 { 10.0 } else { 5.0 }).collect();
        let ours: Vec<f64> = theirs.iter().map(|value| value * 1.2).collect();
        let paired = Advantage::of(&ours, &theirs, true, Summed::Median).expect("a ratio");
        assert!(paired.low > 1.19 && paired.high < 1.21, "{paired:?}");
    }

    #[test]
    fn rounds_that_disagree_are_told_as_equal() {
        let equal = Advantage::of(&[10.0, 8.0, 12.0, 9.0], &[9.0, 11.0, 10.0, 9.5], true, Summed::Median);
        assert_eq!(equal.expect("a ratio").verdict(), "equal");
    }

    #[test]
    fn without_rounds_or_with_zero_there_is_no_ratio() {
        assert_eq!(Advantage::of(&[], &[1.0], true, Summed::Median), None);
        assert_eq!(Advantage::of(&[1.0], &[0.0], true, Summed::Median), None);
    }

    #[test]
    fn the_largest_of_all_rounds_is_the_maximum() {
        assert_eq!(Summary::of(vec![3.0, 9.0, 4.0], Summed::Largest).value, 9.0);
    }
}
