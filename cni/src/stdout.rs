//! The one writer of stdout, which carries the answer and nothing else.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::Answer;

/// Writes the answer, if there is one to write, and returns the exit code that goes with it.
///
/// A runtime that closed its end gets exit code 1, since it cannot have read the answer.
#[must_use]
pub fn write(answer: &Answer) -> ExitCode {
    let written = match answer.to_json() {
        Some(text) => {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{text}").and_then(|()| stdout.flush())
        }
        None => Ok(()),
    };
    if answer.is_success() && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
