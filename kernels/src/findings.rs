//! What was found out about one kernel, out of the answers of its machine.

use std::{collections::BTreeMap, net::IpAddr};

use kinesin_agent_api::types::{BackendHealth, StatusResponse};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    labs::SETUPS,
    message::{Answer, Step},
    tunnels::{self, TESTS},
};

/// Half of what a verifier goes through before it gives up (`BPF_COMPLEXITY_LIMIT_INSNS`, kernel 5.2): beyond it another
/// kernel, or the next stage of the pipeline, may be one too many.
const FAR: u32 = 500_000;

/// What was found out about one kernel.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Findings {
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// The package that it comes from, with its version.
    pub(crate) package: String,
    /// For each backend what keeps this kernel from running it.
    pub(crate) health: Vec<BackendHealth>,
    /// Every program by itself.
    pub(crate) programs: Vec<Program>,
    /// How many of the tests with packets passed, or how they failed.
    pub(crate) packets: Option<Result<usize, String>>,
    /// Which of the tests of tunnels passed.
    pub(crate) tunnels: Option<[bool; TESTS.len()]>,
    /// What the agent says where it cannot run.
    pub(crate) refusal: Option<String>,
    /// What came of each lab.
    pub(crate) labs: Vec<LabFindings>,
    /// Everything that is not as it should be.
    pub(crate) faults: Vec<String>,
    /// How long the machine ran, in seconds of the host.
    pub(crate) seconds: f64,
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Its name.
    pub(crate) name: String,
    /// Instructions that the verifier went through, where the kernel tells.
    pub(crate) verified: Option<u32>,
    /// Why it was refused.
    pub(crate) refusal: Option<String>,
}

/// One lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabFindings {
    /// Name of its setup.
    pub(crate) setup: &'static str,
    /// How programs are attached, as the agent says.
    pub(crate) attach_mode: String,
    /// The pinned links of a node: to its own devices, and to pods.
    pub(crate) links: (usize, usize),
    /// Probes by place and family.
    pub(crate) probes: BTreeMap<Route, Count>,
}

/// Where a probe went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) other_node: bool,
    pub(crate) is_ipv6: bool,
}

/// How many of how many were answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) answered: usize,
    pub(crate) all: usize,
}

/// As `kinesin lab check -o json` writes it.
#[derive(Debug, Deserialize)]
struct Report {
    pods: Vec<Pod>,
    probes: Vec<Probe>,
    absent: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Pod {
    node: String,
}

#[derive(Debug, Deserialize)]
struct Probe {
    from: usize,
    to: usize,
    address: IpAddr,
    failure: Option<String>,
}

impl Findings {
    /// Reads the answers; what cannot be read is a fault.
    pub(crate) fn of(package: &str, answers: &[Answer], seconds: f64) -> Self {
        let mut found = Self { package: package.to_owned(), seconds, ..Self::default() };
        // The last one, since a lab may take more than one attempt to come up.
        let answer = |step: &Step| answers.iter().rev().find(|answer| answer.step == *step);
        if let Some(release) = answer(&Step::Release) {
            release.stdout.trim().clone_into(&mut found.release);
        }
        found.health = found.read(answer(&Step::Doctor)).unwrap_or_default();
        found.programs = found.read(answer(&Step::Trial)).unwrap_or_default();
        found.packets = answer(&Step::Packets).map(packets);
        if let Some(outcome) = answer(&Step::Tunnels).map(tunnels::outcome) {
            found.tunnels = Some(outcome.passed);
            found.faults.extend(outcome.faults);
        }
        if let Some(refusal) = answer(&Step::Refusal) {
            found.refuse(refusal);
        }
        for setup in SETUPS {
            let name = || setup.name.to_owned();
            if let Some(up) = answer(&Step::Up(name())) {
                found.lab(
                    setup.name,
                    up,
                    answer(&Step::Check(name())),
                    answer(&Step::Status(name())),
                    answer(&Step::Links(name())),
                    answer(&Step::Logs(name())),
                );
            }
        }
        if let Some(complaints) = answer(&Step::Complaints) {
            found.faults.extend(complaints.stdout.lines().map(|line| format!("the kernel said: {}", line.trim())));
        }
        if found.refusal.is_none() {
            found.demand_all();
        }
        found
    }

    /// A kernel that is not refused takes every program and passes every lab.
    fn demand_all(&mut self) {
        for program in &self.programs {
            if let Some(count) = program.verified.filter(|count| *count > FAR) {
                self.faults
                    .push(format!("program {}: {count} verified instructions, of at most {FAR} here", program.name));
            }
            if let Some(refusal) = &program.refusal {
                self.faults.push(format!("program {} was refused: {refusal}", program.name));
            }
        }
        match &self.packets {
            Some(Ok(_)) => {}
            Some(Err(failure)) => self.faults.push(format!("packets: {failure}")),
            None => self.faults.push("packets: not tried".to_owned()),
        }
        if self.tunnels.is_none() {
            self.faults.push("tunnels: not tried".to_owned());
        }
        for setup in SETUPS {
            if !self.labs.iter().any(|lab| lab.setup == setup.name && lab.passed()) {
                self.faults.push(format!("{}: not every pod reached every other", setup.name));
            }
        }
    }

    fn read<T: DeserializeOwned>(&mut self, answer: Option<&Answer>) -> Option<T> {
        let answer = answer?;
        if !answer.is_ok() {
            self.faults.push(format!("{}: {}", answer.step.text(), answer.failure()));
            return None;
        }
        let read = serde_json::from_str(&answer.stdout);
        read.map_err(|error| self.faults.push(format!("{}: {error}", answer.step.text()))).ok()
    }

    /// One line and an exit code are what is wanted of it.
    fn refuse(&mut self, answer: &Answer) {
        let lines: Vec<&str> = answer.stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if !matches!(answer.code, Some(code) if code > 0) || lines.len() != 1 {
            self.faults.push(format!(
                "the agent refuses in one line and with an exit code elsewhere; here {} lines, {}",
                lines.len(),
                answer.failure()
            ));
        }
        self.refusal = Some((*lines.last().unwrap_or(&"it said nothing")).to_owned());
    }

    fn lab(
        &mut self,
        setup: &'static str,
        up: &Answer,
        check: Option<&Answer>,
        status: Option<&Answer>,
        links: Option<&Answer>,
        logs: Option<&Answer>,
    ) {
        if !up.is_ok() {
            self.faults.push(format!("{}: {}", up.step.text(), up.failure()));
        }
        if let Some(logs) = logs {
            self.faults.push(format!("{setup}: what was logged:\n{}", logs.stdout.trim()));
        }
        let status: Option<StatusResponse> = self.read(status);
        let links = links.map_or((0, 0), |answer| count_links(&answer.stdout));
        let mut found = LabFindings {
            setup,
            attach_mode: status.map(|status| status.attach_mode).unwrap_or_default(),
            links,
            probes: BTreeMap::new(),
        };
        // A check with failures says so by its exit code too, and is read all the same.
        if let Some(check) = check {
            match serde_json::from_str::<Report>(&check.stdout) {
                Ok(report) => self.count(&mut found, &report),
                Err(error) => self.faults.push(format!("{}: {error}; {}", check.step.text(), check.failure())),
            }
        }
        if up.is_ok() && !found.links_match() {
            let (node, pods) = found.links;
            let mode = &found.attach_mode;
            self.faults.push(format!(
                "{setup}: the agent says {mode:?}, but {node} links are on the node's devices and {pods} on pods"
            ));
        }
        self.labs.push(found);
    }

    fn count(&mut self, found: &mut LabFindings, report: &Report) {
        let setup = found.setup;
        self.faults.extend(report.absent.iter().map(|absent| format!("{setup}: {absent}")));
        for probe in &report.probes {
            let node = |pod: usize| report.pods.get(pod).map(|pod| &pod.node);
            let other_node = node(probe.from) != node(probe.to);
            let count = found.probes.entry(Route { other_node, is_ipv6: probe.address.is_ipv6() }).or_default();
            count.all += 1;
            count.answered += usize::from(probe.failure.is_none());
            if let Some(failure) = &probe.failure {
                self.faults.push(format!("{setup}: to {}: {failure}", probe.address));
            }
        }
    }
}

impl LabFindings {
    /// Whether every kind of route was probed and every probe answered.
    pub(crate) fn passed(&self) -> bool {
        self.probes.len() == 4 && self.probes.values().all(|count| count.answered == count.all)
    }

    /// Whether the links that are pinned are those that the agent's words promise.
    fn links_match(&self) -> bool {
        let expected = match self.attach_mode.as_str() {
            "Legacy TC" => (false, false),
            "TCX" => (true, true),
            "TCX, endpoints by Legacy TC" => (true, false),
            _ => return false,
        };
        (self.links.0 > 0, self.links.1 > 0) == expected
    }
}

/// What Rust's test harness says in the end: `test result: ok. 5 passed; ...`.
fn packets(answer: &Answer) -> Result<usize, String> {
    let result = answer.stdout.lines().find_map(|line| line.strip_prefix("test result: "));
    let passed = result.and_then(|result| result.strip_prefix("ok. ")?.split(' ').next()?.parse().ok());
    match passed {
        Some(passed) if answer.is_ok() && passed > 0 => Ok(passed),
        _ => {
            let failed = answer.stdout.lines().filter(|line| line.starts_with("test ") && line.ends_with("FAILED"));
            let failed: Vec<&str> = failed.collect();
            Err(format!("{}; {}; {}", result.unwrap_or("no result"), failed.join(", "), answer.failure()))
        }
    }
}

/// Host ends of pods and of the health endpoint are called `lxc...`; every other device is the node's.
fn count_links(listing: &str) -> (usize, usize) {
    let (pods, node): (Vec<&str>, Vec<&str>) = listing.split_whitespace().partition(|name| name.starts_with("lxc"));
    (node.len(), pods.len())
}

#[cfg(test)]
pub(crate) mod tests;
