//! How the agent's heap keeps little of what it no longer needs.
//!
//! An agent lives for months and holds some megabytes, but a start and every list from the API server take several times
//! that for a moment. glibc by itself keeps freed memory in an arena per thread, and raises the size from which memory is
//! given back at once (mallopt(3), `M_MMAP_THRESHOLD`) as soon as something large was freed. With 250 pods, after a
//! restart, that is 4 MiB of 12 (`cargo run -p kinesin-agent --example figures`).

#![expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]

/// glibc's own first value of both thresholds, in bytes. Setting it keeps it from growing.
#[cfg(target_env = "gnu")]
const THRESHOLD_BYTES: i32 = 128 << 10;

/// Makes the heap give memory back; called before there is a second thread. Only glibc needs it.
pub(crate) fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        // The agent waits far more than it allocates: its threads can share.
        (nix::libc::M_ARENA_MAX, 1),
        (nix::libc::M_MMAP_THRESHOLD, THRESHOLD_BYTES),
        (nix::libc::M_TRIM_THRESHOLD, THRESHOLD_BYTES),
    ] {
        // SAFETY: mallopt takes two numbers and no other thread runs yet. A refusal leaves the default, which is fine.
        unsafe { nix::libc::mallopt(parameter, value) };
    }
}
