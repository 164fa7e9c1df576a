//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    BenchError,
    case::{Case, Contender},
    report::Settings,
    run::{Request, two_cpus},
};

/// Where the reference plugins usually are.
const CNI_DIR: &str = "/opt/cni/bin";
/// Rounds of a quick run: the interval does without the best and the worst of nine ([`crate::stats::Advantage`]), and the
/// whole set takes some six minutes on 2 CPUs.
const QUICK_ROUNDS: usize = 9;
/// Rounds with `--full`: without the two best and the two worst.
const FULL_ROUNDS: usize = 12;

/// Measures Kinesin and what a user would pick instead, in turns, in network namespaces of its own.
#[derive(Debug, Parser)]
#[command(name = "kinesin-bench", version)]
pub struct Args {
    /// For the benchmark itself.
    #[command(subcommand)]
    pub hidden: Option<Hidden>,
    /// Names of cases, or parts of them such as "rr"; all quick ones without.
    pub cases: Vec<String>,
    /// List the cases.
    #[arg(long)]
    pub list: bool,
    /// All cases, IPv6 included, with more and longer rounds.
    #[arg(long)]
    pub full: bool,
    /// Interleaved rounds [9; with --full 12].
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Measured seconds of a run of traffic [0.3; with --full 2].
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Contenders to leave out.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub without: Vec<Other>,
    /// Leave client and server to the scheduler instead of giving each a CPU.
    #[arg(long)]
    pub no_pin: bool,
    /// Directory of the reference plugins `bridge` and `host-local`.
    #[arg(long, env = "KINESIN_BENCH_CNI_DIR", default_value = CNI_DIR)]
    pub cni_dir: PathBuf,
    /// Where results.json, results.txt, results.md and results.svg go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/out"))]
    pub out: PathBuf,
    /// Rewrite bench/RESULTS.md and bench/results.svg with this run.
    #[arg(long)]
    pub record: bool,
    /// Set bench/budget.toml to a tenth above the verified instructions of this run.
    #[arg(long)]
    pub update_budget: bool,
}

/// What the benchmark starts itself for.
#[derive(Debug, Subcommand)]
pub enum Hidden {
    /// Attaches pods as the file orders and writes what it measured to stdout.
    #[command(name = crate::cni::ON_NODE, hide = true)]
    OnNode {
        /// The order.
        file: PathBuf,
    },
    /// Leases addresses and writes what it measured to stdout.
    #[command(name = crate::ipam::IN_PROCESS, hide = true)]
    Ipam {
        /// Percentage of addresses that are in use.
        used: u8,
        /// How long pairs are timed.
        seconds: f64,
    },
}

/// Who can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Other {
    /// The bare veth pair.
    Veth,
    /// Plain kernel routing.
    Routing,
    /// The reference plugins.
    Bridge,
    /// The reference plugins with the kernel's VXLAN device.
    Flannel,
    /// Kinesin with VXLAN.
    KinesinVxlan,
    /// Kinesin with VXLAN through the kernel's device.
    KinesinVxlanDevice,
    /// Kinesin with Geneve.
    KinesinGeneve,
}

impl Other {
    const fn contender(self) -> Contender {
        match self {
            Self::Veth => Contender::Veth,
            Self::Routing => Contender::Routing,
            Self::Bridge => Contender::Bridge,
            Self::Flannel => Contender::Flannel,
            Self::KinesinVxlan => Contender::KinesinVxlan,
            Self::KinesinVxlanDevice => Contender::KinesinVxlanDevice,
            Self::KinesinGeneve => Contender::KinesinGeneve,
        }
    }
}

impl Args {
    /// What the arguments ask for.
    ///
    /// # Errors
    /// `NoSuchCase` and `Option`.
    pub fn request(&self) -> Result<Request, BenchError> {
        let option = |what: String, remedy: &str| BenchError::Option { what, remedy: remedy.to_owned() };
        let rounds = self.rounds.unwrap_or(if self.full { FULL_ROUNDS } else { QUICK_ROUNDS });
        if !(1..=1000).contains(&rounds) {
            return Err(option(format!("--rounds {rounds} cannot be"), "1 to 1000"));
        }
        let seconds = self.seconds.unwrap_or(if self.full { 2.0 } else { 0.3 });
        // Below, the kernel's clocks are too coarse; above, a run is no longer bounded in practice.
        if !(0.1..=600.0).contains(&seconds) {
            return Err(option(format!("--seconds {seconds} cannot be"), "0.1 to 600"));
        }
        let cases = self.chosen()?;
        if self.update_budget && !cases.contains(&Case::Programs) {
            return Err(option("--update-budget needs the case \"programs\"".to_owned(), "name it as well"));
        }
        let contenders = Contender::ALL.into_iter();
        let left_out = |contender: &Contender| self.without.iter().any(|other| other.contender() == *contender);
        Ok(Request {
            cases,
            contenders: contenders.filter(|contender| !left_out(contender)).collect(),
            cni_dir: self.cni_dir.clone(),
            settings: Settings {
                rounds,
                seconds,
                warm_up_seconds: if self.full { 0.5 } else { 0.1 },
                cpus: if self.no_pin { None } else { two_cpus() },
                adds: 25,
            },
            command: self.command(),
        })
    }

    fn chosen(&self) -> Result<Vec<Case>, BenchError> {
        let all = Case::all();
        if self.cases.is_empty() {
            return Ok(all.into_iter().filter(|case| self.full || case.is_quick()).collect());
        }
        let missing = self.cases.iter().find(|name| !all.iter().any(|case| case.name().contains(name.as_str())));
        if let Some(name) = missing {
            return Err(BenchError::NoSuchCase { name: name.clone() });
        }
        let is_chosen = |case: &Case| {
            let own = case.name();
            // A whole name means that one, although "udp-64" is a part of "udp-64-v6" too.
            self.cases.iter().any(|name| own == *name || (own.contains(name.as_str()) && !is_name(&all, name)))
        };
        Ok(all.iter().copied().filter(is_chosen).collect())
    }

    /// The command that does the same again, without this machine's paths.
    fn command(&self) -> String {
        let start = if cfg!(debug_assertions) { "cargo run -p kinesin-bench --" } else { "./x bench" };
        let mut words = vec![start.to_owned()];
        words.extend(self.cases.iter().cloned());
        words.extend(self.full.then(|| "--full".to_owned()));
        words.extend(self.rounds.map(|rounds| format!("--rounds {rounds}")));
        words.extend(self.seconds.map(|seconds| format!("--seconds {seconds}")));
        words.extend(self.without.iter().map(|other| format!("--without {}", other.contender())));
        words.extend(self.no_pin.then(|| "--no-pin".to_owned()));
        words.extend(self.record.then(|| "--record".to_owned()));
        words.join(" ")
    }
}

fn is_name(all: &[Case], name: &str) -> bool {
    all.iter().any(|case| case.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(words: &[&str]) -> Result<Vec<String>, BenchError> {
        let args = Args::try_parse_from(std::iter::once("kinesin-bench").chain(words.iter().copied()));
        let request = args.expect("arguments").request()?;
        Ok(request.cases.into_iter().map(Case::name).collect())
    }

    #[test]
    fn a_part_of_a_name_picks_all_that_have_it_and_a_whole_one_itself() {
        assert_eq!(chosen(&["same-node/udp-64"]).expect("cases"), ["same-node/udp-64"]);
        assert_eq!(chosen(&["add"]).expect("cases"), ["add/1", "add/100"]);
        assert_eq!(chosen(&["tcp-rr"]).expect("cases").len(), 8);
    }

    #[test]
    fn full_has_ipv6_and_quick_has_not() {
        let (quick, full) = (chosen(&[]).expect("cases"), chosen(&["--full"]).expect("cases"));
        assert!(!quick.iter().any(|name| name.ends_with("-v6")));
        assert_eq!(full.len(), Case::all().len());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (words, told) in [
            (&["carrier-pigeon"][..], "carrier-pigeon"),
            (&["--rounds", "0"], "--rounds 0"),
            (&["--seconds", "0.01"], "--seconds 0.01"),
            (&["add", "--update-budget"], "--update-budget"),
        ] {
            let error = chosen(words).expect_err("refused").to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
