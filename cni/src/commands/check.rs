//! CHECK: see whether a pod is still attached as its ADD said.

use kinesin_agent_api::{Endpoint, EndpointState, ErrorKind, attachment_path};
use kinesin_netlink::{Link, Netlink, TABLE_MAIN};

use crate::{
    CniError,
    commands::Context,
    names::{host_end, parse_mac},
    pair::are_one_pair,
    pod::Pod,
    request::Attachment,
    result::PrevResult,
};

/// Compares kernel and agent with `prevResult`.
///
/// # Errors
/// `InvalidConfig` without `prevResult`; `Missing` for what the pod lacks; `Unhealthy`, `HealthUnknown` or
/// `NotYetReady` from the agent's side.
pub async fn check(context: &Context<'_>, attachment: &Attachment) -> Result<(), CniError> {
    let previous = context.config.prev_result.as_ref().ok_or_else(|| CniError::InvalidConfig {
        key: "prevResult".to_owned(),
        reason: "is missing, and CHECK compares with it".to_owned(),
    })?;
    let previous = PrevResult::parse(previous)?;
    let pod = Pod::open(&attachment.netns)?;
    check_devices(attachment, &pod, &previous).await?;
    check_endpoint(context, attachment, &previous).await
}

async fn check_devices(attachment: &Attachment, pod: &Pod, previous: &PrevResult) -> Result<(), CniError> {
    let ifname = &attachment.id.ifname;
    let (wanted, addresses) = previous.interface(ifname).ok_or_else(|| CniError::InvalidConfig {
        key: "prevResult".to_owned(),
        reason: format!("has no interface {ifname:?} in a sandbox"),
    })?;
    let interface = format!("interface {ifname:?}");
    let link = pod.netlink().find_link(ifname).await?.ok_or_else(|| missing(interface.clone(), "it does not exist"))?;
    if !link.up {
        return Err(missing(interface, "it is down"));
    }
    if !wanted.mac.is_empty() && parse_mac(&wanted.mac) != Some(link.mac) {
        return Err(missing(interface, format!("its MAC is no longer {}", wanted.mac)));
    }
    check_host_end(&host_end(&attachment.id), &link).await?;

    let present = pod.netlink().addresses_of(link.index).await?;
    for address in addresses {
        if !present.contains(&address) {
            return Err(missing(format!("address {address}"), format!("{ifname:?} does not have it")));
        }
    }
    // A route may have moved to a device of another plugin of the chain, which the spec allows.
    let routes = pod.netlink().routes().await?;
    for wanted in &previous.routes {
        let dst = wanted.dst.trunc();
        if !routes.iter().any(|route| route.table == TABLE_MAIN && route.dst == dst && route.via == wanted.gw) {
            let via = wanted.gw.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            return Err(missing(format!("route to {dst}{via}"), "the pod does not have it"));
        }
    }
    Ok(())
}

async fn check_host_end(name: &str, pod_end: &Link) -> Result<(), CniError> {
    let what = format!("host end {name:?}");
    match Netlink::new()?.find_link(name).await? {
        None => Err(missing(what, "it does not exist")),
        Some(host) if !are_one_pair(&host, pod_end) => Err(missing(what, "it is not the peer of the pod's interface")),
        Some(host) if !host.up => Err(missing(what, "it is down")),
        Some(_) => Ok(()),
    }
}

async fn check_endpoint(context: &Context<'_>, attachment: &Attachment, previous: &PrevResult) -> Result<(), CniError> {
    let id = &attachment.id;
    let endpoint: Endpoint = match context.client.get(&attachment_path(&id.container_id, &id.ifname)).await {
        Ok(endpoint) => endpoint,
        Err(error) if error.kind() == Some(ErrorKind::NotFound) => {
            return Err(CniError::Unhealthy { reason: "the agent does not know it".to_owned() });
        }
        Err(error) => return Err(CniError::HealthUnknown(error)),
    };
    match endpoint.status.state {
        // Restored and regenerated endpoints keep forwarding with the programs they have.
        EndpointState::Ready | EndpointState::Restoring | EndpointState::Regenerating => {}
        EndpointState::Creating => return Err(CniError::NotYetReady),
        EndpointState::NotReady => return Err(CniError::Unhealthy { reason: endpoint.status.message }),
        EndpointState::Disconnecting => {
            return Err(CniError::Unhealthy { reason: "it is being removed".to_owned() });
        }
    }
    let leased: Vec<_> = endpoint.status.networking.addressing.iter().map(|pair| pair.ip).collect();
    let addresses = previous.interface(&id.ifname).map(|(_, addresses)| addresses).unwrap_or_default();
    match addresses.iter().find(|address| !leased.contains(&address.addr())) {
        Some(address) => {
            Err(CniError::Unhealthy { reason: format!("the agent has not leased {} to it", address.addr()) })
        }
        None => Ok(()),
    }
}

fn missing(what: impl Into<String>, reason: impl Into<String>) -> CniError {
    CniError::Missing { what: what.into(), reason: reason.into() }
}
