//! How the agent's heap keeps little of what it no longer needs.
//!
//! An agent lives for months and holds some megabytes, but a start and every list from the API server take several times
//! that for a moment. glibc by itself keeps freed memory in an arena per thread, and raises the size from which memory is
//! given back at once (mallopt(3), `M_MMAP_THRESHOLD`) as soon as something large was freed. With 250 pods, after a
//! restart, that is 4 MiB of 12. What is free between things that are in use is another 2 MiB of 7 until [`give_back`]
//! returns it (`cargo run -p kinesin-agent --example figures`).

#![expect(unsafe_code, reason = "mallopt(3) and malloc_trim(3) have no safe wrappers")]

use std::time::Duration;

use tokio_util::sync::CancellationToken;

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

/// How long after the start the heap is looked at for the first time; each time after, twice as long passes.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// And no longer than this: bursts of pods and lists of the API server come at any time.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Gives back, now and then, what the heap holds free between things that are in use. The thresholds above see to its end
/// alone, and a list that was read into many small pieces leaves holes.
pub(crate) async fn give_back(stop: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    while tokio::time::timeout(pause, stop.cancelled()).await.is_err() {
        trim();
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Returns whole free pages to the kernel; a walk over what is free, and a system call for each piece of it.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and locks the heap itself; it touches only what is free.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Pages of this process that are in memory, in bytes (proc_pid_statm(5)).
    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").expect("procfs");
        let pages: usize = text.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("a number");
        // The smallest page that Linux has; a larger one would only make the difference larger.
        pages * 4096
    }

    #[test]
    fn free_pages_between_used_ones_go_back() {
        const PIECE: usize = 1000;
        let (mut kept, mut freed) = (Vec::new(), Vec::new());
        for number in 0..32_000 {
            let piece = vec![1_u8; PIECE];
            if number % 64 == 0 { kept.push(piece) } else { freed.push(piece) }
        }
        let bytes = freed.len() * PIECE;
        drop(freed);
        let before = resident();
        trim();
        let returned = before.saturating_sub(resident());
        assert!(returned > bytes / 2, "of {bytes} free bytes {returned} were returned");
        assert!(kept.iter().flatten().all(|byte| *byte == 1), "what is in use stays");
    }
}
