//! An API server in this process, and operators against it.

use std::{
    future::Future,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use kinesin_apiserver::{ApiServer, Config};
use kinesin_ipam_blocks::{PoolSpec, Source};
use kinesin_operator::{Args, IpamSettings, Operator, Settings, Timing};
use kube::Client;

const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    server: ApiServer,
    url: String,
    pub(crate) client: Client,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server =
            ApiServer::start(Config { listeners: vec![listener], ..Config::default() }).await.expect("a server");
        let url = format!("http://{}", server.local_addrs()[0]);
        let client = kinesin_cluster::connect(None, Some(&url)).await.expect("a client");
        Self { server, url, client }
    }

    pub(crate) async fn install(&self) {
        kinesin_cluster::install_crds(&self.client).await.expect("definitions");
    }

    /// An operator of a mounted ConfigMap, as the command line makes it.
    pub(crate) async fn operator_of(&self, directory: &Path) -> Operator {
        let flag = format!("--config-dir={}", directory.display());
        let args: Args = clap::Parser::try_parse_from(["kinesin-operator", "--identity=one", &flag]).expect("flags");
        let ipam = args.settings().expect("settings").ipam;
        self.start(Settings { config_dir: Some(directory.to_owned()), ..settings("one", "kube-system", ipam) }).await
    }

    pub(crate) async fn operator(&self, identity: &str, namespace: &str, ipam: IpamSettings) -> Operator {
        self.start(settings(identity, namespace, ipam)).await
    }

    /// The operator, when it has installed the definitions.
    async fn start(&self, settings: Settings) -> Operator {
        let client = kinesin_cluster::connect(None, Some(&self.url)).await.expect("a client");
        let operator = Operator::start(client, settings).await.expect("an operator");
        let nodes: kube::Api<kinesin_cluster::CiliumNode> = kube::Api::all(self.client.clone());
        let pools: kube::Api<kinesin_cluster::CiliumPodIPPool> = kube::Api::all(self.client.clone());
        eventually("definitions", async || {
            nodes.list(&kube::api::ListParams::default()).await.is_ok()
                && pools.list(&kube::api::ListParams::default()).await.is_ok()
        })
        .await;
        operator
    }

    pub(crate) async fn end(self, operators: Vec<Operator>) {
        for operator in operators {
            operator.shutdown().await;
        }
        self.server.shutdown().await;
    }
}

pub(crate) fn cluster_pool(cidr: &str, mask: u8) -> Option<PoolSpec> {
    Some(PoolSpec { source: Source::cluster_pool(), ipv4: Some((vec![cidr.to_owned()], mask)), ipv6: None })
}

fn settings(identity: &str, namespace: &str, ipam: IpamSettings) -> Settings {
    Settings {
        namespace: namespace.to_owned(),
        identity: identity.to_owned(),
        timing: Timing {
            lease: Duration::from_secs(5),
            renew: Duration::from_secs(4),
            retry: Duration::from_millis(200),
        },
        // CiliumNodes here have no Nodes.
        nodes_interval: None,
        endpoints_interval: None,
        grace: Duration::from_secs(60),
        ipam,
        config_dir: None,
        install_crds: true,
        health_address: "127.0.0.1:0".to_owned(),
        metrics_address: Some("127.0.0.1:0".to_owned()),
    }
}

pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let found = tokio::time::timeout(LIMIT, async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("no {what} within {LIMIT:?}"));
}

/// One GET; blocking, so it is called where that does no harm.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
