//! `cargo xtask`: what the people who build Petrel run, and `cargo demo` for everybody.
//!
//! Decides how things are built and which tools are called with what. It knows no code of the
//! project: it sees only binaries, files and exit codes.

mod bench;
mod build;
mod coverage;
mod cross;
mod debian;
mod fuzz;
mod oracles;
mod package;
mod postgres;
mod qemu;
mod size;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask demo [-- ARGS]               build both binaries and run `petrel demo ARGS`
cargo xtask bench NAME [--json]          measure, and print a table; NAME: loop, engine, trust, delivery, device, drift, rollout, land, arm, crash; --no-build takes the binaries that are there
cargo xtask bench NAME|--all --write     one or every bench, and its section of docs/benchmarks.md made anew
cargo xtask oracles [NAME]               checks against other people's programs; NAME: reference, onnx, sklearn, drift, tuf, oms, mosquitto, postgres, triton, rest
cargo xtask coverage [--json]            which lines of contract/trust its tests run
cargo xtask fuzz [--seconds N] [TARGET]  every fuzz target, or those named, for N seconds each (60)
cargo xtask cross --target T [--profile BOARD] [--quick] [--twice]  the agent for another machine; BOARD is one of firmware-profiles/; --twice: built in two folders, and compared
cargo xtask size --target T [--profile BOARD] [--json]     what is in it, by section and crate; fails above the board's budget
cargo xtask qemu [--target T] [--release]  the ARM agent under qemu: self-test, every example model, and a fleet with a real bridge
cargo xtask package --target T [--profile BOARD] [--quick]  a .deb, a tarball and an SBOM of the agent";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    args.retain(|arg| arg != "--");
    let done = match args.split_first() {
        Some((command, rest)) if command == "demo" => build::demo(rest),
        Some((command, rest)) if command == "bench" => bench::run(rest),
        Some((command, rest)) if command == "oracles" => oracles::run(rest),
        Some((command, rest)) if command == "coverage" => coverage::run(rest),
        Some((command, rest)) if command == "fuzz" => fuzz::run(rest),
        Some((command, rest)) if command == "cross" => cross::run(rest),
        Some((command, rest)) if command == "size" => size::run(rest),
        Some((command, rest)) if command == "qemu" => qemu::run(rest),
        Some((command, rest)) if command == "package" => package::run(rest),
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
