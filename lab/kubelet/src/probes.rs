//! Probes: whether a container has started, lives, and is ready.
//!
//! Source: `pkg/kubelet/prober` and `pkg/probe` of Kubernetes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::remote::{self, Target};

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Startup,
    Liveness,
    Readiness,
}

impl Purpose {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What holds now, by the thresholds; `None` before one was reached.
    pub(crate) verdict: Option<bool>,
    /// Why this time was a failure.
    pub(crate) failure: Option<String>,
}

/// Counts outcomes against the thresholds of a probe.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    last: Option<bool>,
    run: i32,
    success: i32,
    failure: i32,
}

impl Counter {
    pub(crate) fn new(probe: &Probe) -> Self {
        let or = |threshold: Option<i32>, default| threshold.filter(|n| *n > 0).unwrap_or(default);
        Self { last: None, run: 0, success: or(probe.success_threshold, 1), failure: or(probe.failure_threshold, 3) }
    }

    /// Takes an outcome; the verdict once enough of the same came in a row.
    pub(crate) fn count(&mut self, is_success: bool) -> Option<bool> {
        self.run = if self.last == Some(is_success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(is_success);
        (self.run >= if is_success { self.success } else { self.failure }).then_some(is_success)
    }
}

/// Probes for ever, and tells every outcome.
pub(crate) async fn watch(probe: Probe, container: Container, ip: IpAddr, target: Arc<Target>, tell: impl Fn(Finding)) {
    let seconds =
        |of: Option<i32>, default: u64| Duration::from_secs(of.and_then(|n| u64::try_from(n).ok()).unwrap_or(default));
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let mut counter = Counter::new(&probe);
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    loop {
        let outcome = tokio::time::timeout(limit, once(&probe, &container, ip, &target)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(format!("command timed out: context deadline exceeded after {} s", limit.as_secs()))
        });
        let verdict = counter.count(outcome.is_ok());
        tell(Finding { verdict, failure: outcome.err() });
        // A container that is not ready yet is asked more often, as kubelet triggers probes on changes.
        let is_settled = verdict == Some(true);
        tokio::time::sleep(if is_settled { period } else { period.min(Duration::from_secs(1)) }).await;
    }
}

async fn once(probe: &Probe, container: &Container, ip: IpAddr, target: &Target) -> Result<(), String> {
    if let Some(get) = &probe.http_get {
        http(get, container, ip).await
    } else if let Some(tcp) = &probe.tcp_socket {
        let address = address(tcp.host.as_deref(), &tcp.port, container, ip)?;
        TcpStream::connect(&address).await.map(drop).map_err(|error| format!("dial tcp {address}: connect: {error}"))
    } else if let Some(exec) = &probe.exec {
        command(exec, target).await
    } else {
        Err("this kind of probe is not supported; there are httpGet, tcpSocket and exec".to_owned())
    }
}

/// Runs the command of a probe or hook; its output is the reason when it fails.
pub(crate) async fn command(exec: &ExecAction, target: &Target) -> Result<(), String> {
    let (code, output) = remote::run_to_end(target, exec.command.clone().unwrap_or_default()).await?;
    if code == 0 { Ok(()) } else { Err(output) }
}

fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let found = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok()),
    };
    found
        .and_then(|number| u16::try_from(number).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("couldn't extract port: {port:?}"))
}

fn address(host: Option<&str>, port: &IntOrString, container: &Container, ip: IpAddr) -> Result<String, String> {
    let port = port_number(port, container)?;
    Ok(match host.filter(|h| !h.is_empty()) {
        Some(host) if host.contains(':') => format!("[{host}]:{port}"),
        Some(host) => format!("{host}:{port}"),
        None => SocketAddr::new(ip, port).to_string(),
    })
}

/// Asks once; a code from 200 to 399 is a success.
pub(crate) async fn http(get: &HTTPGetAction, container: &Container, ip: IpAddr) -> Result<(), String> {
    if get.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")) {
        return Err("HTTPS probes are not supported".to_owned());
    }
    let address = address(get.host.as_deref(), &get.port, container, ip)?;
    let path = get.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let url = format!("http://{address}{path}");
    let stream = TcpStream::connect(&address)
        .await
        .map_err(|error| format!("Get {url:?}: dial tcp {address}: connect: {error}"))?;
    let said = |error: &dyn std::fmt::Display| format!("Get {url:?}: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| said(&e))?;
    let asked = async {
        let mut request = hyper::Request::get(&path)
            .header("host", &address)
            .header("user-agent", "kube-probe/1.32")
            .header("accept", "*/*");
        for header in get.http_headers.iter().flatten() {
            request = request.header(&header.name, &header.value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| said(&e))?;
        let response = sender.send_request(request).await.map_err(|e| said(&e))?;
        let code = response.status().as_u16();
        // The server should not see a reset for its answer; what it says matters to nobody.
        let _ = tokio::time::timeout(Duration::from_millis(200), response.into_body().collect()).await;
        if (200..400).contains(&code) { Ok(()) } else { Err(format!("HTTP probe failed with statuscode: {code}")) }
    };
    // Aborted when the probe is over, or runs out of time.
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let outcome = asked.await;
    drop(connection);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_decide_and_a_change_starts_anew() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: None, ..Probe::default() };
        let mut counter = Counter::new(&probe);
        let outcomes = [true, true, false, false, true, false, false, false, false];
        let verdicts = outcomes.map(|outcome| counter.count(outcome));
        assert_eq!(verdicts, [None, Some(true), None, None, None, None, None, Some(false), Some(false)]);
    }

    #[test]
    fn a_port_may_have_a_name() {
        let container: Container =
            serde_json::from_value(serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 81}]}))
                .unwrap();
        let ip = "fd00::1".parse().unwrap();
        let at = |port| address(None, &port, &container, ip);
        assert_eq!(at(IntOrString::String("web".into())).unwrap(), "[fd00::1]:81");
        assert_eq!(at(IntOrString::Int(8)).unwrap(), "[fd00::1]:8");
        assert!(at(IntOrString::String("x".into())).is_err());
        assert!(at(IntOrString::Int(70_000)).is_err());
    }
}
