//! Where the contenders stand: labs of the same shape, one for each routing mode of Kinesin and one without an agent.
//!
//! The lab without an agent has the same nodes, the same underlay and the same sysctls. So what differs between Kinesin,
//! plain routing, the bridge plugin and flannel's way is what each does on the node, and nothing else.

mod bridge;
mod flannel;
mod kinesin;
mod routing;
mod veth;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

use kinesin_core::causes::with_causes;
use kinesin_lab::{DEFAULT_BASE, Lab, Progress, Spec};
use kinesin_netlink::NetNs;

use crate::{
    BenchError,
    case::{Contender, Scope},
    cni::Network,
    nodes,
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
    /// A lab with Kinesin in one of its modes.
    async fn of(ours: Contender, nodes: usize, progress: &dyn Progress) -> Result<Self, BenchError> {
        let name = format!("{}{nodes}", ours.name().trim_start_matches("kinesin-"));
        let more = if nodes == 1 { nodes::VALUES } else { "" };
        let values = format!("{}{more}", kinesin::values(ours));
        Self::up(&name, Spec { nodes, values, ..Spec::default() }, progress).await
    }

    async fn up(name: &str, spec: Spec, progress: &dyn Progress) -> Result<Self, BenchError> {
        let spec = Spec {
            name: format!("bench-{name}-{}", std::process::id()),
            mtu_bytes: MTU_BYTES,
            workloads: false,
            ..spec
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
    ours: BTreeMap<Contender, Stage>,
    absent: BTreeMap<Contender, String>,
    lonely: BTreeMap<Contender, Stage>,
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
        if wants(Contender::Bridge) || wants(Contender::Flannel) {
            bridge::check(&wanted.cni_dir)?;
        }
        if [Contender::Routing, Contender::Bridge, Contender::Flannel].into_iter().any(wants) {
            arena.plain = Some(Stage::up("plain", Spec { nodes: 2, agent: false, ..Spec::default() }, progress).await?);
        }
        for ours in Contender::OURS.into_iter().filter(|ours| wants(*ours)) {
            match arena.add_ours(ours, progress).await {
                // Everything is compared with it.
                Err(error) if ours == Contender::Kinesin => return Err(error),
                Err(error) => {
                    arena.ours.remove(&ours);
                    arena.note_absent(ours, &error, progress);
                }
                Ok(()) => {}
            }
        }
        progress.phase("pods of the other contenders");
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
            if wants(Contender::Flannel) {
                add_paths(&mut arena.paths, Contender::Flannel, flannel::pods(stage, &wanted.cni_dir).await?);
            }
        }
        progress.done();
        Ok(arena)
    }

    /// Brings up a lab of one of our modes, with pods.
    async fn add_ours(&mut self, ours: Contender, progress: &dyn Progress) -> Result<(), BenchError> {
        let stage = Stage::of(ours, 2, progress).await?;
        let stage = self.ours.entry(ours).or_insert(stage);
        progress.phase(&format!("pods of {ours}"));
        kinesin::check(stage, ours).await?;
        let pods = kinesin::pods(stage, progress).await?;
        self.networks.insert(ours, kinesin::network(stage)?);
        add_paths(&mut self.paths, ours, pods);
        Ok(())
    }

    /// Brings up a lab of one node for each of ours, for a case that makes up the other nodes; they are gone with
    /// [`Self::drop_lonely`].
    ///
    /// # Errors
    /// When native routing does not come up; a tunnel that does not is among the absent.
    pub async fn add_lonely(&mut self, wanted: &[Contender], progress: &dyn Progress) -> Result<(), BenchError> {
        let wanted = wanted.iter().filter(|ours| Contender::OURS.contains(ours) && !self.absent.contains_key(*ours));
        for ours in wanted.copied().collect::<Vec<_>>() {
            let stage = Stage::of(ours, 1, progress).await;
            let checked = match stage {
                Ok(stage) => kinesin::check(&stage, ours).await.map(|()| stage),
                Err(error) => Err(error),
            };
            match checked {
                Ok(stage) => _ = self.lonely.insert(ours, stage),
                Err(error) if ours == Contender::Kinesin => return Err(error),
                Err(error) => self.note_absent(ours, &error, progress),
            }
        }
        Ok(())
    }

    /// Removes the labs of one node.
    pub fn drop_lonely(&mut self) {
        self.lonely.clear();
    }

    fn note_absent(&mut self, ours: Contender, error: &BenchError, progress: &dyn Progress) {
        let told = format!("{ours}: it did not come up: {}", with_causes(error));
        progress.phase(&told);
        self.absent.insert(ours, told);
    }

    /// The lab of one node of one of ours.
    ///
    /// # Errors
    /// `Scene` when there is none.
    pub fn lonely(&self, ours: Contender) -> Result<&Lab, BenchError> {
        let stage = self.lonely.get(&ours);
        stage.map(|stage| &stage.lab).ok_or_else(|| BenchError::Scene(format!("{ours} has no node of its own")))
    }

    /// Who was wanted and did not come up, with the reason.
    #[must_use]
    pub fn absent(&self) -> &BTreeMap<Contender, String> {
        &self.absent
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

    /// The lab with the agents that route natively.
    ///
    /// # Errors
    /// `Scene` when Kinesin was not asked for.
    pub fn lab(&self) -> Result<&Lab, BenchError> {
        let stage = self.ours.get(&Contender::Kinesin);
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
