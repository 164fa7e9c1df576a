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
    /// Change the IPAM mode of a running cluster.
    #[command(subcommand)]
    Ipam(IpamCommand),
    /// Whether this machine can run each backend, and why not.
    Doctor,
    /// A cluster on this machine, for trying things out.
    Lab(LabArgs),
    /// Judge combinations of backends by what their packets do.
    Conformance(ConformanceArgs),
    /// Write a crate with a backend of one's own, to start from.
    NewBackend(NewBackendArgs),
    /// Completion script for a shell.
    Completion(CompletionArgs),
    /// Version of this program and of the agent.
    Version,
}

/// `new-backend`.
#[derive(Debug, Clone, Args)]
pub struct NewBackendArgs {
    /// What users will write in `backends:`, such as sticky.
    pub name: String,
    /// What it shall do.
    #[arg(long, value_enum)]
    pub role: Role,
    /// Where it is written [default: ./NAME]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Kinesin's sources, a path or the URL of a git repository [default: the working tree around, else the repository]
    #[arg(long, value_name = "PATH|URL")]
    pub kinesin: Option<String>,
}

/// Roles that a backend of one's own can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Which addresses pods get.
    Ipam,
    /// How packets reach other nodes.
    Routing,
}

impl Role {
    /// As under `backends:`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipam => "ipam",
            Self::Routing => "routing",
        }
    }
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

/// `ipam`.
#[derive(Debug, Subcommand)]
pub enum IpamCommand {
    /// Print what a change of the mode would do, node by node; exit code 1 where it is impossible.
    Plan(IpamArgs),
    /// Change the mode. What was broken off is continued by the same command, and undone by the one with the old mode.
    Migrate(MigrateArgs),
}

/// `ipam plan`.
#[derive(Debug, Clone, Args)]
pub struct IpamArgs {
    /// The mode that all nodes shall be in.
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub to: kinesin_ipam_blocks::Mode,
    /// Further keys of cilium-config that go with it, such as cluster-pool-ipv4-cidr=10.8.0.0/16; several times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Go on although the mode has no room for all pods that run now: once they are replaced, some will wait.
    #[arg(long)]
    pub allow_shortage: bool,
}

/// `ipam migrate`.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// The same as for the plan.
    #[command(flatten)]
    pub ipam: IpamArgs,
    /// How many nodes change at once, after the first one has.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub at_once: u16,
    /// How long one node may take, in seconds.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub node_timeout: u64,
}

fn mode(text: &str) -> Result<kinesin_ipam_blocks::Mode, String> {
    text.parse()
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    match key.trim() {
        "" => Err("write KEY=VALUE".to_owned()),
        "ipam" | "backends.ipam" => Err("the mode is what --to says".to_owned()),
        key => Ok((key.to_owned(), value.trim().to_owned())),
    }
}

/// `lab`.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// Which lab; several are there at once under several names.
    #[arg(long = "name", id = "lab-name", global = true, env = "KINESIN_LAB", value_name = "NAME", default_value = kinesin_lab::DEFAULT_NAME)]
    pub name: String,
    /// Directory of all labs.
    #[arg(long = "dir", id = "lab-dir", global = true, env = "KINESIN_LAB_DIR", value_name = "DIRECTORY", default_value = kinesin_lab::DEFAULT_BASE)]
    pub dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// `lab ...`.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Bring the lab up, or heal it, and check that every pod reaches every other.
    Up(UpArgs),
    /// Remove the lab and everything in it.
    Down,
    /// Run a command on a node; a shell if none is given.
    Exec {
        /// The node.
        node: String,
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<std::ffi::OsString>,
    },
    /// Run kubectl on the lab.
    Kubectl {
        /// What kubectl is asked.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Apply objects from files; `-` is stdin.
    Apply {
        /// YAML or JSON.
        #[arg(short, long = "filename", required = true, value_name = "FILE")]
        filenames: Vec<PathBuf>,
    },
    /// Show logs.
    Logs {
        /// Whose.
        #[arg(value_enum, default_value_t = LogsOf::Agent)]
        of: LogsOf,
        /// Only that node's.
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// Only so many last lines of each.
        #[arg(long, value_name = "LINES")]
        tail: Option<usize>,
    },
    /// The nodes, their agents and pods.
    Nodes,
    /// Probe every pod from every other: TCP, UDP and ICMP in each family.
    Check {
        /// Namespace of the pods.
        #[arg(default_value = "default", value_name = "NAMESPACE")]
        pods: String,
    },
    /// The labs of this machine.
    #[command(visible_alias = "ls")]
    List,
}

/// `lab up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub nodes: usize,
    /// Address families: ipv4, ipv6 or dual.
    #[arg(long, default_value_t, value_name = "FAMILIES")]
    pub families: kinesin_lab::Families,
    /// Segments of the underlay, with a router between them; nodes are dealt to them in turn.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub segments: usize,
    /// MTU of the underlay in bytes.
    #[arg(long, default_value_t = 1500, value_name = "BYTES")]
    pub mtu: u16,
    /// Where nodes get their pod CIDRs from, and each node's prefix, such as 172.20.42.0/27=29; one a family.
    #[arg(long = "pod-cidr", value_name = "RANGE=PREFIX")]
    pub pod_ranges: Vec<kinesin_lab::PodRange>,
    /// Values of the chart, laid over the lab's own.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub values: Option<PathBuf>,
    /// Where kinesin-agent, kinesin-operator and kinesin-cni are [default: beside this program]
    #[arg(long, value_name = "DIRECTORY")]
    pub bin_dir: Option<PathBuf>,
    /// Install neither agent nor operator, so no pods either.
    #[arg(long)]
    pub no_agent: bool,
    /// Install no demo pods.
    #[arg(long)]
    pub no_workloads: bool,
    /// Do not probe the pods.
    #[arg(long)]
    pub no_check: bool,
}

/// Whose logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogsOf {
    /// The agents.
    Agent,
    /// The operator.
    Operator,
    /// The kubelets.
    Kubelet,
    /// The API server.
    Apiserver,
}

/// `conformance`.
///
/// Exit codes: 0 when every case passed or was skipped, 1 when one failed, 2 when nothing could be run or it was broken
/// off.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit codes: 0 nothing failed, 1 a case failed, 2 nothing could be run, or it was broken off.\n\n\
    Without options every pair of backends meets every choice of address families, the default combination has every \
    case, and the others those that are about what packets meet."
)]
pub struct ConformanceArgs {
    /// On what: a lab for each combination, or the cluster that --kubeconfig leads to, as it is.
    #[arg(long, value_enum, default_value_t)]
    pub target: ConformanceTarget,
    /// Every combination with every case.
    #[arg(long, conflicts_with = "default_only")]
    pub full: bool,
    /// The default combination only.
    #[arg(long = "default")]
    pub default_only: bool,
    /// Only combinations with this in their name; may be given several times.
    #[arg(long = "combination", value_name = "PART")]
    pub combinations: Vec<String>,
    /// Only cases with this in their name; may be given several times.
    #[arg(long = "case", value_name = "PART")]
    pub cases: Vec<String>,
    /// Print what would be run, and run nothing.
    #[arg(long)]
    pub list: bool,
    /// The sizes of the claims, 100 kills under 1,000 connections and 100 pods at once, instead of those for every day.
    #[arg(long)]
    pub full_size: bool,
    /// How often every agent is killed under traffic.
    #[arg(long, value_name = "N")]
    pub kills: Option<usize>,
    /// Connections that stay open meanwhile.
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// Pods that start at once.
    #[arg(long, value_name = "N")]
    pub pods: Option<usize>,
    /// What everything random is made of, to repeat a run [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Write JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the matrix as Markdown.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write the matrix as an HTML page.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the report as YAML.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// With --target lab: where kinesin-agent, kinesin-operator and kinesin-cni are [default: beside this program]
    #[arg(long, value_name = "DIRECTORY")]
    pub bin_dir: Option<PathBuf>,
    /// With --target kube: an image that has the program kinesin [default: the agents']
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
}

/// On what the suite is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ConformanceTarget {
    /// A lab of network namespaces for each combination.
    #[default]
    Lab,
    /// A cluster as it is.
    Kube,
}

/// `completion`.
#[derive(Debug, Clone, Args)]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
