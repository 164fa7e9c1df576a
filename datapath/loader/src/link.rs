//! Attaches programs to devices so that they outlive the agent, and replaces them in place.
//!
//! With tcx (kernel 6.6) an attachment is a link, pinned, and updated atomically by the next agent. Without it, it is a
//! filter on a clsact qdisc, replaced by its handle. Both keep packets flowing during a replacement.

use std::{
    fs, io, mem,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{self, NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcError, TcHandle},
};
use nix::errno::Errno;

use crate::{LoaderError, pins};

/// Priority of our filters (reference 6.2).
pub const PRIORITY: u16 = 1;
/// Handle of our filters, the same in each place.
pub const HANDLE: u32 = 1;

/// How often and how long to wait for a link to be freed.
const FREEING_ATTEMPTS: u32 = 40;
const FREEING_PAUSE: Duration = Duration::from_millis(25);

/// How programs are attached to tc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcMode {
    /// By links. Kernel: 6.6.
    Tcx,
    /// By filters on a clsact qdisc.
    Clsact,
}

/// What attaching a program changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// Nothing of ours was there.
    Anew,
    /// Something was there. Of a filter this does not tell whether it ran the same program.
    Replaced,
    /// The same program was there.
    Already,
}

/// Which packets of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Received by the device.
    Ingress,
    /// Sent by the device.
    Egress,
}

/// A place to attach to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// Name of the device.
    pub device: String,
    /// Its index, which tells a new device of the same name from an old one.
    pub ifindex: u32,
    /// Which packets.
    pub direction: Direction,
}

impl Direction {
    fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl Attachment {
    /// Name of the link's pin. Dots are not allowed on bpffs, and device names may have them.
    #[must_use]
    pub fn pin_name(&self) -> String {
        format!("{}-{}-{}", self.device.replace('.', "_"), self.ifindex, self.direction.name())
    }

    /// The device index in a pin's name, if it is one of ours.
    #[must_use]
    pub fn ifindex_of_pin(name: &str) -> Option<u32> {
        let (rest, direction) = name.rsplit_once('-')?;
        if direction != "ingress" && direction != "egress" {
            return None;
        }
        rest.rsplit_once('-')?.1.parse().ok()
    }

    fn failed(&self, source: ProgramError) -> LoaderError {
        LoaderError::Program { action: format!("attach to {} of {:?}", self.direction.name(), self.device), source }
    }
}

/// Attaches `program`, or puts it in the place of what an earlier generation attached there. Links are pinned in `links`.
///
/// # Errors
/// `Program` when the device is gone or the kernel refuses; `Pin` when the link cannot be pinned.
pub fn attach(
    program: &mut SchedClassifier,
    place: &Attachment,
    mode: TcMode,
    links: &Path,
) -> Result<Attached, LoaderError> {
    match mode {
        TcMode::Tcx => attach_tcx(program, place, links),
        TcMode::Clsact => attach_clsact(program, place),
    }
}

/// Takes the link off; a device or link that is gone already is fine.
///
/// # Errors
/// `Pin` when the link's pin cannot be removed.
pub fn detach_link(place: &Attachment, links: &Path) -> Result<(), LoaderError> {
    pins::remove_pin(&links.join(place.pin_name()))
}

/// Takes the filters of programs of this name off; the answer tells whether there were some. The qdisc stays, since
/// others may have filters on it.
///
/// # Errors
/// `Program` when a filter cannot be removed.
pub fn detach_filters(place: &Attachment, program: &str) -> Result<bool, LoaderError> {
    match tc::qdisc_detach_program(&place.device, place.direction.attach_type(), program) {
        Ok(()) => Ok(true),
        // No such filter, no clsact qdisc at all, or no such device, which has taken its filters along.
        Err(error) => match errno(&error) {
            None if matches!(&error, TcError::IoError(error) if error.kind() == io::ErrorKind::NotFound) => Ok(false),
            Some(Errno::ENOENT | Errno::EINVAL | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(false),
            _ => Err(place.failed(error.into())),
        },
    }
}

fn attach_tcx(program: &mut SchedClassifier, place: &Attachment, links: &Path) -> Result<Attached, LoaderError> {
    let pin = links.join(place.pin_name());
    if !pin.exists()
        && let Some(former) = former_pin(place, links)
    {
        let renamed = |source| LoaderError::Pin { action: "rename link", path: former.clone(), source };
        fs::rename(&former, &pin).map_err(renamed)?;
    }
    if pin.exists() {
        match replace_pinned(program, &pin) {
            Ok(attached) => return Ok(attached),
            Err(error) => {
                // The device went away and took the link with it; the pin holds an empty shell.
                tracing::debug!(pin = %pin.display(), %error, "pinned link is dead, attaching anew");
                pins::remove_pin(&pin)?;
            }
        }
    }
    let id = attach_new(program, place).map_err(|source| place.failed(source))?;
    let link = program.take_link(id).map_err(|source| place.failed(source))?;
    let unpinned = |error: &dyn std::error::Error| LoaderError::Pin {
        action: "pin link",
        path: pin.clone(),
        source: io::Error::other(error.to_string()),
    };
    let link: FdLink = link.try_into().map_err(|error: LinkError| unpinned(&error))?;
    // The pin keeps the link alive; the descriptor is closed with the value.
    link.pin(&pin).map_err(|error| unpinned(&error))?;
    Ok(Attached::Anew)
}

/// The pin of the same place from when its device had another name: a link stays with a device that is renamed.
fn former_pin(place: &Attachment, links: &Path) -> Option<PathBuf> {
    let same_place = format!("-{}-{}", place.ifindex, place.direction.name());
    let pins = fs::read_dir(links).ok()?.flatten();
    pins.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with(&same_place))
}

/// A link that has lost its pin is freed a moment later (`bpf_link_put`, 6.18); until then its program is attached
/// already.
fn attach_new(program: &mut SchedClassifier, place: &Attachment) -> Result<SchedClassifierLinkId, ProgramError> {
    let mut attempts = 0;
    loop {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        match program.attach_with_options(&place.device, place.direction.attach_type(), options) {
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::AlreadyExists && attempts < FREEING_ATTEMPTS =>
            {
                attempts += 1;
                thread::sleep(FREEING_PAUSE);
            }
            other => return other,
        }
    }
}

fn replace_pinned(program: &mut SchedClassifier, pin: &Path) -> Result<Attached, Box<dyn std::error::Error>> {
    let link = FdLink::from(PinnedLink::from_pin(pin)?);
    let same = link.info()?.program_id() == program.info()?.id();
    // Also when it is the same: only the update tells a link whose device is gone.
    let id = program.attach_to_link(link.try_into()?)?;
    // Closes the descriptor; the pin keeps the link.
    drop(program.take_link(id)?);
    Ok(if same { Attached::Already } else { Attached::Replaced })
}

fn attach_clsact(program: &mut SchedClassifier, place: &Attachment) -> Result<Attached, LoaderError> {
    let direction = place.direction.attach_type();
    if let Err(error) = tc::qdisc_add_clsact(&place.device) {
        tracing::debug!(device = place.device, %error, "clsact is there already or cannot be added; the filter will tell");
    }
    let options = NlOptions { priority: PRIORITY, handle: TcHandle::from(HANDLE), ..NlOptions::default() };
    let (id, attached) = match program.attach_with_options(&place.device, direction, TcAttachOptions::Netlink(options))
    {
        Err(error) if is_existing(&error) => {
            let old = SchedClassifierLink::attached(&place.device, direction, PRIORITY, TcHandle::from(HANDLE), None);
            let old = old.map_err(|error| ProgramError::from(TcError::IoError(error)));
            (old.and_then(|old| program.attach_to_link(old)), Attached::Replaced)
        }
        other => (other, Attached::Anew),
    };
    let link = id.and_then(|id| program.take_link(id)).map_err(|source| place.failed(source))?;
    // Dropping the link would detach the filter, which shall stay while the agent is away.
    mem::forget(link);
    Ok(attached)
}

/// The kernel's error number, if it gave one.
fn errno(error: &TcError) -> Option<Errno> {
    let number = match error {
        TcError::IoError(error) => error.raw_os_error(),
        TcError::NetlinkError(error) => error.raw_os_error(),
        _ => None,
    };
    number.map(Errno::from_raw)
}

fn is_existing(error: &ProgramError) -> bool {
    matches!(error, ProgramError::TcError(error) if errno(error) == Some(Errno::EEXIST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_name_carries_the_index_and_no_dot() {
        let place = Attachment { device: "eth0.100".to_owned(), ifindex: 7, direction: Direction::Egress };
        assert_eq!(place.pin_name(), "eth0_100-7-egress");
        assert_eq!(Attachment::ifindex_of_pin(&place.pin_name()), Some(7));
        for other in ["", "cgroup", "a-b-c", "eth0-ingress", "eth0-x-ingress"] {
            assert_eq!(Attachment::ifindex_of_pin(other), None, "{other}");
        }
    }

    #[test]
    fn pin_of_a_renamed_device_is_found_by_its_index() {
        let directory = tempfile::tempdir().expect("a directory");
        let links = directory.path();
        for name in ["eth0-14-ingress", "eth0-4-egress", "eth1-4-ingress"] {
            fs::write(links.join(name), "").expect("a file");
        }
        let place = |ifindex| Attachment { device: "kin0".to_owned(), ifindex, direction: Direction::Ingress };
        assert_eq!(former_pin(&place(4), links), Some(links.join("eth1-4-ingress")));
        assert_eq!(former_pin(&place(5), links), None);
    }
}
