//! What goes in and comes out: versions, VERSION, STATUS, malformed input, logs.

use kinesin_agent_api::State;
use serde_json::{Value, json};

use crate::node::{CONTAINER, Node, config, pod};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn every_version_of_the_spec_goes_through_add_check_and_delete() {
    let node = Node::new();
    for version in VERSIONS {
        let (_netns, path) = pod();
        let result = node.command("ADD", &path, json!({"cniVersion": version})).ok();
        assert_eq!(result["cniVersion"], version);
        let lists = version >= "0.3.0";
        assert_eq!((result["ip4"]["ip"].is_string(), result["ips"].is_array()), (!lists, lists), "{result}");
        assert_eq!(result["ips"][0]["version"] == "4", lists && version < "1.0.0", "{result}");
        assert_eq!(result["interfaces"][1]["mtu"] == 1480, version >= "1.1.0", "{result}");
        let check = node.command("CHECK", &path, json!({"cniVersion": version, "prevResult": result}));
        if version >= "0.4.0" {
            check.ok();
        } else {
            assert!(check.error(1).contains("CHECK needs cniVersion 0.4.0"));
            assert_eq!(check.json()["cniVersion"], version);
        }
        for command in ["STATUS", "GC"] {
            let extra = json!({"cniVersion": version, "cni.dev/valid-attachments": [{"containerID": CONTAINER, "ifname": "eth0"}]});
            let outcome = node.command(command, "", extra);
            if version >= "1.1.0" {
                outcome.ok();
            } else {
                assert!(outcome.error(1).contains("needs cniVersion 1.1.0"));
            }
        }
        node.command("DEL", &path, json!({"cniVersion": version, "prevResult": result})).ok();
    }
}

#[test]
fn version_answers_whatever_it_is_given() {
    let node = Node::without_agent();
    let want = |version: &str| json!({"cniVersion": version, "supportedVersions": VERSIONS});
    let dummies =
        [("CNI_COMMAND", "VERSION"), ("CNI_CONTAINERID", "dummy"), ("CNI_NETNS", "dummy"), ("CNI_IFNAME", "dummy")];
    let table: [(&[u8], &str); 5] = [
        (b"", "1.1.0"),
        (b"not json", "1.1.0"),
        (br#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        (br#"{"cniVersion":"9.0.0"}"#, "1.1.0"),
        (b"\xff\x00", "1.1.0"),
    ];
    for (stdin, version) in table {
        assert_eq!(node.run(&dummies, stdin).ok(), want(version));
        assert_eq!(node.run(&dummies[..1], stdin).ok(), want(version));
    }
}

#[test]
fn malformed_input_is_answered_with_code_and_place() {
    let node = Node::new();
    let (_netns, path) = pod();
    let env =
        |command| [("CNI_COMMAND", command), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", &*path)];
    let huge = format!("{{\"name\":\"{}\"}}", "a".repeat(2 << 20));
    let good = config(json!({}));
    let table: [(&[u8], u32, &str); 6] = [
        (b"", 6, "stdin is empty"),
        (&good[..good.len() - 1], 6, "EOF while parsing an object at line 1 column"),
        (huge.as_bytes(), 6, "larger than 1048576 bytes"),
        (br#"{"cniVersion":"1.1.0","type":"cilium-cni"}"#, 7, "\"name\" is missing"),
        (br#"{"name":"n","type":"cilium-cni"}"#, 7, "\"cniVersion\" is missing"),
        (br#"{"cniVersion":"0.9.0","name":"n","type":"cilium-cni"}"#, 1, "\"0.9.0\" is not supported"),
    ];
    for (stdin, code, text) in table {
        for command in ["ADD", "DEL", "CHECK", "STATUS", "GC"] {
            let error = node.run(&env(command), stdin).error(code);
            assert!(error.contains(text), "{command}: {text:?} not in {error}");
        }
    }
    assert!(node.host_ends().is_empty() && node.agent().shared().requests.is_empty());
}

#[test]
fn missing_and_wrong_parameters_are_named() {
    let node = Node::new();
    let table: [(&[(&str, &str)], &str); 7] = [
        (&[], "CNI_COMMAND"),
        (&[("CNI_COMMAND", "FLY")], "unknown command \"FLY\""),
        (&[("CNI_COMMAND", "ADD")], "CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS"),
        (&[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "eth0")], "CNI_CONTAINERID"),
        (&[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "eth0"), ("CNI_CONTAINERID", "../x")], "CNI_CONTAINERID"),
        (&[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "much-too-long-name"), ("CNI_CONTAINERID", "c")], "CNI_IFNAME"),
        (&[("CNI_COMMAND", "CHECK"), ("CNI_IFNAME", "eth0"), ("CNI_CONTAINERID", "c")], "CNI_NETNS"),
    ];
    for (env, text) in table {
        let outcome = node.run(env, &config(json!({"cniVersion": "1.0.0"})));
        let error = outcome.error(4);
        assert!(error.contains(text), "{text:?} not in {error}");
        assert_eq!(outcome.json()["cniVersion"], "1.0.0");
    }
}

#[test]
fn unsupported_requests_are_refused_before_anything_is_made() {
    let node = Node::new();
    let (_netns, path) = pod();
    let table = [
        (json!({"prevResult": {"ips": []}}), 7, "chaining is not built"),
        (json!({"chaining-mode": "portmap"}), 2, "portmap"),
        (json!({"ipam": {"type": "host-local"}}), 2, "host-local"),
    ];
    for (extra, code, text) in table {
        let error = node.command("ADD", &path, extra).error(code);
        assert!(error.contains(text), "{error}");
    }
    assert!(node.host_ends().is_empty() && node.agent().shared().requests.is_empty());
}

#[test]
fn status_follows_the_agents_health() {
    let mut node = Node::new();
    let status = |node: &Node| node.run(&[("CNI_COMMAND", "STATUS")], &config(json!({})));
    assert_eq!(status(&node).ok(), Value::Null);
    // No free address, and a worried agent: an ADD is still answered.
    node.agent().shared().health.ipam.ipv4 = Some("6/6 allocated from 172.20.42.0/29".to_owned());
    node.agent().shared().health.cilium.state = State::Warning;
    status(&node).ok();
    node.agent().shared().health.cilium =
        kinesin_agent_api::Status { state: State::Failure, msg: "no datapath".to_owned() };
    assert!(status(&node).error(50).contains("no datapath"));
    node.agent().shared().health.routing.unreachable.insert("w2".to_owned(), "no route".to_owned());
    assert!(status(&node).error(51).contains("w2: no route"));
    node.stop_agent();
    assert!(status(&node).error(50).contains("unable to connect"));
}

#[test]
fn plugin_works_under_either_name() {
    let node = Node::new();
    let link = node.directory.path().join("cilium-cni");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kinesin-cni"), &link).expect("link");
    let answer = node.run_program(&link, &[("CNI_COMMAND", "VERSION")], b"").ok();
    assert_eq!(answer["supportedVersions"], json!(VERSIONS));
    let stdin = config(json!({"type": "kinesin-cni"}));
    node.run_program(&link, &[("CNI_COMMAND", "STATUS")], &stdin).ok();
}

#[test]
fn log_file_gets_errors_and_steps_but_never_fails_an_add() {
    let node = Node::new();
    let log = node.directory.path().join("cni.log");
    let (_netns, path) = pod();
    let extra = json!({"log-file": log, "enable-debug": true, "log-format": "json"});
    node.command("ADD", &path, extra.clone()).ok();
    let missing = node.command("ADD", "/run/netns/kinesin-none", extra);
    missing.error(4);
    assert_eq!(missing.stderr, "", "errors go to the log file alone");
    let lines = std::fs::read_to_string(&log).expect("log");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().any(|line| line["level"] == "debug" && line["msg"] == "both ends are up"), "{lines:?}");
    let last = lines.last().expect("lines");
    assert!(
        last["level"] == "error" && last["msg"].as_str().is_some_and(|text| text.contains("kinesin-none")),
        "{last}"
    );

    let (_netns, path) = pod();
    let env = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c2"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", &*path)];
    node.run(&env, &config(json!({"log-file": "/proc/no/such/file", "enable-debug": true}))).ok();
}
