//! The agent's start and memory.

use std::{
    fs,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kinesin_agent_api::{
    Client,
    types::{State, StatusResponse},
};
use kinesin_lab::{Lab, Node, Process};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};

use crate::{
    BenchError,
    metric::{Figures, Metric},
};

/// How long the agent may take to be replaced and to be well.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked; a start is some hundred times as long.
const LOOK: Duration = Duration::from_millis(1);

/// Has the first node's agent replaced, and measures its successor.
///
/// The successor finds the endpoints of the node and takes them over, as after an upgrade. Its memory is read a second
/// after it is well.
///
/// # Errors
/// `Scene` when there is no agent, or none that gets well.
pub async fn restart(lab: &Lab) -> Result<Figures, BenchError> {
    let node = lab.nodes().into_iter().next().ok_or_else(|| BenchError::Scene("the lab has no nodes".to_owned()))?;
    let old = agent_of(&node)?.ok_or_else(|| BenchError::Scene(format!("node {:?} has no agent", node.name())))?;
    delete_pod(lab, node.name()).await?;
    let until = Instant::now() + PATIENCE;
    let late =
        |what: &str| BenchError::Scene(format!("{what} on node {:?} within {} s", node.name(), PATIENCE.as_secs()));
    let (process, begun) = loop {
        if let Some(found) = agent_of(&node)?.filter(|found| *found != old) {
            break (found, Instant::now());
        }
        if Instant::now() >= until {
            return Err(late("no new agent was started"));
        }
        tokio::time::sleep(LOOK).await;
    };
    let client = Client::new(node.path("/run/cilium/cilium.sock")?).with_timeout(Duration::from_secs(1));
    let took = loop {
        // Until it listens there is nobody to answer, or the old one's socket.
        let status = client.get::<StatusResponse>("/healthz").await;
        if status.is_ok_and(|status| status.cilium.state == State::Ok) {
            break begun.elapsed();
        }
        if !process.is_alive() {
            return Err(BenchError::Scene(format!("the new agent on node {:?} ended", node.name())));
        }
        if Instant::now() >= until {
            return Err(late("the agent was not well"));
        }
        tokio::time::sleep(LOOK).await;
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (resident, private) = memory(process)?;
    Ok(vec![
        (Metric::AgentStart, took.as_secs_f64() * 1e3),
        (Metric::AgentMemory, resident),
        (Metric::AgentPrivateMemory, private),
    ])
}

/// The agent of a node, if one runs.
pub(crate) fn agent_of(node: &Node) -> Result<Option<Process>, BenchError> {
    // The words are those of exec, so the time before it, in the runtime's hands, does not count.
    let is_agent = |line: &str| line.split(' ').next().is_some_and(|program| program.ends_with("kinesin-agent"));
    Ok(node.processes()?.into_iter().find(|(_, line)| is_agent(line)).map(|(process, _)| process))
}

async fn delete_pod(lab: &Lab, node: &str) -> Result<(), BenchError> {
    let failed = |error: kube::Error| BenchError::Scene(format!("cannot replace the agent of node {node:?}: {error}"));
    let api: Api<Pod> = Api::namespaced(lab.client()?, "kube-system");
    let agents = ListParams::default().labels("k8s-app=cilium").fields(&format!("spec.nodeName={node}"));
    for pod in api.list(&agents).await.map_err(failed)? {
        let name = pod.metadata.name.unwrap_or_default();
        api.delete(&name, &DeleteParams::default()).await.map_err(failed)?;
    }
    Ok(())
}

/// Resident memory, and the part that nobody shares, in MB (10^6 bytes).
pub(crate) fn memory(process: Process) -> Result<(f64, f64), BenchError> {
    let read = |file: &str| {
        let path = format!("/proc/{}/{file}", process.pid);
        fs::read_to_string(&path).map_err(BenchError::io(format!("read {path}")))
    };
    let (status, pages) = (read("status")?, read("smaps_rollup")?);
    let private = kilobytes(&pages, "Private_Clean:") + kilobytes(&pages, "Private_Dirty:");
    Ok((kilobytes(&status, "VmRSS:") * 1.024e-3, private * 1.024e-3))
}

fn kilobytes(text: &str, field: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_fields_of_proc() {
        assert_eq!(kilobytes("Name:\tx\nVmRSS:\t   20480 kB\n", "VmRSS:"), 20480.0);
        assert_eq!(kilobytes("Name:\tx\n", "VmRSS:"), 0.0);
    }
}
