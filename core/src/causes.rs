//! An error and its causes as one line for people.

use std::error::Error;

/// The error's message, then those of its causes; one that the text before it already tells is left out.
///
/// # Examples
/// ```
/// let cause = std::io::Error::other("no space left");
/// let error = kinesin_core::ipam::IpamError::Store { path: "/run/x".into(), source: cause };
/// assert_eq!(kinesin_core::causes::with_causes(&error), "cannot access \"/run/x\": no space left");
/// ```
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        #[source]
        cause: Option<Box<Told>>,
    }

    #[test]
    fn no_cause_is_told_twice() {
        let of = |text, cause: Option<Told>| Told { text, cause: cause.map(Box::new) };
        let error = of("no config", Some(of("cannot read x: no such file", Some(of("no such file", None)))));
        assert_eq!(with_causes(&error), "no config: cannot read x: no such file");
    }
}
