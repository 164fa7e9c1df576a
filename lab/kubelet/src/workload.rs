//! The servers behind the images: the hidden subcommand `lab-workload`.
//!
//! - `nginx`: HTTP on 80 with nginx's page, headers and access log;
//! - `whoami`: HTTP on 80 (`--port`, `WHOAMI_PORT_NUMBER`) that tells host, addresses and the request;
//! - `echo`: TCP and UDP on 7 send back what they get, HTTP on 80 answers with the host name;
//! - `pause`: nothing, until it is told to end.
//!
//! All listen on both families, and end on SIGTERM and SIGINT with code 0.

mod echo;
mod http;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// Serves `lab-workload NAME [ARGUMENT..]`; the arguments are those after `lab-workload`.
pub fn workload_main(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let serve = async {
        let work = async {
            match name.as_str() {
                "nginx" => http::nginx().await,
                "whoami" => http::whoami(&rest).await,
                "echo" => echo::serve().await,
                "pause" => std::future::pending().await,
                _ => Err(std::io::Error::other("no such workload; there are nginx, whoami, echo, pause")),
            }
        };
        tokio::select! {
            outcome = work => outcome,
            outcome = told_to_end() => outcome,
        }
    };
    match runtime.block_on(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn told_to_end() -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut quit = signal(SignalKind::quit())?;
    tokio::select! {
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        _ = quit.recv() => Ok(()),
    }
}

/// Both families of a port; IPv4 alone where the machine has no IPv6.
fn everywhere(port: u16) -> [SocketAddr; 2] {
    [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
}
