//! Answers as a machine gives them, and what is made of them.

use serde_json::{Value, json};

use super::*;
use crate::tunnels::tests::all_passed;

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
        ok(Step::Packets, "\nrunning 5 tests\n\ntest result: ok. 5 passed; 0 failed; 0 ignored\n"),
    ];
    all.push(ok(Step::Tunnels, &all_passed()));
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
        ok(Step::Packets, "\nrunning 5 tests\n\ntest result: ok. 5 passed; 0 failed; 0 ignored\n"),
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
    let trial = json!([{"name": "from_host", "verified": 500_001, "refusal": null}]).to_string();
    assert!(faults(&with(well("6.12.1"), ok(Step::Trial, &trial)))[0].contains("500001 verified"));
    let up = answer(Step::Up("cluster_pool".to_owned()), Some(1), "", "not every agent was ready");
    let mut answers = with(well("6.12.1"), up);
    answers.retain(|answer| answer.step != Step::Check("cluster_pool".to_owned()));
    assert!(faults(&answers).iter().any(|fault| fault.contains("not every agent was ready")));
    let complaint = ok(Step::Complaints, "[ 1.0] WARNING: CPU: 0");
    assert!(faults(&with(well("6.12.1"), complaint))[0].contains("WARNING"));
    assert!(!faults(&[]).is_empty(), "a machine without answers is not well");
}

#[test]
fn packets_count_only_when_tests_ran_and_passed() {
    for (code, stdout, is_well) in [
        (Some(0), "test result: ok. 5 passed; 0 failed", true),
        (Some(0), "test result: ok. 0 passed; 0 failed", false),
        (Some(101), "test result: FAILED. 4 passed; 1 failed", false),
        (Some(101), "test result: ok. 5 passed; 0 failed", false),
        (None, "", false),
    ] {
        let found = faults(&with(well("6.12.1"), answer(Step::Packets, code, stdout, "")));
        assert_eq!(found.is_empty(), is_well, "{stdout:?}: {found:?}");
    }
}
