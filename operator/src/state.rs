//! What the operator tells of itself: health and metrics.

use std::{
    fmt::Write as _,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kinesin_ipam_blocks::Counts;

use crate::ipam::write::Written;

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
    pub(crate) ipam: IpamState,
    term_end: Mutex<tokio::time::Instant>,
}

/// What IPAM tells of itself.
#[derive(Debug, Default)]
pub(crate) struct IpamState {
    pub(crate) written: Written,
    counts: Mutex<Counts>,
    refused: Mutex<Vec<String>>,
    config_error: Mutex<Option<String>>,
}

impl IpamState {
    pub(crate) fn set_counts(&self, counts: Counts) {
        *lock(&self.counts) = counts;
    }

    /// Ranges of cluster-pool that are not served; told once for each.
    pub(crate) fn set_refused(&self, refused: Vec<String>) {
        let mut known = lock(&self.refused);
        for reason in refused.iter().filter(|reason| !known.contains(reason)) {
            tracing::error!(reason, "a range of cluster-pool is not served");
        }
        *known = refused;
    }

    pub(crate) fn set_config_error(&self, error: Option<String>) {
        *lock(&self.config_error) = error;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Until when this replica may write: a leader that could not renew its lease has stopped by then.
    pub(crate) fn term_end(&self) -> tokio::time::Instant {
        *lock(&self.term_end)
    }

    pub(crate) fn set_term_end(&self, end: tokio::time::Instant) {
        *lock(&self.term_end) = end;
    }

    pub(crate) fn new() -> Self {
        Self {
            started: SystemTime::now(),
            alive: Mutex::new(Instant::now()),
            leader: AtomicBool::new(false),
            terms: AtomicU64::new(0),
            lease_failures: AtomicU64::new(0),
            nodes: Collected::default(),
            endpoints: Collected::default(),
            ipam: IpamState::default(),
            term_end: Mutex::new(tokio::time::Instant::now()),
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

    /// Blocks and what is done about them. Names of Cilium's where it has the same: the nodes by category.
    fn ipam_metrics(&self, family: &mut impl FnMut(&str, &str, &str, &[(&str, f64)])) {
        #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
        let number = |count: usize| count as f64;
        #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
        let read = |counter: &AtomicU64| counter.load(Relaxed) as f64;
        let counts = lock(&self.ipam.counts).clone();
        let lacking: usize = counts.problems.values().sum();
        family(
            "cilium_operator_ipam_nodes",
            "gauge",
            "CiliumNodes by category",
            &[("{category=\"in-deficit\"}", number(lacking)), ("{category=\"total\"}", number(counts.nodes))],
        );
        let claimed: Vec<(String, f64)> = counts
            .claimed
            .iter()
            .map(|(source, count)| (format!("{{mode=\"{}\",pool=\"{}\"}}", source.mode, source.pool), number(*count)))
            .collect();
        let claimed: Vec<(&str, f64)> = claimed.iter().map(|(labels, count)| (labels.as_str(), *count)).collect();
        family("kinesin_operator_ipam_claimed_blocks", "gauge", "Blocks that nodes have", &claimed);
        let released = number(counts.released);
        let help = "Blocks that were given back and not taken since";
        family("kinesin_operator_ipam_released_blocks", "gauge", help, &[("", released)]);
        let problems: Vec<(String, f64)> = counts
            .problems
            .iter()
            .map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), number(*count)))
            .collect();
        let problems: Vec<(&str, f64)> = problems.iter().map(|(labels, count)| (labels.as_str(), *count)).collect();
        family("kinesin_operator_ipam_problems", "gauge", "What nodes lack, by reason", &problems);
        let written = &self.ipam.written;
        family(
            "kinesin_operator_ipam_requests_total",
            "counter",
            "Requests of IPAM by kind",
            &[
                ("{kind=\"claims\"}", read(&written.claims)),
                ("{kind=\"fence\"}", read(&written.fences)),
                ("{kind=\"node\"}", read(&written.nodes)),
                ("{kind=\"node-status\"}", read(&written.reports)),
                ("{kind=\"read\"}", read(&written.reads)),
            ],
        );
        let conflicts = read(&written.conflicts);
        let help = "Writes that were refused because another had written";
        family("kinesin_operator_ipam_conflicts_total", "counter", help, &[("", conflicts)]);
        let failures = read(&written.failures);
        family("kinesin_operator_ipam_failures_total", "counter", "Requests that failed otherwise", &[("", failures)]);
        let refused = f64::from(u8::from(lock(&self.ipam.config_error).is_some()));
        let help = "Whether the mounted configuration is refused and an older one goes on";
        family("kinesin_operator_config_refused", "gauge", help, &[("", refused)]);
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
        self.ipam_metrics(&mut family);
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
