//! Where the agent answers: its socket, and the probes of Kubernetes.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use anyhow::Context as _;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{api, engine::Engine, watches::Watches};

/// Where Kubernetes' probes ask for the agent's health (Cilium: `agent-health-port`).
const HEALTH_ADDRESS: &str = "127.0.0.1:9879";

/// Serves the socket and the probes until `stop`.
///
/// # Errors
/// Where the socket cannot be; probes that cannot be answered are logged.
pub(crate) async fn start(
    engine: &Arc<Engine>,
    watches: &Arc<Watches>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let app = api::router(engine.clone(), watches.clone());
    let listener = listen(&engine.config.socket_path)?;
    let stopped = stop.clone();
    tasks.spawn(async move {
        let served = axum::serve(listener, app).with_graceful_shutdown(async move { stopped.cancelled().await }).await;
        if let Err(error) = served {
            tracing::error!(%error, "the socket is no longer served");
        }
    });
    match TcpListener::bind(HEALTH_ADDRESS).await {
        Ok(listener) => {
            let app = api::probes(engine.clone());
            let stopped = stop.clone();
            tasks.spawn(async move {
                let stopping = async move { stopped.cancelled().await };
                // It is served or the agent ends; accept errors are retried inside.
                let _ = axum::serve(listener, app).with_graceful_shutdown(stopping).await;
            });
        }
        Err(error) => tracing::warn!(address = HEALTH_ADDRESS, %error, "health probes are not answered"),
    }
    Ok(())
}

/// Listens where an earlier agent may have left its socket; the lock says that it is gone.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let place = || format!("cannot listen on {} (key socket-path)", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(place)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(place),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(place)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).with_context(place)?;
    Ok(listener)
}
