//! Log lines: to the configuration's `log-file`, else errors alone to stderr.
//!
//! Logging never fails a command, and never touches stdout.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    process,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::{config::Config, request::Command};

/// Where log lines go during one run.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
    command: Command,
    start: Instant,
}

impl Log {
    /// Opens the configuration's log file; one that cannot be opened leaves errors to stderr.
    #[must_use]
    pub fn open(config: &Config, command: Command) -> Self {
        let file = config.log_file.as_ref().and_then(|path| {
            let mut options = OpenOptions::new();
            // A pipe that nobody reads must not stop an ADD.
            options.append(true).create(true).mode(0o600).custom_flags(nix::libc::O_NONBLOCK);
            options.open(path).ok()
        });
        Self { file, json: config.log_json, debug: config.debug, command, start: Instant::now() }
    }

    /// Logs a failure, or what an operator should know.
    pub fn error(&self, message: &str) {
        match &self.file {
            Some(file) => self.write(file, "error", message),
            None => {
                // Nothing is left to tell if stderr is closed.
                let _ = writeln!(io::stderr(), "kinesin-cni: {}: {message}", self.command);
            }
        }
    }

    /// Logs a step, if `enable-debug` asks for it.
    pub fn debug(&self, message: &str) {
        if let Some(file) = self.file.as_ref().filter(|_| self.debug) {
            self.write(file, "debug", message);
        }
    }

    /// One write a line, so that the lines of plugins that run at the same time do not mix.
    fn write(&self, mut file: &File, level: &str, message: &str) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (pid, command) = (process::id(), self.command.as_str());
        let line = if self.json {
            json!({"time": time, "level": level, "pid": pid, "command": command, "elapsed-us": micros, "msg": message})
                .to_string()
        } else {
            format!("time={time:.6} level={level} pid={pid} command={command} elapsed-us={micros} msg={message:?}")
        };
        // A full disk must not fail the command.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}
