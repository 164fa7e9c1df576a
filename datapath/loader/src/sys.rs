//! The one call that has no safe wrapper.
#![expect(unsafe_code, reason = "nix has no wrapper for membarrier")]

use std::io;

/// `MEMBARRIER_CMD_GLOBAL`, Linux `include/uapi/linux/membarrier.h`. Kernel: 4.3, as `MEMBARRIER_CMD_SHARED`.
const MEMBARRIER_CMD_GLOBAL: nix::libc::c_int = 1;

/// Returns when every CPU has left the program that it was running when the call was made.
///
/// The command waits for an RCU grace period (`kernel/sched/membarrier.c`), and BPF programs at tc run inside one.
pub(crate) fn wait_for_programs() -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
