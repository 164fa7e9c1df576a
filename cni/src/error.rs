//! Everything that can go wrong, and the one table of CNI error codes.

use std::{error::Error, io, path::PathBuf};

use kinesin_agent_api::{ClientError, ErrorKind, QueueError};
use kinesin_netlink::{NetlinkError, SysctlError};

use crate::{
    request::Command,
    versions::{SpecVersion, supported},
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CniError {
    /// The configuration names a version of the spec that is not spoken here.
    #[error("cniVersion {found:?} is not supported; supported are {}", supported().join(", "))]
    UnsupportedVersion {
        /// As written.
        found: String,
    },
    /// The command came with a later version of the spec than the configuration names.
    #[error("{command} needs cniVersion {since} or newer, but the configuration says {found}")]
    CommandTooNew {
        /// The command.
        command: Command,
        /// The version that brought it.
        since: SpecVersion,
        /// The configuration's version.
        found: SpecVersion,
    },
    /// A field of the configuration asks for what is not built here.
    #[error("network configuration field {key:?} has the unsupported value {value}: {reason}")]
    UnsupportedField {
        /// Name of the field.
        key: String,
        /// Its value as JSON.
        value: String,
        /// What to do instead.
        reason: &'static str,
    },
    /// Parameters are missing or wrong.
    #[error("invalid environment variable {variables}: {reason}")]
    Environment {
        /// Their names.
        variables: String,
        /// What is wrong.
        reason: String,
    },
    /// The pod's namespace cannot be opened.
    #[error("CNI_NETNS {path:?} is not a network namespace that can be entered")]
    Netns {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: NetlinkError,
    },
    /// The pod's namespace is the node's.
    #[error("CNI_NETNS {path:?} is the node's own network namespace; a pod on the host network needs no plugin")]
    OwnNetns {
        /// The path.
        path: PathBuf,
    },
    /// Stdin broke.
    #[error("cannot read the network configuration from stdin")]
    Stdin(#[source] io::Error),
    /// Stdin is no JSON object, or a field has the wrong type.
    #[error("cannot decode the network configuration: {reason}")]
    Decode {
        /// What and where.
        reason: String,
    },
    /// The configuration is readable, but wrong.
    #[error("invalid network configuration: {key:?} {reason}")]
    InvalidConfig {
        /// Name of the field.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The agent has no address left.
    #[error("unable to allocate IP via local cilium agent: [POST /ipam][502] postIpamFailure {reason:?}")]
    Exhausted {
        /// `range is full`, `all pod CIDR ranges are exhausted`, or which pool the node has nothing of.
        reason: String,
        /// The agent's own words.
        message: String,
    },
    /// A request to the agent failed.
    #[error("{what}")]
    Agent {
        /// What could not be done.
        what: &'static str,
        /// The cause.
        #[source]
        source: ClientError,
    },
    /// The agent's answer cannot be used.
    #[error("the agent's answer cannot be used: {reason}; do agent and plugin have the same version?")]
    Answer {
        /// What is wrong with it.
        reason: String,
    },
    /// The agent went on changing the pod.
    #[error("the agent changed the pod's network {rounds} times while it was set up; the runtime has to repeat it")]
    Unsettled {
        /// How often.
        rounds: usize,
    },
    /// A deletion reached neither the agent nor the queue.
    #[error("the agent is away and the deletion cannot be queued; the runtime has to repeat it")]
    Queue(#[source] QueueError),
    /// The interface name is used in the pod.
    #[error("interface {ifname:?} already exists in the pod and does not belong to this attachment")]
    NameTaken {
        /// The name.
        ifname: String,
    },
    /// The pod has a default route by another device.
    #[error("the pod already has a default route through device {device}; it can have one interface of this network")]
    DefaultRouteTaken {
        /// Index of that device.
        device: u32,
    },
    /// The kernel refused a change.
    #[error("cannot set up the pod's network")]
    Kernel(#[from] NetlinkError),
    /// The kernel refused a setting.
    #[error("cannot set up the pod's network")]
    Sysctl(#[from] SysctlError),
    /// CHECK could not ask.
    #[error("cannot read the endpoint's health from the agent")]
    HealthUnknown(#[source] ClientError),
    /// CHECK was told that the endpoint is not well.
    #[error("the endpoint is unhealthy: {reason}")]
    Unhealthy {
        /// The agent's words.
        reason: String,
    },
    /// CHECK came while the endpoint is being made.
    #[error("the endpoint is still being created")]
    NotYetReady,
    /// CHECK found something of ADD's result missing or changed.
    #[error("{what} of the attachment is missing or changed: {reason}")]
    Missing {
        /// The thing.
        what: String,
        /// How it is found.
        reason: String,
    },
    /// STATUS: no ADD can be served.
    #[error("the agent cannot serve ADD: {reason}")]
    NotAvailable {
        /// Why.
        reason: String,
    },
    /// STATUS: no ADD can be served, and pods that run are affected.
    #[error("the agent cannot serve ADD and running pods have limited connectivity: {reason}")]
    LimitedConnectivity {
        /// Why.
        reason: String,
    },
    /// A bug.
    #[error("internal error: {reason}")]
    Internal {
        /// What is known about it.
        reason: String,
    },
}

impl CniError {
    /// The code of the error answer.
    ///
    /// A namespace that is gone is code 4, not 3: 3 would tell the runtime that no DEL is needed, and an earlier
    /// attempt may have leased an address.
    ///
    /// Source: CNI spec 1.1.0 section "Error" (1 to 7, 11, 50, 51; 100 and above are the plugin's own); 8 and 999 are
    /// libcni's `ErrInvalidNetNS` and `ErrInternal`; 100 and 101 are Cilium's.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::UnsupportedVersion { .. } | Self::CommandTooNew { .. } => 1,
            Self::UnsupportedField { .. } => 2,
            Self::Environment { .. } | Self::Netns { .. } => 4,
            Self::Stdin(_) => 5,
            Self::Decode { .. } => 6,
            Self::InvalidConfig { .. } => 7,
            Self::OwnNetns { .. } => 8,
            Self::Exhausted { .. } | Self::Unsettled { .. } | Self::Queue(_) | Self::NotYetReady => 11,
            Self::Agent { source, .. } => match source.kind() {
                // Not reached, or the reason may pass: a pod that is not in the agent's table yet is `NotFound`.
                None | Some(ErrorKind::Unavailable | ErrorKind::Exhausted | ErrorKind::NotFound) => 11,
                Some(ErrorKind::Invalid | ErrorKind::Conflict | ErrorKind::Internal) => 999,
            },
            Self::NotAvailable { .. } => 50,
            Self::LimitedConnectivity { .. } => 51,
            Self::HealthUnknown(source) => {
                if source.kind().is_none() {
                    11
                } else {
                    100
                }
            }
            Self::Unhealthy { .. } => 101,
            Self::Missing { .. } => 102,
            Self::Answer { .. }
            | Self::NameTaken { .. }
            | Self::DefaultRouteTaken { .. }
            | Self::Kernel(_)
            | Self::Sysctl(_)
            | Self::Internal { .. } => 999,
        }
    }

    /// Whether the same command may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.code() == 11
    }

    /// The causes, outermost first; empty when the message says it all.
    #[must_use]
    pub fn details(&self) -> String {
        if let Self::Exhausted { message, .. } = self {
            return message.clone();
        }
        let mut parts: Vec<String> = Vec::new();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some messages contain their cause already.
            if !parts.last().is_some_and(|last| last.contains(&text)) {
                parts.push(text);
            }
            cause = error.source();
        }
        parts.join(": ")
    }

    /// Turns a failed request into an error; exhaustion gets the words that operators look for.
    #[must_use]
    pub fn agent(what: &'static str, source: ClientError) -> Self {
        match source {
            ClientError::Refused { body, .. } if body.kind == ErrorKind::Exhausted => {
                let all = "all pod CIDR ranges are exhausted";
                let not_available = "pool not (yet) available";
                let reason = match body.message.split_once(not_available) {
                    // Pool and family stand before it, as in Cilium's words.
                    Some((before, _)) => format!("{before}{not_available}"),
                    None if body.message.contains(all) => all.to_owned(),
                    None => "range is full".to_owned(),
                };
                Self::Exhausted { reason, message: body.message }
            }
            ClientError::Connect { .. } => Self::Agent { what: "unable to connect to Cilium agent", source },
            source => Self::Agent { what, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinesin_agent_api::ErrorBody;

    fn refused(kind: ErrorKind, message: &str) -> CniError {
        CniError::agent(
            "unable to create endpoint",
            ClientError::Refused {
                method: "PUT".parse().expect("a method"),
                path: "/endpoint/x".to_owned(),
                status: 500,
                body: ErrorBody { kind, message: message.to_owned() },
            },
        )
    }

    #[test]
    fn each_error_has_its_code_and_names_its_subject() {
        let missing = || NetlinkError::NoSuchLink { name: "lxc0".to_owned() };
        let table = [
            (
                CniError::UnsupportedVersion { found: "9.9.9".into() },
                1,
                "\"9.9.9\" is not supported; supported are 0.1.0",
            ),
            (
                CniError::CommandTooNew {
                    command: Command::Gc,
                    since: SpecVersion::V1_1_0,
                    found: SpecVersion::V1_0_0,
                },
                1,
                "GC needs cniVersion 1.1.0 or newer, but the configuration says 1.0.0",
            ),
            (
                CniError::UnsupportedField { key: "k".into(), value: "\"v\"".into(), reason: "r" },
                2,
                "\"k\" has the unsupported value \"v\"",
            ),
            (
                CniError::Environment { variables: "CNI_IFNAME".into(), reason: "missing".into() },
                4,
                "CNI_IFNAME: missing",
            ),
            (CniError::Netns { path: "/run/netns/x".into(), source: missing() }, 4, "CNI_NETNS \"/run/netns/x\""),
            (CniError::Stdin(io::Error::other("broken")), 5, "stdin"),
            (CniError::Decode { reason: "line 1".into() }, 6, "line 1"),
            (CniError::InvalidConfig { key: "name".into(), reason: "is missing".into() }, 7, "\"name\" is missing"),
            (CniError::OwnNetns { path: "/proc/self/ns/net".into() }, 8, "the node's own network namespace"),
            (CniError::Unsettled { rounds: 8 }, 11, "changed the pod's network 8 times"),
            (CniError::NotYetReady, 11, "still being created"),
            (CniError::NotAvailable { reason: "r".into() }, 50, "cannot serve ADD: r"),
            (CniError::LimitedConnectivity { reason: "r".into() }, 51, "limited connectivity: r"),
            (CniError::Unhealthy { reason: "not-ready".into() }, 101, "not-ready"),
            (CniError::Missing { what: "route".into(), reason: "r".into() }, 102, "route of the attachment"),
            (CniError::NameTaken { ifname: "eth0".into() }, 999, "\"eth0\" already exists"),
            (CniError::Kernel(missing()), 999, "cannot set up"),
            (refused(ErrorKind::Unavailable, "starting"), 11, "unable to create endpoint"),
            (refused(ErrorKind::NotFound, "pod"), 11, "unable to create endpoint"),
            (refused(ErrorKind::Internal, "map"), 999, "unable to create endpoint"),
            (refused(ErrorKind::Invalid, "mac"), 999, "unable to create endpoint"),
            (refused(ErrorKind::Conflict, "other"), 999, "unable to create endpoint"),
        ];
        for (error, code, text) in table {
            assert_eq!(error.code(), code, "{error:?}");
            assert!(error.to_string().contains(text), "{text:?} not in {error}");
            assert_eq!(error.retryable(), code == 11);
        }
    }

    #[test]
    fn exhaustion_reads_as_operators_know_it_and_keeps_the_agents_words() {
        let error = refused(ErrorKind::Exhausted, "pool \"default\" has no free address (6 of 6 leased)");
        assert_eq!(
            error.to_string(),
            "unable to allocate IP via local cilium agent: [POST /ipam][502] postIpamFailure \"range is full\""
        );
        assert_eq!((error.code(), error.details().contains("6 of 6 leased")), (11, true));
        let error = refused(ErrorKind::Exhausted, "pool x: all pod CIDR ranges are exhausted");
        assert!(error.to_string().ends_with("postIpamFailure \"all pod CIDR ranges are exhausted\""));
        let missing = "unable to allocate from pool \"vac\" (family ipv4): pool not (yet) available";
        let error = refused(ErrorKind::Exhausted, &format!("{missing}: node \"w1\" has no block of it; create it"));
        assert!(error.to_string().ends_with(&format!("postIpamFailure {missing:?}")), "{error}");
        assert!(error.details().ends_with("create it"));
    }

    #[test]
    fn details_tell_each_cause_once() {
        let source = NetlinkError::Namespace { action: "open /x".into(), source: io::Error::other("denied") };
        let error = CniError::Netns { path: "/x".into(), source };
        assert_eq!(error.details(), "cannot open /x: denied");
    }
}
