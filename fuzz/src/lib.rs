#![doc = include_str!("../README.md")]

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

mod drive;
#[cfg(feature = "libfuzzer")]
mod engine;
mod replay;
mod words;

/// One way into the code: what it does with bytes that anybody may have written.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// `CRATE-INPUT`, such as `cni-stdin`.
    pub name: &'static str,
    /// Directory of its inputs, from the root of the repository. Every file in it is one input and a test.
    pub corpus: &'static str,
    /// Longest input that the fuzzer makes, in bytes.
    pub max_bytes: usize,
    /// Runs one input; panics if anything about the outcome is wrong.
    pub run: fn(&[u8]),
}

impl Target {
    fn corpus_dir(&self) -> PathBuf {
        root().join(self.corpus)
    }
}

/// The root of the repository that this was built in.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The program around a list of targets: replays the corpora as tests, or does what `./x fuzz` asks for.
#[must_use]
pub fn main(targets: &[Target]) -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    let rest: Vec<OsString> = arguments.collect();
    match first.as_deref().and_then(|first| first.to_str()) {
        Some("fuzz") => drive::fuzz(targets, &rest),
        Some("keep") => drive::keep(targets, &rest),
        #[cfg(feature = "libfuzzer")]
        Some("engine") => engine::run(targets, &rest),
        _ => replay::tests(targets),
    }
}
