//! One virtual machine: started, listened to, and gone in any case.
//!
//! The emulator is asked for two serial lines, its stdout for the answers and its stderr for the console, and gets the
//! initial file system as its stdin. So a run leaves no file. It ends with the thread that started it (`setpriv
//! --pdeathsig`), so that nothing outlives this program, however that ends.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read, Seek as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::{
    KernelsError,
    error::End,
    message::{Answer, Message, Step},
};

/// Enough for the image, which is kept in memory, and for a lab of two nodes.
const MEMORY_MB: u32 = 1536;
/// Lines of the console that an error shows.
const CONSOLE_LINES: usize = 25;
/// Bytes of a line that an error shows.
const SHOWN: usize = 200;

/// What is booted, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Machine<'a> {
    /// The emulator, or a script that starts it.
    pub(crate) qemu: &'a Path,
    /// The kernel's release, for messages.
    pub(crate) release: &'a str,
    /// The kernel.
    pub(crate) vmlinuz: PathBuf,
    /// cpio archives that make the initial file system together.
    pub(crate) archives: Vec<PathBuf>,
    /// After this the machine is stopped.
    pub(crate) limit: Duration,
}

impl Machine<'_> {
    /// Boots it and returns the answers when it is done; `begun` hears of every step.
    ///
    /// # Errors
    /// `File`, `Machine`, `Answer`, and `Unfinished` for a kernel or a program that did not get to the end.
    pub(crate) fn boot(&self, begun: &mut dyn FnMut(&Step)) -> Result<Vec<Answer>, KernelsError> {
        let failed = |action| {
            let release = self.release.to_owned();
            move |source| KernelsError::Machine { action, release, source }
        };
        let initrd = self.initrd()?;
        // Tied to this thread, which waits below.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.qemu).args(self.arguments());
        command.stdin(Stdio::from(initrd)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running(command.spawn().map_err(failed("start"))?);
        let (Some(report), Some(console)) = (running.0.stdout.take(), running.0.stderr.take()) else {
            return Err(failed("hear")(io::Error::other("it has no output")));
        };
        let (lines, console) = (listen(report), last_lines(console));
        let until = Instant::now() + self.limit;
        let (mut answers, mut step) = (Vec::new(), "boot".to_owned());
        let end = loop {
            match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => match self.understand(&line)? {
                    Message::Begin { step: next } => {
                        step = next.text();
                        begun(&next);
                    }
                    Message::End(answer) => answers.push(answer),
                    Message::Done => return Ok(answers),
                },
                Err(RecvTimeoutError::Timeout) => break End::Stopped(self.limit),
                Err(RecvTimeoutError::Disconnected) => break End::Ended,
            }
        };
        drop(running);
        let console = console.join().unwrap_or_default();
        Err(KernelsError::Unfinished { release: self.release.to_owned(), end, step, console })
    }

    fn arguments(&self) -> Vec<String> {
        let memory = MEMORY_MB.to_string();
        let vmlinuz = self.vmlinuz.to_string_lossy();
        [
            // Emulated: what a machine offers of KVM may be too little for a kernel of another time.
            &["-accel", "tcg,thread=multi", "-cpu", "max", "-m", &memory, "-smp", "2"],
            &["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"][..],
            &["-serial", "file:/dev/stderr", "-serial", "file:/dev/stdout"],
            &["-kernel", &vmlinuz, "-initrd", "/dev/stdin"],
            // A panic ends the machine at once (`panic=-1`, `-no-reboot`).
            &["-append", "console=ttyS0 panic=-1 quiet random.trust_cpu=on"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    }

    /// The archives one after another, each padded to four bytes as the kernel wants it.
    fn initrd(&self) -> Result<File, KernelsError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| KernelsError::File { action, path, source }
        };
        let memory = memfd_create(c"initrd", MFdFlags::MFD_CLOEXEC);
        let mut initrd = File::from(memory.map_err(|error| failed("make", Path::new("initrd"))(error.into()))?);
        for archive in &self.archives {
            let mut bytes = fs::read(archive).map_err(failed("read", archive))?;
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            initrd.write_all(&bytes).map_err(failed("copy", archive))?;
        }
        initrd.rewind().map_err(failed("rewind", Path::new("initrd")))?;
        Ok(initrd)
    }

    fn understand(&self, line: &str) -> Result<Message, KernelsError> {
        serde_json::from_str(line).map_err(|source| KernelsError::Answer {
            release: self.release.to_owned(),
            text: line.chars().take(SHOWN).collect(),
            source,
        })
    }
}

/// Ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It fails only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listen(report: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(report).lines().map_while(Result::ok) {
            // A terminal ends lines in its own way.
            if !line.trim().is_empty() && sender.send(line.trim().to_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads to the end, so that the console never waits, and keeps the last lines.
fn last_lines(console: ChildStderr) -> JoinHandle<String> {
    thread::spawn(move || tail(console, CONSOLE_LINES))
}

fn tail(source: impl Read, count: usize) -> String {
    let mut kept = VecDeque::new();
    for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            continue;
        }
        if kept.len() == count {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    Vec::from(kept).join("\n")
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, process::id};

    use super::*;

    /// A machine whose emulator is this shell script.
    fn boot(name: &str, script: &str, limit: Duration) -> (Result<Vec<Answer>, KernelsError>, Vec<String>) {
        let dir = std::env::temp_dir().join(format!("kinesin-kernels-{}-{name}", id()));
        fs::create_dir_all(&dir).expect("a directory");
        let (qemu, archive) = (dir.join("qemu"), dir.join("archive"));
        fs::write(&qemu, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).expect("executable");
        fs::write(&archive, "abcde").expect("an archive");
        let machine = Machine {
            qemu: &qemu,
            release: "6.1-test",
            vmlinuz: dir.join("vmlinuz"),
            archives: vec![archive.clone(), archive],
            limit,
        };
        let mut steps = Vec::new();
        let done = machine.boot(&mut |step| steps.push(step.text()));
        fs::remove_dir_all(&dir).expect("the directory goes");
        (done, steps)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn answers_come_from_stdout_and_archives_go_to_stdin_padded() {
        let begin = r#"{"message":"begin","step":"release"}"#;
        let end = r#"{"message":"end","step":"release","code":0,"stdout":"'"$(od -An -c | tr -d ' \n\\')"'","stderr":"","seconds":1.5}"#;
        let script =
            format!("echo '{begin}'; echo 'a console' >&2; echo '{end}'; echo '{{\"message\":\"done\"}}'; sleep 100");
        let (done, steps) = boot("answers", &script, LONG);
        let answers = done.expect("it is done");
        assert_eq!(steps, ["booted"]);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].stdout, "abcde000abcde000");
    }

    #[test]
    fn machine_that_ends_early_is_told_with_its_console() {
        let script = "echo 'Kernel panic - not syncing' >&2";
        let (done, _) = boot("early", script, LONG);
        let text = done.expect_err("it did not get to the end").to_string();
        assert!(text.contains("6.1-test ended while it was at \"boot\""), "{text}");
        assert!(text.ends_with("Kernel panic - not syncing"), "{text}");
    }

    #[test]
    fn machine_that_hangs_is_stopped_and_gone() {
        let begin = r#"{"message":"begin","step":{"check":"host_scope"}}"#;
        let script = format!("echo '{begin}'; echo \"pid $$\" >&2; exec sleep 1000");
        let (done, _) = boot("hangs", &script, Duration::from_millis(500));
        let text = done.expect_err("it did not get to the end").to_string();
        assert!(text.contains("was stopped after 0 s while it was at \"host_scope: probes\""), "{text}");
        let pid = text.rsplit_once("pid ").expect("its number").1;
        assert!(!Path::new("/proc").join(pid).exists(), "process {pid} is still there");
    }

    #[test]
    fn line_of_another_program_is_refused_with_its_text() {
        let (done, _) = boot("line", "echo SeaBIOS; sleep 100", LONG);
        let text = done.expect_err("no message").to_string();
        assert!(text.contains("answered what cannot be read: \"SeaBIOS\""), "{text}");
    }
}
