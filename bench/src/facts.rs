//! What machine the figures are of.

use std::{collections::BTreeMap, fs, path::Path, process::Command, thread};

use nix::sys::utsname::uname;
use serde::Serialize;

use crate::traffic::congestion_control;

/// Load average per CPU above which a machine counts as busy; an idle one has some hundredths.
const BUSY: f64 = 0.25;

/// The machine, and how busy it was with something else.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// When the run began, as ISO 8601 in UTC.
    pub date: String,
    /// Kernel release.
    pub kernel: String,
    /// Architecture.
    pub machine: String,
    /// Model of the CPU.
    pub cpu: String,
    /// CPUs that the run may use.
    pub cpus: usize,
    /// Memory in GB (10^9 bytes).
    pub memory_gb: f64,
    /// Whether the kernel says that it is a virtual machine's.
    pub is_virtual: bool,
    /// Load averages over 1, 5 and 15 minutes when the run began.
    pub load_at_start: String,
    /// The same when it ended.
    pub load_at_end: String,
    /// The commit, with `+` when files had changed since.
    pub commit: String,
    /// Profile of the build.
    pub profile: &'static str,
    /// Congestion control of the TCP connections.
    pub congestion_control: String,
    /// Versions of what is compared with.
    pub versions: BTreeMap<String, String>,
}

impl Facts {
    /// Looks at the machine.
    #[must_use]
    pub fn gather(cni_dir: &Path) -> Self {
        let system = uname().ok();
        let of = |field: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            system.as_ref().map(|system| field(system).to_string_lossy().into_owned()).unwrap_or_default()
        };
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = read("/proc/meminfo");
        let kilobytes = memory.split_ascii_whitespace().nth(1).and_then(|number| number.parse::<f64>().ok());
        Self {
            date: output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
            kernel: of(nix::sys::utsname::UtsName::release),
            machine: of(nix::sys::utsname::UtsName::machine),
            cpu: field("model name").or_else(|| field("CPU part")).unwrap_or_else(|| "unknown".to_owned()),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory_gb: kilobytes.unwrap_or_default() * 1.024e-6,
            is_virtual: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            load_at_start: load(),
            load_at_end: String::new(),
            commit: commit(),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" },
            congestion_control: congestion_control(),
            versions: ["bridge", "host-local"]
                .into_iter()
                .filter_map(|plugin| Some((plugin.to_owned(), plugin_version(&cni_dir.join(plugin))?)))
                .collect(),
        }
    }

    /// Load average of the last minute before the run, per CPU that it may use.
    #[must_use]
    pub fn busy_at_start(&self) -> f64 {
        let minute = self.load_at_start.split(' ').next().and_then(|minute| minute.parse::<f64>().ok());
        minute.unwrap_or_default() / self.cpus.max(1) as f64
    }

    /// Why the figures should not be taken for those of the programs, if there is a reason.
    #[must_use]
    pub fn caveats(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.busy_at_start() > BUSY {
            found.push(format!(
                "the machine was busy with other work (load {}): no figure here says how fast anything is, and a ratio \
                 only what is left of it under such load",
                self.load_at_start
            ));
        }
        if self.profile != "release" {
            found.push("this was no release build: the agent and the plugin are faster in one".to_owned());
        }
        found
    }

    /// Notes what the end of a run can tell.
    pub fn close(&mut self) {
        self.load_at_end = load();
    }
}

fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn commit() -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let head = output("git", &["-C", root, "rev-parse", "--short=12", "HEAD"]);
    if head.is_empty() {
        return "unknown".to_owned();
    }
    let changed = output("git", &["-C", root, "status", "--porcelain", "--untracked-files=no"]);
    if changed.is_empty() { head } else { head + "+" }
}

/// The reference plugins tell their version on stderr when they are run without a command.
fn plugin_version(path: &Path) -> Option<String> {
    let told = Command::new(path).env_clear().output().ok()?;
    let told = String::from_utf8_lossy(&told.stderr).lines().next().unwrap_or_default().trim().to_owned();
    Some(if told.is_empty() { "unknown".to_owned() } else { told })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_and_a_dev_build_are_told() {
        let mut facts = Facts::gather(Path::new("/nonexistent"));
        (facts.cpus, facts.profile, facts.load_at_start) = (2, "release", "0.10 1.00 4.00".to_owned());
        assert_eq!(facts.caveats(), Vec::<String>::new());
        (facts.profile, facts.load_at_start) = ("dev", "6.01 1.00 4.00".to_owned());
        let told = facts.caveats();
        assert!(told.len() == 2 && told[0].contains("6.01") && told[1].contains("release"), "{told:?}");
    }
}
