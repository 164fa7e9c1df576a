#![doc = include_str!("../README.md")]

mod args;
mod collect;
mod election;
pub mod forecast;
mod http;
mod ipam;
mod operator;
mod reload;
mod state;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

pub use args::{ApiServer, Args};
pub use election::Timing;
pub use ipam::IpamSettings;
pub use operator::{Operator, Settings, Writes};

/// Runs until SIGTERM or SIGINT, then gives the lease back.
///
/// # Errors
/// A configuration that cannot work and a port that is taken. An API server that is away is waited for.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // Where nobody reads the log, telling that on stderr would be a panic.
    subscriber.log_internal_errors(false).init();
    // Before anything else, so that no signal is met by its default.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let server = args.api_server()?;
    let client = kinesin_cluster::connect(server.kubeconfig.as_deref(), server.url.as_deref()).await?;
    let operator = Operator::start(client, args.settings()?).await?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM"),
        _ = interrupt.recv() => tracing::info!("SIGINT"),
    }
    operator.shutdown().await;
    Ok(())
}
