//! Container logs in the format of the CRI: `TIME STREAM F|P CONTENT`, one file per run of a container.

mod read;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;

pub(crate) use read::{Follow, Options, Reader};

/// A file of this size makes room for the next; one older one is kept.
const ROTATE_BYTES: u64 = 10 << 20;
/// Longer lines are written in parts.
const LINE_BYTES: usize = 16 << 10;

/// Writes the output of a container; what cannot be written is lost, the container goes on.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: Option<fs::File>,
    size: u64,
    partial: [(&'static str, Vec<u8>); 2],
}

impl LogWriter {
    pub(crate) fn open(path: &Path) -> Self {
        let file = fs::File::options().create(true).append(true).open(path).ok();
        let size = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        Self { path: path.to_owned(), file, size, partial: [("stdout", Vec::new()), ("stderr", Vec::new())] }
    }

    /// Takes bytes of a stream; whole lines are written at once.
    pub(crate) fn write(&mut self, stream: &'static str, mut bytes: &[u8]) {
        let index = usize::from(stream == "stderr");
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let mut line = std::mem::take(&mut self.partial[index].1);
            line.extend_from_slice(&bytes[..end]);
            self.put(stream, &line, true);
            bytes = &bytes[end + 1..];
        }
        self.partial[index].1.extend_from_slice(bytes);
        if self.partial[index].1.len() >= LINE_BYTES {
            let line = std::mem::take(&mut self.partial[index].1);
            self.put(stream, &line, false);
        }
    }

    pub(crate) fn has_partial_line(&self) -> bool {
        self.partial.iter().any(|(_, line)| !line.is_empty())
    }

    /// Writes what has no end yet, such as a prompt.
    pub(crate) fn flush_partial_lines(&mut self) {
        for index in 0..self.partial.len() {
            let line = std::mem::take(&mut self.partial[index].1);
            if !line.is_empty() {
                self.put(self.partial[index].0, &line, false);
            }
        }
    }

    fn put(&mut self, stream: &str, content: &[u8], is_whole: bool) {
        let mut line =
            format!("{} {stream} {} ", precise(Timestamp::now()), if is_whole { 'F' } else { 'P' }).into_bytes();
        line.extend_from_slice(content);
        line.push(b'\n');
        if self.size + line.len() as u64 > ROTATE_BYTES && fs::rename(&self.path, older(&self.path)).is_ok() {
            *self = Self { partial: std::mem::take(&mut self.partial), ..Self::open(&self.path) };
        }
        if let Some(file) = &mut self.file
            && file.write_all(&line).is_ok()
        {
            self.size += line.len() as u64;
        }
    }
}

/// The file before the current one.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// A time with all its nanoseconds, as logs have it.
fn precise(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_prompts_come_as_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(&path);
        log.write("stdout", b"one\ntw");
        log.write("stderr", b"bad\n");
        log.write("stdout", b"o\n$ ");
        assert!(log.has_partial_line());
        log.flush_partial_lines();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(|l| l.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, ["stdout F one", "stderr F bad", "stdout F two", "stdout P $ "]);
    }

    #[test]
    fn a_full_file_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(&path);
        log.size = ROTATE_BYTES;
        log.write("stdout", b"next\n");
        assert!(older(&path).exists());
        assert!(fs::read_to_string(&path).unwrap().ends_with("stdout F next\n"));
    }
}
