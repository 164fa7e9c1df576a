//! The control process: serves the lab's API on the underlay and on this machine's loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use kinesin_apiserver::{ApiServer, Config, PodCidrRange};
use kinesin_core::causes::with_causes;
use kinesin_netlink::NetNs;
use tokio::signal::unix::{SignalKind, signal};

use crate::{layout, plan::ControlPlan, start};

/// Serves until it is told to end.
pub(crate) fn run(plan: &ControlPlan) -> Result<(), String> {
    start::log_to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| format!("cannot start: {error}"))?.block_on(serve(plan))
}

async fn serve(plan: &ControlPlan) -> Result<(), String> {
    if !plan.segment.is_alive() {
        return Err("the underlay is gone".to_owned());
    }
    let segment = NetNs::open(format!("/proc/{}/ns/net", plan.segment.pid)).map_err(|error| with_causes(&error))?;
    let bind = |address: SocketAddr| {
        TcpListener::bind(address).map_err(|error| format!("cannot listen on {address}: {error}"))
    };
    let own = on_loopback(plan.port)?;
    let port = own.local_addr().map_err(|error| format!("cannot tell the own port: {error}"))?.port();
    let mut listeners = vec![own];
    for address in &plan.listen {
        listeners.push(segment.run(|| bind(*address)).map_err(|error| with_causes(&error))??);
    }
    layout::make_dir(&plan.data_dir).map_err(|error| with_causes(&error))?;
    let config = Config {
        listeners,
        data_dir: Some(plan.data_dir.clone()),
        pod_cidrs: plan
            .pod_ranges
            .iter()
            .map(|range| PodCidrRange { cidr: range.cidr, node_prefix: range.node_prefix })
            .collect(),
        controllers: true,
    };
    let server = ApiServer::start(config).await.map_err(|error| with_causes(&error))?;
    let mut end = signal(SignalKind::terminate()).map_err(|error| format!("cannot listen for signals: {error}"))?;
    start::ready(&format!("ready {port}"))?;
    end.recv().await;
    server.shutdown().await;
    Ok(())
}

/// The port that was used before keeps kubeconfigs right; if someone else has it by now, any other.
fn on_loopback(port: u16) -> Result<TcpListener, String> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    bind(port).or_else(|_| bind(0)).map_err(|error| format!("cannot listen on 127.0.0.1: {error}"))
}
