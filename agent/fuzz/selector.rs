//! Endpoint names in the paths of the agent's API.

use kinesin_agent::fuzzing::selector;

/// A text is refused in words, or it is a name that is written and read again as the same.
pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match selector(text) {
        Ok(written) => {
            assert_eq!(selector(&written).as_ref(), Ok(&written), "{text:?} is written {written:?}");
            if let Some(pod) = written.strip_prefix("pod-name:") {
                let has_both =
                    pod.split_once(':').is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
                assert!(has_both, "{written:?} names endpoints that are no Pod's");
            }
            assert_ne!(written, "0", "no endpoint has number 0");
        }
        // Whatever was asked for is quoted, but not at any length.
        Err(told) => assert!(told.contains("names no endpoint") && told.len() < 4096, "{told}"),
    }
}
