//! `cargo xtask qemu`: the agent of ARM, under qemu's user emulation, does what it does everywhere.
//!
//! Decides how this machine comes to run programs for ARM. What is tried are the end-to-end tests themselves: the bridge
//! and its broker are programs of this machine, the agents and the processes of their models are ARM's.

use crate::build::{cargo, run as finish};
use crate::cross::{Wanted, folder};
use anyhow::{Context, bail, ensure};
use board::Target;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which of the end-to-end tests: a board is checked, every example model is pulled, probed and asked, a whole rollout.
const TESTS: [&str; 3] = ["examples::", "models::a_board_is_checked", "whole_loop::"];
/// Where the kernel is told which program runs which.
const FORMATS: &str = "/proc/sys/fs/binfmt_misc";

/// `cargo xtask qemu [--target T] [--release]`
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let (mut target, mut quick) = (Target::Aarch64, true);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--release" => quick = false,
            "--target" => {
                let triple = args.next().context("--target takes a triple, as armv7-unknown-linux-gnueabihf")?;
                target = triple.parse().map_err(anyhow::Error::msg)?;
            }
            other => bail!(
                "there is no `{other}` here; there are --target TRIPLE, and --release for the program as it is shipped"
            ),
        }
    }
    let qemu = emulator(target)?;
    let built = Wanted::all(target, quick).build()?;
    prepare(target, &qemu, built.tools.libraries())?;
    let runs = Command::new(&built.program).arg("--version").output().is_ok_and(|done| done.status.success());
    ensure!(runs, "this machine does not run {} under qemu", built.program.display());
    let mut test = cargo();
    // The bridge and the tests are those that `cargo test` has built.
    test.args(["test", "--workspace", "--locked", "--test", "end_to_end", "--"]).args(TESTS);
    finish(test.env("PETREL_TESTS_AGENT", std::path::absolute(built.program)?))
}

/// The program that runs those of another machine.
pub(crate) fn emulator(target: Target) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(format!("/usr/bin/qemu-{}", target.arch()));
    ensure!(path.exists(), "there is no {}: apt-get install qemu-user", path.display());
    Ok(path)
}

/// Tells the kernel that qemu runs programs for ARM. An agent starts the processes of its models itself, so qemu
/// cannot be named in front of each.
fn prepare(target: Target, qemu: &Path, libraries: &Path) -> anyhow::Result<()> {
    let remedy = "only root may tell the kernel which program runs those of another machine";
    if !Path::new(FORMATS).join("register").exists() {
        finish(Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", FORMATS])).context(remedy)?;
    }
    // Where a process asks for its own maps, qemu writes what it makes up to a file in memory, and a model's process that
    // writes anything is ended. So there a write that is too large fails, and ends nothing.
    let place = folder().join("cross/qemu");
    fs::create_dir_all(&place)?;
    let start = std::path::absolute(place.join(target.arch()))?;
    let (qemu, libraries) = (qemu.display(), std::path::absolute(libraries)?);
    let text = format!("#!/bin/sh\nexec /usr/bin/env --ignore-signal=XFSZ {qemu} -L {} \"$@\"\n", libraries.display());
    fs::write(&start, text)?;
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755))?;
    let name = format!("petrel-{}", target.arch());
    let known = Path::new(FORMATS).join(&name);
    if known.exists() {
        fs::write(&known, "-1").context(remedy)?;
    }
    // The beginning of every ELF file for this machine, of 64 bits or 32, and which of its bits count.
    let (width, machine) = match target {
        Target::Aarch64 => ("02", "b7"),
        Target::Armv7 => ("01", "28"),
        Target::X86 => ("02", "3e"),
    };
    let nothing = r"\x00\x00\x00\x00\x00\x00\x00\x00";
    let head = format!(r"\x7fELF\x{width}\x01\x01\x00{nothing}\x02\x00\x{machine}\x00");
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    let line = format!(":{name}:M::{head}:{mask}:{}:", start.display());
    fs::write(Path::new(FORMATS).join("register"), line).context(remedy)
}
