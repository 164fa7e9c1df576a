//! Numbers that a seed decides, the same in every version: a seed has to mean the same tomorrow.

/// SplitMix64, public domain: <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Debug, Clone)]
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// FNV-1a.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A number that no other process has at the same time.
pub(crate) fn unique() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut sequence =
        Sequence::new(now.as_secs() ^ u64::from(now.subsec_nanos()) << 34 ^ u64::from(std::process::id()));
    sequence.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_is_that_of_the_reference() {
        // The first numbers of splitmix64.c for seed 1234567.
        let mut sequence = Sequence::new(1_234_567);
        assert_eq!([sequence.next(), sequence.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
    }
}
