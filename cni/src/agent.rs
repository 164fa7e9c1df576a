//! The requests to the agent, and the queue for deletions while it is away.

use std::time::Duration;

use kinesin_agent_api::{
    Client, ClientError, DeleteQueue, Endpoint, EndpointBatchDeleteRequest, EndpointChangeRequest, ErrorKind,
    attachment_path,
};
use serde::de::IgnoredAny;

use crate::{CniError, log::Log, request::AttachmentId};

/// How long a replay by the agent may keep the queue.
const QUEUE_LOCK_LIMIT: Duration = Duration::from_secs(10);
/// How long a rollback waits for an agent that has just failed; the deletion is queued after it.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(5);

/// Creates the endpoint, or finds it as it was created before.
///
/// The agent may still hold an endpoint of this attachment whose devices died with an interrupted ADD; that one is
/// replaced, once.
///
/// # Errors
/// `Exhausted`, or `Agent`; `Answer` when the agent insists on other devices.
pub async fn create(client: &Client, log: &Log, request: &EndpointChangeRequest) -> Result<Endpoint, CniError> {
    let path = attachment_path(&request.container_id, &request.container_interface_name);
    let failed = |source| CniError::agent("unable to create endpoint", source);
    match client.put::<_, Endpoint>(&path, request).await {
        Ok(endpoint) if same_devices(&endpoint, request) => return Ok(endpoint),
        Ok(_) => log.error("the agent holds this attachment with other devices; it is made anew"),
        Err(error) if error.kind() == Some(ErrorKind::Conflict) => log.error(&format!("{error}; it is made anew")),
        Err(error) => return Err(failed(error)),
    }
    let id =
        AttachmentId { container_id: request.container_id.clone(), ifname: request.container_interface_name.clone() };
    settle(log, client.delete("/endpoint", &batch(&id)).await).map_err(failed)?;
    let endpoint = client.put::<_, Endpoint>(&path, request).await.map_err(failed)?;
    if same_devices(&endpoint, request) {
        return Ok(endpoint);
    }
    let found = &endpoint.spec.interface_name;
    Err(CniError::Answer {
        reason: format!("the endpoint is on device {found:?} although {:?} was asked for", request.interface_name),
    })
}

/// The pod's MAC is left out: the agent may choose another one for it.
fn same_devices(endpoint: &Endpoint, request: &EndpointChangeRequest) -> bool {
    let found = &endpoint.spec;
    (found.interface_index, &found.interface_name, found.netns_cookie)
        == (request.interface_index, &request.interface_name, request.netns_cookie)
        && found.host_mac.eq_ignore_ascii_case(&request.host_mac)
}

/// Deletes the endpoint, or makes sure that the agent will when it is back.
///
/// # Errors
/// `Agent` when the agent failed in a way that may pass, `Queue` when neither it nor the queue took the deletion.
pub async fn delete(client: &Client, log: &Log, id: &AttachmentId) -> Result<(), CniError> {
    match settle(log, client.delete("/endpoint", &batch(id)).await) {
        Err(error) if error.kind().is_none() => queue(client, log, id).await,
        other => other.map_err(|source| CniError::agent("unable to delete endpoint", source)),
    }
}

/// Deletes what a failed ADD may have left with the agent; failures are logged, since the ADD's own error matters.
pub async fn roll_back(client: &Client, log: &Log, id: &AttachmentId) {
    if let Err(error) = delete(&client.clone().with_timeout(ROLLBACK_LIMIT), log, id).await {
        log.error(&format!("rollback: {error}; {}", error.details()));
    }
}

/// What is gone is deleted, and what the agent will never do cannot be got by asking again.
fn settle(log: &Log, outcome: Result<IgnoredAny, ClientError>) -> Result<(), ClientError> {
    match outcome {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            Some(ErrorKind::NotFound) => Ok(()),
            Some(ErrorKind::Invalid) => {
                log.error(&format!("the agent refuses the deletion for good: {error}"));
                Ok(())
            }
            _ => Err(error),
        },
    }
}

/// Keeps the deletion in a file; the agent is asked once more under the lock, because it may have replayed the queue
/// between the first attempt and the lock.
async fn queue(client: &Client, log: &Log, id: &AttachmentId) -> Result<(), CniError> {
    let queue = DeleteQueue::beside(client.socket());
    let request = batch(id);
    let lock = queue.lock_shared(QUEUE_LOCK_LIMIT).map_err(CniError::Queue)?;
    match settle(log, client.delete("/endpoint", &request).await) {
        Err(error) if error.kind().is_none() => {
            let path = queue.push(&lock, &request).map_err(CniError::Queue)?;
            log.error(&format!("{error}; the deletion waits in {}", path.display()));
            Ok(())
        }
        other => other.map_err(|source| CniError::agent("unable to delete endpoint", source)),
    }
}

fn batch(id: &AttachmentId) -> EndpointBatchDeleteRequest {
    EndpointBatchDeleteRequest { container_id: id.container_id.clone(), container_interface_name: id.ifname.clone() }
}
