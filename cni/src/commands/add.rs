//! ADD: attach a pod, or answer again for one that is attached.
//!
//! The order is what keeps a new endpoint safe: the pair is made down, the agent attaches the host end, the pod's end
//! comes up, and the host end comes up last. Until then no packet reaches or leaves the pod.

use kinesin_agent_api::EndpointChangeRequest;
use kinesin_netlink::{Netlink, Sysctl, SysctlError};
use serde_json::Value;

use crate::{
    CniError, agent,
    commands::Context,
    names::{host_end, mac_text, parse_mac},
    pair::{self, Pair},
    plan::PodPlan,
    pod::Pod,
    request::{Attachment, PodArgs},
    result::AddResult,
};

/// Attaches a pod and returns the result in the configuration's version.
///
/// # Errors
/// Everything that was made by this run is taken away again first.
pub async fn add(context: &Context<'_>, attachment: &Attachment, pod_args: &PodArgs) -> Result<Value, CniError> {
    let Context { config, client, log } = context;
    if config.prev_result.is_some() {
        let reason = "must not be given to ADD: chaining is not built, so this plugin must be the first of its list";
        return Err(CniError::InvalidConfig { key: "prevResult".to_owned(), reason: reason.to_owned() });
    }
    let id = &attachment.id;
    let pod = Pod::open(&attachment.netns)?;
    let node = Netlink::new()?;
    let pair = pair::ensure(&node, &pod, log, &host_end(id), &id.ifname).await?;
    log.debug("the pair is there");

    let request = endpoint_request(attachment, pod_args, &pod, &pair);
    match attach(context, &node, &pod, &pair, &request).await {
        Ok((plan, pod_mac)) => Ok(AddResult {
            host_name: pair.host.name.clone(),
            host_mac: mac_text(pair.host.mac),
            pod_name: id.ifname.clone(),
            pod_mac: mac_text(pod_mac),
            netns: attachment.netns.to_string_lossy().into_owned(),
            plan,
        }
        .to_json(config.version)),
        Err(error) => {
            // An attachment that worked before this run goes on working.
            if pair.fresh {
                if let Err(left) = node.delete_link(pair.host.index).await {
                    log.error(&format!("rollback: {left}"));
                }
                if may_be_known_to_agent(&error) {
                    agent::roll_back(client, log, id).await;
                }
            }
            Err(error)
        }
    }
}

fn endpoint_request(attachment: &Attachment, pod_args: &PodArgs, pod: &Pod, pair: &Pair) -> EndpointChangeRequest {
    EndpointChangeRequest {
        container_id: attachment.id.container_id.clone(),
        container_interface_name: attachment.id.ifname.clone(),
        container_netns_path: attachment.netns.to_string_lossy().into_owned(),
        interface_name: pair.host.name.clone(),
        interface_index: pair.host.index,
        host_mac: mac_text(pair.host.mac),
        mac: mac_text(pair.pod.mac),
        netns_cookie: pod.cookie(),
        k8s_namespace: pod_args.namespace.clone(),
        k8s_pod_name: pod_args.name.clone(),
        k8s_uid: pod_args.uid.clone(),
    }
}

/// How often a pod is set up before it is said that the agent does not make up its mind; each time takes it a pass over the
/// whole node.
const ROUNDS: usize = 8;

async fn attach(
    context: &Context<'_>,
    node: &Netlink,
    pod: &Pod,
    pair: &Pair,
    request: &EndpointChangeRequest,
) -> Result<(PodPlan, [u8; 6]), CniError> {
    let Context { config, client, log } = context;
    pod.check_default_route_free(pair.pod.index).await?;
    let mut endpoint = agent::create(client, log, request).await?;
    log.debug("the agent has attached the endpoint");
    let mut pair = pair.clone();
    let (mut former, mut rounds) = (None, 0);
    let (plan, mac) = loop {
        let plan = PodPlan::new(&endpoint.status.networking, config.mtu)?;
        // An annotation of the Pod may have chosen another MAC.
        let mac = parse_mac(&endpoint.spec.mac)
            .ok_or_else(|| CniError::Answer { reason: format!("{:?} is no MAC address", endpoint.spec.mac) })?;
        pod.configure(&pair.pod, Some(mac), &plan, former.as_ref()).await?;
        if pair.host.mtu != plan.device_mtu_bytes {
            node.set_mtu(pair.host.index, plan.device_mtu_bytes).await?;
        }
        log.debug("the pod's side is set up");
        if pair.fresh {
            break (plan, mac);
        }
        // The agent changes running pods as well, and may have done so after it answered: then the above has undone it.
        let now = agent::create(client, log, request).await?;
        if now.status.networking == endpoint.status.networking {
            break (plan, mac);
        }
        log.debug("the agent has changed the pod meanwhile");
        rounds += 1;
        if rounds == ROUNDS {
            return Err(CniError::Unsettled { rounds });
        }
        (endpoint, former) = (now, Some(plan));
        pair.host = node.link(&pair.host.name).await?;
        pair.pod = pod.netlink().link(&pair.pod.name).await?;
    };
    // Pods' sources are checked by the datapath; the kernel's check knows no route back through this device.
    let rp_filter = format!("ipv4/conf/{}/rp_filter", pair.host.name);
    match Sysctl::here().set(&rp_filter, "0") {
        Ok(_) => {}
        // A kernel without IPv4 forwarding code, or a name that is gone; the latter shows in `set_up`.
        Err(SysctlError::Access { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    node.set_up(pair.host.index).await?;
    log.debug("both ends are up");
    Ok((plan, mac))
}

/// Whether the agent may hold something of a failed attempt: it does not if it was never asked.
fn may_be_known_to_agent(error: &CniError) -> bool {
    let unreached = matches!(
        error,
        CniError::Agent { source: kinesin_agent_api::ClientError::Connect { .. }, .. }
            | CniError::DefaultRouteTaken { .. }
    );
    !unreached
}
