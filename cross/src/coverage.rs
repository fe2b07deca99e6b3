//! `cargo xtask coverage`: which lines of the trust crate its own tests run.
//!
//! Decides where the tools come from: wheels, so that a machine with nothing but the house's toolchain and
//! Python can measure. LLVM's tools must be of the major version that the compiler was made with.

use crate::build::{cargo, output, python, workspace};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::process::Command;

/// Of a hundred lines of the trust crate.
pub(crate) const GOAL: f64 = 90.0;

/// What was measured.
pub(crate) struct Coverage {
    /// Lines that a test runs, of a hundred.
    pub(crate) percent: f64,
    /// Lines that a test runs.
    pub(crate) covered: u64,
    /// Lines with code.
    pub(crate) lines: u64,
    /// Each file, from the least covered on.
    files: Vec<(String, f64)>,
}

/// `cargo xtask coverage [--json]`
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let found = measure()?;
    if args.iter().any(|arg| arg == "--json") {
        println!("{}", serde_json::json!({ "percent": found.percent, "covered": found.covered, "lines": found.lines }));
    } else {
        for (file, percent) in &found.files {
            println!("{percent:>6.1} %  {file}");
        }
        println!("contract/trust: {} of {} lines, {:.1} %", found.covered, found.lines, found.percent);
    }
    ensure!(found.percent >= GOAL, "at least {GOAL} % of the lines are to be run");
    Ok(())
}

/// Runs the tests of `contract/trust`, built to count.
pub(crate) fn measure() -> anyhow::Result<Coverage> {
    let python = python("tools/coverage", "cross/coverage-requirements.txt")?;
    let program = python.with_file_name("cargo-llvm-cov");
    let find = "import llvm, pathlib; print(pathlib.Path(llvm.__file__).parent / 'bin')";
    let tools = output(Command::new(&python).args(["-c", find]))?;
    let tools = std::path::Path::new(tools.trim());
    let mut command = Command::new(program);
    command.args(["llvm-cov", "--package", "petrel-trust", "--tests", "--json", "--summary-only"]);
    command.args(["--ignore-filename-regex", "/tests/"]).current_dir(workspace());
    command.env("CARGO_TARGET_DIR", workspace().join("target/coverage"));
    // The wheel's tools read no compressed names.
    command.env("RUSTFLAGS", "-Cllvm-args=-enable-name-compression=false");
    command.env("LLVM_COV", tools.join("llvm-cov")).env("LLVM_PROFDATA", tools.join("llvm-profdata"));
    command.env("CARGO", cargo().get_program());
    let said = output(&mut command)?;
    let start = said.find("{\"data\"").context("cargo-llvm-cov gave no report")?;
    let report: Value = serde_json::from_str(said[start..].trim())?;
    let data = &report["data"][0];
    let number =
        |value: &Value, name: &str| value["lines"][name].as_f64().with_context(|| format!("no {name} of lines"));
    let mut files = Vec::new();
    for file in data["files"].as_array().context("no files")? {
        let name = file["filename"].as_str().context("a file without a name")?;
        let name = name.rsplit_once("contract/").map_or(name, |(_, rest)| rest);
        files.push((name.to_owned(), number(&file["summary"], "percent")?));
    }
    files.sort_by(|a, b| a.1.total_cmp(&b.1));
    let totals = &data["totals"];
    let (covered, lines) = (number(totals, "covered")? as u64, number(totals, "count")? as u64);
    Ok(Coverage { percent: number(totals, "percent")?, covered, lines, files })
}
