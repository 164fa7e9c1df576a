//! Serves a cluster without nodes on an address, to try `kubectl` on it:
//! `cargo run -p kinesin-apiserver --example serve -- 127.0.0.1:6443 [data directory]`.

use std::net::TcpListener;

use anyhow::Context as _;
use kinesin_apiserver::{ApiServer, Config, PodCidrRange};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:6443".to_owned());
    let listener = TcpListener::bind(&address).with_context(|| format!("cannot listen on {address}"))?;
    let server = ApiServer::start(Config {
        listeners: vec![listener],
        data_dir: arguments.next().map(Into::into),
        pod_cidrs: vec![
            PodCidrRange { cidr: "10.244.0.0/16".parse()?, node_prefix: 24 },
            PodCidrRange { cidr: "fd00:10:244::/48".parse()?, node_prefix: 64 },
        ],
        controllers: true,
    })
    .await?;
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
