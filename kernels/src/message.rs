//! What the virtual machine tells the host, one line of JSON each.

use serde::{Deserialize, Serialize};

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub(crate) enum Message {
    /// A step begins.
    Begin {
        /// Which.
        step: Step,
    },
    /// A step has ended.
    End(Answer),
    /// There is nothing more to come.
    Done,
}

/// What is done in the virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    /// `uname -r`.
    Release,
    /// What the agent says of each backend on this machine.
    Doctor,
    /// Every program is loaded by itself.
    Trial,
    /// A table of packets goes through the programs and, beside them, through the same pipeline outside the kernel.
    Packets,
    /// Tunnels meet the kernel's own devices, and a network that loses and reorders.
    Tunnels,
    /// The agent starts on a machine that cannot run it.
    Refusal,
    /// A lab comes up; the word is the name of its [`crate::labs::Setup`].
    Up(String),
    /// Every pod is probed from every other.
    Check(String),
    /// What the agent of a node says of itself.
    Status(String),
    /// The links that are pinned on that node.
    Links(String),
    /// What agents and operator have logged, after a failure.
    Logs(String),
    /// The lab goes.
    Down(String),
    /// What the kernel complained about meanwhile.
    Complaints,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Of which step.
    pub(crate) step: Step,
    /// Exit code; absent when a signal ended it, and then [`Answer::stderr`] says which.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) seconds: f64,
}

impl Answer {
    /// Whether the command succeeded.
    pub(crate) fn is_ok(&self) -> bool {
        self.code == Some(0)
    }

    /// How it failed, for people.
    pub(crate) fn failure(&self) -> String {
        let last = self.stderr.trim().lines().last().unwrap_or("it said nothing").trim();
        match self.code {
            Some(code) => format!("exit code {code}: {last}"),
            None => format!("it was killed: {last}"),
        }
    }
}

impl Step {
    /// For people who wait.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Release => "booted".to_owned(),
            Self::Doctor => "doctor".to_owned(),
            Self::Trial => "programs".to_owned(),
            Self::Packets => "packets".to_owned(),
            Self::Tunnels => "tunnels".to_owned(),
            Self::Refusal => "agent's refusal".to_owned(),
            Self::Up(setup) => format!("{setup}: lab comes up"),
            Self::Check(setup) => format!("{setup}: probes"),
            Self::Status(setup) | Self::Links(setup) => format!("{setup}: attachments"),
            Self::Logs(setup) => format!("{setup}: logs"),
            Self::Down(setup) => format!("{setup}: lab goes"),
            Self::Complaints => "kernel's log".to_owned(),
        }
    }
}
