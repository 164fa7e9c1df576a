//! The last steps before a container's program runs: stdio, directory, user, exec.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::AccessFlags;
use nix::unistd::{
    Gid, Uid, access, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, setgid, setgroups, setsid, setuid,
};

use super::Process;
use crate::sys;

/// Where a container looks for programs unless its variables say otherwise.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The three standard descriptors of a process.
#[derive(Debug)]
pub(super) struct Stdio {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Becomes the program; returns only the reason why not, in the words of runc.
pub(super) fn become_program(process: &Process, stdio: Option<Stdio>) -> String {
    match try_become(process, stdio) {
        Ok(never) => match never {},
        Err(why) => why,
    }
}

fn try_become(process: &Process, stdio: Option<Stdio>) -> Result<std::convert::Infallible, String> {
    setsid().map_err(|error| format!("setsid: {error}"))?;
    if let Some(Stdio { stdin, stdout, stderr }) = stdio {
        dup2_stdin(stdin)
            .and_then(|()| dup2_stdout(stdout))
            .and_then(|()| dup2_stderr(stderr))
            .map_err(|e| format!("dup2: {e}"))?;
    }
    if process.tty {
        let terminal = std::io::stdin();
        let terminal: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(&terminal);
        sys::set_controlling_terminal(terminal).map_err(|error| format!("set controlling terminal: {error}"))?;
    }
    chdir(&process.cwd).map_err(|error| {
        format!("chdir to cwd ({:?}) set in config.json failed: {}", process.cwd, error.desc().to_lowercase())
    })?;
    let program = find_program(process)?;
    if let Some(group) = process.group.or(process.user.map(|_| 0)) {
        setgroups(&[]).and_then(|()| setgid(Gid::from_raw(group))).map_err(|error| format!("setgid: {error}"))?;
    }
    if let Some(user) = process.user {
        setuid(Uid::from_raw(user)).map_err(|error| format!("setuid: {error}"))?;
    }
    let text = |s: &str| CString::new(s).map_err(|_| format!("{s:?} holds a NUL byte"));
    let arguments = process.command.iter().map(|a| text(a)).collect::<Result<Vec<_>, _>>()?;
    let env = process.env.iter().map(|(k, v)| text(&format!("{k}={v}"))).collect::<Result<Vec<_>, _>>()?;
    execve(&text(&program.to_string_lossy())?, &arguments, &env)
        .map_err(|error| format!("exec {}: {}", program.display(), error.desc().to_lowercase()))
}

fn find_program(process: &Process) -> Result<PathBuf, String> {
    let Some(name) = process.command.first() else {
        return Err("no command specified".to_owned());
    };
    if name.contains('/') {
        let path = process.cwd.join(name);
        return match access(&path, AccessFlags::X_OK) {
            Ok(()) => Ok(path),
            Err(error) => Err(format!("exec: {name:?}: stat {name}: {}", error.desc().to_lowercase())),
        };
    }
    let path = process.env.iter().rev().find(|(key, _)| key == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    path.split(':')
        .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name))
        .find(|candidate| candidate.is_file() && access(candidate, AccessFlags::X_OK).is_ok())
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}
