//! Options that are numbers: what is asked of them in every mode.

use std::ops::RangeInclusive;

use kinesin_core::registry::BuildError;

/// Refuses a number outside of what can be meant; `hint` is what follows after the range, such as `3 is the default`.
///
/// # Errors
/// `Config` with the key, the number and the range.
pub fn check_number(
    backend: &str,
    key: &str,
    number: u32,
    allowed: RangeInclusive<u32>,
    hint: &str,
) -> Result<u32, BuildError> {
    if allowed.contains(&number) {
        return Ok(number);
    }
    let (least, most) = allowed.into_inner();
    Err(BuildError::Config {
        backend: backend.to_owned(),
        key: key.to_owned(),
        reason: format!("{number} is not between {least} and {most}; {hint}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_allowed_and_what_is_beyond_is_named() {
        let check = |number| check_number("mode", "seconds", number, 1..=86_400, "5 is the default");
        assert_eq!((check(1).ok(), check(86_400).ok()), (Some(1), Some(86_400)));
        for number in [0, 86_401] {
            let told = check(number).expect_err("refused").to_string();
            assert_eq!(
                told,
                format!("backendConfig.mode.seconds: {number} is not between 1 and 86400; 5 is the default")
            );
        }
    }
}
