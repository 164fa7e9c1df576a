//! What was found out about one kernel, out of the answers of its machine.

use std::{collections::BTreeMap, net::IpAddr};

use kinesin_agent_api::types::{BackendHealth, StatusResponse};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    labs::SETUPS,
    message::{Answer, Step},
};

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
        let answer = |step: &Step| answers.iter().find(|answer| answer.step == *step);
        if let Some(release) = answer(&Step::Release) {
            release.stdout.trim().clone_into(&mut found.release);
        }
        found.health = found.read(answer(&Step::Doctor)).unwrap_or_default();
        found.programs = found.read(answer(&Step::Trial)).unwrap_or_default();
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
            if let Some(refusal) = &program.refusal {
                self.faults.push(format!("program {} was refused: {refusal}", program.name));
            }
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
        self.refusal = lines.last().map(|line| (*line).to_owned());
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

/// Host ends of pods and of the health endpoint are called `lxc...`; every other device is the node's.
fn count_links(listing: &str) -> (usize, usize) {
    let (pods, node): (Vec<&str>, Vec<&str>) = listing.split_whitespace().partition(|name| name.starts_with("lxc"));
    (node.len(), pods.len())
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(step: Step, code: Option<i32>, stdout: &str, stderr: &str) -> Answer {
        Answer { step, code, stdout: stdout.to_owned(), stderr: stderr.to_owned(), seconds: 1.0 }
    }

    fn ok(step: Step, stdout: &str) -> Answer {
        answer(step, Some(0), stdout, "")
    }

    /// Pods a and b on one node and c on another; every ordered pair is probed in both families.
    fn report(broken: Option<(usize, usize)>) -> Value {
        let mut probes = Vec::new();
        for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            for address in ["10.244.0.1", "fd00::1"] {
                let failure = (broken == Some((from, to))).then_some("no answer within 3 s");
                probes.push(json!({"from": from, "to": to, "protocol": "udp", "address": address, "failure": failure}));
            }
        }
        let pods = ["w1", "w1", "w2"].map(|node| json!({"name": "p", "node": node, "ips": []}));
        json!({"pods": pods, "probes": probes, "absent": []})
    }

    fn status(mode: &str) -> String {
        let status = StatusResponse { attach_mode: mode.to_owned(), ..StatusResponse::default() };
        serde_json::to_string(&status).expect("a status")
    }

    pub(crate) fn well(release: &str) -> Vec<Answer> {
        let health = json!([
            {"trait": "chassis", "name": "ebpf", "problems": []},
            {"trait": "ipam", "name": "host_scope", "problems": []},
            {"trait": "routing", "name": "native", "problems": []},
        ]);
        let programs = json!([{"name": "from_host", "verified": 3188, "refusal": null}]);
        let mut all = vec![
            ok(Step::Release, &format!("{release}\n")),
            ok(Step::Doctor, &health.to_string()),
            ok(Step::Trial, &programs.to_string()),
        ];
        for setup in SETUPS {
            let name = || setup.name.to_owned();
            all.push(ok(Step::Up(name()), ""));
            all.push(ok(Step::Check(name()), &report(None).to_string()));
            all.push(ok(Step::Status(name()), &status("TCX, endpoints by Legacy TC")));
            all.push(ok(Step::Links(name()), "eth1-2-ingress\ncilium_host-4-egress\n"));
        }
        all.push(ok(Step::Complaints, ""));
        all
    }

    pub(crate) fn refused() -> Vec<Answer> {
        let health = json!([
            {"trait": "chassis", "name": "ebpf", "problems": ["kernel 5.10 is older than 5.15; run a newer kernel"]},
            {"trait": "ipam", "name": "host_scope", "problems": []},
        ]);
        let programs = json!([{"name": "from_host", "verified": null, "refusal": "unknown func bpf_x#999"}]);
        vec![
            ok(Step::Release, "5.10.0-32-cloud-amd64\n"),
            ok(Step::Doctor, &health.to_string()),
            ok(Step::Trial, &programs.to_string()),
            answer(Step::Refusal, Some(1), "", "kinesin-agent: kernel 5.10 is older than 5.15; run a newer kernel\n"),
            ok(Step::Complaints, ""),
        ]
    }

    fn faults(answers: &[Answer]) -> Vec<String> {
        Findings::of("a package", answers, 1.0).faults
    }

    /// The answers with one put in the place of another of the same step.
    fn with(mut answers: Vec<Answer>, other: Answer) -> Vec<Answer> {
        let place = answers.iter_mut().find(|answer| answer.step == other.step).expect("such a step");
        *place = other;
        answers
    }

    #[test]
    fn what_is_well_has_no_fault_and_is_counted_by_route() {
        let found = Findings::of("a package", &well("6.12.1"), 1.0);
        assert_eq!(found.faults, Vec::<String>::new());
        assert_eq!(found.release, "6.12.1");
        assert_eq!(found.labs.len(), SETUPS.len());
        for lab in &found.labs {
            assert!(lab.passed());
            let count = |other_node, is_ipv6| lab.probes[&Route { other_node, is_ipv6 }].all;
            assert_eq!([count(false, false), count(false, true), count(true, false), count(true, true)], [2, 2, 4, 4]);
        }
    }

    #[test]
    fn a_refused_kernel_is_no_fault_and_keeps_its_reason() {
        let found = Findings::of("a package", &refused(), 1.0);
        assert_eq!(found.faults, Vec::<String>::new());
        assert!(found.refusal.is_some_and(|text| text.contains("older than 5.15")));
    }

    #[test]
    fn crash_many_lines_or_success_in_place_of_a_refusal_are_faults() {
        for (code, stderr) in [(None, "one line\nsignal 11"), (Some(1), "one\ntwo"), (Some(0), "one"), (Some(1), "")] {
            let answers = with(refused(), answer(Step::Refusal, code, "", stderr));
            assert_eq!(faults(&answers).len(), 1, "{code:?} {stderr:?}");
        }
    }

    #[test]
    fn lost_probe_is_a_fault_with_its_address() {
        let check = answer(Step::Check("host_scope".to_owned()), Some(1), &report(Some((0, 2))).to_string(), "");
        let faults = faults(&with(well("6.12.1"), check));
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].contains("to 10.244.0.1: no answer"), "{faults:?}");
        assert!(faults[2].contains("not every pod"), "{faults:?}");
    }

    #[test]
    fn links_that_are_not_what_the_agent_says_are_a_fault() {
        for (mode, links, is_true) in [
            ("TCX", "eth1-2-ingress lxcabc-7-egress", true),
            ("TCX", "eth1-2-ingress", false),
            ("Legacy TC", "", true),
            ("Legacy TC", "eth1-2-ingress", false),
            ("TCX, endpoints by Legacy TC", "eth1-2-ingress lxcabc-7-egress", false),
            ("", "", false),
        ] {
            let status = ok(Step::Status("multi_pool".to_owned()), &status(mode));
            let links = ok(Step::Links("multi_pool".to_owned()), links);
            let faults = faults(&with(with(well("6.12.1"), status), links));
            assert_eq!(faults.is_empty(), is_true, "{mode:?}: {faults:?}");
        }
    }

    #[test]
    fn refused_program_missing_lab_and_complaint_of_a_kernel_are_faults() {
        let trial = json!([{"name": "from_host", "verified": null, "refusal": "too complex"}]).to_string();
        assert!(faults(&with(well("6.12.1"), ok(Step::Trial, &trial)))[0].contains("too complex"));
        let up = answer(Step::Up("cluster_pool".to_owned()), Some(1), "", "not every agent was ready");
        let mut answers = with(well("6.12.1"), up);
        answers.retain(|answer| answer.step != Step::Check("cluster_pool".to_owned()));
        assert!(faults(&answers).iter().any(|fault| fault.contains("not every agent was ready")));
        let complaint = ok(Step::Complaints, "[ 1.0] WARNING: CPU: 0");
        assert!(faults(&with(well("6.12.1"), complaint))[0].contains("WARNING"));
        assert!(!faults(&[]).is_empty(), "a machine without answers is not well");
    }
}
