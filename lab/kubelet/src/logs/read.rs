//! Reading of logs: the last lines, since a time, with times, and what comes next.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::older;

/// What `kubectl logs` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail_lines: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) limit_bytes: Option<usize>,
}

impl Options {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// The parameter that cannot be understood.
    pub(crate) fn parse(query: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = || format!("invalid value {value:?} of {key}");
            let flag = || matches!(&*value, "true" | "1" | "");
            match &*key {
                "follow" => options.follow = flag(),
                "previous" => options.previous = flag(),
                "timestamps" => options.timestamps = flag(),
                // A negative number means all lines, as kubectl's default -1.
                "tailLines" => options.tail_lines = usize::try_from(value.parse::<i64>().map_err(|_| wrong())?).ok(),
                "limitBytes" => options.limit_bytes = Some(value.parse().map_err(|_| wrong())?),
                "sinceTime" => options.since = Some(value.parse().map_err(|_| wrong())?),
                "sinceSeconds" => {
                    let seconds: i64 = value.parse().map_err(|_| wrong())?;
                    options.since = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).ok();
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

/// One piece of output, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) time: String,
    pub(crate) is_stderr: bool,
    /// With its line end, unless it was a part of a line.
    pub(crate) content: Vec<u8>,
}

impl Output {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |b| *b == b' ');
        let time = String::from_utf8(fields.next()?.to_vec()).ok()?;
        let (stream, tag) = (fields.next()?, fields.next()?);
        let mut content = fields.next()?.to_vec();
        if tag == b"F" {
            content.push(b'\n');
        }
        Some(Self { time, is_stderr: stream == b"stderr", content })
    }

    fn is_since(&self, since: Option<Timestamp>) -> bool {
        since.is_none_or(|since| self.time.parse::<Timestamp>().is_ok_and(|time| time >= since))
    }
}

/// Goes on where the last read ended, over changes of the file.
#[derive(Debug)]
pub(crate) struct Follow {
    path: PathBuf,
    file: Option<(BufReader<fs::File>, u64)>,
    rest: Vec<u8>,
}

impl Follow {
    /// Starts at the beginning, or at the end of what is there.
    pub(crate) fn new(path: &Path, from_end: bool) -> Self {
        let mut follow = Self { path: path.to_owned(), file: None, rest: Vec::new() };
        follow.reopen();
        if from_end && let Some((file, _)) = &mut follow.file {
            let _ = io::Seek::seek(file, io::SeekFrom::End(0));
        }
        follow
    }

    fn reopen(&mut self) {
        let file = fs::File::open(&self.path).ok();
        self.file = file.and_then(|f| f.metadata().ok().map(|m| (BufReader::new(f), m.ino())));
    }

    /// The next piece that is there.
    pub(crate) fn next(&mut self) -> Option<Output> {
        loop {
            if self.file.is_none() {
                self.reopen();
            }
            let (file, inode) = self.file.as_mut()?;
            let count = file.read_until(b'\n', &mut self.rest).ok()?;
            if self.rest.last() == Some(&b'\n') {
                self.rest.pop();
                let line = std::mem::take(&mut self.rest);
                if let Some(output) = Output::parse(&line) {
                    return Some(output);
                }
            } else if count == 0 {
                let is_replaced = fs::metadata(&self.path).is_ok_and(|now| now.ino() != *inode);
                if !is_replaced {
                    return None;
                }
                self.file = None;
            }
        }
    }
}

/// Turns the pieces of a log into what a client asked for.
#[derive(Debug)]
pub(crate) struct Reader {
    options: Options,
    follow: Follow,
    waiting: VecDeque<Output>,
    left_bytes: usize,
    at_line_start: bool,
}

impl Reader {
    pub(crate) fn open(path: &Path, options: Options) -> Self {
        let mut waiting = VecDeque::new();
        let mut lines = 0;
        let mut keep = |output: Output| {
            lines += usize::from(output.content.ends_with(b"\n"));
            waiting.push_back(output);
            while let Some(most) = options.tail_lines.filter(|most| lines > *most)
                && let Some(gone) = waiting.pop_front()
            {
                lines -= usize::from(gone.content.ends_with(b"\n"));
                if lines <= most && gone.content.ends_with(b"\n") {
                    break;
                }
            }
        };
        let mut before = Follow::new(&older(path), false);
        let mut follow = Follow::new(path, false);
        while let Some(output) = before.next() {
            keep(output);
        }
        while let Some(output) = follow.next() {
            keep(output);
        }
        if options.tail_lines == Some(0) {
            waiting.clear();
        }
        let left_bytes = options.limit_bytes.unwrap_or(usize::MAX);
        Self { options, follow, waiting, left_bytes, at_line_start: true }
    }

    /// What a client gets next; `None` when there is nothing more for now.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let output = self.waiting.pop_front().or_else(|| self.follow.next())?;
            if !output.is_since(self.options.since) {
                continue;
            }
            if self.left_bytes == 0 {
                return None;
            }
            let mut text = Vec::new();
            if self.options.timestamps && self.at_line_start {
                text.extend_from_slice(output.time.as_bytes());
                text.push(b' ');
            }
            self.at_line_start = output.content.ends_with(b"\n");
            text.extend_from_slice(&output.content);
            text.truncate(self.left_bytes);
            self.left_bytes -= text.len();
            return Some(text);
        }
    }

    /// Whether the client has got all it may get.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.left_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &Path, query: &str) -> String {
        let mut reader = Reader::open(path, Options::parse(query).unwrap());
        let mut text = Vec::new();
        while let Some(more) = reader.next() {
            text.extend(more);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_client_gets_the_part_it_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(
            &path,
            "2024-01-01T00:00:00.000000001Z stdout F one\ngarbage\n2024-01-01T00:00:01.0Z stderr P tw\n\
             2024-01-01T00:00:02.0Z stderr F o\n2024-01-01T00:00:03.0Z stdout F three\n",
        )
        .unwrap();
        assert_eq!(all(&path, ""), "one\ntwo\nthree\n");
        assert_eq!(all(&path, "tailLines=1"), "three\n");
        assert_eq!(all(&path, "tailLines=2"), "two\nthree\n");
        assert_eq!(all(&path, "tailLines=0"), "");
        assert_eq!(all(&path, "tailLines=-1&limitBytes=5"), "one\nt");
        assert_eq!(all(&path, "sinceTime=2024-01-01T00:00:03Z&timestamps=true"), "2024-01-01T00:00:03.0Z three\n");
        assert!(Options::parse("tailLines=x").is_err());
    }

    #[test]
    fn following_goes_on_over_a_change_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(&path, "t stdout F a\nt stdout F b").unwrap();
        let mut follow = Follow::new(&path, false);
        assert_eq!(follow.next().unwrap().content, b"a\n");
        assert_eq!(follow.next(), None, "a half-written line waits");
        let mut file = fs::File::options().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b"c\n").unwrap();
        assert_eq!(follow.next().unwrap().content, b"bc\n");
        fs::rename(&path, older(&path)).unwrap();
        fs::write(&path, "t stdout F d\n").unwrap();
        assert_eq!(follow.next().unwrap().content, b"d\n");
    }
}
