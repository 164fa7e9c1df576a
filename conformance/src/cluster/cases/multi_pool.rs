//! Addresses from pools that pods choose (sections 2.3 and 2.5 of the walk-through).

use ipnet::IpNet;
use kinesin_lab::Families;

use super::addresses::{DEFAULT, blocks, event_with, lie_in_blocks, reach_each_other, says, taint_control_plane};
use crate::cluster::{
    context::Context,
    own::OwnLab,
    verdict::{Judged, Stop},
    workload::Started,
};

/// The walk-through's values; blocks are given back soon, so that nobody waits for it.
pub(in crate::cluster) const LAB: OwnLab = OwnLab {
    name: "pools",
    ipam: "multi_pool",
    nodes: 3,
    segments: 1,
    families: Families::Ipv4,
    values: "
ipam:
  mode: multi-pool
  operator:
    autoCreateCiliumPodIPPools:
      default:
        ipv4:
          cidrs: 172.20.0.0/16
          maskSize: 28
backendConfig:
  multi_pool: {releaseAfterSeconds: 1}
",
};

const POOLS: &str = "
apiVersion: cilium.io/v2alpha1
kind: CiliumPodIPPool
metadata:
  name: vac
spec:
  ipv4:
    cidrs:
      - 10.100.0.0/16
    maskSize: 29
---
apiVersion: cilium.io/v2alpha1
kind: CiliumPodIPPool
metadata:
  name: no-engine
spec:
  ipv4:
    cidrs:
      - 10.200.0.0/16
    maskSize: 29
";

/// A deployment as in the walk-through, with a pool or without.
fn deployment(name: &str, replicas: usize, pool: Option<&str>) -> String {
    let annotations = pool.map(|pool| format!("annotations: {{ipam.cilium.io/ip-pool: {pool}}}")).unwrap_or_default();
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  selector:
    matchLabels:
      app: {name}
  replicas: {replicas}
  template:
    metadata:
      labels:
        app: {name}
      {annotations}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: nginx
          image: nginx
          ports:
            - containerPort: 80
---
"
    )
}

/// Nodes have blocks of the default pool; pools that are added serve the pods that name them, grow with them by further
/// blocks, and shrink again.
pub(in crate::cluster) fn pool_grows(context: &Context<'_>) -> Judged {
    let workers = taint_control_plane(context)?;
    let nodes: Vec<String> = context.target.nodes().into_iter().map(|node| node.name).collect();
    let text = context.target.ask_agent(&nodes[0], &["cilium-dbg", "config", "view"])?;
    for (key, value) in [
        ("ipam", "multi-pool"),
        ("auto-create-cilium-pod-ip-pools", "default=ipv4-cidrs:172.20.0.0/16;ipv4-mask-size:28"),
    ] {
        let found = |line: &str| line.split_whitespace().take(2).eq([key, value]);
        if !text.lines().any(found) {
            return Err(Stop::broken(format!("config view has not {value:?} for {key}:\n{text}")));
        }
    }
    // Eight addresses are kept ready beside those of router and health, which a /28 of 14 does not hold in full portions.
    for node in &nodes {
        has(context, node, DEFAULT, 2, 28)?;
    }
    context.apply(POOLS)?;
    let all = [
        deployment("netshoot", 2, None),
        deployment("nginx-vac", 2, Some("vac")),
        deployment("nginx-no", 2, Some("no-engine")),
    ];
    context.apply(&all.concat())?;
    let mut seen = Vec::new();
    for (app, pool) in [("netshoot", DEFAULT), ("nginx-vac", "vac"), ("nginx-no", "no-engine")] {
        let pods = context.ready(app, 2)?;
        lie_in_blocks(context, &pods, pool)?;
        seen.extend(pods);
    }
    for node in &workers {
        has(context, node, "vac", 1, 29)?;
        has(context, node, "no-engine", 1, 29)?;
    }
    let on_control_plane = blocks(context, &nodes[0])?;
    if on_control_plane.len() != 1 {
        return Err(Stop::broken(format!(
            "{} has blocks of pools that nobody uses there: {on_control_plane:?}",
            nodes[0]
        )));
    }
    let answered = reach_each_other(context, &context.places_of(&seen)?)?;

    context.scale_to("nginx-vac", 20)?;
    let pods = context.ready("nginx-vac", 20)?;
    lie_in_blocks(context, &pods, "vac")?;
    for node in &workers {
        has(context, node, "vac", 2, 29)?;
        has(context, node, "no-engine", 1, 29)?;
    }
    let text = context.target.ask_agent(&workers[0], &["cilium-dbg", "status", "--verbose"])?;
    let line = |pod: &Started| format!("vac/{} ({}/{})", pod.ips[0], context.namespace, pod.name);
    let told = |pod: &&Started| text.lines().any(|found| found.trim() == line(pod));
    if let Some(pod) = pods.iter().filter(|pod| pod.node == workers[0]).find(|pod| !told(pod)) {
        return Err(Stop::broken(format!("{} does not say {:?} but:\n{text}", workers[0], line(pod))));
    }
    // Blocks of an earlier case's pools go within seconds.
    context.until(&format!("three pools on {}", workers[0]), || {
        let text = context.target.ask_agent(&workers[0], &["cilium-dbg", "status"])?;
        Ok(if says(&text, "IPAM: IPv4: 3 IPAM pool(s) available,") { Ok(()) } else { Err(text) })
    })?;

    context.scale_to("nginx-vac", 2)?;
    // Which two are left is the cluster's choice, and they may be on one node, in one block or in two.
    let left = context.ready("nginx-vac", 2)?;
    for node in &workers {
        let is_used = |block: &IpNet| {
            let here = left.iter().filter(|pod| pod.node == *node);
            here.flat_map(|pod| &pod.ips).any(|ip| block.contains(ip))
        };
        context.until(&format!("no block of vac on {node} that no pod has an address of"), || {
            let listed = blocks(context, node)?.remove("vac").unwrap_or_default();
            Ok(if listed.iter().all(is_used) { Ok(()) } else { Err(format!("{listed:?} for {left:?}")) })
        })?;
    }
    lie_in_blocks(context, &left, "vac")?;
    Ok(format!("vac grew to two blocks a node with 20 pods and shrank again; {answered}"))
}

/// Exactly so many blocks of a size.
fn has(context: &Context<'_>, node: &str, pool: &str, count: usize, prefix: u8) -> Result<(), Stop> {
    context.until(&format!("{count} blocks of {pool} on {node}"), || {
        let listed = blocks(context, node)?.remove(pool).unwrap_or_default();
        let fits = listed.len() == count && listed.iter().all(|block| block.prefix_len() == prefix);
        Ok(if fits { Ok(()) } else { Err(format!("{listed:?}")) })
    })
}

/// The pod's annotation goes before its namespace's; who names a pool that is not there waits, is told which, and starts
/// when somebody makes it. Pods of one node have addresses of different pools. A pool that is deleted keeps its pods and gets
/// no other; one that waits for it and is deleted is asked for no longer.
pub(in crate::cluster) fn annotation_chooses(context: &Context<'_>) -> Judged {
    let node = &context.two_nodes()[1].name;
    // Names of the case's own, since another case may have pools on the same cluster.
    let pool = |name: &str, cidr: &str| {
        format!(
            "{{apiVersion: cilium.io/v2alpha1, kind: CiliumPodIPPool, metadata: {{name: {name}}}, \
             spec: {{ipv4: {{cidrs: [{cidr}], maskSize: 29}}}}}}\n---\n"
        )
    };
    let pod = |name: &str, annotations: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}, annotations: {{{annotations}}}}}, \
             spec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, containers: [{{name: nginx, image: nginx}}]}}}}\n---\n"
        )
    };
    context.annotate_namespace("ipam.cilium.io/ip-pool", "of-namespace")?;
    context.apply(&[pool("of-namespace", "10.201.0.0/24"), pool("of-pod", "10.202.0.0/24")].concat())?;
    let later = pod("later", "ipam.cilium.io/ip-pool: not-there-yet");
    context.apply(&[pod("chooses", "ipam.cilium.io/ip-pool: of-pod"), later].concat())?;
    let mut all = Vec::new();
    for (app, pool) in [("chooses", "of-pod"), ("plain", "of-namespace")] {
        if app == "plain" {
            // Not with the others: an agent learns of Pods and of namespaces by watches of their own, so one that is busy
            // may see a Pod before the annotation that was made a moment earlier.
            context.apply(&pod(app, ""))?;
        }
        let pods = context.ready(app, 1)?;
        lie_in_blocks(context, &pods, pool)?;
        all.extend(pods);
    }
    event_with(context, "later", &["not-there-yet", "create the CiliumPodIPPool"])?;
    // The event is the agent's, who may be faster than the operator.
    context.until(&format!("the operator's word on {node} of the pool that is not there"), || {
        let object = context.read("cilium.io/v2", "CiliumNode", "ciliumnodes", node)?;
        let error = object["status"]["ipam"]["operator-status"]["error"].as_str().unwrap_or_default();
        let told = error.contains("cannot allocate from non-existing pool: not-there-yet");
        Ok(if told { Ok(()) } else { Err(format!("{error:?}")) })
    })?;
    context.apply(&pool("not-there-yet", "10.203.0.0/24"))?;
    let pods = context.ready("later", 1)?;
    lie_in_blocks(context, &pods, "not-there-yet")?;
    all.extend(pods);
    let answered = reach_each_other(context, &context.places_of(&all)?)?;

    context.remove("cilium.io/v2alpha1", "CiliumPodIPPool", "ciliumpodippools", "not-there-yet")?;
    context.until(&format!("word on {node} of the pool that drains"), || {
        let conditions =
            context.read("cilium.io/v2", "CiliumNode", "ciliumnodes", node)?["status"]["conditions"].take();
        let word = conditions.as_array().into_iter().flatten().find(|found| found["reason"] == "Draining");
        Ok(word.map(drop).ok_or_else(|| conditions.to_string()))
    })?;
    context.apply(&pod("too-late", "ipam.cilium.io/ip-pool: not-there-yet"))?;
    event_with(context, "too-late", &["not-there-yet", "it was deleted", "create the CiliumPodIPPool"])?;
    is_asked_for(context, node, "not-there-yet", 2)?;
    context.delete(&["too-late".to_owned()])?;
    is_asked_for(context, node, "not-there-yet", 1)?;
    lie_in_blocks(context, &context.ready("later", 1)?, "not-there-yet")?;
    reach_each_other(context, &context.places_of(&all)?)?;
    Ok(format!("three pools on {node}, one of them deleted; {answered}"))
}

/// The node asks for so many IPv4 addresses of a pool.
fn is_asked_for(context: &Context<'_>, node: &str, pool: &str, addresses: u64) -> Result<(), Stop> {
    context.until(&format!("{addresses} addresses of {pool} that {node} asks for"), || {
        let object = context.read("cilium.io/v2", "CiliumNode", "ciliumnodes", node)?;
        let requested = &object["spec"]["ipam"]["pools"]["requested"];
        let need = requested.as_array().into_iter().flatten().find(|need| need["pool"] == pool);
        let asked = need.and_then(|need| need["needed"]["ipv4-addrs"].as_u64()).unwrap_or_default();
        Ok(if asked == addresses { Ok(()) } else { Err(requested.to_string()) })
    })
}
