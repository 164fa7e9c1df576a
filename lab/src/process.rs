//! Processes by number and start time, so that a number that was given out again is never taken for the old one.

use std::{fs, io};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// One process, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number on this machine.
    pub pid: i32,
    /// Its start in clock ticks since boot (`/proc/PID/stat`, field 22).
    start: u64,
}

impl Process {
    /// The running process of this number.
    #[must_use]
    pub fn find(pid: i32) -> Option<Self> {
        running(pid).map(|start| Self { pid, start })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        running(self.pid) == Some(self.start)
    }

    /// Kills it (SIGKILL); one that is gone already is fine.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn kill(&self) -> io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// When a process started; `None` when there is none or it has ended and waits to be collected.
fn running(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&stat)
}

fn parse_stat(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything, closing parentheses included. Source: proc_pid_stat(5).
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_alive_until_its_number_means_another() {
        let pid = i32::try_from(std::process::id()).expect("a pid");
        let own = Process::find(pid).expect("running");
        assert!(own.is_alive());
        assert!(!Process { start: own.start + 1, ..own }.is_alive());
        assert_eq!(Process::find(-1), None);
    }

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let tail = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_stat(&format!("7 (a) b (c)) S {tail}")), Some(4711));
        assert_eq!(parse_stat(&format!("7 (ended) Z {tail}")), None);
        assert_eq!(parse_stat("nonsense"), None);
        assert_eq!(parse_stat("7 (short) S 1 2"), None);
    }
}
