//! The files that an agent finds in its state directory at its start: `endpoints/7.json`, `node.json` and `config.json`, each
//! with these bytes in it, and an endpoint beside them that is whole.

use std::fs;

use kinesin_agent::fuzzing::{State, names};
use serde_json::{Value, json};

const BESIDE: u16 = 300;

/// Whatever is in the files, the other endpoint is restored; what is kept is whole, and written and read again as the same.
pub(crate) fn run(input: &[u8]) {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let path = |name: &str| directory.path().join(name);
    let state = State::open(directory.path()).unwrap_or_else(|error| panic!("{error}"));
    state.save_endpoint(beside()).unwrap_or_else(|error| panic!("{error}"));
    for name in ["endpoints/7.json", "node.json", "config.json"] {
        fs::write(path(name), input).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let found = state.endpoints().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.last().map(|record| record["id"].clone()), Some(json!(BESIDE)), "the other endpoint is lost");
    match &found[..found.len() - 1] {
        [] => {}
        [record] => {
            whole(record);
            state.save_endpoint(record.clone()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(state.endpoints().as_ref(), Ok(&found), "it is read as another one");
        }
        more => panic!("one file is {} endpoints", more.len()),
    }
    let node = state.node().unwrap_or_else(|error| panic!("{error}"));
    if let Some(node) = node {
        state.save_node(node.clone()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(state.node(), Ok(Some(node)));
    }
    let config = state.config().unwrap_or_else(|error| panic!("{error}"));
    if let Some(keys) = config {
        state.save_config(&keys).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(state.config(), Ok(Some(keys)));
    }
}

/// What a later request finds it by, and what it holds.
fn whole(record: &Value) {
    assert_eq!(record["id"], 7);
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let attachment = text("/lease/attachment");
    assert_eq!(names(&format!("cni-attachment-id:{attachment}"), record), Ok(true), "{attachment:?}");
    let addresses = record["lease"]["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!((1..=2).contains(&addresses.len()), "{addresses:?}");
    for leased in addresses {
        let ip = leased["ip"].as_str().unwrap_or_default();
        let family = if ip.contains(':') { "ipv6" } else { "ipv4" };
        assert_eq!(names(&format!("{family}:{ip}"), record), Ok(true), "{ip:?}");
    }
}

fn beside() -> Value {
    let ip = "10.0.0.8";
    json!({
        "id": BESIDE,
        "request": {"container-id": "beside", "container-interface-name": "eth0", "interface-name": "lxcbeside",
            "interface-index": 9, "host-mac": "02:00:00:00:00:01", "mac": "02:00:00:00:00:02"},
        "lease": {"attachment": "beside:eth0", "owner": {"container": "beside"}, "mode": "host_scope", "restored": false,
            "addresses": [{"ip": ip, "block": {"pool": "default", "cidr": "10.0.0.0/24"}}]},
        "networking": {"addressing": [{"ip": ip, "pool": "default"}], "gateways": ["10.0.0.1"],
            "gateway-mac": "02:00:00:00:00:01", "device-mtu": 1500, "route-mtu": 1500},
    })
}
