//! Values that shape the chart's manifests and never reach the agent.
//!
//! Names are those of Cilium's chart, 1.17 and 1.18. Defaults differ where this program needs something else: the
//! capabilities, the probe of readiness, and the repository of the image.

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Count,
    /// A whole number or a percentage.
    CountOrShare,
    /// Any text.
    Text,
    /// An absolute path.
    Path,
    /// A TCP port.
    Port,
    /// A list of texts.
    Words,
    /// Names with texts.
    Labels,
    /// A part of a manifest: a mapping.
    Object,
    /// A part of a manifest: a list of mappings.
    Objects,
    /// When an image is pulled.
    PullPolicy,
    /// The one directory in which the plugin looks for the agent's socket.
    RunPath,
}

/// One value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    /// Path in the values file.
    pub(super) path: &'static str,
    /// What it looks like.
    pub(super) shape: Shape,
    /// Default, as YAML.
    pub(super) default: &'static str,
    /// What it does.
    pub(super) doc: &'static str,
}

const fn own(path: &'static str, shape: Shape, default: &'static str, doc: &'static str) -> Own {
    Own { path, shape, default, doc }
}

use Shape::{Count, CountOrShare, Flag, Labels, Object, Objects, Path, Port, PullPolicy, RunPath, Text, Words};

/// Two operators never share a node, since both would want the node's ports.
const APART: &str = "{podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: \
                     kubernetes.io/hostname, labelSelector: {matchLabels: {io.cilium/app: operator}}}]}}";

/// Of the agent: load and attach programs, set links, routes and sysctls, send echoes to other nodes, make the health
/// endpoint's namespace, and lock memory for maps on kernels before 5.11.
const CAPABILITIES: &str = "[BPF, PERFMON, NET_ADMIN, NET_RAW, SYS_ADMIN, SYS_RESOURCE]";

#[rustfmt::skip]
pub(super) const OWN: &[Own] = &[
    own("namespaceOverride", Text, "", "Namespace of all objects in place of the release's"),
    own("commonLabels", Labels, "{}", "Labels of all objects"),
    own("k8sServiceHost", Text, "", "Address of the API server for agents and operators, where no kube-proxy serves the Service kubernetes"),
    own("k8sServicePort", Port, "", "Port of that API server"),

    own("image.override", Text, "", "The whole reference in place of the values below"),
    own("image.repository", Text, "kinesin/kinesin", "Image that holds all programs"),
    own("image.tag", Text, "", "Tag; empty for the chart's appVersion"),
    own("image.pullPolicy", PullPolicy, "IfNotPresent", "When it is pulled"),
    own("image.digest", Text, "", "Digest, such as sha256:..."),
    own("image.useDigest", Flag, "false", "Whether the digest is part of the reference"),
    own("imagePullSecrets", Objects, "[]", "Secrets to pull images with"),

    own("agent", Flag, "true", "Whether the agent is installed"),
    own("affinity", Object, "{}", "Affinity of the agent"),
    own("nodeSelector", Labels, "{kubernetes.io/os: linux}", "Nodes that the agent runs on"),
    own("tolerations", Objects, "[{operator: Exists}]", "Taints that the agent tolerates: a node without it has no network"),
    own("priorityClassName", Text, "", "Priority class of the agent; empty for system-node-critical"),
    own("enableCriticalPriorityClass", Flag, "true", "Whether agent and operator get critical priority classes"),
    own("dnsPolicy", Text, "", "DNS policy of the agent"),
    own("updateStrategy", Object, "{type: RollingUpdate, rollingUpdate: {maxUnavailable: 2}}", "How a change gets to the nodes"),
    own("terminationGracePeriodSeconds", Count, "1", "Short: whatever the agent leaves undone at its end, the next one finds and heals"),
    own("rollOutCiliumPods", Flag, "false", "Whether agents start anew when the ConfigMap changes"),
    own("podAnnotations", Labels, "{}", "Annotations of the agent's pods"),
    own("podLabels", Labels, "{}", "Labels of the agent's pods"),
    own("podSecurityContext", Object, "{appArmorProfile: {type: Unconfined}}", "Of the agent's pods. The runtime's usual AppArmor profile forbids mounts and some of /proc"),
    own("securityContext.privileged", Flag, "false", "Whether the agent is privileged in place of having the capabilities below"),
    own("securityContext.capabilities.ciliumAgent", Words, CAPABILITIES, "Capabilities of the agent; all others are dropped"),
    own("resources", Object, "{}", "Resources of the agent"),
    own("initResources", Object, "{}", "Resources of the init container that mounts the bpffs"),
    own("extraArgs", Words, "[]", "More arguments of the agent"),
    own("extraEnv", Objects, "[]", "More environment of the agent"),
    own("extraContainers", Objects, "[]", "More containers beside the agent"),
    own("extraInitContainers", Objects, "[]", "More init containers, after ours"),
    own("extraVolumes", Objects, "[]", "More volumes"),
    own("extraVolumeMounts", Objects, "[]", "More mounts of the agent"),
    own("extraHostPathMounts", Objects, "[]", "Directories of the host: name, mountPath, hostPath, hostPathType, readOnly, mountPropagation"),
    own("startupProbe.failureThreshold", Count, "300", "Failures before the agent is started anew"),
    own("startupProbe.periodSeconds", Count, "2", "Seconds between two"),
    own("livenessProbe.failureThreshold", Count, "10", "Failures before the agent is started anew"),
    own("livenessProbe.periodSeconds", Count, "30", "Seconds between two"),
    own("readinessProbe.failureThreshold", Count, "3", "Failures before the agent is not ready"),
    own("readinessProbe.periodSeconds", Count, "5", "Seconds between two; the agent is ready when it can give pods a network"),

    own("bpf.autoMount.enabled", Flag, "true", "Whether an init container mounts the bpffs where the host has not"),
    own("daemon.runPath", RunPath, "/var/run/cilium", "Directory of the host with the agent's socket and state; the plugin looks nowhere else"),
    own("cni.install", Flag, "true", "Whether an init container copies the plugin to the host"),
    own("cni.binPath", Path, "/opt/cni/bin", "Directory of the host with CNI plugins"),
    own("cni.confPath", Path, "/etc/cni/net.d", "Directory of the host with CNI configurations"),
    own("cni.resources", Object, "{requests: {cpu: 100m, memory: 10Mi}}", "Resources of that init container"),

    own("rbac.create", Flag, "true", "Whether roles and their bindings are made"),
    own("serviceAccounts.cilium.create", Flag, "true", "Whether the agent's service account is made"),
    own("serviceAccounts.cilium.name", Text, "cilium", "Its name"),
    own("serviceAccounts.cilium.automount", Flag, "true", "Whether its token is mounted"),
    own("serviceAccounts.cilium.annotations", Labels, "{}", "Its annotations"),
    own("serviceAccounts.operator.create", Flag, "true", "Whether the operator's service account is made"),
    own("serviceAccounts.operator.name", Text, "cilium-operator", "Its name"),
    own("serviceAccounts.operator.automount", Flag, "true", "Whether its token is mounted"),
    own("serviceAccounts.operator.annotations", Labels, "{}", "Its annotations"),

    own("operator.enabled", Flag, "true", "Whether the operator is installed"),
    own("operator.replicas", Count, "2", "Operators, one of which leads; 1 on a cluster of one node"),
    own("operator.image.override", Text, "", "The whole reference in place of the values below"),
    own("operator.image.repository", Text, "", "Image; empty for the agent's, which holds all programs"),
    own("operator.image.tag", Text, "", "Tag; empty for the agent's"),
    own("operator.image.pullPolicy", PullPolicy, "null", "When it is pulled; unset: as the agent's"),
    own("operator.affinity", Object, APART, "Affinity of the operator"),
    own("operator.nodeSelector", Labels, "{kubernetes.io/os: linux}", "Nodes that the operator runs on"),
    own("operator.tolerations", Objects, "[{operator: Exists}]", "Taints that the operator tolerates: it has to run before there is a network"),
    own("operator.topologySpreadConstraints", Objects, "[]", "How operators are spread"),
    own("operator.priorityClassName", Text, "", "Priority class of the operator; empty for system-cluster-critical"),
    own("operator.dnsPolicy", Text, "", "DNS policy of the operator"),
    own("operator.updateStrategy", Object, "{type: RollingUpdate, rollingUpdate: {maxSurge: 25%, maxUnavailable: 50%}}", "How a change gets to the operators"),
    own("operator.rollOutPods", Flag, "false", "Whether operators start anew when the ConfigMap changes"),
    own("operator.annotations", Labels, "{}", "Annotations of the Deployment"),
    own("operator.podAnnotations", Labels, "{}", "Annotations of the operator's pods"),
    own("operator.podLabels", Labels, "{}", "Labels of the operator's pods"),
    own("operator.podSecurityContext", Object, "{seccompProfile: {type: RuntimeDefault}}", "Of the operator's pods"),
    own("operator.securityContext", Object, "{runAsNonRoot: true, runAsUser: 65532, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}", "Of the operator, which speaks to the API server and needs nothing of the node"),
    own("operator.resources", Object, "{}", "Resources of the operator"),
    own("operator.extraArgs", Words, "[]", "More arguments of the operator"),
    own("operator.extraEnv", Objects, "[]", "More environment of the operator"),
    own("operator.extraVolumes", Objects, "[]", "More volumes"),
    own("operator.extraVolumeMounts", Objects, "[]", "More mounts of the operator"),
    own("operator.podDisruptionBudget.enabled", Flag, "false", "Whether the operators have a budget of disruptions"),
    own("operator.podDisruptionBudget.minAvailable", CountOrShare, "null", "Operators that have to stay"),
    own("operator.podDisruptionBudget.maxUnavailable", CountOrShare, "1", "Operators that may be away; not together with minAvailable"),
];
