//! `lab`: a cluster on this machine.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fmt::Write as _,
    fs,
    io::{self, IsTerminal, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::Context;
use kinesin_lab::{Lab, Log, NodeRow, Progress, Report, Spec, Summary, apply, parse_manifest};

use crate::{
    args::{Global, LabArgs, LabCommand, LogsOf, UpArgs},
    output::{print, render},
    table::STATUS,
};

/// Failures that are told in full; the rest is counted, since a broken route breaks hundreds.
const TOLD: usize = 20;

/// Does what was asked of the lab.
pub(crate) async fn answer(global: &Global, args: LabArgs) -> anyhow::Result<ExitCode> {
    let LabArgs { name, dir, command } = args;
    let open = || Lab::open(&dir, &name);
    match command {
        LabCommand::Up(up) => return bring_up(global, name, dir, up).await,
        LabCommand::Down => {
            let was_there = Lab::down(&dir, &name)?;
            let _ = writeln!(io::stderr(), "lab {name} {}", if was_there { "is gone" } else { "was not there" });
        }
        LabCommand::Exec { node, command } => return Ok(open()?.node(&node)?.exec(&command).await?.into()),
        LabCommand::Kubectl { arguments } => return Err(become_kubectl(&open()?, arguments)),
        LabCommand::Apply { filenames } => {
            let client = open()?.client()?;
            for file in filenames {
                let origin = if is_stdin(&file) { "stdin".to_owned() } else { file.display().to_string() };
                let objects = parse_manifest(&origin, &read(&file)?)?;
                for applied in apply(&client, &origin, objects).await? {
                    print(&format!("{applied} serverside-applied\n"))?;
                }
            }
        }
        LabCommand::Logs { of, node, tail } => {
            let (lab, node) = (open()?, node.as_deref());
            let logs = match of {
                LogsOf::Agent => lab.pod_logs("k8s-app=cilium", node, tail).await?,
                LogsOf::Operator => lab.pod_logs("io.cilium/app=operator", node, tail).await?,
                LogsOf::Kubelet => lab.kubelet_logs(node, tail)?,
                LogsOf::Apiserver => vec![lab.api_server_log(tail)?],
            };
            print(&logs_text(&logs))?;
        }
        LabCommand::Nodes => {
            let rows = open()?.node_rows().await?;
            print(&render(global.output, &rows, |rows| nodes_text(rows))?)?;
        }
        LabCommand::Check { pods } => return check(global, &open()?, &pods).await,
        LabCommand::List => {
            let labs = Lab::list(&dir)?;
            print(&render(global.output, &labs, |labs| labs_text(labs))?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `kubectl -n x` must not be taken for our own `-n`.
pub(crate) fn keep_kubectl_apart(mut args: Vec<OsString>) -> Vec<OsString> {
    if args.get(1).is_some_and(|word| word == "lab")
        && let Some(at) = args.iter().position(|word| word == "kubectl")
        && args.get(at + 1).is_none_or(|next| next != "--")
    {
        args.insert(at + 1, "--".into());
    }
    args
}

async fn bring_up(global: &Global, name: String, base: PathBuf, args: UpArgs) -> anyhow::Result<ExitCode> {
    let standard = Spec::default();
    let spec = Spec {
        name,
        base,
        nodes: args.nodes,
        families: args.families,
        segments: args.segments,
        mtu_bytes: args.mtu,
        pod_ranges: args.pod_ranges,
        bin_dir: match args.bin_dir {
            Some(dir) => fs::canonicalize(&dir).with_context(|| format!("cannot find {}", dir.display()))?,
            None => standard.bin_dir,
        },
        values: args.values.as_deref().map(read).transpose()?.unwrap_or_default(),
        agent: !args.no_agent,
        workloads: !args.no_agent && !args.no_workloads,
    };
    // What cannot be is refused by `up`, which has the last word.
    if spec.validate().is_ok() && Lab::open(&spec.base, &spec.name).is_ok_and(|lab| lab.is_whole()) {
        let _ = writeln!(io::stderr(), "lab {} is up already; it is brought to what is asked and checked", spec.name);
    }
    let terminal = Terminal::new();
    let lab = Lab::up(&spec, &terminal).await.inspect_err(|_| terminal.done())?;
    let checked =
        if spec.workloads && !args.no_check { check(global, &lab, "default").await? } else { ExitCode::SUCCESS };
    let _ = write!(io::stderr(), "{}", how_to_go_on(&lab, terminal.begun));
    Ok(checked)
}

fn how_to_go_on(lab: &Lab, begun: Instant) -> String {
    let base = lab.layout().base();
    let options = [
        (lab.name() != kinesin_lab::DEFAULT_NAME).then(|| format!(" --name {}", lab.name())),
        (base != Path::new(kinesin_lab::DEFAULT_BASE)).then(|| format!(" --dir {}", base.display())),
    ];
    let option: String = options.into_iter().flatten().collect();
    let node = lab.nodes().last().map(|node| node.name().to_owned()).unwrap_or_default();
    let program = own_name();
    format!(
        "\nLab {} is up after {:.1} s. To go on:\n  export KUBECONFIG={}\n  {program} lab{option} kubectl get pods -A -o wide\n  \
         {program} lab{option} exec {node} -- ip route\n  {program} lab{option} down\n",
        lab.name(),
        begun.elapsed().as_secs_f64(),
        lab.layout().kubeconfig().display(),
    )
}

/// This program as it can be called from here: by its name where PATH has it, else by its path.
fn own_name() -> String {
    let Ok(own) = env::current_exe() else { return "kinesin".to_owned() };
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|dir| dir.join("kinesin").is_file()) {
        return "kinesin".to_owned();
    }
    let here = env::current_dir().unwrap_or_default();
    own.strip_prefix(&here).unwrap_or(&own).display().to_string()
}

fn become_kubectl(lab: &Lab, arguments: Vec<OsString>) -> anyhow::Error {
    let Some(kubectl) = find_kubectl() else {
        return anyhow::anyhow!(
            "kubectl is neither in PATH nor among the tools of ./x; install it, or use `kinesin lab apply`, `lab nodes` and `lab logs`"
        );
    };
    let error = Command::new(&kubectl).args(arguments).env("KUBECONFIG", lab.layout().kubeconfig()).exec();
    anyhow::Error::new(error).context(format!("cannot run {}", kubectl.display()))
}

/// In PATH, else where `./x` keeps its tools.
fn find_kubectl() -> Option<PathBuf> {
    let tools = env::var_os("KINESIN_TOOLS").map(PathBuf::from).or_else(|| {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        Some(cache.or_else(|| Some(env::home_dir()?.join(".cache")))?.join("kinesin/tools"))
    });
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file());
    in_path.or_else(|| kubectl_of(&tools?))
}

/// The tools of `./x` are in a directory for each release of rustc: `1.95.0/bin/kubectl`.
fn kubectl_of(tools: &Path) -> Option<PathBuf> {
    let releases = fs::read_dir(tools).ok()?.flatten();
    releases.map(|release| release.path().join("bin/kubectl")).filter(|file| file.is_file()).max()
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

fn read(file: &Path) -> anyhow::Result<String> {
    if is_stdin(file) {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
        return Ok(text);
    }
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

async fn check(global: &Global, lab: &Lab, namespace: &str) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let report = lab.check(namespace).await?;
    let took = begun.elapsed().as_secs_f64();
    print(&render(global.output, &report, |report| format!("{}{took:.1} s\n", report_text(report)))?)?;
    if report.pods.is_empty() {
        let _ = writeln!(io::stderr(), "no pod with an address of its own runs in namespace {namespace}");
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The pods, a row per protocol and family, and what failed.
fn report_text(report: &Report) -> String {
    let mut text = matrix(report);
    let mut rows: BTreeMap<(bool, String), [(usize, usize); 2]> = BTreeMap::new();
    for probe in &report.probes {
        let family = if probe.address.is_ipv4() { "IPv4" } else { "IPv6" };
        let row = rows.entry((probe.address.is_ipv6(), format!("{} {family}", probe.protocol))).or_default();
        let (passed, all) = &mut row[usize::from(!report.is_local(probe))];
        *all += 1;
        *passed += usize::from(probe.failure.is_none());
    }
    let mut table = "PROBE\tSAME NODE\tOTHER NODE\n".to_owned();
    for ((_, name), [local, remote]) in &rows {
        let _ = writeln!(table, "{name}\t{}/{} ok\t{}/{} ok", local.0, local.1, remote.0, remote.1);
    }
    text.push_str(&STATUS.align(&table));
    for absent in &report.absent {
        let _ = writeln!(text, "cannot take part: {absent}");
    }
    let failed: Vec<_> = report.probes.iter().filter(|probe| probe.failure.is_some()).collect();
    for probe in failed.iter().take(TOLD) {
        let name = |pod: usize| format!("{} on {}", report.pods[pod].name, report.pods[pod].node);
        let why = probe.failure.as_deref().unwrap_or_default();
        let (from, to) = (name(probe.from), name(probe.to));
        let _ = writeln!(text, "{} from {from} to {to} at {}: {why}", probe.protocol, probe.address);
    }
    if failed.len() > TOLD {
        let _ = writeln!(text, "... and {} more", failed.len() - TOLD);
    }
    let all = report.probes.len();
    let _ = write!(text, "{} pods, {all} probes, {} failed, ", report.pods.len(), failed.len());
    text
}

/// Who reached whom: a row per source, a column per target.
fn matrix(report: &Report) -> String {
    let numbers: String = (1..=report.pods.len()).map(|number| format!("\t{number}")).collect();
    let mut table = format!("FROM\tNODE{numbers}\n");
    let mut cells: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
    for probe in &report.probes {
        let (passed, all) = cells.entry((probe.from, probe.to)).or_default();
        *all += 1;
        *passed += usize::from(probe.failure.is_none());
    }
    for (from, pod) in report.pods.iter().enumerate() {
        let _ = write!(table, "{} {}\t{}", from + 1, pod.name, pod.node);
        for to in 0..report.pods.len() {
            let _ = match cells.get(&(from, to)) {
                None => write!(table, "\t-"),
                Some((passed, all)) if passed == all => write!(table, "\tok"),
                Some((passed, all)) => write!(table, "\t{passed}/{all}"),
            };
        }
        table.push('\n');
    }
    format!("{}\n", STATUS.align(&table))
}

fn nodes_text(rows: &[NodeRow]) -> String {
    let mut table = "NAME\tNODE\tREADY\tAGENT\tPODS\tADDRESSES\tPOD CIDRS\n".to_owned();
    for row in rows {
        let addresses = row.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let ready = if row.ready { "yes" } else { "no" };
        let cidrs = if row.pod_cidrs.is_empty() { "-".to_owned() } else { row.pod_cidrs.join(",") };
        let _ =
            writeln!(table, "{}\t{}\t{ready}\t{}\t{}\t{addresses}\t{cidrs}", row.name, row.node, row.agent, row.pods);
    }
    STATUS.align(&table)
}

fn labs_text(labs: &[Summary]) -> String {
    let mut table = "NAME\tSTATE\tNODES\tKUBECONFIG\n".to_owned();
    for lab in labs {
        let nodes = lab.nodes.map_or("-".to_owned(), |nodes| nodes.to_string());
        let kubeconfig = lab.kubeconfig.as_ref().map_or("-".to_owned(), |path| path.display().to_string());
        let _ = writeln!(table, "{}\t{}\t{nodes}\t{kubeconfig}", lab.name, lab.state);
    }
    STATUS.align(&table)
}

/// One log as it is; several each under its name.
fn logs_text(logs: &[Log]) -> String {
    match logs {
        [only] => only.text.clone(),
        several => several.iter().map(|log| format!("==> {} <==\n{}\n", log.of, log.text)).collect(),
    }
}

/// Shows on stderr how far the lab is: what is under way on a terminal, what is done everywhere.
#[derive(Debug)]
struct Terminal {
    begun: Instant,
    is_terminal: bool,
    phase: Mutex<Option<(String, Instant)>>,
}

impl Terminal {
    fn new() -> Self {
        Self { begun: Instant::now(), is_terminal: io::stderr().is_terminal(), phase: Mutex::new(None) }
    }

    fn current(&self) -> MutexGuard<'_, Option<(String, Instant)>> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes over the line on a terminal. Nobody is served by an error about progress.
    fn show(&self, text: &str, end: &str) {
        let start = if self.is_terminal { "\r\x1b[K" } else { "" };
        let _ = write!(io::stderr(), "{start}{text}{end}").and_then(|()| io::stderr().flush());
    }
}

impl Progress for Terminal {
    fn phase(&self, name: &str) {
        self.done();
        *self.current() = Some((name.to_owned(), Instant::now()));
        if self.is_terminal {
            self.show(name, "");
        }
    }

    fn state(&self, text: &str) {
        if self.is_terminal
            && let Some((name, begun)) = self.current().as_ref()
        {
            self.show(&format!("{name:<24}{:>6.1} s   {text}", begun.elapsed().as_secs_f64()), "");
        }
    }

    fn done(&self) {
        if let Some((name, begun)) = self.current().take() {
            self.show(&format!("{name:<24}{:>6.1} s", begun.elapsed().as_secs_f64()), "\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use kinesin_lab::{PodInfo, Probe, Protocol};

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn options_of_kubectl_stay_kubectls() {
        for (line, want) in [
            ("kinesin lab kubectl -n x get pods", "kinesin lab kubectl -- -n x get pods"),
            ("kinesin lab --name a kubectl get", "kinesin lab --name a kubectl -- get"),
            ("kinesin lab kubectl -- get", "kinesin lab kubectl -- get"),
            ("kinesin status", "kinesin status"),
            ("kinesin lab kubectl", "kinesin lab kubectl --"),
        ] {
            assert_eq!(keep_kubectl_apart(words(line)), words(want), "{line}");
        }
    }

    #[test]
    fn report_counts_by_place_and_tells_failures() {
        let pod = |name: &str, node: &str| PodInfo { name: name.to_owned(), node: node.to_owned(), ips: vec![] };
        let probe = |from, to, failure: Option<&str>| Probe {
            from,
            to,
            protocol: Protocol::Udp,
            address: "fd00::2".parse().expect("an address"),
            took: None,
            failure: failure.map(str::to_owned),
        };
        let report = Report {
            pods: vec![pod("a", "n1"), pod("b", "n1"), pod("c", "n2")],
            probes: vec![probe(0, 1, None), probe(0, 2, None), probe(2, 0, Some("no answer within 3 s"))],
            absent: vec![],
        };
        let expected = "\
FROM   NODE   1     2    3
1 a    n1     -     ok   ok
2 b    n1     -     -    -
3 c    n2     0/1   -    -

PROBE      SAME NODE   OTHER NODE
UDP IPv6   1/1 ok      1/2 ok
UDP from c on n2 to a on n1 at fd00::2: no answer within 3 s
3 pods, 3 probes, 1 failed, ";
        assert_eq!(report_text(&report), expected);
    }

    #[test]
    fn kubectl_is_found_where_the_script_keeps_it() {
        let tools = tempfile::tempdir().expect("a directory");
        assert_eq!(kubectl_of(&tools.path().join("none")), None);
        fs::create_dir_all(tools.path().join("cni-plugins")).expect("a directory");
        assert_eq!(kubectl_of(tools.path()), None);
        let bin = tools.path().join("1.95.0/bin");
        fs::create_dir_all(&bin).expect("a directory");
        fs::write(bin.join("kubectl"), "").expect("a file");
        assert_eq!(kubectl_of(tools.path()), Some(bin.join("kubectl")));
    }

    #[test]
    fn one_log_has_no_title() {
        let log = |of: &str| Log { of: of.to_owned(), text: "x\n".to_owned() };
        assert_eq!(logs_text(&[log("a")]), "x\n");
        assert_eq!(logs_text(&[log("a"), log("b")]), "==> a <==\nx\n\n==> b <==\nx\n\n");
    }
}
