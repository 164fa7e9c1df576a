//! Compiles the kernel programs in `bpf/` to one BPF object file.
//!
//! The programs are a workspace of their own, since they have another target and another profile. They are built with
//! the stable compiler: `RUSTC_BOOTSTRAP` permits `-Z build-std`, which needs the `rust-src` of the same compiler.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The object file as the crate includes it.
const OBJECT: &str = "kinesin-tc.o";
const TARGET: &str = "bpfel-unknown-none";

fn main() {
    for path in ["bpf/src", "bpf/Cargo.toml", "bpf/Cargo.lock", "../../datapath/abi/src", "../../datapath/packet/src"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-env-changed=KINESIN_TOOLS");
    if let Err(reason) = build() {
        println!("cargo::error={reason}");
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("bpf/Cargo.toml");
    let linker = tool("bpf-linker").ok_or(
        "bpf-linker was not found; `./x build` installs what the kernel programs are built with, or set KINESIN_TOOLS \
         to a directory with bin/bpf-linker",
    )?;
    // OUT_DIR is target/PROFILE/build/PACKAGE-HASH/out; one directory beside the profiles serves them all, so that
    // `core` is compiled once.
    let target_dir = out.ancestors().nth(4).unwrap_or(&out).join("bpf");

    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let inherited = name.starts_with("CARGO_") && name != "CARGO_HOME" && name != "CARGO_NET_OFFLINE";
        // Wrappers and flags of the outer build (clippy, coverage, CI) are meant for the host.
        if inherited || name.starts_with("RUSTC") || name == "RUSTFLAGS" || name == "RUSTDOCFLAGS" {
            cargo.env_remove(&*name);
        }
    }
    let flags = [
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        // Version 3 of the instruction set: 32-bit jumps and fetching atomics. Kernel: 5.12.
        "-Ctarget-cpu=v3".to_owned(),
        format!("--cfg=bpf_target_arch=\"{}\"", variable("CARGO_CFG_TARGET_ARCH")?),
    ];
    let output = cargo
        .args(["build", "--release", "--quiet", "--locked", "-Zbuild-std=core", "--target", TARGET])
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .output()
        .map_err(|error| format!("cargo could not be started for the kernel programs: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        // One directive is one line; the last lines hold the cause.
        let tail: Vec<&str> = text.lines().rev().take(12).collect();
        let cause = tail.into_iter().rev().collect::<Vec<_>>().join(" | ");
        return Err(format!("the kernel programs did not compile (is rust-src installed? `./x build` does it): {cause}"));
    }
    let built = target_dir.join(TARGET).join("release/libkinesin_ebpf_tc_bpf.so");
    strip(&built, &out.join(OBJECT))
}

/// Copies the object without its DWARF sections; BTF stays. Without a stripper it is copied whole.
fn strip(built: &Path, object: &Path) -> Result<(), String> {
    if let Some(objcopy) = tool("llvm-objcopy") {
        let status = Command::new(objcopy).arg("-g").arg(built).arg(object).status();
        if status.is_ok_and(|status| status.success()) {
            return Ok(());
        }
    }
    fs::copy(built, object).map(drop).map_err(|error| format!("cannot copy {}: {error}", built.display()))
}

/// Finds a program where `./x` puts it, else on the path.
fn tool(name: &str) -> Option<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| home.map(|home| home.join(".cache")));
    let tools = env::var_os("KINESIN_TOOLS").map(PathBuf::from).or_else(|| Some(cache?.join("kinesin/tools")));
    let path = env::var_os("PATH").unwrap_or_default();
    tools
        .map(|tools| tools.join("bin"))
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
