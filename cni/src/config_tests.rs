use proptest::prelude::*;
use serde_json::json;

use super::*;

fn with(extra: Value) -> Vec<u8> {
    let mut config = json!({"cniVersion": "1.1.0", "name": "cilium", "type": "cilium-cni"});
    let (Value::Object(config_fields), Value::Object(extra)) = (&mut config, extra) else { panic!("objects") };
    config_fields.extend(extra);
    serde_json::to_vec(&config).expect("serialises")
}

#[test]
fn the_agents_own_configuration_is_understood() {
    let text = br#"{"cniVersion":"0.3.1","name":"cilium","type":"cilium-cni","enable-debug":true,"log-file":"/var/run/cilium/cilium-cni.log"}"#;
    let config = Config::parse(text).expect("valid");
    assert_eq!((config.version, config.debug, config.log_json), (SpecVersion::V0_3_1, true, false));
    assert_eq!(config.log_file, Some(PathBuf::from("/var/run/cilium/cilium-cni.log")));
    assert_eq!((config.mtu, config.prev_result, config.valid_attachments), (None, None, None));
}

#[test]
fn unknown_and_empty_keys_pass() {
    let extra = json!({"dns": {}, "runtimeConfig": {"x": 1}, "ipam": {}, "chaining-mode": "none", "eni": {}, "mtu": 0,
        "args": {"cni": {}}, "prevResult": null, "azure": null, "log-file": ""});
    let config = Config::parse(&with(extra)).expect("valid");
    assert_eq!((config.prev_result, config.mtu, config.log_file), (None, None, None));
}

#[test]
fn each_wrong_configuration_is_refused_with_code_and_place() {
    let deep = "[".repeat(100_000);
    let table: Vec<(Vec<u8>, u32, &str)> = vec![
        (b"".to_vec(), 6, "stdin is empty"),
        (b"{".to_vec(), 6, "line 1 column 1"),
        (br#"{"cniVersion":"1.1.0","name":"#.to_vec(), 6, "EOF while parsing"),
        (b"not json".to_vec(), 6, "line 1"),
        (b"\xff\xfe".to_vec(), 6, "line 1"),
        (b"[]".to_vec(), 6, "must be a JSON object, not a list"),
        (b"null".to_vec(), 6, "not null"),
        (deep.into_bytes(), 6, "recursion limit"),
        (b"{} {}".to_vec(), 6, "trailing characters"),
        (with(json!({"cniVersion": 1})), 6, "\"cniVersion\" must be a string, not a number"),
        (with(json!({"cniVersion": null})), 7, "\"cniVersion\" is missing"),
        (with(json!({"cniVersion": "2.0.0"})), 1, "\"2.0.0\" is not supported"),
        (with(json!({"cniVersion": "banana"})), 1, "\"banana\""),
        (with(json!({"name": null})), 7, "\"name\" is missing"),
        (with(json!({"name": ""})), 7, "\"name\" must begin"),
        (with(json!({"name": "../etc"})), 7, "\"name\" must begin"),
        (with(json!({"name": ["a"]})), 6, "\"name\" must be a string, not a list"),
        (with(json!({"type": ""})), 7, "\"type\" is missing"),
        (with(json!({"enable-debug": "yes"})), 6, "\"enable-debug\" must be true or false, not a string"),
        (with(json!({"mtu": "1500"})), 6, "\"mtu\" must be a whole number"),
        (with(json!({"mtu": -1})), 6, "\"mtu\" must be a whole number"),
        (with(json!({"mtu": 1000})), 7, "from 1280 to 65535, not 1000"),
        (with(json!({"mtu": 70000})), 7, "not 70000"),
        (
            with(json!({"chaining-mode": "generic-veth"})),
            2,
            "\"chaining-mode\" has the unsupported value \"generic-veth\"",
        ),
        (with(json!({"ipam": {"type": "host-local"}})), 2, "host-local"),
        (with(json!({"eni": {"subnet-ids": ["a"]}})), 2, "\"eni\""),
        (with(json!({"cni.dev/valid-attachments": {}})), 6, "must be a list, not an object"),
        (with(json!({"cni.dev/valid-attachments": [{"containerID": "a"}]})), 7, "entry 0 has no string \"ifname\""),
        (with(json!({"cni.dev/valid-attachments": [{"containerID": "a/b", "ifname": "eth0"}]})), 7, "entry 0 is wrong"),
    ];
    for (bytes, code, text) in table {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let error = Config::parse(&bytes).expect_err(&shown);
        assert_eq!(error.code(), code, "{shown}: {error}");
        assert!(error.to_string().contains(text), "{shown}: {text:?} not in {error}");
    }
}

#[test]
fn stdin_is_read_up_to_a_mebibyte() {
    let limit = usize::try_from(MAX_STDIN_BYTES).expect("fits");
    assert_eq!(read_stdin(&vec![b' '; limit][..]).expect("fits").len(), limit);
    let error = read_stdin(std::io::repeat(b' ')).expect_err("endless");
    assert_eq!(error.code(), 6, "{error}");
}

#[test]
fn version_is_found_in_a_configuration_that_is_otherwise_wrong() {
    assert_eq!(peek_version(br#"{"cniVersion":"0.4.0","name":7}"#), Some(SpecVersion::V0_4_0));
    for text in ["", "[]", r#"{"cniVersion":7}"#, r#"{"cniVersion":"7"}"#] {
        assert_eq!(peek_version(text.as_bytes()), None, "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Config::parse(&bytes);
        let _ = peek_version(&bytes);
    }

    #[test]
    fn no_truncated_configuration_is_taken_for_a_whole_one(cut in 1_usize..100) {
        let bytes = with(json!({"prevResult": {"ips": []}, "cni.dev/valid-attachments": []}));
        prop_assume!(cut < bytes.len());
        let error = Config::parse(&bytes[..bytes.len() - cut]).expect_err("truncated");
        prop_assert_eq!(error.code(), 6);
    }

    #[test]
    fn no_value_of_a_known_key_makes_the_parser_panic(key in prop::sample::select(vec!["mtu", "name", "prevResult",
        "cni.dev/valid-attachments", "ipam", "log-file", "cniVersion", "type"]), text in ".{0,40}", number in any::<i64>()) {
        for value in [json!(text), json!(number), json!([text]), json!({"a": number}), json!([{"containerID": text, "ifname": text}])] {
            let _ = Config::parse(&with(json!({key: value})));
        }
    }
}
