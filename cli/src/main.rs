//! The binary `kinesin`; on a node it is also there as `cilium` and `cilium-dbg`.

fn main() -> std::process::ExitCode {
    kinesin_cli::run(std::env::args_os())
}
