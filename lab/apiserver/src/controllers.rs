//! The controllers: each looks at the whole of what concerns it and moves it a step towards what is
//! wanted, whenever something changed.
//!
//! They use the same operations as requests do. A pass that changed something wakes the next one,
//! so a controller runs until there is nothing left to do. Nothing is remembered between passes
//! that the store does not hold, so a restart goes on where the last server stopped.

mod crds;
mod daemon_sets;
mod deployments;
mod endpoints;
mod events;
mod garbage;
mod kubernetes_service;
mod namespaces;
mod node_cidrs;
mod nodes;
mod pods;
mod replica_sets;
mod scheduler;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;

use crate::http::stopped;
use crate::ops::Api;

pub(crate) use node_cidrs::NodeCidrs;

/// Changes that come within this time are looked at together.
const GATHER: Duration = Duration::from_millis(2);

/// One controller.
trait Controller: Send + 'static {
    /// The resources whose changes concern it.
    const WATCHES: &'static [&'static str];

    /// Moves everything a step. Returns the time after which to look again even if nothing changes.
    fn pass(&mut self, api: &Api) -> Option<Duration>;
}

/// Brings the cluster to its first state and starts the controllers.
pub(crate) fn start(
    tasks: &mut JoinSet<()>,
    api: &Arc<Api>,
    cidrs: NodeCidrs,
    addresses: &[SocketAddr],
    all: bool,
    stopping: &Receiver<bool>,
) {
    spawn(tasks, api, stopping, crds::Crds);
    spawn(tasks, api, stopping, namespaces::Namespaces);
    if !all {
        return;
    }
    spawn(tasks, api, stopping, cidrs);
    spawn(tasks, api, stopping, kubernetes_service::KubernetesService { addresses: addresses.to_vec() });
    spawn(tasks, api, stopping, deployments::Deployments);
    spawn(tasks, api, stopping, replica_sets::ReplicaSets);
    spawn(tasks, api, stopping, daemon_sets::DaemonSets);
    spawn(tasks, api, stopping, scheduler::Scheduler);
    spawn(tasks, api, stopping, endpoints::Endpoints);
    spawn(tasks, api, stopping, garbage::Garbage);
    spawn(tasks, api, stopping, events::Expiry);
}

/// Runs the first pass at once, so that what it makes is there when the server answers.
fn spawn<C: Controller>(tasks: &mut JoinSet<()>, api: &Arc<Api>, stopping: &Receiver<bool>, mut controller: C) {
    let mut news: Vec<Receiver<u64>> = C::WATCHES.iter().map(|resource| api.store.subscribe(resource)).collect();
    let mut again = controller.pass(api);
    let (api, mut stopping) = (api.clone(), stopping.clone());
    tasks.spawn(async move {
        loop {
            let changed = async {
                let waits: Vec<_> = news.iter_mut().map(|n| Box::pin(n.changed())).collect();
                if waits.is_empty() {
                    return std::future::pending().await;
                }
                // A closed channel means that the store has gone, and the server with it.
                select_all(waits).await.0.is_ok()
            };
            let later = async {
                match again {
                    Some(time) => tokio::time::sleep(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                is_open = changed => if !is_open { return },
                () = later => {}
                () = stopped(&mut stopping) => return,
            }
            tokio::time::sleep(GATHER).await;
            news.iter_mut().for_each(Receiver::mark_unchanged);
            again = controller.pass(&api);
        }
    });
}
