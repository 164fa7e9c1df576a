//! The binary as a person runs it, against a socket that answers what the test says.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use kinesin_agent_api::types::{IpamStatus, State, Status, StatusResponse};
use tempfile::TempDir;

/// Answers each request with the status and body given for its path; remembers the paths.
struct Agent {
    dir: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    fn new(answers: &[(&str, u16, String)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("agent.sock")).expect("a socket");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answers: Vec<(String, u16, String)> =
            answers.iter().map(|(path, status, body)| ((*path).to_owned(), *status, body.clone())).collect();
        let log = Arc::clone(&asked);
        // The thread ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let mut lines = BufReader::new(&stream).lines();
                let first = lines.next().and_then(Result::ok).unwrap_or_default();
                while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, body) = answers
                    .iter()
                    .find(|(known, ..)| *known == path)
                    .map_or((404, "{}".to_owned()), |(_, status, body)| (*status, body.clone()));
                log.lock().expect("no test panicked").push(path);
                let mut writer = &stream;
                let _ = write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            }
        });
        Self { dir, asked }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinesin"));
        command.env("CILIUM_SOCK", self.socket()).env_remove("KUBECONFIG");
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command().args(line.split(' ')).output().expect("it runs")
    }
}

fn status(state: State) -> String {
    let response = StatusResponse {
        cilium: Status { state, msg: "no pod CIDR".to_owned() },
        ipam: IpamStatus { ipv4: Some("2/254 allocated from 10.244.0.0/24".to_owned()), ..IpamStatus::default() },
        version: "0.1.0".to_owned(),
        ..StatusResponse::default()
    };
    serde_json::to_string(&response).expect("JSON")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn status_prints_the_ipam_line_and_succeeds() {
    let agent = Agent::new(&[("/v1/healthz", 200, status(State::Ok))]);
    let output = agent.run("status");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("IPv4: 2/254 allocated from 10.244.0.0/24, \n"), "{}", stdout(&output));
    assert_eq!(stdout(&agent.run("status --brief")), "OK\n");
}

#[test]
fn status_of_a_failing_agent_exits_with_one() {
    let agent = Agent::new(&[("/v1/healthz", 200, status(State::Failure))]);
    let output = agent.run("status --brief");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "error in agent: no pod CIDR\n");
}

#[test]
fn json_and_yaml_give_back_what_the_agent_said() {
    let agent = Agent::new(&[("/v1/healthz", 200, status(State::Ok))]);
    let said: StatusResponse = serde_json::from_str(&status(State::Ok)).expect("JSON");
    let json: StatusResponse = serde_json::from_str(&stdout(&agent.run("status -o json"))).expect("JSON");
    let yaml: StatusResponse = serde_yaml_ng::from_str(&stdout(&agent.run("-o yaml status"))).expect("YAML");
    assert_eq!(json, said);
    assert_eq!(yaml, said);
}

#[test]
fn refusals_of_the_agent_reach_stderr() {
    let body = r#"{"kind": "not-found", "message": "there is no endpoint 7; `endpoint list` shows them"}"#;
    let agent = Agent::new(&[("/v1/endpoint/7", 404, body.to_owned())]);
    let output = agent.run("endpoint get 7");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let expected = "Error: [GET /endpoint/7][404] there is no endpoint 7; `endpoint list` shows them\n";
    assert_eq!(stderr(&output), expected);
    assert_eq!(*agent.asked.lock().expect("no panic"), ["/v1/endpoint/7"]);
}

#[test]
fn missing_agent_is_named_with_the_remedy() {
    let output = Command::new(env!("CARGO_BIN_EXE_kinesin"))
        .args(["--host", "/nonexistent/agent.sock", "endpoint", "list"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let expected = "Error: unable to connect to the agent at \"/nonexistent/agent.sock\"; is kinesin-agent running";
    assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
}

#[test]
fn without_agent_and_kubeconfig_status_says_what_to_give() {
    let home = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_kinesin"))
        .arg("status")
        .env("HOME", home.path())
        .env("CILIUM_SOCK", home.path().join("none.sock"))
        .env_remove("KUBECONFIG")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("give --kubeconfig or set KUBECONFIG"), "{}", stderr(&output));
}

#[test]
fn reader_that_goes_away_is_no_error() {
    let entries: Vec<_> = (0..20_000)
        .map(|number| serde_json::json!({"key": format!("k{number}"), "value": "v", "source": "default"}))
        .collect();
    let body = serde_json::to_string(&entries).expect("JSON");
    let agent = Agent::new(&[("/v1/config", 200, body)]);
    let mut child = agent
        .command()
        .args(["config", "view"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut errors).expect("text");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(errors, "");
}

#[test]
fn link_named_cilium_dbg_answers_by_that_name() {
    let agent = Agent::new(&[("/v1/healthz", 200, status(State::Ok))]);
    let link = agent.dir.path().join("cilium-dbg");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kinesin"), &link).expect("a link");
    let output = Command::new(&link).arg("--help").output().expect("it runs");
    assert!(stdout(&output).contains("Usage: cilium-dbg"), "{}", stdout(&output));
    let output = Command::new(&link).arg("status").env("CILIUM_SOCK", agent.socket()).output().expect("it runs");
    assert!(stdout(&output).contains("IPAM:"));
}

#[test]
fn doctor_is_the_agents_own_command() {
    // The program is looked for beside this one first, so a copy of it stands alone with a stand-in agent.
    let dir = tempfile::tempdir().expect("a directory");
    let own = dir.path().join("kinesin");
    // Files that are executed are written by another process: a descriptor of ours could be open in a child that a
    // test beside this one has just forked, and the kernel would refuse to execute them (ETXTBSY).
    let shell = |script: &str| {
        let status = Command::new("sh").args(["-ec", script]).current_dir(dir.path()).status();
        assert!(status.expect("it runs").success(), "{script}");
    };
    shell(&format!("cp '{}' kinesin", env!("CARGO_BIN_EXE_kinesin")));
    let run = |args: &[&str]| Command::new(&own).args(args).env("PATH", "/nonexistent").output().expect("it runs");
    let output = run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("neither beside this program nor in PATH"), "{}", stderr(&output));
    let answer = r#"[{"trait": "chassis", "name": "ebpf", "problems": ["no BTF; build one"]}]"#;
    shell(&format!("printf '#!/bin/sh\\n[ \"$1\" = doctor ] && echo '\"'\"'{answer}'\"'\"'\\n' > kinesin-agent"));
    shell("chmod 755 kinesin-agent");
    let output = run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1), "what this machine cannot run is a failure");
    assert!(stdout(&output).contains("ebpf   no          no BTF; build one"), "{}{}", stdout(&output), stderr(&output));
    assert!(stderr(&run(&["backends"])).contains("kinesin-agent backends failed"));
}
