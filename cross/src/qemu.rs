//! `cargo xtask qemu`: the agent of 64-bit ARM, under qemu's user emulation, does what it does everywhere.
//!
//! Decides how this machine comes to run programs for ARM. What is tried are the end-to-end tests themselves: the bridge
//! and its broker are programs of this machine, the agents and the processes of their models are ARM's.

use crate::build::{cargo, run as finish};
use crate::cross::{Wanted, folder};
use anyhow::{Context, bail, ensure};
use board::Target;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Which of the end-to-end tests: a board is checked, every example model is pulled, probed and asked, a whole rollout.
const TESTS: [&str; 3] = ["examples::", "models::a_board_is_checked", "whole_loop::"];
const TARGET: Target = Target::Aarch64;
/// Where the kernel is told which program runs which.
const FORMATS: &str = "/proc/sys/fs/binfmt_misc";
/// What it is called there.
const NAME: &str = "petrel-aarch64";
const QEMU: &str = "/usr/bin/qemu-aarch64";
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
    prepare(&folder().join("cross/qemu"))?;
    let runs = Command::new(&program).arg("--version").output().is_ok_and(|done| done.status.success());
    ensure!(runs, "this machine does not run {} under qemu", program.display());
    let mut test = cargo();
    // The bridge and the tests are those that `cargo test` has built.
    test.args(["test", "--workspace", "--locked", "--test", "end_to_end", "--"]).args(TESTS);
    finish(test.env("PETREL_TESTS_AGENT", std::path::absolute(program)?))
}

/// Tells the kernel that qemu runs programs for ARM. An agent starts the processes of its models itself, so qemu
/// cannot be named in front of each.
fn prepare(place: &Path) -> anyhow::Result<()> {
    let remedy = "only root may tell the kernel which program runs those of another machine";
    ensure!(Path::new(QEMU).exists(), "there is no {QEMU}: apt-get install qemu-user");
    if !Path::new(FORMATS).join("register").exists() {
        finish(Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", FORMATS])).context(remedy)?;
    }
    // Where a process asks for its own maps, qemu writes what it makes up to a file in memory, and a model's process that
    // writes anything is ended. So there a write that is too large fails, and ends nothing.
    fs::create_dir_all(place)?;
    let start = std::path::absolute(place.join("start"))?;
    fs::write(&start, format!("#!/bin/sh\nexec /usr/bin/env --ignore-signal=XFSZ {QEMU} \"$@\"\n"))?;
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755))?;
    let known = Path::new(FORMATS).join(NAME);
    if known.exists() {
        fs::write(&known, "-1").context(remedy)?;
    }
    // The beginning of every ELF file of 64 bits for this machine, and which of its bits count.
    let head = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    let line = format!(":{NAME}:M::{head}:{mask}:{}:", start.display());
    fs::write(Path::new(FORMATS).join("register"), line).context(remedy)?;
    if !Path::new(LIBRARIES).exists() {
        let libraries = Path::new("/usr").join(TARGET.multiarch());
        ensure!(libraries.exists(), "there is no {}: apt-get install libc6-arm64-cross", libraries.display());
        fs::create_dir_all(Path::new(LIBRARIES).parent().unwrap_or(Path::new("/")))?;
        std::os::unix::fs::symlink(libraries, LIBRARIES).context(remedy)?;
    }
    Ok(())
}
