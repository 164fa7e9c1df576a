//! What the parts of a lab have logged.

use std::fs;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ListParams, LogParams},
};

use crate::{Lab, LabError};

/// A log and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The pod, or the process with its node.
    pub of: String,
    /// Its lines.
    pub text: String,
}

impl Lab {
    /// Logs of the pods in `kube-system` that have a label, on one node or on all.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`], and [`LabError::Api`] when the API server or a kubelet does not answer.
    pub async fn pod_logs(&self, label: &str, node: Option<&str>, tail: Option<usize>) -> Result<Vec<Log>, LabError> {
        node.map(|node| self.node(node)).transpose()?;
        let api = Api::<Pod>::namespaced(self.client()?, "kube-system");
        let pods = api.list(&ListParams::default().labels(label)).await.map_err(LabError::api("list pods"))?;
        let mut logs = Vec::new();
        for pod in pods.items {
            let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node");
            if node.is_some_and(|node| node != on) {
                continue;
            }
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let params =
                LogParams { tail_lines: tail.and_then(|lines| i64::try_from(lines).ok()), ..LogParams::default() };
            let text = api.logs(name, &params).await.map_err(LabError::api(format!("read the log of {name}")))?;
            logs.push(Log { of: format!("{name} on {on}"), text });
        }
        Ok(logs)
    }

    /// Logs of the kubelets, of one node or of all.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`], and `Io` for a log that cannot be read.
    pub fn kubelet_logs(&self, node: Option<&str>, tail: Option<usize>) -> Result<Vec<Log>, LabError> {
        let nodes = match node {
            Some(node) => vec![self.node(node)?],
            None => self.nodes(),
        };
        let log =
            |node: crate::Node| read(format!("kubelet on {}", node.name()), &node.dir().join("kubelet.log"), tail);
        nodes.into_iter().map(log).collect()
    }

    /// Log of the API server.
    ///
    /// # Errors
    /// `Io` when it cannot be read.
    pub fn api_server_log(&self, tail: Option<usize>) -> Result<Log, LabError> {
        read("the API server".to_owned(), &self.layout().log("apiserver"), tail)
    }
}

fn read(of: String, path: &std::path::Path, tail: Option<usize>) -> Result<Log, LabError> {
    let bytes = fs::read(path).map_err(LabError::io(format!("read {}", path.display())))?;
    Ok(Log { of, text: last_lines(&String::from_utf8_lossy(&bytes), tail).to_owned() })
}

fn last_lines(text: &str, count: Option<usize>) -> &str {
    let Some(count) = count else { return text };
    let body = text.strip_suffix('\n').unwrap_or(text);
    let before = body.rmatch_indices('\n').nth(count.saturating_sub(1)).map_or(0, |(at, _)| at + 1);
    if count == 0 { "" } else { &text[before..] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_counted_from_the_end() {
        let text = "one\ntwo\nthree\n";
        for (count, want) in [(None, text), (Some(0), ""), (Some(1), "three\n"), (Some(3), text), (Some(9), text)] {
            assert_eq!(last_lines(text, count), want, "{count:?}");
        }
        assert_eq!(last_lines("one\ntwo", Some(1)), "two");
    }
}
