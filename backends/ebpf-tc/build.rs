//! Compiles the kernel programs in `bpf/` to one BPF object file.
//!
//! The programs are a workspace of their own, since they have another target and another profile. They are built with
//! the stable compiler: `RUSTC_BOOTSTRAP` permits `-Z build-std`, which needs the `rust-src` of the same compiler.
//!
//! Where bpf-linker or rust-src is missing, the crate is built without the programs, so that everything that needs no
//! kernel builds and can be tested; the chassis then refuses to run. `KINESIN_REQUIRE_BPF=1` makes that an error.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The object file as the crate includes it.
const OBJECT: &str = "kinesin-tc.o";
const TARGET: &str = "bpfel-unknown-none";

/// Why there is no object file.
enum Failure {
    /// A tool is missing; what and how to get it.
    Missing(String),
    /// The programs or the build are broken.
    Broken(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

fn main() {
    for path in ["bpf/src", "bpf/Cargo.toml", "bpf/Cargo.lock", "../../datapath/abi/src", "../../datapath/packet/src"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["KINESIN_TOOLS", "KINESIN_REQUIRE_BPF", "XDG_CACHE_HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rustc-check-cfg=cfg(kernel_programs)");
    let required = env::var_os("KINESIN_REQUIRE_BPF").is_some_and(|value| value == "1");
    match build() {
        Ok(()) => println!("cargo::rustc-cfg=kernel_programs"),
        Err(Failure::Missing(reason)) if !required => {
            println!("cargo::warning={reason}; this build has no kernel programs and its eBPF chassis refuses to run");
            if let Err(reason) = without_programs() {
                println!("cargo::error={reason}");
            }
        }
        Err(Failure::Missing(reason) | Failure::Broken(reason)) => println!("cargo::error={reason}"),
    }
}

fn build() -> Result<(), Failure> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("bpf/Cargo.toml");
    let rustc = Rustc::ask()?;
    let linker = tool("bpf-linker", &rustc).ok_or_else(|| {
        Failure::Missing(
            "bpf-linker was not found; `./x build` installs what the kernel programs are built with, or set \
             KINESIN_TOOLS to a directory with bin/bpf-linker"
                .to_owned(),
        )
    })?;
    if !rustc.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
        return Err(Failure::Missing(format!(
            "the rust-src of rustc {} was not found; `./x build` installs it, or: rustup component add rust-src",
            rustc.release
        )));
    }
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
        return Err(Failure::Broken(format!("the kernel programs did not compile: {cause}")));
    }
    let built = target_dir.join(TARGET).join("release/libkinesin_ebpf_tc_bpf.so");
    Ok(strip(&built, &out.join(OBJECT), &rustc)?)
}

/// An empty file in the object's place, since the crate includes one in any case.
fn without_programs() -> Result<(), String> {
    let object = PathBuf::from(variable("OUT_DIR")?).join(OBJECT);
    fs::write(&object, []).map_err(|error| format!("cannot write {}: {error}", object.display()))
}

/// Copies the object without its DWARF sections; BTF stays. Without a stripper it is copied whole.
fn strip(built: &Path, object: &Path, rustc: &Rustc) -> Result<(), String> {
    if let Some(objcopy) = tool("llvm-objcopy", rustc) {
        let status = Command::new(objcopy).arg("-g").arg(built).arg(object).status();
        if status.is_ok_and(|status| status.success()) {
            return Ok(());
        }
    }
    fs::copy(built, object).map(drop).map_err(|error| format!("cannot copy {}: {error}", built.display()))
}

/// The compiler of this build.
struct Rustc {
    release: String,
    sysroot: PathBuf,
}

impl Rustc {
    fn ask() -> Result<Self, String> {
        let rustc = variable("RUSTC")?;
        let ask = |arguments: &[&str]| {
            let output = Command::new(&rustc).args(arguments).output();
            let output = output.map_err(|error| format!("{rustc} could not be started: {error}"))?;
            Ok::<_, String>(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let version = ask(&["-vV"])?;
        let release = version.lines().find_map(|line| line.strip_prefix("release: "));
        Ok(Self {
            release: release.ok_or_else(|| format!("{rustc} -vV names no release"))?.to_owned(),
            sysroot: PathBuf::from(ask(&["--print", "sysroot"])?.trim()),
        })
    }
}

/// Finds a program where `./x` puts it, else on the path.
fn tool(name: &str, rustc: &Rustc) -> Option<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| home.map(|home| home.join(".cache")));
    let bases = match env::var_os("KINESIN_TOOLS") {
        Some(tools) => vec![PathBuf::from(tools)],
        None => cache.map(|cache| cache.join("kinesin")).map_or_else(Vec::new, |own| vec![own.join("tools"), own]),
    };
    // Of this very release first: bpf-linker loads the LLVM of the compiler that it was installed for.
    let own = bases.iter().flat_map(|base| [base.join(&rustc.release).join("bin"), base.join("bin")]);
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<PathBuf> = own.chain(env::split_paths(&path)).map(|directory| directory.join(name)).collect();
    let found = candidates.iter().find(|candidate| candidate.is_file()).cloned();
    if found.is_none() && name == "bpf-linker" {
        // A path that does not exist makes cargo ask again each time, so that the tool is used once it is there.
        println!("cargo::rerun-if-changed={}", candidates.first().map_or(Path::new(name), |first| first).display());
    }
    found
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
