//! GC: detach whatever the runtime no longer knows.

use kinesin_agent_api::{Attachment, Endpoint, EndpointGcRequest};
use kinesin_netlink::Netlink;
use serde::de::IgnoredAny;

use crate::{CniError, commands::Context, names::host_end, request::AttachmentId};

/// Lets the agent remove every endpoint that is not in `cni.dev/valid-attachments`, and removes their devices.
///
/// A configuration without that list is refused rather than taken for "nothing is valid".
///
/// # Errors
/// `InvalidConfig` without the list, `Agent`, or the first device that could not be removed; the others are gone.
pub async fn gc(context: &Context<'_>) -> Result<(), CniError> {
    let valid = context.config.valid_attachments.as_ref().ok_or_else(|| CniError::InvalidConfig {
        key: "cni.dev/valid-attachments".to_owned(),
        reason: "is missing, and GC removes what it does not list".to_owned(),
    })?;
    let failed = |source| CniError::agent("unable to collect endpoints", source);
    let before: Vec<Endpoint> = context.client.get("/endpoint").await.map_err(failed)?;
    let request = EndpointGcRequest {
        valid_attachments: valid
            .iter()
            .map(|id| Attachment { container_id: id.container_id.clone(), ifname: id.ifname.clone() })
            .collect(),
    };
    context.client.post::<_, IgnoredAny>("/endpoint/gc", &request).await.map_err(failed)?;

    let node = Netlink::new()?;
    let mut outcome = Ok(());
    for id in stale(&before, valid) {
        match node.delete_link_by_name(&host_end(&id)).await {
            Ok(_) => context.log.debug(&format!("collected {}:{}", id.container_id, id.ifname)),
            Err(error) => {
                context.log.error(&error.to_string());
                outcome = outcome.and(Err(CniError::Kernel(error)));
            }
        }
    }
    outcome
}

/// The attachments that came through CNI and are not valid any more; the agent's own endpoints have no container.
fn stale(endpoints: &[Endpoint], valid: &[AttachmentId]) -> Vec<AttachmentId> {
    let ids = endpoints.iter().map(|endpoint| AttachmentId {
        container_id: endpoint.spec.container_id.clone(),
        ifname: endpoint.spec.container_interface_name.clone(),
    });
    ids.filter(|id| !id.container_id.is_empty() && !valid.contains(id)).collect()
}
