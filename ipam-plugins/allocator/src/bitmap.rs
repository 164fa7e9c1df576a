//! A set of numbers below a fixed bound that finds a member from a given place on.

const WORD: usize = u64::BITS as usize;

/// The free addresses of a block: one bit each, set when free.
///
/// A second level has one bit for each word that is not empty, so that a search in a block of 65,536 that is nearly full
/// passes 16 words and not 1024.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
    filled: Vec<u64>,
    bound: usize,
    count: usize,
}

impl Bitmap {
    /// All numbers from `first` to `last` inclusive, out of those below `bound`.
    pub(crate) fn filled(bound: usize, first: usize, last: usize) -> Self {
        let words = vec![0; bound.div_ceil(WORD)];
        let mut set = Self { filled: vec![0; words.len().div_ceil(WORD)], words, bound, count: 0 };
        for (index, word) in set.words.iter_mut().enumerate() {
            let start = index * WORD;
            // Bits below `first` and above `last` of this word stay clear.
            let low = first.saturating_sub(start).min(WORD);
            let high = (last + 1).saturating_sub(start).min(WORD);
            if low < high {
                *word = (u64::MAX >> (WORD - (high - low))) << low;
                set.count += high - low;
                set.filled[index / WORD] |= 1 << (index % WORD);
            }
        }
        set
    }

    /// How many numbers are in the set.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether a number below the bound is in the set.
    pub(crate) fn contains(&self, index: usize) -> bool {
        self.words[index / WORD] & (1 << (index % WORD)) != 0
    }

    /// Adds a number below the bound.
    pub(crate) fn insert(&mut self, index: usize) {
        let word = &mut self.words[index / WORD];
        let bit = 1 << (index % WORD);
        if *word & bit == 0 {
            *word |= bit;
            self.count += 1;
            let at = index / WORD;
            self.filled[at / WORD] |= 1 << (at % WORD);
        }
    }

    /// Takes a number out.
    pub(crate) fn remove(&mut self, index: usize) {
        let word = &mut self.words[index / WORD];
        let bit = 1 << (index % WORD);
        if *word & bit != 0 {
            *word &= !bit;
            self.count -= 1;
            if *word == 0 {
                let at = index / WORD;
                self.filled[at / WORD] &= !(1 << (at % WORD));
            }
        }
    }

    /// The first member at or after `start`, around the end.
    pub(crate) fn next_from(&self, start: usize) -> Option<usize> {
        if self.count == 0 {
            return None;
        }
        let start = start % self.bound;
        if let Some(found) = first_set_from(&self.words, start, 1) {
            return Some(found);
        }
        // The word where it started comes again at the end, for its lower bits.
        let (next, all) = ((start / WORD + 1) % self.words.len(), self.filled.len());
        let word = first_set_from(&self.filled, next, all).or_else(|| first_set_from(&self.filled, 0, all))?;
        Some(word * WORD + self.words[word].trailing_zeros() as usize)
    }
}

/// The first bit that is set at or after `start`, in so many words at most.
fn first_set_from(words: &[u64], start: usize, at_most: usize) -> Option<usize> {
    let (first, bit) = (start / WORD, start % WORD);
    let upper = words[first] & (u64::MAX << bit);
    if upper != 0 {
        return Some(first * WORD + upper.trailing_zeros() as usize);
    }
    let rest = words.iter().enumerate().take(first.saturating_add(at_most)).skip(first + 1);
    let (index, word) = rest.into_iter().find(|(_, word)| **word != 0)?;
    Some(index * WORD + word.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn search_goes_upward_and_around() {
        let mut set = Bitmap::filled(300, 1, 298);
        assert_eq!(set.count(), 298);
        assert_eq!((set.next_from(0), set.next_from(299), set.next_from(298)), (Some(1), Some(1), Some(298)));
        set.remove(298);
        assert_eq!(set.next_from(298), Some(1));
        for index in 1..298 {
            set.remove(index);
        }
        assert_eq!((set.count(), set.next_from(17)), (0, None));
        set.insert(5);
        assert_eq!(set.next_from(6), Some(5), "the lower bits of the word where it started");
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_numbers(
            // Small ones, and some with more than one word of the second level.
            bound in prop_oneof![1_usize..400, 4_000_usize..9_000],
            ends in (0_usize..9_000, 0_usize..9_000),
            steps in prop::collection::vec((any::<bool>(), 0_usize..9_000), 0..200),
        ) {
            let first = ends.0 % bound;
            let last = first.max(ends.1 % bound);
            let mut set = Bitmap::filled(bound, first, last);
            let mut model: BTreeSet<usize> = (first..=last).collect();
            for (add, index) in steps {
                let index = index % bound;
                if add {
                    set.insert(index);
                    model.insert(index);
                } else {
                    set.remove(index);
                    model.remove(&index);
                }
                let expected = model.range(index..).next().or_else(|| model.first()).copied();
                prop_assert_eq!(set.next_from(index), expected);
                prop_assert_eq!(set.count(), model.len());
                prop_assert_eq!(set.contains(index), add);
            }
        }
    }
}
