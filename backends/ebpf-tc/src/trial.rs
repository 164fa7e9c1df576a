//! Whether this kernel's verifier takes the programs, one by one.
//!
//! Nothing is pinned or attached, and a refusal keeps no other program from being tried. The constants are those of a
//! node with both families and both tunnels over both, so that no branch of theirs is cut off before the verifier sees it.

use std::path::Path;

use kinesin_abi::{Constants, feature};
use kinesin_loader::{LoadSpec, Loaded, LoaderError};

use crate::{
    OBJECT, constants,
    datapath::{CONTINUATIONS, ENTRIES},
    kernel,
};

/// What the kernel said to one program.
#[derive(Debug)]
pub struct Trial {
    /// The program.
    pub program: &'static str,
    /// What it cost, or why it was refused.
    pub outcome: Result<Verified, LoaderError>,
}

/// What a program cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Instructions that the verifier went through; absent before kernel 5.16, which first told.
    pub instructions: Option<u32>,
    /// Instructions of the program as the kernel translated it.
    pub translated: u32,
}

/// Loads every program of the chassis by itself and lets go of it; as root.
///
/// # Errors
/// `NoObject` when this build has no programs. What the kernel refuses is part of the answer.
pub fn trial() -> Result<Vec<Trial>, LoaderError> {
    if OBJECT.is_empty() {
        return Err(LoaderError::NoObject { remedy: kernel::BUILD_PROGRAMS });
    }
    let programs = ENTRIES.into_iter().chain(CONTINUATIONS.map(|(_, name)| name));
    Ok(programs.map(|program| Trial { program, outcome: load(program) }).collect())
}

/// The way of tunnels that costs more is the one that programs go without the kernel's devices; the other one is tried too.
fn load(program: &'static str) -> Result<Verified, LoaderError> {
    load_with(program, 1)?;
    load_with(program, 0)
}

/// `device` is the index of both tunnels' devices.
fn load_with(program: &'static str, device: u32) -> Result<Verified, LoaderError> {
    let constants = Constants {
        features: feature::IPV4 | feature::IPV6,
        uplink: 1,
        mtu: 1500,
        // 198.51.100.1 and 2001:db8::1. Source: RFC 5737, RFC 3849.
        router4: u32::from_ne_bytes([198, 51, 100, 1]),
        router6: [u32::from_ne_bytes([0x20, 0x01, 0x0d, 0xb8]), 0, 0, 1_u32.to_be()],
        tunnel_ports: [8472_u16.to_be(), 6081_u16.to_be(), 0, 0],
        vxlan_port: 8472_u16.to_be(),
        geneve_port: 6081_u16.to_be(),
        vxlan_device: device,
        geneve_device: device,
        overlays: u32::MAX,
        underlay4: u32::from_ne_bytes([198, 51, 100, 2]),
        underlay6: [u32::from_ne_bytes([0x20, 0x01, 0x0d, 0xb8]), 0, 0, 2_u32.to_be()],
        host_device: 1,
        ..Constants::default()
    };
    // Neither is used: no map is shared or belongs to a generation.
    let nowhere = Path::new("/");
    let mut loaded = Loaded::load(&LoadSpec {
        object: OBJECT,
        constants: &constants::symbols(&constants),
        shared: &[],
        maps: nowhere,
        per_generation: &[],
        generation: nowhere,
        programs: &[program],
    })?;
    let info = loaded.program(program)?.info();
    let info =
        info.map_err(|source| LoaderError::Program { action: format!("inspect program {program:?}"), source })?;
    Ok(Verified {
        instructions: info.verified_instruction_count(),
        // Bytes; an instruction has eight.
        translated: info.size_translated().unwrap_or_default() / 8,
    })
}
