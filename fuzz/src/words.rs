//! A dictionary for the fuzzer: the words that the inputs of a corpus are made of.
//!
//! Without one it would have to guess the names of JSON fields and configuration keys byte by byte, and a list kept by
//! hand would go stale.

use std::collections::BTreeSet;

/// Words of this many bytes are worth more than chance.
const LENGTHS: std::ops::RangeInclusive<usize> = 3..=48;
/// More of them only thin each other out.
const MAX_WORDS: usize = 2000;

/// The dictionary of some inputs, in libFuzzer's format: one quoted word a line.
pub(crate) fn dictionary<'a>(inputs: impl Iterator<Item = &'a [u8]>) -> String {
    let words: BTreeSet<&[u8]> = inputs.flat_map(words_of).collect();
    words.into_iter().take(MAX_WORDS).map(|word| format!("\"{}\"\n", String::from_utf8_lossy(word))).collect()
}

/// Runs of letters, digits and what stands inside names and addresses.
fn words_of(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(byte);
    input.split(move |byte| !part(byte)).filter(|word| LENGTHS.contains(&word.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_words_and_each_comes_once() {
        let inputs: [&[u8]; 2] = [br#"{"cniVersion":"1.1.0","a":[1]}"#, b"\x00\xffcniVersion = fd00::1/64\n"];
        assert_eq!(dictionary(inputs.into_iter()), "\"1.1.0\"\n\"cniVersion\"\n\"fd00::1/64\"\n");
    }
}
