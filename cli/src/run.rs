//! Who answers a command: the agent, the cluster, or another program.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, error::ContextKind};
use kinesin_agent_api::{
    Client,
    types::{BackendHealth, BackendInfo, BpfEndpoint, BpfMetric, ClusterNode, ConfigEntry, Endpoint, StatusResponse},
};
use kinesin_core::causes::with_causes;

use crate::{
    absent,
    args::{BpfCommand, Cli, Command, ConfigCommand, EndpointCommand, Global, ListCommand, NodeCommand, StatusArgs},
    cluster, config_view, conformance, hand_over, ipam, lab, lists,
    new_backend::new_backend,
    output::{Format, print, render},
    status,
};

/// How long the agent may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Parses the arguments and runs the command; errors go to stderr.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // A lab's own processes make namespaces, which must come before any thread.
    if let Some(code) = kinesin_lab::hidden_main(&args) {
        return code;
    }
    if let Some(code) = kinesin_conformance::hidden_main(&args) {
        return code;
    }
    let name = program_name(args.first());
    let args = lab::keep_kubectl_apart(args);
    let cli = match parse(name, args.clone()) {
        Ok(cli) => cli,
        // Help and version are answers, everything else is a wrong question.
        Err(error) if !error.use_stderr() => {
            return finish(print(&error.render().to_string()).map(|()| ExitCode::SUCCESS));
        }
        Err(error) => {
            let word = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string);
            let ours = word.and_then(|word| absent::explain(name, &args, &word));
            let _ = write!(io::stderr(), "{}", ours.unwrap_or_else(|| error.render().to_string()));
            return ExitCode::from(2);
        }
    };
    // One thread, so that a command which changes its namespaces finds none beside it.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return finish(Err(anyhow::Error::new(error).context("cannot start"))),
    };
    finish(runtime.block_on(answer(name, cli)))
}

/// The name it was called by, as far as it is one of ours.
fn program_name(first: Option<&OsString>) -> &'static str {
    let name = first.and_then(|path| Path::new(path).file_name()).and_then(|name| name.to_str());
    match name {
        Some("cilium") => "cilium",
        Some("cilium-dbg") => "cilium-dbg",
        _ => "kinesin",
    }
}

fn command(name: &'static str) -> clap::Command {
    Cli::command().name(name).bin_name(name)
}

fn parse(name: &'static str, args: Vec<OsString>) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command(name).try_get_matches_from(args)?)
}

/// The exit code; an error is told on stderr.
fn finish(answer: anyhow::Result<ExitCode>) -> ExitCode {
    match answer {
        Ok(code) => code,
        Err(error) => {
            // Nothing can be done if stderr is gone as well.
            let _ = writeln!(io::stderr(), "Error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes in one line. Of what the API server refuses its own words are told, which `kube` prints three
/// times over.
fn told(error: &anyhow::Error) -> String {
    let refusal = error.chain().position(|cause| matches!(cause.downcast_ref(), Some(kube::Error::Api(_))));
    let Some(at) = refusal else { return with_causes(error.as_ref()) };
    let mut parts: Vec<String> = error.chain().take(at).map(ToString::to_string).collect();
    if let Some(Some(kube::Error::Api(status))) = error.chain().nth(at).map(|cause| cause.downcast_ref()) {
        parts.push(status.message.clone());
    }
    parts.join(": ")
}

async fn answer(name: &'static str, cli: Cli) -> anyhow::Result<ExitCode> {
    let global = cli.global;
    let format = global.output;
    let agent = agent(&global);
    match cli.command {
        Command::Status(args) => return status_of(&global, &agent, args).await,
        Command::Endpoint(EndpointCommand::List) => {
            let found: Vec<Endpoint> = agent.get("/endpoint").await?;
            print(&render(format, &found, |found| lists::endpoints(found))?)?;
        }
        Command::Endpoint(EndpointCommand::Get { id }) => {
            let found: Endpoint = agent.get(&format!("/endpoint/{}", path_segment(&id))).await?;
            // As in Cilium, the answer is a list of one and JSON unless asked otherwise.
            let format = if format == Format::Summary { Format::Json } else { format };
            print(&render(format, &[found], |_| String::new())?)?;
        }
        Command::Bpf(BpfCommand::Endpoint(ListCommand::List)) => {
            let found: Vec<BpfEndpoint> = agent.get("/bpf/endpoint").await?;
            print(&render(format, &found, |found| lists::bpf_endpoints(found))?)?;
        }
        Command::Bpf(BpfCommand::Metrics(ListCommand::List)) => {
            let found: Vec<BpfMetric> = agent.get("/bpf/metrics").await?;
            print(&render(format, &found, |found| lists::bpf_metrics(found))?)?;
        }
        Command::Node(NodeCommand::List) => {
            let found: Vec<ClusterNode> = agent.get("/cluster/nodes").await?;
            print(&render(format, &found, |found| lists::nodes(found))?)?;
        }
        Command::Backends => {
            let found: Vec<BackendInfo> =
                if agent.socket().exists() { agent.get("/backends").await? } else { hand_over::ask_agent("backends")? };
            print(&render(format, &found, |found| lists::backends(found))?)?;
        }
        Command::Config(ConfigCommand::View { cluster }) => config(&global, &agent, cluster).await?,
        Command::Doctor => {
            let found: Vec<BackendHealth> = hand_over::ask_agent("doctor")?;
            print(&render(format, &found, |found| lists::doctor(found))?)?;
            return Ok(verdict(found.iter().all(|backend| backend.problems.is_empty())));
        }
        Command::Ipam(command) => return ipam::answer(&global, command).await,
        Command::Lab(args) => return lab::answer(&global, args).await,
        Command::Conformance(args) => return Ok(conformance::answer(&global, args).await),
        Command::NewBackend(args) => print(&new_backend(&args)?)?,
        Command::Completion(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut command(name), name, &mut script);
            print(&String::from_utf8_lossy(&script))?;
        }
        Command::Version => version(format, &agent).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn agent(global: &Global) -> Client {
    let client = global.host.as_ref().map_or_else(Client::from_env, Client::new);
    client.with_timeout(TIMEOUT)
}

async fn status_of(global: &Global, agent: &Client, args: StatusArgs) -> anyhow::Result<ExitCode> {
    if args.cluster || ask_cluster(global, agent) {
        let client = cluster::connect(global.kubeconfig.as_deref()).await?;
        let found = cluster::status(client, &global.namespace).await?;
        let text = |found: &cluster::ClusterStatus| match (args.brief, found.is_healthy()) {
            (true, true) => "OK\n".to_owned(),
            (true, false) => "error in cluster: not everything is ready\n".to_owned(),
            (false, _) => cluster::render(found),
        };
        print(&render(global.output, &found, text)?)?;
        return Ok(verdict(found.is_healthy()));
    }
    let found: StatusResponse = agent.get("/healthz").await?;
    let text = |found: &StatusResponse| {
        if args.brief { status::brief(found) } else { status::render(found, args.verbose) }
    };
    print(&render(global.output, &found, text)?)?;
    Ok(verdict(status::is_healthy(&found)))
}

fn verdict(is_healthy: bool) -> ExitCode {
    if is_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The cluster is asked where no agent has its socket, unless one was named.
fn ask_cluster(global: &Global, agent: &Client) -> bool {
    global.host.is_none() && !agent.socket().exists()
}

async fn config(global: &Global, agent: &Client, cluster: bool) -> anyhow::Result<()> {
    if cluster || ask_cluster(global, agent) {
        let client = cluster::connect(global.kubeconfig.as_deref()).await?;
        let data = cluster::config_map(client, &global.namespace).await?;
        return print(&render(global.output, &data, config_view::config_map)?);
    }
    let found: Vec<ConfigEntry> = agent.get("/config").await?;
    print(&render(global.output, &found, |found| config_view::effective(found))?)
}

async fn version(format: Format, agent: &Client) -> anyhow::Result<()> {
    let mut versions = BTreeMap::from([("client", env!("CARGO_PKG_VERSION").to_owned())]);
    if agent.socket().exists() {
        let found: StatusResponse = agent.get("/healthz").await.context("the agent's version is not known")?;
        versions.insert("daemon", found.version);
    }
    let text = |versions: &BTreeMap<&str, String>| {
        let line = |label: &str, key: &str| versions.get(key).map(|version| format!("{label}: {version}\n"));
        [line("Client", "client"), line("Daemon", "daemon")].into_iter().flatten().collect()
    };
    print(&render(format, &versions, text)?)
}

/// Keeps an id to one segment of the path.
fn path_segment(id: &str) -> String {
    let mut segment = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        parse("kinesin", line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn arguments_are_consistent() {
        command("kinesin").debug_assert();
        command("cilium-dbg").debug_assert();
    }

    #[test]
    fn the_seeds_commands_are_understood() {
        for line in [
            "cilium status --verbose",
            "cilium-dbg status",
            "cilium config view",
            "cilium endpoint list",
            "cilium bpf endpoint list",
            "cilium endpoint get 331 -o json",
            "cilium node list -o yaml",
            "kinesin lab-less-thing",
        ] {
            let ok = parsed(line).is_ok();
            assert_eq!(ok, !line.contains("lab-less"), "{line}");
        }
        assert!(parsed("kinesin status --brief --verbose").is_err());
    }

    #[test]
    fn it_goes_by_the_name_it_was_called() {
        for (path, name) in [("/opt/bin/cilium-dbg", "cilium-dbg"), ("cilium", "cilium"), ("/x/other", "kinesin")] {
            assert_eq!(program_name(Some(&OsString::from(path))), name);
        }
        assert_eq!(program_name(None), "kinesin");
        let error = parse("cilium-dbg", vec!["cilium-dbg".into(), "nonsense".into()]).expect_err("no command");
        assert!(error.to_string().contains("Usage: cilium-dbg"), "{error}");
    }

    #[test]
    fn completion_is_made_for_every_shell() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command("kinesin"), "kinesin", &mut script);
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains("endpoint") && script.contains("kinesin"), "{shell}");
        }
    }

    #[test]
    fn refusals_of_the_api_server_are_told_once_in_its_words() {
        let status = kube::core::Status::failure("configmaps \"cilium-config\" not found", "NotFound").with_code(404);
        let error =
            anyhow::Error::new(kube::Error::Api(status.boxed())).context("cannot get ConfigMap x/cilium-config");
        assert_eq!(told(&error), "cannot get ConfigMap x/cilium-config: configmaps \"cilium-config\" not found");
        let other = anyhow::anyhow!("no such file").context("cannot read x");
        assert_eq!(told(&other), "cannot read x: no such file");
    }

    #[test]
    fn ids_stay_one_segment_of_the_path() {
        assert_eq!(path_segment("pod-name:default:web-1"), "pod-name:default:web-1");
        assert_eq!(path_segment("../config?x"), "..%2Fconfig%3Fx");
    }
}
