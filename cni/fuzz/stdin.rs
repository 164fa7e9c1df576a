//! What a runtime hands to the plugin: the network configuration on stdin, and the environment.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use kinesin_cni::{
    config::{Config, peek_version},
    request::{Attachment, AttachmentId, Command, PodArgs},
    result::PrevResult,
    run,
    versions::SpecVersion,
};
use serde_json::Value;

/// The configuration: accepted or refused with a code of the spec, and never anything but one JSON answer.
pub(crate) fn stdin(input: &[u8]) {
    let peeked = peek_version(input);
    match Config::parse(input) {
        Ok(config) => {
            assert_eq!(peeked, Some(config.version), "both look at the same field");
            assert!(config.mtu.is_none_or(|mtu| (1280..=65535).contains(&mtu)));
            if let Some(Ok(previous)) = config.prev_result.as_ref().map(PrevResult::parse) {
                let names = previous.interfaces.iter().map(|interface| interface.name.as_str());
                for (name, found) in names.map(|name| (name, previous.interface(name))) {
                    assert!(found.is_none_or(|(interface, addresses)| {
                        interface.name == name && addresses.len() <= previous.ips.len()
                    }));
                }
            }
        }
        Err(error) => {
            // CNI spec 1.1.0 section "Error": 1 version, 2 field, 6 decoding, 7 content.
            assert!(matches!(error.code(), 1 | 2 | 6 | 7), "{error}");
            assert!(!error.to_string().is_empty());
        }
    }

    let version = peeked.unwrap_or(SpecVersion::NEWEST);
    let answer = run(&|name| (name == "CNI_COMMAND").then(|| "VERSION".into()), input);
    assert!(answer.is_success());
    let answer = json(answer.to_json());
    assert_eq!(answer["cniVersion"], version.as_str());
    assert!(answer["supportedVersions"].as_array().is_some_and(|versions| !versions.is_empty()));
    // Without the other variables nothing is done, but it is answered all the same.
    let answer = run(&|name| (name == "CNI_COMMAND").then(|| "ADD".into()), input);
    assert!(!answer.is_success());
    let answer = json(answer.to_json());
    assert_eq!((&answer["cniVersion"], &answer["code"]), (&version.as_str().into(), &4.into()), "{answer}");
}

/// The environment: values in the order of [`NAMES`], a NUL between them. Empty ones are not set.
pub(crate) fn environment(input: &[u8]) {
    const NAMES: [&str; 5] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"];
    let values: Vec<&[u8]> = input.split(|byte| *byte == 0).collect();
    let env = |name: &str| -> Option<OsString> {
        let value = values.get(NAMES.iter().position(|known| *known == name)?)?;
        Some(OsStr::from_bytes(value).to_owned())
    };
    if let Ok(command) = Command::from_env(&env) {
        assert_eq!(command.as_str().as_bytes(), values[0]);
    }
    let id = AttachmentId::from_env(&env);
    match Attachment::from_env(&env) {
        Ok(attachment) => {
            assert_eq!(id.as_ref().ok(), Some(&attachment.id), "ADD and DEL name the same attachment");
            assert_eq!(attachment.netns.as_os_str().as_bytes(), values[3]);
        }
        Err(error) => assert_eq!(error.code(), 4, "{error}"),
    }
    if let Ok(id) = id {
        assert!((1..=255).contains(&id.container_id.len()) && (1..=15).contains(&id.ifname.len()));
        // Both become parts of paths.
        assert!(!id.container_id.starts_with('.') && !id.container_id.contains('/') && !id.ifname.contains('/'));
        assert!(id.ifname != "." && id.ifname != "..");
    }
    match PodArgs::from_env(&env) {
        Ok(pod) => assert!(![&pod.namespace, &pod.name, &pod.uid].into_iter().any(|text| text.contains(';'))),
        Err(error) => assert_eq!(error.code(), 4, "{error}"),
    }
}

fn json(answer: Option<String>) -> Value {
    let text = answer.unwrap_or_else(|| panic!("there is an answer"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?} is no JSON: {error}"))
}
