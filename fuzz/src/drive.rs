//! Runs targets under the fuzzer, and takes over what it found.
//!
//! Each run has a directory of its own below the one in `KINESIN_FUZZ_OUT`: new inputs in `found/`, the input of a
//! failure as `crash-HASH`, the fuzzer's own words in `log`. The repository changes only by `keep`.

use std::{
    env,
    error::Error,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{self, Command, ExitCode, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{Target, replay, root, words};

/// Set by `./x fuzz`.
const OUT: &str = "KINESIN_FUZZ_OUT";
/// An input that takes longer than this hangs, even on a loaded machine.
const TIMEOUT_SECONDS: u32 = 20;
/// More memory than this for one input is a failure. Megabytes.
const MEMORY_MB: u32 = 2048;
/// How long the fuzzer may look for the failure that is planted for it; it takes a fraction of a second.
const PLANTED_SECONDS: u64 = 60;
/// A corpus takes this many inputs from the engine; more would be files that nobody misses.
const MAX_KEPT: usize = 40;
/// End of a failed run's log that is shown, in lines.
const SHOWN_LINES: usize = 40;

/// Fails for one input in four thousand million, which only a fuzzer that sees the comparisons finds in time: if it does
/// not, the silence of the others means nothing.
pub(crate) const PLANTED: Target = Target {
    name: "planted",
    corpus: "",
    max_bytes: 16,
    run: |input| assert!(input.first_chunk() != Some(b"kin!"), "the planted failure"),
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// `fuzz NAME|all SECONDS`: that many seconds for each target.
pub(crate) fn fuzz(targets: &[Target], arguments: &[OsString]) -> ExitCode {
    let chosen = match arguments {
        [name, seconds] => chosen(targets, name).and_then(|chosen| {
            let seconds = seconds.to_str().and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
            Ok((chosen, seconds.ok_or("SECONDS must be a whole number above 0")?))
        }),
        _ => Err("give a target, or all, and the seconds for each".into()),
    };
    ended(chosen.and_then(|(chosen, seconds)| {
        planted_is_found()?;
        let failed = run_all(&chosen, seconds)?;
        if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
    }))
}

/// `keep NAME|all`: the inputs, old and found, that together reach most become the corpus.
pub(crate) fn keep(targets: &[Target], arguments: &[OsString]) -> ExitCode {
    let chosen = match arguments {
        [name] => chosen(targets, name),
        _ => Err("give a target, or all".into()),
    };
    ended(chosen.and_then(|chosen| chosen.into_iter().try_for_each(merge)))
}

fn ended(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

fn chosen<'a>(targets: &'a [Target], name: &OsStr) -> Outcome<Vec<&'a Target>> {
    let chosen: Vec<_> = targets.iter().filter(|target| name == "all" || name == target.name).collect();
    if chosen.is_empty() {
        let known: Vec<_> = targets.iter().map(|target| target.name).collect();
        return Err(format!("there is no target {}; there are {} and all", name.display(), known.join(", ")).into());
    }
    Ok(chosen)
}

fn out_of(target: &Target) -> Outcome<PathBuf> {
    let out = env::var_os(OUT).ok_or_else(|| format!("{OUT} is not set; start this with ./x fuzz"))?;
    let out = Path::new(&out).join(target.name);
    fs::create_dir_all(out.join("found")).map_err(|error| format!("cannot make {}: {error}", out.display()))?;
    Ok(out)
}

/// Where a target may write, gone with its process: in memory where there is such a place, since a target that waits for a
/// disk runs a tenth of the inputs.
struct Scratch(PathBuf);

impl Scratch {
    fn new(target: &Target) -> Outcome<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
        let path = parent.join(format!("kinesin-fuzz-{}-{}", target.name, process::id()));
        fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about it here, and nothing depends on it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The engine in a process of its own, its words in the log.
fn engine(target: &Target, out: &Path, arguments: &[&OsStr]) -> Outcome<bool> {
    let log = fs::File::create(out.join("log"))?;
    let scratch = Scratch::new(target)?;
    let status = Command::new(env::current_exe()?)
        .args(["engine", target.name, "-print_final_stats=1", "-verbosity=1"])
        .arg(format!("-timeout={TIMEOUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB}"))
        .arg(format!("-max_len={}", target.max_bytes))
        .args(arguments)
        .env("TMPDIR", &scratch.0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()?;
    Ok(status.success())
}

/// Runs the targets, as many at a time as there are processors; the answer is those that failed.
fn run_all(targets: &[&Target], seconds: u64) -> Outcome<Vec<&'static str>> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(targets.len());
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Outcome {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !run(target, seconds)? {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(target.name);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        // The error is text by then: others cannot leave their thread.
        let all: Vec<_> = (0..workers).map(|_| scope.spawn(|| work().map_err(|error| error.to_string()))).collect();
        all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err("a worker panicked".to_owned())))
    })?;
    Ok(failed.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Whether nothing was found; if something was, it has been said.
fn run(target: &Target, seconds: u64) -> Outcome<bool> {
    let out = out_of(target)?;
    let corpus = target.corpus_dir();
    let inputs: Vec<Vec<u8>> = replay::inputs(&corpus)?.iter().map(fs::read).collect::<Result<_, _>>()?;
    let words = out.join("words");
    let dictionary = words::dictionary(inputs.iter().map(Vec::as_slice));
    fs::write(&words, &dictionary)?;
    let (limit, use_words) = (format!("-max_total_time={seconds}"), joined("-dict=", &words));
    let prefix = joined("-artifact_prefix=", &out.join(""));
    let found = out.join("found");
    let mut arguments = vec![OsStr::new(&limit), &prefix, found.as_os_str(), corpus.as_os_str()];
    if !dictionary.is_empty() {
        // The engine refuses an empty one; inputs that are no text have no words.
        arguments.push(&use_words);
    }
    let passed = engine(target, &out, &arguments)?;
    let log = fs::read(out.join("log"))?;
    let log = String::from_utf8_lossy(&log);
    if passed {
        eprintln!("fuzz: {:<16} {}", target.name, summary(&log));
        return Ok(true);
    }
    let lines: Vec<_> = log.lines().collect();
    for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
        eprintln!("{line}");
    }
    eprintln!(
        "fuzz: {} FAILED. The input is in {}. Put it into {} under a name that says what it is: `cargo nextest run \
         -p kinesin-fuzz` then fails until the cause is gone.",
        target.name,
        out.display(),
        target.corpus,
    );
    Ok(false)
}

fn planted_is_found() -> Outcome {
    let out = out_of(&PLANTED)?;
    let limit = format!("-max_total_time={PLANTED_SECONDS}");
    let prefix = joined("-artifact_prefix=", &out.join(""));
    let passed = engine(&PLANTED, &out, &[OsStr::new(&limit), &prefix])?;
    let log = fs::read(out.join("log"))?;
    if passed || !String::from_utf8_lossy(&log).contains("the planted failure") {
        let log = out.join("log");
        return Err(format!("the fuzzer is blind: it did not find a planted failure; see {}", log.display()).into());
    }
    Ok(())
}

fn merge(target: &Target) -> Outcome {
    let out = out_of(target)?;
    let (corpus, kept) = (target.corpus_dir(), out.join("kept"));
    // Of an interrupted run.
    let _ = fs::remove_dir_all(&kept);
    fs::create_dir(&kept)?;
    let found = out.join("found");
    // Without counters: what is worth a file is a way that no other input goes, not how often it goes it.
    // The corpus first: of two inputs that reach the same, the one that is there already stays.
    let merged = engine(
        target,
        &out,
        &[
            OsStr::new("-set_cover_merge=1"),
            OsStr::new("-use_counters=0"),
            kept.as_os_str(),
            corpus.as_os_str(),
            found.as_os_str(),
        ],
    )?;
    if !merged {
        return Err(format!("{}: an input fails; see {}", target.name, out.join("log").display()).into());
    }
    let mut kept_inputs = replay::inputs(&kept)?;
    // The engine writes them in the order in which it chose them: each adds less than the one before.
    kept_inputs.sort_by_cached_key(|path| fs::metadata(path).and_then(|found| found.modified()).ok());
    kept_inputs.truncate(MAX_KEPT);
    if kept_inputs.is_empty() {
        return Err(format!("{}: nothing was kept; see {}", target.name, out.join("log").display()).into());
    }
    let contents: Vec<Vec<u8>> = kept_inputs.iter().map(fs::read).collect::<Result<_, _>>()?;
    let (mut added, mut removed) = (0, 0);
    let mut there = Vec::new();
    for path in replay::inputs(&corpus)? {
        let input = fs::read(&path)?;
        // What has a name in words was put there by a person, as the memory of a bug or to start from.
        if contents.contains(&input) || !named_by_engine(&path) {
            there.push(input);
        } else {
            fs::remove_file(&path)?;
            removed += 1;
        }
    }
    for (path, input) in kept_inputs.iter().zip(&contents) {
        if let (false, Some(name)) = (there.contains(input), path.file_name()) {
            fs::copy(path, corpus.join(name))?;
            added += 1;
        }
    }
    fs::remove_dir_all(&kept)?;
    let shown = corpus.strip_prefix(root()).unwrap_or(&corpus);
    eprintln!("fuzz: {}: {added} inputs added, {removed} removed", shown.display());
    Ok(())
}

/// The engine names inputs by their SHA-1.
fn named_by_engine(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
    name.len() == 40 && name.iter().all(u8::is_ascii_hexdigit)
}

fn joined(start: &str, path: &Path) -> OsString {
    let mut text = OsString::from(start);
    text.push(path);
    text
}

/// `12345 inputs, 678 edges` out of the engine's last words.
fn summary(log: &str) -> String {
    let last = log.lines().rev().find(|line| line.contains(" cov: ")).unwrap_or_default();
    let word_after = |text: &str, mark: &str| {
        let rest = text.split(mark).nth(1)?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    let runs = word_after(log, "stat::number_of_executed_units:").unwrap_or_else(|| "?".to_owned());
    let edges = word_after(last, " cov: ").unwrap_or_else(|| "?".to_owned());
    let corpus = word_after(last, " corp: ").unwrap_or_else(|| "?".to_owned());
    format!("{runs} runs, {edges} edges reached, corpus {corpus}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_from_the_last_report() {
        let log = "#2\tINITED cov: 3 ft: 4 corp: 1/1b exec/s: 0 rss: 27Mb\n#99\tDONE   cov: 678 ft: 900 corp: 45/2Kb \
                   lim: 4096\nstat::number_of_executed_units: 12345\n";
        assert_eq!(summary(log), "12345 runs, 678 edges reached, corpus 45/2Kb");
        assert_eq!(summary(""), "? runs, ? edges reached, corpus ?");
    }

    #[test]
    fn only_names_that_are_hashes_are_the_engines() {
        assert!(named_by_engine(Path::new("a/0123456789abcdef0123456789abcdef01234567")));
        assert!(!named_by_engine(Path::new("a/mac-with-a-sign")));
    }

    #[test]
    fn unknown_target_is_answered_with_those_there_are() {
        let targets = [PLANTED];
        let error = chosen(&targets, OsStr::new("x")).expect_err("unknown").to_string();
        assert!(error.contains('x') && error.contains("planted"), "{error}");
        assert_eq!(chosen(&targets, OsStr::new("all")).expect("all").len(), 1);
    }
}
