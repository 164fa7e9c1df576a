//! The one writer to stdout.

use std::io::{self, Write as _};

/// Writes what the program answers. A reader that has heard enough is no error: there may be figures to save.
///
/// # Errors
/// Every other failure of stdout, such as a full disk.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
