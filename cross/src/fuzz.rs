//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz`, each for so many seconds, with the golden documents to begin with.
//!
//! Decides how they are built on a machine with the house's own toolchain: cargo-fuzz comes as a wheel, and
//! its flags are let through on stable. What must hold for any bytes is decided beside each room's tests.

use crate::build::{output, python, run as finish, workspace};
use anyhow::{Context, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where documents to begin with lie.
const SEEDS: [&str; 4] = [
    "contract/trust/tests/golden",
    "contract/protocol/tests/golden",
    "contract/drift/tests/golden",
    "tests/fuzz/seeds",
];

/// `cargo xtask fuzz [--seconds N] [TARGET …]`
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let (seconds, named) = asked(args)?;
    let fuzz = Fuzz::ready()?;
    let known = fuzz.targets()?;
    if let Some(name) = named.iter().find(|name| !known.contains(name)) {
        bail!("there is no target {name}: known are {}", known.join(", "));
    }
    let chosen = if named.is_empty() { known } else { named };
    fuzz.build()?;
    let mut total = 0;
    for target in &chosen {
        let executions = fuzz.run(target, seconds)?;
        println!("{target}: {executions} executions in {seconds} s, no crash");
        total += executions;
    }
    println!("fuzz: {} targets, {total} executions, 0 crashes", chosen.len());
    Ok(())
}

fn asked(args: &[String]) -> anyhow::Result<(u64, Vec<String>)> {
    let (mut seconds, mut named, mut args) = (60, Vec::new(), args.iter());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => seconds = args.next().context("--seconds takes a number")?.parse()?,
            flag if flag.starts_with("--") => bail!("there is no flag {flag}"),
            name => named.push(name.to_owned()),
        }
    }
    Ok((seconds, named))
}

/// cargo-fuzz, and where it works.
struct Fuzz {
    program: PathBuf,
    target: PathBuf,
}

impl Fuzz {
    fn ready() -> anyhow::Result<Self> {
        let program = python("tools/fuzz", "cross/fuzz-requirements.txt")?.with_file_name("cargo-fuzz");
        Ok(Self { program, target: workspace().join("target/fuzz") })
    }

    fn cargo_fuzz(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["fuzz", verb]).arg("--fuzz-dir").arg(workspace().join("tests/fuzz")).current_dir(workspace());
        // libFuzzer's flags are not stable; the compiler is the house's all the same.
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }

    fn targets(&self) -> anyhow::Result<Vec<String>> {
        Ok(output(&mut self.cargo_fuzz("list"))?.lines().map(str::to_owned).collect())
    }

    /// No sanitizer: there is no unsafe code to watch, and without one it is faster.
    fn build(&self) -> anyhow::Result<()> {
        finish(self.cargo_fuzz("build").args(["--sanitizer", "none", "--target-dir"]).arg(&self.target))
    }

    /// Runs one target; gives how often it was called.
    fn run(&self, target: &str, seconds: u64) -> anyhow::Result<u64> {
        let corpus = workspace().join("tests/fuzz/corpus").join(target);
        fs::create_dir_all(&corpus)?;
        for folder in SEEDS {
            plant(&workspace().join(folder), &corpus)?;
        }
        let mut command = self.cargo_fuzz("run");
        command.args(["--sanitizer", "none", "--target-dir"]).arg(&self.target).arg(target).arg(&corpus).arg("--");
        command.arg(format!("-max_total_time={seconds}")).args([
            "-print_final_stats=1",
            "-max_len=65536",
            "-timeout=10",
        ]);
        let done = command.output().with_context(|| format!("cannot run {target}"))?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{target} found something:\n{}", tail(&said));
        let executed = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        executed
            .and_then(|n| n.trim().parse().ok())
            .with_context(|| format!("{target} did not say how often:\n{}", tail(&said)))
    }
}

fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Each document as it is, and behind every first byte that a target distinguishes.
fn plant(folder: &Path, corpus: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut bytes = fs::read(entry.path())?;
        if name.ends_with(".hex") {
            bytes = decoded(&bytes).with_context(|| format!("{name} is no hex"))?;
        }
        fs::write(corpus.join(&name), &bytes)?;
        for mode in 0..9 {
            fs::write(corpus.join(format!("{name}.{mode}")), [&[mode], &bytes[..]].concat())?;
        }
    }
    Ok(())
}

fn decoded(hex: &[u8]) -> Option<Vec<u8>> {
    let (pairs, _) = hex.trim_ascii().as_chunks::<2>();
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
