//! The handle of a lab that is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    LabError, cgroup, cluster,
    enter::Door,
    layout::Layout,
    node::Node,
    spec::{Families, check_name},
    state::State,
};

/// A lab: its nodes, its API and its files.
#[derive(Debug, Clone)]
pub struct Lab {
    pub(crate) layout: Layout,
    pub(crate) state: State,
}

/// A lab in a list.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Number of its nodes; none when its files are gone.
    pub nodes: Option<usize>,
    /// `Up`, `Broken` or `Leftover`.
    pub state: &'static str,
    /// Its kubeconfig.
    pub kubeconfig: Option<PathBuf>,
}

impl Lab {
    /// Opens the lab `name` in the directory `base`, whatever its state.
    ///
    /// # Errors
    /// [`LabError::NoSuchLab`] when there is none.
    pub fn open(base: &Path, name: &str) -> Result<Self, LabError> {
        check_name(name)?;
        let layout = Layout::new(base, name);
        match State::load(&layout)? {
            Some(state) => Ok(Self { layout, state }),
            None => Err(LabError::NoSuchLab { name: name.to_owned(), dir: base.to_owned() }),
        }
    }

    /// All labs of this machine that have files in `base` or processes.
    ///
    /// # Errors
    /// When the machine has no cgroup2 tree, so no lab either.
    pub fn list(base: &Path) -> Result<Vec<Summary>, LabError> {
        let mut names = cgroup::labs()?;
        let entries = fs::read_dir(base).into_iter().flatten().flatten();
        names.extend(entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            (check_name(&name).is_ok() && entry.path().join("state.json").exists()).then_some(name)
        }));
        names.sort();
        names.dedup();
        let summary = |name: String| match Self::open(base, &name) {
            Ok(lab) => Summary {
                state: if lab.is_whole() { "Up" } else { "Broken" },
                nodes: Some(lab.state.nodes.len()),
                kubeconfig: Some(lab.layout.kubeconfig()),
                name,
            },
            Err(_) => Summary { name, nodes: None, state: "Leftover", kubeconfig: None },
        };
        Ok(names.into_iter().map(summary).collect())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Families of its underlay and pods.
    #[must_use]
    pub fn families(&self) -> Families {
        self.state.families
    }

    /// Where its files are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether every holder and the control process run.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state.is_whole()
    }

    /// The control process's number on this machine, if it runs.
    #[must_use]
    pub fn control_pid(&self) -> Option<i32> {
        self.state.control.filter(|process| process.is_alive()).map(|process| process.pid)
    }

    /// A client of its API server.
    ///
    /// # Errors
    /// [`LabError::Api`] when none can be made; whether the server answers shows with the first request.
    pub fn client(&self) -> Result<kube::Client, LabError> {
        cluster::client(self.state.api_port)
    }

    /// Its nodes, the control plane's first.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        let door = |name: &str| cgroup::of_lab(&self.state.name).map(|lab| lab.join(name)).unwrap_or_default();
        let nodes = self.state.nodes.iter().map(|node| Node {
            name: node.name.clone(),
            addresses: node.addresses.iter().map(ipnet::IpNet::addr).collect(),
            dir: self.layout.node_dir(&node.name),
            door: node.holder.map(|holder| Door { node: node.name.clone(), holder, cgroup: door(&node.name) }),
            helper: self.state.bin_dir.join("kinesin"),
        });
        nodes.collect()
    }

    /// One node.
    ///
    /// # Errors
    /// [`LabError::NoSuchNode`] with those that there are.
    pub fn node(&self, name: &str) -> Result<Node, LabError> {
        self.nodes().into_iter().find(|node| node.name == name).ok_or_else(|| LabError::NoSuchNode {
            lab: self.state.name.clone(),
            node: name.to_owned(),
            known: self.state.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}
