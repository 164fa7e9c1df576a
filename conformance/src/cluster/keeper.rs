//! The process that takes a shared lab down when nobody has come for a while, or when its session has ended.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use kinesin_lab::{Lab, Process, Spec};
use nix::fcntl::{Flock, FlockArg};

use super::lease::{self, Session};

/// A test of the same combination follows the last one within this, when there is one more.
const IDLE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(200);
/// What still runs when its session has ended may finish within this.
const GRACE: Duration = Duration::from_secs(20);

/// Starts one; a second one for the same lab ends by itself.
pub(super) fn start(session: &Session, spec: &Spec) -> io::Result<()> {
    let mut child = Command::new(env::current_exe()?)
        .args([crate::HIDDEN.as_ref(), "keep".as_ref(), spec.base.as_os_str()])
        .args([&spec.name, &session.owner.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        // Whoever ends the test's own group must not end the one that cleans up after it.
        .process_group(0)
        .spawn()?;
    // It outlives this process; if it does not, it must be collected.
    thread::spawn(move || child.wait());
    Ok(())
}

/// The whole of `__conformance keep BASE NAME OWNER`.
pub(super) fn keep(base: &Path, name: &str, owner: Option<Process>) -> io::Result<()> {
    let own = base.join(format!("{name}.keeper"));
    let Ok(_only) = only(&own) else { return Ok(()) };
    let path = base.join(format!("{name}.lock"));
    let (mut busy, mut ended) = (Instant::now(), None);
    loop {
        let owner_is_gone = !owner.is_some_and(|owner| owner.is_alive());
        let gone_for = if owner_is_gone { ended.get_or_insert_with(Instant::now).elapsed() } else { Duration::ZERO };
        match lease::lock(&path, FlockArg::LockExclusiveNonblock) {
            Ok(Some(lock)) => {
                // It may have been taken and freed since the last look.
                let since = lock.metadata().and_then(|found| found.modified()).ok();
                let unused = since.and_then(|since| since.elapsed().ok()).unwrap_or(IDLE);
                if owner_is_gone || (busy.elapsed() > IDLE && unused > IDLE) {
                    return finish(base, name, &path, &own);
                }
            }
            Ok(None) => {}
            Err(_) => busy = Instant::now(),
        }
        if gone_for > GRACE {
            return finish(base, name, &path, &own);
        }
        thread::sleep(LOOK);
    }
}

fn only(path: &PathBuf) -> io::Result<Flock<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
}

fn finish(base: &Path, name: &str, lock: &Path, own: &Path) -> io::Result<()> {
    let down = Lab::down(base, name).map_err(io::Error::other);
    for file in [lock, own, &base.join(format!("{name}.dirty"))] {
        let _ = fs::remove_file(file);
    }
    // Only the last lab's keeper finds them empty.
    let _ = fs::remove_dir(base);
    let _ = base.parent().map(fs::remove_dir);
    down.map(drop)
}
