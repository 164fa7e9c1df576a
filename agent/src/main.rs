//! The node agent with every backend of this repository.

mod backends;

fn main() -> std::process::ExitCode {
    kinesin_agent::main(std::env::args_os())
}
