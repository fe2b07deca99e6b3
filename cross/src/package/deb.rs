//! The .deb: the tree, what Debian wants to know of it, and what is done when it comes and goes.

use super::{NAME, below, put};
use crate::build::{output, run as finish, workspace};
use crate::cross::{Built, PACKED, Wanted};
use anyhow::{Context, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is done when it comes and goes.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
/// Before this, what the program asks of the C library is there in any case.
const LEAST_LIBC: (u32, u32) = (2, 28);
/// The first that reads packed relocations.
const PACKED_LIBC: (u32, u32) = (2, 36);

/// Makes the package in `place`; gives where it is.
pub(super) fn make(tree: &Path, wanted: &Wanted, built: &Built, moment: &str, place: &Path) -> anyhow::Result<PathBuf> {
    let root = place.join(format!("{}.deb.tree", wanted.name));
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    finish(Command::new("cp").arg("-r").arg("--preserve=mode").arg(tree).arg(&root))?;
    changelog(&root, moment)?;
    let control = root.join("DEBIAN");
    fs::create_dir_all(&control)?;
    for script in SCRIPTS {
        put(&workspace().join("cross/debian").join(script), &control.join(script), 0o755)?;
    }
    fs::write(control.join("control"), self::control(&root, wanted, built)?)?;
    fs::write(control.join("md5sums"), sums(&root)?)?;
    for path in below(&root)? {
        let touch = finish(Command::new("touch").args(["--no-create", "-d", &format!("@{moment}")]).arg(path));
        touch.context("the moment of a file cannot be set")?;
    }
    let deb = place.join(format!("{NAME}_{}_{}.deb", env!("CARGO_PKG_VERSION"), file_name(wanted)));
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Zxz", "--build"]).arg(&root).arg(&deb);
    finish(build.env("SOURCE_DATE_EPOCH", moment))?;
    Ok(deb)
}

/// Debian's architecture; with the board where it is one's own.
fn file_name(wanted: &Wanted) -> String {
    match &wanted.profile {
        Some(profile) => format!("{}_{}", profile.board, wanted.target.debian()),
        None => wanted.target.debian().to_owned(),
    }
}

fn control(root: &Path, wanted: &Wanted, built: &Built) -> anyhow::Result<String> {
    let kilobytes = output(Command::new("du").args(["-sk", "--exclude=DEBIAN"]).arg(root))?;
    let kilobytes = kilobytes.split_whitespace().next().context("du says nothing")?.to_owned();
    let (major, minor) = libc(built)?;
    Ok(format!(
        "Package: {NAME}\nVersion: {}\nArchitecture: {}\nMaintainer: The Petrel developers <petrel@example.org>\n\
         Installed-Size: {kilobytes}\nDepends: libc6 (>= {major}.{minor}), libgcc-s1, init-system-helpers (>= 1.54~), systemd | systemd-standalone-sysusers\n\
         Section: net\nPriority: optional\n\
         Description: signed machine-learning models on small devices\n \
         The agent of a device: it takes signed models over MQTT, tries them with their\n \
         golden vectors, serves them on a local API, tells a fleet's bridge how they do,\n \
         and goes back to the release before when a new one does not do.\n \
         .\n \
         A device is let in with a join file: petrel-agent enrol DEVICE.join\n",
        env!("CARGO_PKG_VERSION"),
        wanted.target.debian(),
    ))
}

/// The newest part of the C library that the program asks for.
fn libc(built: &Built) -> anyhow::Result<(u32, u32)> {
    let asked = output(built.tools.command("objdump").arg("-p").arg(&built.program))?;
    let versions = asked.split("GLIBC_").skip(1).filter_map(|rest| {
        let version: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let mut parts = version.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    });
    let newest = versions.max().context("the program asks for no C library")?;
    ensure!(newest < (3, 0), "the program asks for glibc {newest:?}");
    let least = if asked.contains(PACKED) { PACKED_LIBC } else { LEAST_LIBC };
    Ok(newest.max(least))
}

fn changelog(root: &Path, moment: &str) -> anyhow::Result<()> {
    let date = output(Command::new("date").args(["-R", "-u", "-d", &format!("@{moment}")]))?;
    let text = format!(
        "{NAME} ({}) unstable; urgency=medium\n\n  * See CHANGELOG.md of the project.\n\n -- The Petrel developers <petrel@example.org>  {}\n",
        env!("CARGO_PKG_VERSION"),
        date.trim()
    );
    let path = root.join("usr/share/doc").join(NAME).join("changelog");
    fs::write(&path, text)?;
    finish(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(&path))
}

fn sums(root: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for path in below(root)?.into_iter().filter(|path| path.is_file()) {
        let name = path.strip_prefix(root)?;
        if !name.starts_with("DEBIAN") {
            let sum = output(Command::new("md5sum").arg(&path))?;
            let sum = sum.split_whitespace().next().context("md5sum says nothing")?;
            text.push_str(&format!("{sum}  {}\n", name.display()));
        }
    }
    Ok(text)
}
