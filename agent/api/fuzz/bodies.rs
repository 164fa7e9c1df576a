//! Bodies on the agent's socket, requests and answers. The first byte says which.

use std::fmt::Debug;

use kinesin_agent_api::{
    attachment_path,
    types::{
        BackendHealth, BackendInfo, BpfEndpoint, BpfMetric, ClusterNode, ConfigEntry, Endpoint,
        EndpointBatchDeleteRequest, EndpointChangeRequest, EndpointGcRequest, ErrorBody, StatusResponse,
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// What is accepted means the same after it was written and read again.
pub(crate) fn run(input: &[u8]) {
    let Some((which, body)) = input.split_first() else { return };
    match which {
        b'0' => change(body),
        b'1' => survives::<EndpointBatchDeleteRequest>(body),
        b'2' => survives::<EndpointGcRequest>(body),
        b'3' => survives::<Endpoint>(body),
        b'4' => survives::<ErrorBody>(body),
        b'5' => survives::<StatusResponse>(body),
        b'6' => survives::<Vec<ClusterNode>>(body),
        b'7' => survives::<Vec<BackendInfo>>(body),
        b'8' => survives::<Vec<BackendHealth>>(body),
        b'9' => survives::<Vec<ConfigEntry>>(body),
        b'a' => survives::<Vec<BpfEndpoint>>(body),
        b'b' => survives::<Vec<BpfMetric>>(body),
        _ => {}
    }
}

/// The path must name what the body names, whatever stands in the names.
fn change(body: &[u8]) {
    survives::<EndpointChangeRequest>(body);
    let Ok(request) = serde_json::from_slice::<EndpointChangeRequest>(body) else { return };
    let path = attachment_path(&request.container_id, &request.container_interface_name);
    let path = path.strip_prefix("/endpoint/").unwrap_or_else(|| panic!("{path}"));
    assert!(!path.contains(['/', '?', '#', ' ']), "{path} is one segment");
    assert_eq!(decoded(path), request.attachment_id().into_bytes());
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(body) else { return };
    let written = serde_json::to_vec(&read).unwrap_or_else(|error| panic!("{read:?}: {error}"));
    let again = serde_json::from_slice::<T>(&written).unwrap_or_else(|error| panic!("{read:?}: {error}"));
    assert_eq!(again, read);
}

/// RFC 3986 section 2.1, as a server does it.
fn decoded(path: &str) -> Vec<u8> {
    let mut rest = path.as_bytes();
    let mut out = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at(2);
        rest = after;
        let digits = std::str::from_utf8(digits).unwrap_or("digits");
        out.push(u8::from_str_radix(digits, 16).unwrap_or_else(|error| panic!("{path}: {error}")));
    }
    out
}
