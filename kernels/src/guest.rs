//! Inside the virtual machine: runs the steps and tells what came of each.
//!
//! Every command is a process of its own with a time limit, so that whatever it does, the host hears of it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Command,
    time::Instant,
};

use kinesin_agent_api::types::BackendHealth;
use kinesin_netlink::{Netlink, NetlinkError, TunnelKind, TunnelSpec};

use crate::{
    labs::{NODES, SETUPS, Setup, WORKER},
    message::{Answer, Message, Step},
    tunnels::FILTERS,
};

/// Where the programs are in the image; `kernels/guest/init` has it on its PATH.
const BIN: &str = "/opt/kinesin";
/// Seconds that a command may take where nothing else is said: these machines are emulated.
const PATIENCE: u32 = 60;
/// Seconds for all programs: a verifier goes through hundreds of thousands of instructions, which is what emulation is slow at.
const PROGRAMS: u32 = 400;
/// Seconds for the tests of `backends/ebpf-tc/tests/test_run`.
const PACKETS: u32 = 600;
/// Seconds for the tests of [`crate::tunnels`].
const TUNNELS: u32 = 600;
/// Seconds for a lab to come up; it gives up by itself before.
const UP: u32 = 240;
/// How often a lab may try: it gives up when one of its parts takes a minute, which may happen on an emulated machine of a
/// busy host, and then goes on where it was.
const ATTEMPTS: usize = 3;
/// Seconds for an agent that should refuse to start.
const REFUSAL: u32 = 20;
/// Bytes of a command's output that are told, from its end.
const TOLD: usize = 20_000;
/// A check's report is read as a whole.
const REPORT: usize = 1_000_000;

/// Runs every step and writes the answers to `report`, a serial line.
///
/// # Errors
/// When the line cannot be written to.
pub fn main(report: &Path) -> io::Result<()> {
    let mut line = Line(File::options().write(true).open(report)?);
    if let Err(error) = keep_in_use() {
        // On the console. Without it nothing is wrong yet.
        let _ = writeln!(io::stderr(), "kernels: what should be kept in use cannot be used: {error}");
    }
    line.step(Step::Release, PATIENCE, &["uname", "-r"])?;
    let doctor = line.step(Step::Doctor, PATIENCE, &["kinesin-agent", "doctor"])?;
    line.step(Step::Trial, PROGRAMS, &["kinesin-kernels", "trial"])?;
    // What that one looks at is told by the trial, and `findings` has the limit.
    let skip = ["--skip", "programs_stay_far_below_the_verifiers_limit"];
    line.step(Step::Packets, PACKETS, &[&["kinesin-test-run", "--test-threads", "1"][..], &skip].concat())?;
    if is_refused(&doctor) {
        line.step(Step::Refusal, REFUSAL, &["kinesin-agent", "--k8s-node-name", WORKER])?;
    } else {
        let words = [&["kinesin-test-chassis", "--test-threads", "1"][..], &FILTERS].concat();
        line.step(Step::Tunnels, TUNNELS, &words)?;
        for setup in SETUPS {
            lab(&mut line, setup)?;
        }
    }
    // `grep` fails where nothing is found, which is what is hoped for.
    let complaints = "dmesg | grep -E 'BUG:|WARNING:|Oops|general protection|soft lockup|detected stall'; true";
    line.step(Step::Complaints, PATIENCE, &["sh", "-c", complaints])?;
    line.tell(&Message::Done)
}

/// Uses, as long as the machine runs, what the kernel writes into its own code for the first user and takes out after the
/// last: the hooks of tc, and tunnels. Tests come and go with namespaces of their own, and an emulator of two CPUs may run
/// such a place while it is written (qemu 7.2: `Oops: int3` in `__dev_queue_xmit`), which ends the machine.
fn keep_in_use() -> io::Result<()> {
    const NAME: &str = "kept0";
    const PORT: u16 = 4799;
    aya::programs::tc::qdisc_add_clsact("lo").map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tunnel = TunnelSpec { name: NAME, kind: TunnelKind::Vxlan, port: PORT, source_ports: (0, 0), mac: None };
    let made = runtime.block_on(async {
        let netlink = Netlink::new()?;
        netlink.add_tunnel(&tunnel).await?;
        netlink.set_up(netlink.link(NAME).await?.index).await
    });
    made.map_err(|error: NetlinkError| io::Error::other(error))
}

/// Whether the agent would not start: its chassis cannot run here.
fn is_refused(doctor: &Answer) -> bool {
    let health: Vec<BackendHealth> = serde_json::from_str(&doctor.stdout).unwrap_or_default();
    health.iter().any(|backend| backend.r#trait == "chassis" && !backend.problems.is_empty())
}

fn lab(line: &mut Line, setup: Setup) -> io::Result<()> {
    let name = || setup.name.to_owned();
    let values = format!("/tmp/{}.json", setup.name);
    fs::write(&values, setup.values)?;
    let nodes = NODES.to_string();
    let kinesin = ["kinesin", "lab"];
    let of_lab = |words: &[&'static str]| [&kinesin, words].concat();
    let up = ["up", "--nodes", &nodes, "--no-check", "--values", &values];
    let mut is_well = false;
    for _ in 0..ATTEMPTS {
        is_well = is_well || line.step(Step::Up(name()), UP, &[kinesin.as_slice(), &up].concat())?.is_ok();
    }
    if is_well {
        is_well = line.step(Step::Check(name()), UP, &of_lab(&["check", "-o", "json"]))?.is_ok();
        line.step(
            Step::Status(name()),
            PATIENCE,
            &of_lab(&["exec", WORKER, "--", "cilium-dbg", "status", "-o", "json"]),
        )?;
        let links = "ls /sys/fs/bpf/kinesin/v*/links";
        line.step(Step::Links(name()), PATIENCE, &of_lab(&["exec", WORKER, "--", "sh", "-c", links]))?;
    }
    if !is_well {
        let logs = "for of in agent operator kubelet; do kinesin lab logs $of --tail 40; done";
        line.step(Step::Logs(name()), PATIENCE, &["sh", "-c", logs])?;
    }
    line.step(Step::Down(name()), PATIENCE, &of_lab(&["down"]))?;
    Ok(())
}

struct Line(File);

impl Line {
    fn tell(&mut self, message: &Message) -> io::Result<()> {
        let mut text = serde_json::to_string(message)?;
        text.push('\n');
        self.0.write_all(text.as_bytes())
    }

    fn step(&mut self, step: Step, seconds: u32, words: &[&str]) -> io::Result<Answer> {
        self.tell(&Message::Begin { step: step.clone() })?;
        let begun = Instant::now();
        let limit = seconds.to_string();
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", limit.as_str()]).args(words).env("PATH", path());
        // What a test cannot do here is a fault: these kernels have all that there is.
        let output = command.env("KINESIN_REQUIRE_TUNNEL_DEVICES", "1").output();
        let (code, stdout, mut stderr) = match &output {
            Ok(output) => (output.status.code(), text(&output.stdout, REPORT), text(&output.stderr, TOLD)),
            Err(error) => (None, String::new(), format!("{words:?} cannot be started: {error}")),
        };
        // A shell's `timeout` ends as its command did, or says 128 and the number of the signal.
        let signal = output.iter().find_map(|output| output.status.signal()).or(code.map(|code| code - 128));
        let signal = signal.filter(|number| (1..65).contains(number));
        if let Some(number) = signal {
            let why =
                if number == 9 && begun.elapsed().as_secs() >= u64::from(seconds) { " (it took too long)" } else { "" };
            stderr.push_str(&format!("\nsignal {number}{why}"));
        }
        let code = code.filter(|_| signal.is_none());
        let answer = Answer { step, code, stdout, stderr, seconds: begun.elapsed().as_secs_f64() };
        self.tell(&Message::End(answer.clone()))?;
        Ok(answer)
    }
}

fn path() -> String {
    format!("{BIN}:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// The end of what a command said.
fn text(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(most)..]).into_owned()
}
