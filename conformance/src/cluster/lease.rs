//! Labs that processes share: whoever comes first brings one up, whoever needs it alone waits, and a keeper takes it
//! down when nobody has come for a while.
//!
//! nextest runs every test in a process of its own, and a lab takes seconds to come up; so a lab outlives the test that
//! brought it up. Who uses it holds a lock on a file: shared, or exclusive for cases that disturb others. The kernel
//! frees the lock with the process, so nothing is left locked by a test that was killed.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use kinesin_core::causes::with_causes;
use kinesin_lab::Lab;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{case::Scale, keeper, lab, plan::Column};
use crate::target::LabTarget;

/// A run of the suite: where its labs are, and whose they are.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Directory of its labs and locks.
    pub(crate) dir: PathBuf,
    /// Keeps it apart from other runs.
    pub(crate) id: String,
    /// The process whose end is the end of the labs.
    pub(crate) owner: u32,
    /// Where the programs are that nodes run.
    pub(crate) bin_dir: PathBuf,
}

/// Where the directories of sessions are.
const BASE: &str = "/run/kinesin-conformance";

impl Session {
    /// The session `id`, which `owner` ends.
    #[must_use]
    pub(crate) fn new(id: &str, owner: u32, bin_dir: &Path) -> Self {
        // The path of a lab's sockets has its limits, so the name is a short one.
        let short = format!("{:08x}", super::random::hash(id) >> 32);
        Self { dir: Path::new(BASE).join(&short), id: id.to_owned(), owner, bin_dir: bin_dir.to_owned() }
    }
}

/// A lab, and the right to use it.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The lab.
    pub(crate) target: LabTarget,
    plan: lab::Plan,
    dirty: PathBuf,
    lock: Flock<File>,
}

impl Lease {
    /// Waits for the lab of a column, and brings it up if it is not there. `alone` keeps everybody else away.
    ///
    /// # Errors
    /// Why it does not come up, with the last lines of its logs.
    pub(crate) fn take(session: &Session, column: &Column, scale: Scale, alone: bool) -> Result<Self, String> {
        let plan = lab::plan(&column.combination, column.own, scale, &session.dir, &session.id, &session.bin_dir);
        let path = session.dir.join(format!("{}.lock", plan.spec.name));
        let dirty = session.dir.join(format!("{}.dirty", plan.spec.name));
        let failed = |error: io::Error| format!("cannot lock {}: {error}", path.display());
        let wanted = if alone { FlockArg::LockExclusive } else { FlockArg::LockShared };
        loop {
            let Some(mut lock) = lock(&path, wanted).map_err(failed)? else { continue };
            // The keeper counts from here.
            lock.set_modified(SystemTime::now()).map_err(failed)?;
            if !is_up(&plan, &dirty) {
                relock(&mut lock, FlockArg::LockExclusive).map_err(failed)?;
                if is_same(&lock, &path) && !is_up(&plan, &dirty) {
                    bring_up(session, &plan, &dirty)?;
                }
                relock(&mut lock, wanted).map_err(failed)?;
                // In between, somebody may have had it alone.
                if !is_same(&lock, &path) || !is_up(&plan, &dirty) {
                    continue;
                }
            }
            let target = LabTarget::open(plan.spec.clone(), &plan.also).map_err(|error| with_causes(&error))?;
            return Ok(Self { target, plan, dirty, lock });
        }
    }

    /// Has the lab taken down before anybody else uses it: what was seen on it is not to be trusted.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub(crate) fn spoil(&self) -> io::Result<()> {
        fs::write(&self.dirty, "a case has failed here\n")
    }

    /// The last lines of the lab's logs.
    #[must_use]
    pub(crate) fn logs(&self) -> String {
        lab::logs(&self.plan.spec)
    }

    /// Takes the lab down now; for who has it alone.
    ///
    /// # Errors
    /// With what is left.
    pub(crate) fn down(self) -> Result<(), String> {
        let Self { target, plan, dirty, lock } = self;
        drop(target);
        lab::down(&plan.spec)?;
        // The lock goes last: whoever waits for it finds another file in its place, or none.
        let _ = fs::remove_file(dirty);
        drop(lock);
        Ok(())
    }
}

fn is_up(plan: &lab::Plan, dirty: &Path) -> bool {
    !dirty.exists() && Lab::open(&plan.spec.base, &plan.spec.name).is_ok_and(|lab| lab.is_whole())
}

fn bring_up(session: &Session, plan: &lab::Plan, dirty: &Path) -> Result<(), String> {
    lab::down(&plan.spec)?;
    let _ = fs::remove_file(dirty);
    // First: it also ends a lab that comes up half.
    keeper::start(session, &plan.spec).map_err(|error| format!("cannot start the keeper of the lab: {error}"))?;
    LabTarget::up(plan.spec.clone(), &plan.also).map(drop).map_err(|error| {
        let told = format!("the lab does not come up: {}\n{}", with_causes(&error), lab::logs(&plan.spec));
        // The logs are told; what cannot be removed now is removed by the keeper.
        let _ = lab::down(&plan.spec);
        told
    })
}

/// The lock, or `None` when the file was removed meanwhile.
pub(super) fn lock(path: &Path, how: FlockArg) -> io::Result<Option<Flock<File>>> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file = match File::options().create(true).truncate(false).write(true).open(path) {
        // The keeper of the last lab has just removed the directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(is_same(&lock, path).then_some(lock)),
            Err((back, Errno::EINTR)) => file = back,
            Err((_, error)) => return Err(error.into()),
        }
    }
}

fn relock(lock: &mut Flock<File>, how: FlockArg) -> io::Result<()> {
    loop {
        match lock.relock(how) {
            Err(Errno::EINTR) => {}
            done => return done.map_err(Into::into),
        }
    }
}

/// Whether the locked file is the one that others find.
fn is_same(lock: &Flock<File>, path: &Path) -> bool {
    matches!((lock.metadata(), fs::metadata(path)), (Ok(own), Ok(there)) if own.ino() == there.ino())
}
