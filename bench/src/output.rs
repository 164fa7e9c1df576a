//! The one writer to stdout.

use std::io::{self, Write as _};

/// Writes what the program answers.
///
/// # Errors
/// When stdout is closed.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
