//! Properties: random inputs, the seed that repeats them, and the shortest input that breaks the property.

use std::{
    cell::RefCell,
    env, fmt,
    hash::{BuildHasher as _, RandomState},
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use crate::outcome::{Judged, Stop};

/// Environment variable with the seed of a run that is to be repeated.
const SEED: &str = "KINESIN_SEED";
/// Environment variable with the number of random inputs per property, instead of each property's own.
const CASES: &str = "KINESIN_CASES";
/// How long a failing input may be shortened, in milliseconds.
const SHRINK_MILLISECONDS: u32 = 20_000;

/// Looks for an input that breaks a property among `cases` random ones.
///
/// The answer names the shortest input that was found, and the seed.
pub(super) fn holds<S: Strategy>(
    cases: u32,
    inputs: &S,
    show: impl Fn(&S::Value) -> String,
    judge: impl Fn(&S::Value) -> Judged,
) -> Judged {
    let seed = match number(SEED)? {
        Some(seed) => seed,
        // The standard library's own source of chance is enough to choose a seed.
        None => RandomState::new().hash_one(SEED),
    };
    let cases = match number(CASES)? {
        None => cases,
        Some(cases) => u32::try_from(cases).map_err(|_| Stop::broken(format!("{CASES}={cases} is too many")))?,
    };
    let config = Config {
        cases,
        max_shrink_iters: 4096,
        max_shrink_time: SHRINK_MILLISECONDS,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_le_bytes().repeat(4));
    let missing = RefCell::new(None);
    let result = TestRunner::new_with_rng(config, rng).run(inputs, |input| {
        if missing.borrow().is_some() {
            return Ok(());
        }
        match judge(&input) {
            Ok(()) => Ok(()),
            Err(Stop::Broken(reason)) => Err(TestCaseError::fail(reason)),
            Err(stop @ Stop::Missing { .. }) => {
                *missing.borrow_mut() = Some(stop);
                Ok(())
            }
        }
    });
    match (result, missing.into_inner()) {
        (_, Some(stop)) => Err(stop),
        (Ok(()), None) => Ok(()),
        (Err(TestError::Fail(reason, input)), None) => {
            Err(Stop::broken(format!("{}\nafter\n{}\nrepeat it with {SEED}={seed:#x}", reason.message(), show(&input))))
        }
        (Err(TestError::Abort(reason)), None) => Err(Stop::broken(format!("the suite gave up: {reason}"))),
    }
}

/// One line for each step.
pub(super) fn lines<T: fmt::Debug>(steps: &[T]) -> String {
    let lines = steps.iter().enumerate().map(|(number, step)| format!("  {}. {step:?}", number + 1));
    lines.collect::<Vec<_>>().join("\n")
}

fn number(variable: &str) -> Result<Option<u64>, Stop> {
    let Some(text) = env::var_os(variable) else { return Ok(None) };
    let text = text.to_string_lossy();
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let told = |_| Stop::broken(format!("{variable}={text:?} is no number such as 7 or 0x7f3a"));
    parsed.map(Some).map_err(told)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use kinesin_core::capability::{KernelFeature, KernelVersion};

    use super::*;

    #[test]
    fn shortest_breaking_input_is_told_with_its_seed() {
        let judge = |number: &u32| match number {
            0..1000 => Ok(()),
            _ => Err(Stop::broken(format!("{number} is too large"))),
        };
        let Err(Stop::Broken(text)) = holds(256, &(0_u32..1 << 20), u32::to_string, judge) else {
            panic!("almost every number breaks it");
        };
        assert!(text.starts_with("1000 is too large\nafter\n1000\nrepeat it with KINESIN_SEED=0x"), "{text}");
    }

    #[test]
    fn what_the_machine_lacks_ends_the_search_as_a_skip() {
        let feature = KernelFeature { name: "x", since: KernelVersion::new(9, 9), remedy: "wait", probe: None };
        let tries = Cell::new(0);
        let judged = holds(64, &(0_u32..9), u32::to_string, |_| {
            tries.set(tries.get() + 1);
            Err(Stop::Missing { feature, reason: "no".to_owned() })
        });
        assert!(matches!(judged, Err(Stop::Missing { .. })), "{judged:?}");
        assert_eq!(tries.get(), 1);
    }
}
