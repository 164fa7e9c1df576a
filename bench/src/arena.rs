//! Where the contenders stand: two labs of the same shape, one with Kinesin, one without.
//!
//! The lab without an agent has the same nodes, the same underlay and the same sysctls. So what differs between Kinesin,
//! plain routing and the bridge plugin is what each does on the node, and nothing else.

mod bridge;
mod kinesin;
mod routing;
mod veth;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

use kinesin_lab::{DEFAULT_BASE, Lab, Progress, Spec};
use kinesin_netlink::NetNs;

use crate::{
    BenchError,
    case::{Contender, Scope},
    cni::Network,
    traffic::Path,
};

/// MTU of every device on every path, in bytes.
pub const MTU_BYTES: u16 = 1500;

/// A lab that is gone when this is.
#[derive(Debug)]
struct Stage {
    lab: Lab,
}

impl Stage {
    async fn up(name: &str, agent: bool, progress: &dyn Progress) -> Result<Self, BenchError> {
        let spec = Spec {
            name: format!("bench-{name}-{}", std::process::id()),
            nodes: 2,
            mtu_bytes: MTU_BYTES,
            agent,
            workloads: false,
            ..Spec::default()
        };
        match Lab::up(&spec, progress).await {
            Ok(lab) => Ok(Self { lab }),
            Err(error) => {
                // What came up is in the way of the next attempt; the first error is the one to tell.
                let _ = Lab::down(&spec.base, &spec.name);
                Err(error.into())
            }
        }
    }

    fn node(&self, index: usize) -> Result<kinesin_lab::Node, BenchError> {
        let node = self.lab.nodes().into_iter().nth(index);
        node.ok_or_else(|| BenchError::Scene(format!("lab {:?} has no node number {index}", self.lab.name())))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // `kinesin lab list` still shows what cannot be removed.
        let _ = Lab::down(FilePath::new(DEFAULT_BASE), self.lab.name());
    }
}

/// Everything that the chosen cases need, set up and connected.
#[derive(Debug, Default)]
pub struct Arena {
    paths: BTreeMap<(Contender, Scope), Path>,
    networks: BTreeMap<Contender, Network>,
    kinesin: Option<Stage>,
    // Last, since pods are in its nodes.
    plain: Option<Stage>,
}

/// What an arena shall have.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// Where `bridge` and `host-local` are.
    pub cni_dir: PathBuf,
}

impl Arena {
    /// Sets up the contenders.
    ///
    /// # Errors
    /// Names the part that could not be made; what was made is gone again.
    pub async fn set_up(wanted: &Wanted, progress: &dyn Progress) -> Result<Self, BenchError> {
        let wants = |contender| wanted.contenders.contains(&contender);
        let mut arena = Self::default();
        if wants(Contender::Bridge) {
            bridge::check(&wanted.cni_dir)?;
        }
        if wants(Contender::Kinesin) {
            arena.kinesin = Some(Stage::up("kinesin", true, progress).await?);
        }
        if wants(Contender::Routing) || wants(Contender::Bridge) {
            arena.plain = Some(Stage::up("plain", false, progress).await?);
        }
        progress.phase("pods of the contenders");
        if let Some(stage) = &arena.kinesin {
            arena.networks.insert(Contender::Kinesin, kinesin::network(stage)?);
            let pods = kinesin::pods(stage, progress).await?;
            add_paths(&mut arena.paths, Contender::Kinesin, pods);
        }
        if wants(Contender::Veth) {
            for scope in [Scope::SameNode, Scope::OtherNode] {
                arena.paths.insert((Contender::Veth, scope), veth::path().await?);
            }
        }
        if let Some(stage) = &arena.plain {
            if wants(Contender::Routing) {
                add_paths(&mut arena.paths, Contender::Routing, routing::pods(stage).await?);
            }
            if wants(Contender::Bridge) {
                arena.networks.insert(Contender::Bridge, bridge::network(stage, &wanted.cni_dir)?);
                add_paths(&mut arena.paths, Contender::Bridge, bridge::pods(stage, &wanted.cni_dir).await?);
            }
        }
        progress.done();
        Ok(arena)
    }

    /// The two pods of a contender.
    ///
    /// # Errors
    /// `Scene` when the contender was not asked for.
    pub fn path(&self, contender: Contender, scope: Scope) -> Result<&Path, BenchError> {
        let path = self.paths.get(&(contender, scope));
        path.ok_or_else(|| BenchError::Scene(format!("{contender} has not been set up")))
    }

    /// How pods of a contender are attached.
    ///
    /// # Errors
    /// `Scene` when the contender was not asked for or attaches no pods.
    pub fn network(&self, contender: Contender) -> Result<&Network, BenchError> {
        self.networks.get(&contender).ok_or_else(|| BenchError::Scene(format!("{contender} attaches no pods here")))
    }

    /// The lab with the agents.
    ///
    /// # Errors
    /// `Scene` when Kinesin was not asked for.
    pub fn lab(&self) -> Result<&Lab, BenchError> {
        let stage = self.kinesin.as_ref();
        stage.map(|stage| &stage.lab).ok_or_else(|| BenchError::Scene("Kinesin has not been set up".to_owned()))
    }
}

/// A pod as the paths need it.
#[derive(Debug)]
struct Pod {
    netns: Arc<NetNs>,
    addresses: Vec<IpAddr>,
}

/// Two on the first node, one on the second; the first asks both others.
type Pods = [Pod; 3];

fn add_paths(paths: &mut BTreeMap<(Contender, Scope), Path>, contender: Contender, [client, near, far]: Pods) {
    for (scope, server) in [(Scope::SameNode, near), (Scope::OtherNode, far)] {
        let path = Path {
            client: Arc::clone(&client.netns),
            client_device: "eth0".to_owned(),
            server: server.netns,
            server_addresses: server.addresses,
        };
        paths.insert((contender, scope), path);
    }
}
