//! STATUS: would an ADD be served?

use std::time::Duration;

use kinesin_agent_api::{State, StatusResponse};

use crate::{CniError, commands::Context};

/// An agent that takes longer to say how it is will not serve an ADD in time.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks the agent. A node without free addresses is still available: an ADD is answered, if only with a refusal. Only with
/// `cni-status-on-exhaustion` it is not, at the price that a runtime may take its healthy pods away.
///
/// # Errors
/// `NotAvailable` when no ADD can be served, `LimitedConnectivity` when running pods are affected as well.
pub async fn status(context: &Context<'_>) -> Result<(), CniError> {
    let client = context.client.clone().with_timeout(LIMIT);
    let health: StatusResponse = client
        .get("/healthz")
        .await
        // Pods of an agent that is away keep their datapath, so their connectivity is not limited.
        .map_err(|error| CniError::NotAvailable { reason: error.to_string() })?;
    if health.cilium.state != State::Failure {
        return match health.refuses_add {
            None => Ok(()),
            Some(reason) => Err(CniError::NotAvailable { reason }),
        };
    }
    let reason = health.cilium.msg;
    match health.routing.unreachable.iter().next() {
        None => Err(CniError::NotAvailable { reason }),
        Some((peer, why)) => {
            let count = health.routing.unreachable.len();
            Err(CniError::LimitedConnectivity {
                reason: format!("{reason}; {count} nodes are unreachable, such as {peer}: {why}"),
            })
        }
    }
}
