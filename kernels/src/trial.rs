//! Inside the virtual machine: what the kernel says to each program of the chassis.

use crate::{KernelsError, findings::Program};

/// The answers as JSON.
///
/// # Errors
/// `Programs` when this build has none.
pub fn main() -> Result<String, KernelsError> {
    let of = |trial: kinesin_ebpf_tc::Trial| match trial.outcome {
        Ok(verified) => Program { name: trial.program.to_owned(), verified: verified.instructions, refusal: None },
        Err(error) => Program { name: trial.program.to_owned(), verified: None, refusal: Some(error.to_string()) },
    };
    let programs: Vec<Program> = kinesin_ebpf_tc::trial()?.into_iter().map(of).collect();
    Ok(serde_json::to_string(&programs).unwrap_or_default())
}
