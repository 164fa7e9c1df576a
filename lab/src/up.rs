//! Brings a lab up, and back to what it was when parts of it have ended.

use std::{net::SocketAddr, path::PathBuf, thread, time::Duration};

use kinesin_netlink::NetNs;
use nix::unistd::geteuid;

use crate::{
    Lab, LabError, Progress, Silent, cgroup, cluster, kubeconfig,
    layout::{Layout, make_dir, write_whole},
    lock::Lock,
    manifests,
    network::{self, Cable},
    plan::{ControlPlan, NodePlan, Plan, Role},
    process::Process,
    spec::{API_PORT, Spec, api_url, gateways, moved},
    start::{Started, launch},
    state::State,
};

impl Lab {
    /// Brings a lab up as specified and returns when its pods run; one that is there is healed, then applied to again.
    ///
    /// What was made when it fails stays, for a look or for another try; [`Lab::down`] removes it.
    ///
    /// # Errors
    /// [`LabError`] names the part that did not come up.
    pub async fn up(spec: &Spec, progress: &dyn Progress) -> Result<Self, LabError> {
        if !geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        spec.validate()?;
        // Refused before anything is made.
        let config = manifests::config(spec)?;
        make_dir(&spec.base)?;
        let layout = Layout::new(&spec.base, &spec.name);
        let _lock = Lock::take(&layout, &spec.name)?;
        let mut lab = begin(spec, layout)?;
        lab.underlay(progress).await?;
        lab.control(progress)?;
        lab.hold_nodes(progress).await?;
        let client = lab.client()?;
        progress.phase("kubelets registering");
        cluster::wait_for_nodes(&client, &spec.node_names(), progress).await?;
        if spec.agent {
            progress.phase("agents and operator");
            cluster::apply(&client, "the manifests", manifests::system(&config)?).await?;
            cluster::wait_for_system(&client, spec.nodes, progress).await?;
            cluster::wait_for_mesh(&lab.nodes(), spec.segments > 1, progress).await?;
        }
        if spec.workloads {
            progress.phase("demo pods");
            cluster::apply(&client, "the demo", manifests::demo(spec.nodes)?).await?;
            cluster::wait_for_pods(&client, "default", progress).await?;
        }
        progress.done();
        Ok(lab)
    }

    /// Ends the API server by SIGKILL, if it runs, and starts it again after `away` with every object that it had.
    ///
    /// Whoever watches it goes on by itself: its watches break, and one from before is answered by 410, so that it lists
    /// anew. Blocks.
    ///
    /// # Errors
    /// [`LabError`] when it does not come up, and `Busy` while another command changes the lab.
    pub fn restart_api(&mut self, away: Duration) -> Result<(), LabError> {
        let _lock = Lock::take(&self.layout, &self.state.name)?;
        let (name, dir) = (self.state.name.clone(), self.layout.base().to_owned());
        // Another command may have changed the lab since this handle was made.
        self.state = State::load(&self.layout)?.ok_or(LabError::NoSuchLab { name, dir })?;
        if let Some(control) = self.state.control.take() {
            control.kill().map_err(LabError::io("end the API server"))?;
        }
        thread::sleep(away);
        self.control(&Silent)
    }

    /// Gives a node other addresses on the underlay: when it is started the next time, it has the same name and is elsewhere.
    /// Moved a second time, it is back.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`], and `Busy` while another command changes the lab.
    pub fn move_node(&mut self, name: &str) -> Result<(), LabError> {
        let known = self.node(name)?;
        let _lock = Lock::take(&self.layout, &self.state.name)?;
        let (lab, dir) = (self.state.name.clone(), self.layout.base().to_owned());
        self.state = State::load(&self.layout)?.ok_or(LabError::NoSuchLab { name: lab, dir })?;
        for node in self.state.nodes.iter_mut().filter(|node| node.name == known.name()) {
            node.addresses = moved(&node.addresses);
        }
        self.save()
    }

    /// The namespace of the underlay's bridges, which is the router between them. A node's cable ends there, in a port that
    /// has the node's name.
    ///
    /// # Errors
    /// [`LabError::NodeDown`] when the underlay is gone.
    pub fn underlay_netns(&self) -> Result<NetNs, LabError> {
        network::netns_of(&self.segment()?)
    }

    async fn underlay(&mut self, progress: &dyn Progress) -> Result<(), LabError> {
        progress.phase("underlay");
        let segment = match alive(self.state.segment) {
            Some(segment) => segment,
            None => {
                let started = self.launch("segment", Role::Segment)?;
                self.state.segment = Some(started.process);
                // Its listener is in the namespace that is gone.
                if let Some(control) = self.state.control.take() {
                    control.kill().map_err(LabError::io("end the old API server"))?;
                }
                self.save()?;
                started.process
            }
        };
        let segments = (0..self.state.segments).map(|index| gateways(self.state.families, index));
        network::bridges(&segment, &segments.collect::<Vec<_>>()).await
    }

    fn control(&mut self, progress: &dyn Progress) -> Result<(), LabError> {
        progress.phase("API server");
        if alive(self.state.control).is_none() {
            let listen = gateways(self.state.families, 0).into_iter();
            let plan = ControlPlan {
                segment: self.segment()?,
                listen: listen.map(|net| SocketAddr::new(net.addr(), API_PORT)).collect(),
                port: self.state.api_port,
                data_dir: self.layout.api_data(),
                pod_ranges: self.state.pod_ranges.clone(),
            };
            let started = self.launch("apiserver", Role::Control(plan))?;
            self.state.control = Some(started.process);
            self.state.api_port = started.ready.parse().unwrap_or_default();
            self.save()?;
        }
        let url = format!("http://127.0.0.1:{}", self.state.api_port);
        let context = format!("kinesin-{}", self.state.name);
        write_whole(&self.layout.kubeconfig(), kubeconfig::render(&context, &url).as_bytes())
    }

    async fn hold_nodes(&mut self, progress: &dyn Progress) -> Result<(), LabError> {
        progress.phase("nodes");
        let missing: Vec<usize> =
            (0..self.state.nodes.len()).filter(|&i| alive(self.state.nodes[i].holder).is_none()).collect();
        let lab = &*self;
        // Each takes some tens of milliseconds, most of it in the kernel.
        let started: Vec<(usize, Result<Started, LabError>)> = thread::scope(|scope| {
            let threads: Vec<_> = missing.iter().map(|&i| (i, scope.spawn(move || lab.hold_node(i)))).collect();
            let join = |(i, thread): (usize, thread::ScopedJoinHandle<'_, _>)| {
                (
                    i,
                    thread.join().unwrap_or_else(|_| {
                        Err(LabError::io("start a node")(std::io::Error::other("a thread panicked")))
                    }),
                )
            };
            threads.into_iter().map(join).collect()
        });
        let mut failed = None;
        for (i, started) in started {
            match started {
                Ok(started) => self.state.nodes[i].holder = Some(started.process),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.save()?;
        if let Some(error) = failed {
            return Err(error);
        }
        let segment = self.segment()?;
        for node in &self.state.nodes {
            let Some(holder) = node.holder else { continue };
            let cable = Cable {
                node: &node.name,
                segment: node.segment,
                addresses: &node.addresses,
                gateways: &gateways(self.state.families, node.segment),
                mtu_bytes: self.state.mtu_bytes,
            };
            network::connect(&segment, &holder, &cable).await?;
        }
        Ok(())
    }

    fn hold_node(&self, index: usize) -> Result<Started, LabError> {
        let node = &self.state.nodes[index];
        let dir = self.layout.node_dir(&node.name);
        make_dir(&dir)?;
        let hosts = self.state.nodes.iter().flat_map(|n| n.addresses.iter().map(|net| (net.addr(), n.name.clone())));
        let plan = NodePlan {
            name: node.name.clone(),
            addresses: node.addresses.clone(),
            api_url: api_url(self.state.families),
            bin_dir: self.state.bin_dir.clone(),
            node_dir: dir,
            hosts: hosts.collect(),
            control_plane: index == 0,
        };
        self.launch(&node.name, Role::Node(Box::new(plan)))
    }

    fn launch(&self, what: &str, role: Role) -> Result<Started, LabError> {
        let plan = Plan { cgroup: cgroup::of_lab(&self.state.name)?.join(what), role };
        // Whatever a predecessor has left running there belongs to a node that is no more.
        cgroup::remove(&plan.cgroup)?;
        launch(&self.helper(), what, &plan, &self.layout.plan(what), &self.layout.log(what))
    }

    fn helper(&self) -> PathBuf {
        self.state.bin_dir.join("kinesin")
    }

    fn segment(&self) -> Result<Process, LabError> {
        alive(self.state.segment).ok_or_else(|| LabError::NodeDown { node: "segment".to_owned() })
    }

    fn save(&self) -> Result<(), LabError> {
        self.state.save(&self.layout)
    }
}

fn alive(process: Option<Process>) -> Option<Process> {
    process.filter(Process::is_alive)
}

/// The lab that is there, if it is what is asked for; else a new one without any process.
fn begin(spec: &Spec, layout: Layout) -> Result<Lab, LabError> {
    let different = |difference| LabError::Different { name: spec.name.clone(), difference };
    if let Some(mut state) = State::load(&layout)? {
        if let Some(difference) = state.difference(spec) {
            return Err(different(difference));
        }
        state.bin_dir.clone_from(&spec.bin_dir);
        return Ok(Lab { layout, state });
    }
    if cgroup::is_populated(&cgroup::of_lab(&spec.name)?) {
        return Err(different(format!("its files elsewhere than in {}", layout.dir().display())));
    }
    for dir in ["logs", "nodes", "plans"] {
        make_dir(&layout.dir().join(dir))?;
    }
    let lab = Lab { state: State::new(spec), layout };
    lab.save()?;
    Ok(lab)
}
