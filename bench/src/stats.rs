//! Medians, their spread, and the interval of a ratio.

use serde::Serialize;

use crate::metric::Summed;

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
    /// Median of the rounds' ratios.
    pub ratio: f64,
    /// Lower end of the interval that holds the true median with 95 % confidence.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Number of rounds; below [`FEWEST`] the interval is all that was seen and proves nothing.
    pub rounds: usize,
}

/// With fewer rounds even the smallest and the largest ratio hold the true median between them too seldom.
pub const FEWEST: usize = 6;

impl Advantage {
    /// Compares the rounds of two contenders, each round with itself, since what disturbed a round disturbed both.
    ///
    /// The interval is that of the sign test: between two of the ordered ratios, whatever their distribution. A
    /// bootstrap of so few rounds would be too narrow. Source: Conover, "Practical Nonparametric Statistics", 3rd
    /// edition, section 3.2.
    ///
    /// `None` without a common round, or where a figure of 0 has no ratio.
    #[must_use]
    pub fn of(ours: &[f64], theirs: &[f64], more_is_better: bool) -> Option<Self> {
        let ratio = |(ours, theirs): (&f64, &f64)| {
            let (better, worse) = if more_is_better { (*ours, *theirs) } else { (*theirs, *ours) };
            (worse > 0.0 && better > 0.0).then(|| better / worse)
        };
        let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(ratio).collect::<Option<_>>()?;
        ratios.sort_by(f64::total_cmp);
        let (first, rounds) = (outermost(ratios.len()), ratios.len());
        let (low, high) = (*ratios.get(first)?, *ratios.get(rounds - 1 - first)?);
        Some(Self { ratio: percentile_of_sorted(&ratios, 0.5), low, high, rounds })
    }

    /// `better`, `worse`, or `equal` where the interval holds 1: the runs do not tell. `?` with too few rounds.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.low > 1.0, self.high < 1.0) {
            _ if self.rounds < FEWEST => "?",
            (true, _) => "better",
            (_, true) => "worse",
            _ => "equal",
        }
    }
}

/// How many of `n` ordered values may be left out at each end so that the rest still holds the median with 95 %
/// confidence: fair coins that are thrown `n` times show at most so many heads in less than 2.5 % of cases.
fn outermost(n: usize) -> usize {
    let (mut exactly, mut at_most, mut left_out) = (0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX)), 0.0, 0);
    for heads in 0..n / 2 {
        at_most += exactly;
        if at_most > 0.025 {
            break;
        }
        left_out = heads;
        exactly *= (n - heads) as f64 / (heads + 1) as f64;
    }
    left_out
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
        let (fast, slow) = ([20.0, 21.0, 19.0, 20.0, 22.0, 20.0], [10.0, 10.5, 9.5, 10.0, 11.0, 10.0]);
        let more = Advantage::of(&fast, &slow, true).expect("a ratio");
        assert_eq!((more.ratio, more.verdict()), (2.0, "better"));
        let less = Advantage::of(&fast, &slow, false).expect("a ratio");
        assert_eq!((less.ratio, less.verdict()), (0.5, "worse"));
    }

    #[test]
    fn noise_that_hits_both_leaves_the_interval_narrow() {
        // The machine is half as fast in every second round.
        let theirs: Vec<f64> = (0..10).map(|round| if round % 2 == 0 { 10.0 } else { 5.0 }).collect();
        let ours: Vec<f64> = theirs.iter().map(|value| value * 1.2).collect();
        let paired = Advantage::of(&ours, &theirs, true).expect("a ratio");
        assert!(paired.low > 1.19 && paired.high < 1.21, "{paired:?}");
    }

    #[test]
    fn rounds_that_disagree_are_told_as_equal() {
        let equal = Advantage::of(&[10.0, 8.0, 12.0, 9.0, 10.0, 9.0], &[9.0, 11.0, 10.0, 9.5, 9.0, 10.0], true);
        assert_eq!(equal.expect("a ratio").verdict(), "equal");
    }

    #[test]
    fn few_rounds_prove_nothing() {
        assert_eq!(Advantage::of(&[2.0; 5], &[1.0; 5], true).expect("a ratio").verdict(), "?");
        assert_eq!(Advantage::of(&[2.0; 6], &[1.0; 6], true).expect("a ratio").verdict(), "better");
    }

    #[test]
    fn interval_has_the_order_statistics_of_the_sign_test() {
        // Conover, table A3 with p = 0.5: at most 0, 1, 2, 5 heads have less than 2.5 %.
        assert_eq!([2, 6, 8, 9, 12, 20].map(outermost), [0, 0, 0, 1, 2, 5]);
    }

    #[test]
    fn without_rounds_or_with_zero_there_is_no_ratio() {
        assert_eq!(Advantage::of(&[], &[1.0], true), None);
        assert_eq!(Advantage::of(&[1.0], &[0.0], true), None);
    }

    #[test]
    fn the_largest_of_all_rounds_is_the_maximum() {
        assert_eq!(Summary::of(vec![3.0, 9.0, 4.0], Summed::Largest).value, 9.0);
    }
}
