//! CPU time of a run.
//!
//! On a veth path the kernel handles packets in the thread that sends them, or in ksoftirqd when there are too many; so
//! both threads and all of ksoftirqd are what the traffic cost, whatever else the machine does meanwhile. What an
//! interrupt that hits somebody else handles is missed; the whole machine's time is kept beside it as a check.

use std::{fs, io, time::Instant};

use nix::unistd::Pid;

/// Whose time counts.
#[derive(Debug)]
pub(super) struct Meter {
    threads: Vec<String>,
}

/// The clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    at: Instant,
    /// Nanoseconds on a CPU of threads and ksoftirqd.
    own_ns: u64,
    /// Idle ticks of all CPUs (1/100 s).
    idle_ticks: u64,
    cpus: usize,
}

/// What lies between two readings, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    pub(super) elapsed: f64,
    pub(super) own: f64,
    pub(super) machine: f64,
}

impl Meter {
    /// Counts threads of this process, and ksoftirqd.
    pub(super) fn new(threads: [Pid; 2]) -> Self {
        let mut paths: Vec<String> =
            threads.iter().map(|thread| format!("/proc/self/task/{thread}/schedstat")).collect();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let path = entry.path();
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            if name.starts_with("ksoftirqd/") {
                paths.push(path.join("schedstat").to_string_lossy().into_owned());
            }
        }
        Self { threads: paths }
    }

    pub(super) fn read(&self) -> io::Result<Reading> {
        let mut own_ns = 0;
        for path in &self.threads {
            own_ns += first_number(&fs::read_to_string(path)?)?;
        }
        let stat = fs::read_to_string("/proc/stat")?;
        // `cpu  user nice system idle iowait ...`: proc_stat(5).
        let line = stat.lines().next().unwrap_or_default();
        let idle_ticks = line.split_ascii_whitespace().skip(4).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
        let cpus = stat.lines().filter(|line| line.starts_with("cpu")).count() - 1;
        Ok(Reading { at: Instant::now(), own_ns, idle_ticks: idle_ticks.sum(), cpus })
    }
}

/// The first field of `schedstat` is the time on a CPU in nanoseconds (Linux Documentation/scheduler/sched-stats.rst).
fn first_number(text: &str) -> io::Result<u64> {
    let number = text.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("{text:?} is no schedstat")))
}

impl Reading {
    pub(super) fn until(&self, later: &Self) -> Spent {
        let elapsed = later.at.duration_since(self.at).as_secs_f64();
        let idle = later.idle_ticks.saturating_sub(self.idle_ticks) as f64 / 100.0;
        Spent {
            elapsed,
            own: later.own_ns.saturating_sub(self.own_ns) as f64 / 1e9,
            machine: (elapsed * self.cpus as f64 - idle).max(0.0),
        }
    }
}
