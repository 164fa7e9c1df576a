//! One fault per behaviour of `Routing`, around the reference.

use std::sync::Arc;

use async_trait::async_trait;
use kinesin_core::{
    registry::{BuildContext, BuildError},
    routing::{Routing, RoutingDesired, RoutingError, RoutingReport},
    values::{Carrier, Family},
};
use kinesin_netlink::Netlink;
use tokio::sync::Mutex;

use crate::reference::routing::Reference;

/// The reference, wrong in the behaviour `breaks`.
#[derive(Debug)]
struct Wrong {
    breaks: &'static str,
    last: Mutex<Option<(RoutingDesired, RoutingReport)>>,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a registered constructor")]
pub(crate) fn build(breaks: &'static str, _: &BuildContext) -> Result<Arc<dyn Routing>, BuildError> {
    Ok(Arc::new(Wrong { breaks, last: Mutex::new(None) }))
}

fn refused(reason: String) -> RoutingError {
    RoutingError::Kernel { action: "route".to_owned(), source: reason.into() }
}

#[async_trait]
impl Routing for Wrong {
    fn carrier(&self) -> Carrier {
        Reference.carrier()
    }

    fn overhead_bytes(&self, underlay: Family) -> u16 {
        Reference.overhead_bytes(underlay)
    }

    async fn apply(&self, desired: &RoutingDesired) -> Result<RoutingReport, RoutingError> {
        let mut last = self.last.lock().await;
        match (self.breaks, &*last) {
            // Makes everything anew, and says nothing of it.
            ("ROUTING-2", _) => Reference.retire().await?,
            // Believes that nothing changes but what it is told.
            ("ROUTING-4", Some((known, report))) if known == desired => {
                return Ok(RoutingReport { changes: 0, ..report.clone() });
            }
            // What is in the way is taken out of it.
            ("ROUTING-6", _) => {
                let netlink = Netlink::new().map_err(|error| refused(error.to_string()))?;
                let routes = netlink.routes().await.map_err(|error| refused(error.to_string()))?;
                let ours =
                    |route: &&kinesin_netlink::Route| desired.peers.values().any(|p| p.pod_cidrs.contains(&route.dst));
                for route in routes.iter().filter(ours).filter(|route| route.protocol < 100) {
                    netlink.delete_route(route).await.map_err(|error| refused(error.to_string()))?;
                }
            }
            _ => {}
        }
        let mut wanted = desired.clone();
        if let ("ROUTING-3", Some((known, _))) = (self.breaks, &*last) {
            wanted.peers.extend(known.peers.clone());
        }
        let mut report = Reference.apply(&wanted).await?;
        match self.breaks {
            "ROUTING-1" => report.unreachable.clear(),
            "ROUTING-2" => report.changes = 0,
            "ROUTING-5" if !report.unreachable.is_empty() => return Err(refused(format!("{:?}", report.unreachable))),
            _ => {}
        }
        *last = Some((wanted, report.clone()));
        Ok(report)
    }

    async fn retire(&self) -> Result<(), RoutingError> {
        // Knows only of what it made itself.
        if self.breaks == "ROUTING-7" && self.last.lock().await.is_none() {
            return Ok(());
        }
        Reference.retire().await
    }
}
