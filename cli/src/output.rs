//! The one place that writes to stdout.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text for people.
    #[default]
    Summary,
    /// JSON, indented by two spaces.
    Json,
    /// YAML.
    Yaml,
}

/// Renders `value` as the format asks; `text` is called for people only.
///
/// # Errors
/// When the value cannot be serialised.
pub fn render<T: Serialize>(format: Format, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<String> {
    match format {
        Format::Summary => Ok(text(value)),
        Format::Json => {
            let mut json = serde_json::to_string_pretty(value).context("cannot write the answer as JSON")?;
            json.push('\n');
            Ok(json)
        }
        Format::Yaml => serde_yaml_ng::to_string(value).context("cannot write the answer as YAML"),
    }
}

/// Writes to stdout. A reader that has gone away is no error: `kinesin status | head -1` is a fair use.
///
/// # Errors
/// Every other failure of stdout, such as a full disk.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}
