//! A lab's processes are this machine's, so they can be ended one by one.

use std::{sync::Arc, time::Duration};

use kinesin_lab::{Lab, Process};
use kube::{
    Error,
    api::{DeleteParams, ListParams},
};

use super::{LabTarget, SYSTEM};
use crate::{
    cluster::Stop,
    leaks::Site,
    target::{Inside, agents},
};

impl LabTarget {
    /// Processes of a program on a node.
    fn running(&self, node: &str, program: &str) -> Result<Vec<Process>, Stop> {
        let processes = self.node(node)?.processes().map_err(|error| Stop::target(&error))?;
        let is_it = |line: &str| line.split(' ').next().is_some_and(|word| word.rsplit('/').next() == Some(program));
        Ok(processes.into_iter().filter(|(_, line)| is_it(line)).map(|(process, _)| process).collect())
    }
}

impl Inside for LabTarget {
    fn kill_agent(&self, node: &str) -> Result<bool, Stop> {
        let running = self.running(node, "kinesin-agent")?;
        let here = ListParams::default().labels(agents::AGENTS).fields(&format!("spec.nodeName={node}"));
        let pods = self.runtime.block_on(agents::api(&self.client, SYSTEM).list(&here));
        let pods = pods.map_err(|error| Stop::target(&error))?;
        for agent in &running {
            agent.kill().map_err(|error| Stop::target(&error))?;
        }
        for pod in pods.items {
            // The kubelet starts it again at once the first time; later it would wait for longer and longer.
            let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            let restarts: i32 = containers.map(|container| container.restart_count).sum();
            let (true, Some(name)) = (restarts > 0, pod.metadata.name) else { continue };
            let now = DeleteParams::default().grace_period(0);
            match self.runtime.block_on(agents::api(&self.client, SYSTEM).delete(&name, &now)) {
                Err(Error::Api(refused)) if refused.code == 404 => {}
                deleted => drop(deleted.map_err(|error| Stop::target(&error))?),
            }
        }
        Ok(!running.is_empty())
    }

    fn kill_plugin(&self, node: &str) -> Result<bool, Stop> {
        // By its file's name, as the runtime starts it.
        let Some(plugin) = self.running(node, "cilium-cni")?.into_iter().next() else { return Ok(false) };
        // One that has just ended by itself was not killed.
        if !plugin.is_alive() {
            return Ok(false);
        }
        plugin.kill().map(|()| true).map_err(|error| Stop::target(&error))
    }

    fn restart_api(&self, away: Duration) -> Result<(), Stop> {
        let lab = Lab::open(&self.spec.base, &self.spec.name);
        let restarted = lab.and_then(|mut lab| lab.restart_api(away));
        restarted.map_err(|error| Stop::target(&error))
    }

    fn settle(&self) -> Result<(), Stop> {
        LabTarget::settle(self, &[])
    }

    fn shell(&self, node: &str, line: &str, words: &[&str]) -> Result<String, Stop> {
        let command = ["sh", "-ec", line, "sh"].into_iter().chain(words.iter().copied());
        let output = self.node(node)?.output(command).map_err(|error| Stop::target(&error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Stop::broken(format!("{words:?} on {node}: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
    }

    fn site(&self, node: &str) -> Result<Site, Stop> {
        let node = self.node(node)?;
        let found = node.netns().and_then(|netns| Ok((netns, node.path("/")?)));
        let (netns, root) = found.map_err(|error| Stop::target(&error))?;
        // The lab's kubelet keeps the plugin's answer in the record of its pod.
        let runtime_dirs = ["/run/netns", "/var/lib/kubelet"].map(str::to_owned).to_vec();
        Ok(Site { netns: Arc::new(netns), root, runtime_dirs, runtime: self.runtime.handle().clone() })
    }
}
