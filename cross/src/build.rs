//! Building: one cargo, one target folder, the whole workspace at once, so that nothing is built twice;
//! and the Python environments of those who need one.

use anyhow::{Context, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which profile binaries are built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// The one that tests use.
    Dev,
    /// The one that figures are made with.
    Release,
}

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The cargo that runs us, without what it told us of this package: some build scripts look at that, and
/// would build their crates again each time another package asks.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    let of_this_package = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.starts_with(start));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_package)) {
        command.env_remove(name);
    }
    command
}

/// Builds every binary of the workspace; returns the folder where they are.
pub(crate) fn binaries(profile: Profile) -> anyhow::Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--workspace", "--bins"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    run(&mut command)?;
    Ok(folder(profile))
}

/// The folder where the binaries of a profile are.
pub(crate) fn folder(profile: Profile) -> PathBuf {
    crate::cross::folder().join(match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    })
}

/// Builds both binaries and runs `petrel demo`; its exit code is ours.
pub(crate) fn demo(args: &[String]) -> anyhow::Result<()> {
    let petrel = binaries(Profile::Dev)?.join("petrel");
    let status = Command::new(&petrel).arg("demo").args(args).status();
    let status = status.with_context(|| format!("cannot run {}", petrel.display()))?;
    if !status.success() {
        // It has said why.
        std::process::exit(status.code().unwrap_or(1));
    }
    Ok(())
}

/// Builds an example of a package in the release profile.
pub(crate) fn example(package: &str, name: &str) -> anyhow::Result<()> {
    run(cargo().args(["build", "--release", "--package", package, "--example", name]))
}

/// A Python with the wheels of a requirements file, made once in this folder of `target`.
pub(crate) fn python(folder: &str, requirements: &str) -> anyhow::Result<PathBuf> {
    let requirements = workspace().join(requirements);
    let venv = workspace().join("target").join(folder);
    let python = venv.join("bin/python");
    let stamp = venv.join("requirements.txt");
    let wanted = std::fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    if std::fs::read(&stamp).ok().as_ref() != Some(&wanted) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements);
        run(&mut pip)?;
        std::fs::write(&stamp, wanted)?;
    }
    Ok(python)
}

/// Runs a command to its end; fails when it does.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_os_string();
    let status = command.status().with_context(|| format!("cannot run {}", shown(&name)))?;
    ensure!(status.success(), "{} {} failed ({status})", shown(&name), arguments(command));
    Ok(())
}

/// Runs a command to its end and gives its standard output.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_os_string();
    let done = command.stderr(std::process::Stdio::inherit()).output();
    let done = done.with_context(|| format!("cannot run {}", shown(&name)))?;
    ensure!(done.status.success(), "{} {} failed ({})", shown(&name), arguments(command), done.status);
    Ok(String::from_utf8(done.stdout)?)
}

fn shown(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn arguments(command: &Command) -> String {
    command.get_args().map(shown).collect::<Vec<_>>().join(" ")
}
