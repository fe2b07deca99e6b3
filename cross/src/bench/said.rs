//! What tests say of themselves, for benches whose figures are made by tests.
//!
//! Decides how a test is run and how its numbers are read.

use crate::build::{cargo, output};
use anyhow::Context;

/// What a test said, with these variables. Its other output is none.
pub(super) fn test(of: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<String> {
    eprintln!("{}", of.join(" "));
    let mut command = cargo();
    command.args(["test", "--quiet"]).args(of).args(["--", "--nocapture"]);
    output(command.envs(environment.iter().copied()))
}

/// The numbers of the line that holds `mark`, in their order.
pub(super) fn numbers(said: &str, mark: &str) -> anyhow::Result<Vec<f64>> {
    let line = said.lines().find(|line| line.contains(mark)).with_context(|| format!("nobody said `{mark}`"))?;
    let digits = line.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
    digits.map(|word| word.parse().context("a number")).collect()
}
