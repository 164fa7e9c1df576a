//! What the agent was asked: a command, and configuration keys as flags.

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use kinesin_core::config::{
    Sources,
    keys::{self, Class},
};

/// Where the chart mounts the ConfigMap, as Cilium's does.
const CONFIG_DIR: &str = "config-dir";
const CONFIG: &str = "config";
const NODE_NAME: &str = "k8s-node-name";

/// The arguments, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// What to do.
    pub(crate) command: Task,
    /// Where the configuration comes from; the environment included.
    pub(crate) sources: Sources,
    /// `--k8s-node-name` or `K8S_NODE_NAME`; the host's name when absent.
    pub(crate) node_name: Option<String>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Run the node.
    Run,
    /// List the backends that are compiled in, as JSON.
    Backends,
    /// Tell for each backend whether this machine can run it, as JSON.
    Doctor,
    /// Remove from the node everything that the agent and its backends made.
    Cleanup,
}

/// Understands the arguments.
///
/// # Errors
/// Wrong arguments, `--help` and `--version`.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let command = match matches.subcommand_name() {
        Some("backends") => Task::Backends,
        Some("doctor") => Task::Doctor,
        Some("cleanup") => Task::Cleanup,
        _ => Task::Run,
    };
    let node_name = matches.get_one::<String>(NODE_NAME).filter(|name| !name.is_empty()).cloned();
    Ok(Asked { command, sources: sources(&matches), node_name })
}

fn sources(matches: &ArgMatches) -> Sources {
    let flags =
        flag_keys().filter_map(|key| Some((key.key.to_owned(), matches.get_one::<String>(key.key)?.clone()))).collect();
    Sources {
        config_dir: matches.get_one::<PathBuf>(CONFIG_DIR).cloned(),
        file: matches.get_one::<PathBuf>(CONFIG).cloned(),
        flags,
        ..Sources::default()
    }
    .with_process_env()
}

/// Keys that are flags: those with an effect.
fn flag_keys() -> impl Iterator<Item = &'static keys::Key> {
    keys::all().filter(|key| key.class == Class::Ours)
}

fn command() -> Command {
    let flags = flag_keys().map(|key| {
        let default = if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
        Arg::new(key.key)
            .long(key.key)
            .value_name("VALUE")
            .help(format!("{}{default}", key.doc))
            .action(ArgAction::Set)
            .global(true)
            // A flag without a value switches on, as in Cilium.
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
    });
    Command::new("kinesin-agent")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs the pod network of one node")
        .after_help("Every key of the ConfigMap cilium-config is also an environment variable KINESIN__SECTION__KEY.")
        .arg(
            Arg::new(CONFIG_DIR)
                .long(CONFIG_DIR)
                .value_name("DIRECTORY")
                .value_parser(value_parser!(PathBuf))
                .global(true)
                .help("A mounted ConfigMap: one file per key"),
        )
        .arg(
            Arg::new(CONFIG)
                .long(CONFIG)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .global(true)
                .conflicts_with(CONFIG_DIR)
                .help("A YAML file in the shape of the chart's values"),
        )
        .arg(
            Arg::new(NODE_NAME)
                .long(NODE_NAME)
                .env("K8S_NODE_NAME")
                .value_name("NAME")
                .global(true)
                .help("Name of this node in Kubernetes [default: the host's name]"),
        )
        .args(flags)
        .subcommand(Command::new("backends").about("List the backends that are compiled in, as JSON"))
        .subcommand(Command::new("doctor").about("Tell for each backend whether this machine can run it, as JSON"))
        .subcommand(
            Command::new("cleanup")
                .about("Remove what the agent and its backends made on this node; stop the agent first"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Asked, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn arguments_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn keys_are_flags() {
        let asked = parsed("kinesin-agent --config-dir=/c --enable-ipv6 --mtu=1400 --k8s-node-name n1").expect("valid");
        assert_eq!(asked.command, Task::Run);
        assert_eq!(asked.node_name.as_deref(), Some("n1"));
        assert_eq!(asked.sources.config_dir, Some(PathBuf::from("/c")));
        let mut flags = asked.sources.flags;
        flags.sort();
        assert_eq!(flags, [("enable-ipv6".into(), "true".into()), ("mtu".into(), "1400".into())]);
    }

    #[test]
    fn unknown_flags_and_two_sources_are_refused() {
        assert!(parsed("kinesin-agent --no-such-key=1").is_err());
        assert!(parsed("kinesin-agent --config-dir=/c --config=/f").is_err());
    }

    #[test]
    fn commands_are_told_apart() {
        assert_eq!(parsed("kinesin-agent backends").expect("valid").command, Task::Backends);
        assert_eq!(parsed("kinesin-agent doctor --config /f").expect("valid").command, Task::Doctor);
    }
}
