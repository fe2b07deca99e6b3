//! What a smaller program costs and gains: the same sources, all of them made fast, or only the kernels.
//!
//! Decides what is weighed against what. Which crates are kernels is said in the workspace's `Cargo.toml`.

use super::Row;
use super::engine::{Bench, Zoo};
use crate::build::{self, Profile, folder};
use std::fs;
use std::path::{Path, PathBuf};

/// What the page says of it.
pub(super) const ABOUT: &str = "`opt-level = \"s\"` for everything but the kernels that `Cargo.toml` names, over `opt-level = 3` for everything: the engine alone, on this machine. \
Size: of the program that measures it, which holds the inference library, pictures and text, and nothing of the network. Latency: the same models, one thread each, in turns: the median of a round of calls, the best of seven. \
Below 1 is smaller, or faster.";

/// Small, and fast.
const LEVELS: [&str; 2] = ["s", "3"];
const MB: f64 = 1e6;

pub(super) fn run(_: &Path) -> anyhow::Result<Vec<Row>> {
    let [small, fast] = LEVELS.map(measure);
    let sides = [vec![small?], vec![fast?]];
    let mut sizes = [0.0; 2];
    for (size, side) in sizes.iter_mut().zip(&sides) {
        *size = fs::metadata(&side[0])?.len() as f64 / MB;
    }
    let [small, fast] = sizes;
    let size = Row::new("the program", small / fast, "x").beside(&format!("{small:.1} MB over {fast:.1} MB"));
    let zoo = Zoo::made()?;
    let bench = Bench { sides, zoo: zoo.folder };
    let mut rows = Vec::new();
    for model in &zoo.models {
        eprintln!("{}", model.name);
        rows.extend(bench.latencies(model)?);
    }
    let logarithms: f64 = rows.iter().map(|row| row.value.ln()).sum();
    let mean = Row::new("latency, the geometric mean of all", (logarithms / rows.len() as f64).exp(), "x");
    Ok([size, mean].into_iter().chain(rows).collect())
}

/// The program that measures the engine, optimised so far.
fn measure(level: &str) -> anyhow::Result<PathBuf> {
    let examples = folder(Profile::Release).join("examples");
    let mut build = build::cargo();
    build.args(["build", "--release", "--package", "petrel-engine", "--example", "measure"]);
    build::run(build.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", level))?;
    let named = examples.join(format!("measure-{level}"));
    // Another name and another file: cargo writes the next one over this.
    fs::copy(examples.join("measure"), &named)?;
    Ok(named)
}
