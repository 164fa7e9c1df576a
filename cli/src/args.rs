//! What can be asked.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;

/// Kinesin: pod networking for Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "kinesin", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Where and how to ask.
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Form of the answer.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,

    /// The agent's socket, also by CILIUM_SOCK [default: /var/run/cilium/cilium.sock]
    #[arg(short = 'H', long, global = true, value_name = "SOCKET")]
    pub host: Option<PathBuf>,

    /// Kubeconfig for the questions to the cluster, also by KUBECONFIG [default: ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the agents.
    #[arg(short, long, global = true, default_value = "kube-system", value_name = "NAMESPACE")]
    pub namespace: String,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// State of this node's agent, or of the cluster where there is no agent.
    Status(StatusArgs),
    /// Endpoints of this node.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// What is in the datapath's maps.
    #[command(subcommand)]
    Bpf(BpfCommand),
    /// Nodes that this node's agent knows.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Backends that are compiled in, and those that run.
    Backends,
    /// The effective configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Whether this machine can run each backend, and why not.
    Doctor,
    /// Completion script for a shell.
    Completion(CompletionArgs),
    /// Version of this program and of the agent.
    Version,
}

/// `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Also print allocated addresses, every controller and drop counters.
    #[arg(long)]
    pub verbose: bool,
    /// Print OK or the first error only.
    #[arg(long, conflicts_with = "verbose")]
    pub brief: bool,
    /// Ask the cluster even where there is an agent.
    #[arg(long)]
    pub cluster: bool,
}

/// `endpoint`.
#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// Every endpoint.
    #[command(visible_alias = "ls")]
    List,
    /// One endpoint in full, as JSON.
    Get {
        /// Number, or ipv4:ADDRESS, ipv6:ADDRESS, container-id:ID, pod-name:NAMESPACE:NAME, cni-attachment-id:ID:IFNAME.
        id: String,
    },
}

/// `bpf`.
#[derive(Debug, Subcommand)]
pub enum BpfCommand {
    /// The endpoint map.
    #[command(subcommand)]
    Endpoint(ListCommand),
    /// Counters of forwarded and dropped packets.
    #[command(subcommand)]
    Metrics(ListCommand),
}

/// `... list`.
#[derive(Debug, Subcommand)]
pub enum ListCommand {
    /// Every row.
    #[command(visible_alias = "ls")]
    List,
}

/// `node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Every node.
    #[command(visible_alias = "ls")]
    List,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// On a node: every key with its value and where it came from. Elsewhere: the ConfigMap cilium-config.
    View {
        /// Ask the cluster even where there is an agent.
        #[arg(long)]
        cluster: bool,
    },
}

/// `completion`.
#[derive(Debug, Clone, Args)]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
