//! Kernels one after another, and the page about them.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use kinesin_core::causes::with_causes;

use crate::{
    KernelsError,
    args::RunArgs,
    findings::Findings,
    machine::Machine,
    page::{self, Facts},
};

/// Where the page is in the repository.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kernels.md");

/// Boots the kernels, prints the page, and records it if asked to. A kernel with a fault makes the exit code 1.
///
/// # Errors
/// `File` for what is missing before anything is booted, and for a page that cannot be written.
pub fn main(args: &RunArgs) -> Result<ExitCode, KernelsError> {
    let packages = args.releases.iter().map(|release| read(&args.kernels.join(release).join("package")));
    let packages = packages.collect::<Result<Vec<_>, _>>()?;
    let mut all = Vec::new();
    for (release, package) in args.releases.iter().zip(packages) {
        let found = one(args, release, package.trim());
        let verdict = match (&found.refusal, found.faults.len()) {
            (None, 0) => "everything runs".to_owned(),
            (Some(refusal), 0) => format!("refused, as it should be: {refusal}"),
            (_, count) => format!("{count} faults"),
        };
        say(&format!("{release}: {verdict}, {:.0} s", found.seconds));
        for fault in &found.faults {
            say(&format!("  {}", fault.replace('\n', "\n  ")));
        }
        all.push(found);
    }
    let page = page::render(&Facts::gather(&args.qemu), &all);
    print(&page)?;
    if args.record {
        let path = PathBuf::from(PAGE);
        fs::write(&path, page).map_err(|source| KernelsError::File { action: "write", path, source })?;
        say("docs/kernels.md is written anew");
    }
    Ok(if all.iter().all(|found| found.faults.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A machine that does not get to its end is a fault of its kernel, and no reason to leave the others out.
fn one(args: &RunArgs, release: &str, package: &str) -> Findings {
    let directory = args.kernels.join(release);
    let machine = Machine {
        qemu: &args.qemu,
        release,
        vmlinuz: directory.join("vmlinuz"),
        archives: vec![args.image.clone(), directory.join("modules.cpio")],
        limit: Duration::from_secs(args.limit),
    };
    let begun = Instant::now();
    let progress = Progress { release, begun, is_terminal: io::stderr().is_terminal() };
    let booted = machine.boot(&mut |step| progress.tell(&step.text()));
    progress.end();
    let seconds = begun.elapsed().as_secs_f64();
    match booted {
        Ok(answers) => Findings::of(package, &answers, seconds),
        Err(error) => Findings {
            release: release.to_owned(),
            package: package.to_owned(),
            faults: vec![with_causes(&error)],
            seconds,
            ..Findings::default()
        },
    }
}

/// What is under way: on a terminal over the last line, elsewhere a line each.
struct Progress<'a> {
    release: &'a str,
    begun: Instant,
    is_terminal: bool,
}

impl Progress<'_> {
    fn tell(&self, text: &str) {
        let (start, end) = if self.is_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let seconds = self.begun.elapsed().as_secs_f64();
        let _ = write!(io::stderr(), "{start}kernels: {} {seconds:>6.1} s  {text}{end}", self.release);
    }

    fn end(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Facts {
    fn gather(qemu: &Path) -> Self {
        let first_line = |command: &mut Command| {
            let output = command.output().ok().filter(|output| output.status.success());
            let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            text.lines().next().unwrap_or("unknown").to_owned()
        };
        let commit = ["log", "-1", "--format=%h"];
        Self {
            date: first_line(Command::new("date").args(["-u", "+%Y-%m-%d"])),
            commit: first_line(Command::new("git").args(commit).current_dir(env!("CARGO_MANIFEST_DIR"))),
            emulator: first_line(Command::new(qemu).arg("--version")),
        }
    }
}

fn read(path: &Path) -> Result<String, KernelsError> {
    fs::read_to_string(path).map_err(|source| KernelsError::File { action: "read", path: path.to_owned(), source })
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "kernels: {text}");
}

/// The one writer to stdout. A reader that has heard enough is no error.
///
/// # Errors
/// `Stdout` when it cannot be written.
pub fn print(text: &str) -> Result<(), KernelsError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(KernelsError::Stdout),
    }
}
