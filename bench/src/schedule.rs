//! The order of runs: ABBA, so that a machine which slowly gets faster or slower favours nobody.

/// The contenders of one round; every second round goes backwards, and each pair of rounds starts one further on.
///
/// So in each pair of rounds everyone has the same mean place, and the place at the turn goes round.
#[must_use]
pub fn order<T: Copy>(contenders: &[T], round: usize) -> Vec<T> {
    let mut order = contenders.to_vec();
    if !order.is_empty() {
        let shift = (round / 2) % order.len();
        order.rotate_left(shift);
    }
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_contenders_run_as_abba() {
        let runs: Vec<char> = (0..4).flat_map(|round| order(&['A', 'B'], round)).collect();
        assert_eq!(runs, ['A', 'B', 'B', 'A', 'B', 'A', 'A', 'B']);
    }

    #[test]
    fn everyone_has_the_same_mean_place_in_each_pair_of_rounds() {
        let who = ['a', 'b', 'c', 'd'];
        for pair in 0..4 {
            let runs: Vec<char> = (0..2).flat_map(|half| order(&who, pair * 2 + half)).collect();
            for one in who {
                let places: usize = runs.iter().enumerate().filter(|(_, run)| **run == one).map(|(at, _)| at).sum();
                assert_eq!(places, 7, "{one} in {runs:?}");
            }
        }
    }
}
