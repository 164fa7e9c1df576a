//! DEL: detach a pod, however little is left of it.

use std::time::Duration;

use kinesin_netlink::Netlink;

use crate::{CniError, agent, commands::Context, names::host_end, request::AttachmentId};

/// How long one request may take: the deletion is queued after it, so waiting longer gains nothing.
const LIMIT: Duration = Duration::from_secs(10);

/// Deletes the endpoint and the pair.
///
/// The pod's namespace is not needed: its end goes with the host end. What is gone already is fine, and so is an agent
/// that is away: it finds the deletion in its queue.
///
/// # Errors
/// `Agent` or `Queue` when the release would be lost; the device is removed all the same, and the runtime repeats.
pub async fn del(context: &Context<'_>, id: &AttachmentId) -> Result<(), CniError> {
    let client = context.client.clone().with_timeout(LIMIT);
    let released = agent::delete(&client, context.log, id).await;
    let removed = async { Netlink::new()?.delete_link_by_name(&host_end(id)).await };
    let removed = removed.await.map_err(CniError::Kernel);
    if let (Err(_), Err(error)) = (&released, &removed) {
        context.log.error(&format!("{error}; {}", error.details()));
    }
    released.and(removed.map(|_| ()))
}
