//! Kills a process between two of its system calls.
//!
//! What a process has done to the kernel changes with its system calls only, so whoever kills it before each of them in
//! turn has met every state in which it can die.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc::PTRACE_SYSCALL_INFO_ENTRY,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

/// Follows one process, every thread of it, until it ends.
///
/// Nobody else may wait for the process meanwhile: the kernel would tell them of its stops.
pub(crate) struct Tracer {
    process: Pid,
    calls: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Tracer {
    /// Follows `pid` from its next system call on and kills it as it begins number `fatal`, counted from 1.
    pub(crate) fn follow(pid: u32, fatal: usize) -> Self {
        let process = Pid::from_raw(i32::try_from(pid).expect("a pid"));
        let calls = Arc::new(AtomicUsize::new(0));
        let (counted, (ready, waits)) = (Arc::clone(&calls), mpsc::channel());
        // All requests must come from the thread that follows.
        let thread = thread::spawn(move || follow(process, fatal, &counted, &ready));
        // Without an answer it has ended already.
        let _ = waits.recv();
        Self { process, calls, thread }
    }

    /// Waits for the end of the process, at most this long, and kills it then; the answer is its number of calls.
    ///
    /// After that its parent can wait for it as usual.
    pub(crate) fn finish(self, limit: Duration) -> usize {
        let end = Instant::now() + limit;
        while !self.thread.is_finished() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        let calls = self.calls.load(Ordering::SeqCst);
        if !self.thread.is_finished() {
            let _ = kill(self.process, Signal::SIGKILL);
        }
        self.thread.join().expect("traced");
        calls
    }
}

fn follow(process: Pid, fatal: usize, calls: &AtomicUsize, ready: &mpsc::Sender<()>) {
    let mut starting = threads(process);
    for thread in &starting {
        ptrace::seize(*thread, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE).expect("root may trace");
        ptrace::interrupt(*thread).expect("traced");
    }
    while let Some(event) = next_event(process) {
        let (thread, signal) = match event {
            WaitStatus::PtraceSyscall(thread) => {
                let begins = ptrace::syscall_info(thread).is_ok_and(|info| info.op == PTRACE_SYSCALL_INFO_ENTRY);
                if begins && calls.fetch_add(1, Ordering::SeqCst) + 1 == fatal {
                    // It stands still before the call, so the call is not made.
                    let _ = kill(process, Signal::SIGKILL);
                    continue;
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        // A thread that was killed meanwhile is reported as ended next.
        let _ = ptrace::syscall(thread, signal);
        if !starting.is_empty() {
            starting.retain(|waiting| *waiting != thread);
            if starting.is_empty() {
                let _ = ready.send(());
            }
        }
    }
}

/// What happened to a thread of `process`; nothing any more once the process has ended.
///
/// Its end is left for its parent, another thread of this test, to wait for.
fn next_event(process: Pid) -> Option<WaitStatus> {
    // Only what this thread follows: other threads of the test wait for children of their own.
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        let look = flags | WaitPidFlag::WNOWAIT | WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED;
        let seen = match waitid(Id::All, look) {
            Err(Errno::EINTR) => continue,
            Err(Errno::ECHILD) => return None,
            other => other.expect("waitid"),
        };
        let thread = seen.pid().expect("a thread");
        let ended = matches!(seen, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
        if ended && thread == process {
            return None;
        }
        // It may be killed between the two looks, hence no wait, and none for an end that was not seen.
        let what = if ended { WaitPidFlag::WEXITED } else { WaitPidFlag::WSTOPPED };
        match waitid(Id::Pid(thread), flags | what | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD | Errno::EINTR) => {}
            other => return Some(other.expect("waitid")),
        }
    }
}

fn threads(process: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let number = |entry: fs::DirEntry| entry.file_name().to_string_lossy().parse().expect("a number");
    tasks.map(|entry| Pid::from_raw(number(entry.expect("entry")))).collect()
}
