//! The kubelet of a lab node as a program: `kinesin-kubelet run CONFIG.json`, and what it starts.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use kinesin_kubelet::{Config, launch_main, run, workload_main};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Parser)]
#[command(version, about = "The kubelet of a lab node")]
enum Command {
    /// Runs the kubelet in the namespaces of the caller.
    Run {
        /// The configuration, as JSON.
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        // Before any thread is started: both fork or want to stay small.
        Some("lab-launch") => return launch_main(arguments),
        Some("lab-workload") => return workload_main(arguments),
        _ => {}
    }
    let Command::Run { config } = Command::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kinesin-kubelet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve(config: PathBuf) -> anyhow::Result<()> {
    let text = std::fs::read(&config).with_context(|| format!("cannot read {}", config.display()))?;
    let config: Config =
        serde_json::from_slice(&text).with_context(|| format!("{} is not a configuration", config.display()))?;
    let shutdown = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
    });
    run(config, shutdown).await?;
    Ok(())
}
