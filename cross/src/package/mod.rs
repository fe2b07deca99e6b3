//! `cargo xtask package`: what people install on a device: a .deb, a tarball of the same files, and a bill of both.
//!
//! Decides which files go where. The same commit gives the same packages: their moment is the commit's.

mod bill;
mod deb;
mod trial;

use crate::build::{output, run as finish, workspace};
use crate::cross::{Wanted, folder};
use anyhow::{Context, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name of the package.
const NAME: &str = "petrel-agent";
/// Where each file of the house goes, and what it may do there.
const FILES: [(&str, &str); 9] = [
    ("cross/systemd/petrel-agent.service", "lib/systemd/system/petrel-agent.service"),
    ("cross/systemd/petrel-agent.sysusers", "usr/lib/sysusers.d/petrel-agent.conf"),
    ("cross/systemd/petrel-agent.tmpfiles", "usr/lib/tmpfiles.d/petrel-agent.conf"),
    ("cross/debian/copyright", "usr/share/doc/petrel-agent/copyright"),
    ("cross/debian/agent.toml", "usr/share/doc/petrel-agent/examples/agent.toml"),
    ("cross/systemd/petrel-agent.service.d/camera.conf", "usr/share/doc/petrel-agent/examples/camera.conf"),
    ("cross/systemd/petrel-agent.service.d/feeds.conf", "usr/share/doc/petrel-agent/examples/feeds.conf"),
    ("cross/systemd/petrel-agent.service.d/gpio.conf", "usr/share/doc/petrel-agent/examples/gpio.conf"),
    ("cross/systemd/petrel-agent.service.d/tpm.conf", "usr/share/doc/petrel-agent/examples/tpm.conf"),
];

/// `cargo xtask package --target T [--profile BOARD] [--quick] [--try]`
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let (tried, args): (Vec<String>, Vec<String>) = args.iter().cloned().partition(|arg| arg == "--try");
    let wanted = Wanted::asked(&args)?;
    let built = wanted.build()?;
    let place = folder().join("packages");
    fs::create_dir_all(&place)?;
    let moment = moment()?;
    let bill = bill::of(&wanted, &built)?;
    let tree = place.join(format!("{}.tree", wanted.name));
    lay(&tree, &built.program, &bill)?;
    let stem = format!("{NAME}_{}_{}", env!("CARGO_PKG_VERSION"), wanted.name);
    let (tar, sbom) = (place.join(format!("{stem}.tar.gz")), place.join(format!("{stem}.cdx.json")));
    fs::write(&sbom, &bill)?;
    pack(&tree, &tar, &moment)?;
    let deb = deb::make(&tree, &wanted, &built, &moment, &place)?;
    for made in [&deb, &tar, &sbom] {
        let digest = output(Command::new("sha256sum").arg(made))?;
        println!("{}", digest.trim());
    }
    if !tried.is_empty() {
        trial::of(&deb, &place)?;
    }
    Ok(())
}

/// The moment of the commit, as every file of a package has it.
fn moment() -> anyhow::Result<String> {
    if let Ok(said) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(said);
    }
    let told = output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(workspace()));
    Ok(told.context("set SOURCE_DATE_EPOCH where there is no git")?.trim().to_owned())
}

/// The files of a device as they lie on its disk.
fn lay(tree: &Path, program: &Path, bill: &str) -> anyhow::Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    put(program, &tree.join("usr/bin/petrel-agent"), 0o755)?;
    for (from, to) in FILES {
        put(&workspace().join(from), &tree.join(to), 0o644)?;
    }
    for entry in fs::read_dir(workspace().join("firmware-profiles"))? {
        let entry = entry?;
        put(&entry.path(), &tree.join("usr/share/petrel/profiles").join(entry.file_name()), 0o644)?;
    }
    let doc = tree.join("usr/share/doc").join(NAME);
    fs::write(doc.join("sbom.cdx.json"), bill)?;
    fs::set_permissions(doc.join("sbom.cdx.json"), fs::Permissions::from_mode(0o644))?;
    Ok(())
}

fn put(from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    let folder = to.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// A tarball that is the same for the same files.
fn pack(tree: &Path, to: &Path, moment: &str) -> anyhow::Result<()> {
    let bare = to.with_extension("");
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    tar.arg(format!("--mtime=@{moment}")).arg("-C").arg(tree).arg("-cf").arg(&bare).arg(".");
    finish(&mut tar)?;
    finish(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(&bare))?;
    ensure!(to.exists(), "gzip made no {}", to.display());
    Ok(())
}

/// Every file and folder, those in a folder before it.
fn below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(below(&path)?);
        }
        all.push(path);
    }
    all.sort();
    Ok(all)
}
