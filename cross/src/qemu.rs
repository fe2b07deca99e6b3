//! `cargo xtask qemu`: the agent of 64-bit ARM, under qemu's user emulation, does what it does everywhere.
//!
//! Decides how this machine comes to run programs for ARM. What is tried are the end-to-end tests themselves: the bridge
//! and its broker are programs of this machine, the agents and the processes of their models are ARM's.

use crate::build::{cargo, run as finish};
use crate::cross::Wanted;
use anyhow::{Context, bail, ensure};
use board::Target;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Which of the end-to-end tests: a board is checked, every example model is pulled, probed and asked, a whole rollout.
const TESTS: [&str; 3] = ["examples::", "models::a_board_is_checked", "whole_loop::"];
const TARGET: Target = Target::Aarch64;
/// Where the kernel is told which program runs which.
const FORMATS: &str = "/proc/sys/fs/binfmt_misc";
/// Where Debian's qemu looks for the libraries of another machine.
const LIBRARIES: &str = "/etc/qemu-binfmt/aarch64";

/// `cargo xtask qemu [--release]`
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let quick = match args {
        [] => true,
        [flag] if flag == "--release" => false,
        _ => bail!("there is --release here, for the program as it is shipped"),
    };
    let program = Wanted::all(TARGET, quick).build()?.program;
    if !runs(&program) {
        prepare()?;
        ensure!(runs(&program), "this machine still does not run {}", program.display());
    }
    let mut test = cargo();
    // The bridge and the tests are those that `cargo test` has built.
    test.args(["test", "--workspace", "--locked", "--test", "end_to_end", "--"]).args(TESTS);
    finish(test.env("PETREL_TESTS_AGENT", std::path::absolute(program)?))
}

/// Whether this machine runs it, as the agent itself runs its models' processes: by its path alone.
fn runs(program: &Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|done| done.status.success())
}

/// Tells the kernel that qemu runs programs for ARM. An agent starts the processes of its models itself, so qemu
/// cannot be named in front of each.
fn prepare() -> anyhow::Result<()> {
    let remedy = "as root; or install qemu-user-binfmt and libc6:arm64, which do it at each start of the machine";
    let qemu = Path::new("/usr/bin/qemu-aarch64");
    ensure!(qemu.exists(), "there is no {}: apt-get install qemu-user", qemu.display());
    if !Path::new(FORMATS).join("register").exists() {
        finish(Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", FORMATS])).context(remedy)?;
    }
    if !Path::new(FORMATS).join("petrel-aarch64").exists() {
        // The beginning of every ELF file of 64 bits for this machine, and which of its bits count.
        let head = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
        let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
        let line = format!(":petrel-aarch64:M::{head}:{mask}:{}:", qemu.display());
        fs::write(Path::new(FORMATS).join("register"), line).context(remedy)?;
    }
    if !Path::new(LIBRARIES).exists() {
        let libraries = Path::new("/usr").join(TARGET.multiarch());
        ensure!(libraries.exists(), "there is no {}: apt-get install libc6-arm64-cross", libraries.display());
        fs::create_dir_all(Path::new(LIBRARIES).parent().unwrap_or(Path::new("/")))?;
        std::os::unix::fs::symlink(libraries, LIBRARIES).context(remedy)?;
    }
    Ok(())
}
