//! What the operator tells of itself: health and metrics.

use std::{
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Without a sign of life for so long, the process is stuck: a request takes 30 s at most, a pause less.
const STUCK: Duration = Duration::from_secs(120);

/// Counters of one kind of collection.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) deleted: AtomicU64,
}

/// Shared by the work and the two ports.
#[derive(Debug)]
pub(crate) struct State {
    started: SystemTime,
    alive: Mutex<Instant>,
    pub(crate) leader: AtomicBool,
    pub(crate) terms: AtomicU64,
    pub(crate) lease_failures: AtomicU64,
    pub(crate) nodes: Collected,
    pub(crate) endpoints: Collected,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            started: SystemTime::now(),
            alive: Mutex::new(Instant::now()),
            leader: AtomicBool::new(false),
            terms: AtomicU64::new(0),
            lease_failures: AtomicU64::new(0),
            nodes: Collected::default(),
            endpoints: Collected::default(),
        }
    }

    /// A sign of life of the election, which runs in every replica.
    pub(crate) fn beat(&self) {
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether the process does its work. An API server that is away is no reason: a restart would not help.
    pub(crate) fn healthy(&self) -> bool {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < STUCK
    }

    /// All metrics in the text format of Prometheus.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(&str, f64)]| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
        let read = |counter: &AtomicU64| counter.load(Relaxed) as f64;
        let version = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
        family("cilium_operator_version", "gauge", "Version of the operator", &[(version, 1.0)]);
        let leader = f64::from(u8::from(self.leader.load(Relaxed)));
        family("kinesin_operator_leader", "gauge", "Whether this replica leads", &[("", leader)]);
        let terms = read(&self.terms);
        family("kinesin_operator_terms_total", "counter", "How often this replica became leader", &[("", terms)]);
        let failures = read(&self.lease_failures);
        family("kinesin_operator_lease_failures_total", "counter", "Failed requests for the lease", &[("", failures)]);
        family(
            "kinesin_operator_gc_runs_total",
            "counter",
            "Collections by kind and outcome",
            &[
                ("{kind=\"CiliumEndpoint\",outcome=\"fail\"}", read(&self.endpoints.failed)),
                ("{kind=\"CiliumEndpoint\",outcome=\"success\"}", read(&self.endpoints.succeeded)),
                ("{kind=\"CiliumNode\",outcome=\"fail\"}", read(&self.nodes.failed)),
                ("{kind=\"CiliumNode\",outcome=\"success\"}", read(&self.nodes.succeeded)),
            ],
        );
        family(
            "kinesin_operator_gc_deleted_total",
            "counter",
            "Collected objects by kind",
            &[
                ("{kind=\"CiliumEndpoint\"}", read(&self.endpoints.deleted)),
                ("{kind=\"CiliumNode\"}", read(&self.nodes.deleted)),
            ],
        );
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        family("process_start_time_seconds", "gauge", "Start of the process since the epoch", &[("", started)]);
        if let Some(resident) = resident_bytes() {
            family("process_resident_memory_bytes", "gauge", "Resident memory in bytes", &[("", resident)]);
        }
        text
    }
}

/// VmRSS of proc_pid_status(5), which is in kB.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}
