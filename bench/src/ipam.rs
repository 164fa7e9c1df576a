//! Leases by themselves: how fast a node's IPAM gives and takes them back, and what an address costs it.
//!
//! Each round is a process of its own that calls the backend through its trait, as the agent does, in one thread: memory
//! that an earlier round has given back would hide what this one takes.

use std::{
    fs,
    hint::black_box,
    net::Ipv4Addr,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::{IpNet, Ipv4Net};
// Linked for its registration.
use kinesin_cluster_pool as _;
use kinesin_core::{
    config::Section,
    ipam::{AllocateRequest, Block, Ipam, IpamDesired, IpamError, Owner},
    registry::{BuildContext, Registry},
    values::Families,
};

use nix::time::{ClockId, clock_gettime};

use crate::{
    BenchError,
    metric::{Figures, Metric},
};

/// Subcommand of [`main`].
pub(crate) const IN_PROCESS: &str = "in-process";
/// A /16 has so many addresses that can be leased.
const ADDRESSES: usize = 65_534;
/// Pairs that are timed together: long enough that the clock costs nothing, short enough for many samples.
const PAIRS: usize = 10_000;
/// Blocks whose memory is measured: enough that a page more or less is below one in a thousand.
const BLOCKS: usize = 128;
const BACKEND: &str = "cluster_pool";

/// Measures in a process of its own; `used` percent of the addresses are leased while pairs are timed.
///
/// # Errors
/// `Io` and `Scene` when the process fails.
pub(crate) fn round(used: u8, seconds: f64) -> Result<Figures, BenchError> {
    let own = std::env::current_exe().map_err(BenchError::io("find the own program"))?;
    let output = Command::new(own).args([IN_PROCESS, &used.to_string(), &seconds.to_string()]).output();
    let output = output.map_err(BenchError::io("start the process that leases"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(BenchError::Scene(format!("the process that leases: {}", told.trim())));
    }
    let figures: [f64; 3] = serde_json::from_slice(&output.stdout).map_err(BenchError::io("read what was measured"))?;
    let mut told = vec![(Metric::LeaseRate, figures[0]), (Metric::AddressMemory, figures[1])];
    if used > 0 {
        told.push((Metric::LeaseMemory, figures[2]));
    }
    Ok(told)
}

/// What the process does: millions of pairs per second, bits per address, bytes per lease.
///
/// # Errors
/// `Scene` when the backend refuses something.
pub fn main(used: u8, seconds: f64) -> Result<[f64; 3], BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(BenchError::io("start"))?;
    runtime.block_on(async {
        let bits = bits_per_address().await?;
        let (ipam, bytes) = filled(used).await?;
        Ok([rate(ipam.as_ref(), Duration::from_secs_f64(seconds)).await?, bits, bytes])
    })
}

/// Millions of pairs of allocate and release per second of this thread's CPU time, the median of samples: nothing waits
/// here, so what another process takes of the CPU is no part of it.
async fn rate(ipam: &dyn Ipam, measured: Duration) -> Result<f64, BenchError> {
    let requests: Vec<AllocateRequest> = (0..PAIRS).map(|number| request("new", number)).collect();
    let (begun, mut samples) = (Instant::now(), Vec::new());
    while begun.elapsed() < measured || samples.is_empty() {
        let sample = cpu_time()?;
        for request in &requests {
            black_box(ipam.allocate(request).await.map_err(refused)?);
            black_box(ipam.release(&request.attachment).await.map_err(refused)?);
        }
        samples.push(PAIRS as f64 / (cpu_time()? - sample).as_secs_f64() / 1e6);
    }
    Ok(crate::stats::percentile(&samples, 0.5))
}

fn cpu_time() -> Result<Duration, BenchError> {
    let read = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    Ok(Duration::from(read.map_err(BenchError::io("read the clock of the thread"))?))
}

/// A node with one /16 of which `used` percent are leased, and the bytes that each lease takes; 0 without any.
async fn filled(used: u8) -> Result<(Arc<dyn Ipam>, f64), BenchError> {
    let ipam = backend()?;
    ipam.apply(&desired(1)).await.map_err(refused)?;
    let count = ADDRESSES * usize::from(used.min(100)) / 100;
    let before = resident()?;
    for number in 0..count {
        black_box(ipam.allocate(&request("old", number)).await.map_err(refused)?);
    }
    let bytes = resident()?.saturating_sub(before) as f64;
    Ok((ipam, if count > 0 { bytes / count as f64 } else { 0.0 }))
}

/// Bits that an address costs while nobody leases it.
async fn bits_per_address() -> Result<f64, BenchError> {
    let ipam = backend()?;
    // Whatever a first state makes once.
    ipam.apply(&desired(1)).await.map_err(refused)?;
    let before = resident()?;
    ipam.apply(&desired(1 + BLOCKS)).await.map_err(refused)?;
    let bytes = resident()?.saturating_sub(before);
    drop(ipam);
    Ok(bytes as f64 * 8.0 / (BLOCKS * 65_536) as f64)
}

/// As many /16 as are asked for, from 1.0.0.0 upwards.
fn desired(blocks: usize) -> IpamDesired {
    let block = |number: usize| {
        // Below 256 * 255, so it fits the upper half of an address.
        let network = Ipv4Addr::from((0x0100 + number as u32) << 16);
        Block { pool: "default".to_owned(), cidr: IpNet::V4(Ipv4Net::new_assert(network, 16)) }
    };
    IpamDesired { blocks: (0..blocks).map(block).collect(), ..IpamDesired::default() }
}

/// As of a Pod: the key is a container's id with its interface.
fn request(what: &str, number: usize) -> AllocateRequest {
    AllocateRequest {
        attachment: format!("{number:064x}:{what}"),
        owner: Owner::Pod { namespace: "default".to_owned(), name: format!("{what}-{number:08x}-abcde") },
        families: Families { v4: true, v6: false },
        pool: None,
    }
}

fn backend() -> Result<Arc<dyn Ipam>, BenchError> {
    let scene = |reason: String| BenchError::Scene(reason);
    let registry = Registry::collect().map_err(|error| scene(error.to_string()))?;
    let backend = registry.ipam(BACKEND).map_err(|error| scene(error.to_string()))?;
    let context = BuildContext {
        node_name: "bench".to_owned(),
        families: Families { v4: true, v6: false },
        state_dir: PathBuf::new(),
        bpffs: PathBuf::new(),
        enable_tcx: true,
        auto_direct_node_routes: true,
        direct_routing_skip_unreachable: false,
        underlay: kinesin_core::values::Underlay::Auto,
        section: Section::new(BACKEND, serde_json::Map::new()),
    };
    (backend.build)(&context).map_err(|error| scene(error.to_string()))
}

fn refused(error: IpamError) -> BenchError {
    BenchError::Scene(format!("the backend {BACKEND}: {error}"))
}

/// Bytes of this process that are in memory: pages of `/proc/self/statm`, proc(5).
fn resident() -> Result<usize, BenchError> {
    let text = fs::read_to_string("/proc/self/statm").map_err(BenchError::io("read /proc/self/statm"))?;
    let pages: Option<usize> = text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let pages = pages.ok_or_else(|| BenchError::Scene(format!("/proc/self/statm says {text:?}")))?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    Ok(pages * usize::try_from(page).unwrap_or(4096))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_and_given_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (ipam, bytes) = filled(1).await.expect("filled");
            let leased = ipam.snapshot().leases.len();
            assert_eq!(leased, 655);
            assert!(bytes >= 0.0);
            assert!(rate(ipam.as_ref(), Duration::ZERO).await.expect("a rate") > 0.0);
            assert_eq!(ipam.snapshot().leases.len(), leased, "every pair is a whole one");
        });
    }

    #[test]
    fn blocks_differ() {
        let blocks = desired(1 + BLOCKS).blocks;
        let different: std::collections::BTreeSet<_> = blocks.iter().map(|block| block.cidr).collect();
        assert_eq!(different.len(), 1 + BLOCKS);
    }
}
