//! What a smaller program costs: the same sources, all of them made fast, or only the kernels.
//!
//! Decides what is weighed against what. Which crates are kernels is said in the workspace's `Cargo.toml`.

use super::Row;
use super::engine::{Bench, Zoo};
use crate::build::{self, Profile, folder};
use crate::cross::Wanted;
use crate::size::Size;
use std::fs;
use std::path::{Path, PathBuf};

/// What the page says of it.
pub(super) const ABOUT: &str = "`opt-level = \"s\"` for everything but the kernels that `Cargo.toml` names, over `opt-level = 3` for everything: the program for 64-bit ARM, with everything \
and for the smallest board, and on this machine the latency of the engine, the same models, one thread each, in turns: the median of a round of calls, the best of seven. \
Below 1 is smaller, or faster.";

/// Small, and fast.
const LEVELS: [&str; 2] = ["s", "3"];
const BOARDS: [&str; 2] = ["generic-aarch64", "rpi-zero-2w"];
const MB: f64 = 1e6;

pub(super) fn run(_: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let [small, fast] = LEVELS.map(measure);
    let zoo = Zoo::made()?;
    let bench = Bench { sides: [vec![small?], vec![fast?]], zoo: zoo.folder };
    for model in &zoo.models {
        eprintln!("{}", model.name);
        rows.extend(bench.latencies(model)?);
    }
    let logarithms: f64 = rows.iter().map(|row| row.value.ln()).sum();
    rows.push(Row::new("latency, the geometric mean of these", (logarithms / rows.len() as f64).exp(), "x"));
    for board in BOARDS {
        let size = |level| anyhow::Ok(Size::of(&Wanted::of(board, false)?.at(level).build()?)?.file as f64 / MB);
        let (small, fast) = (size(LEVELS[0])?, size(LEVELS[1])?);
        let beside = format!("{small:.1} MB over {fast:.1} MB");
        rows.push(Row::new(&format!("the program of {board}"), small / fast, "x").beside(&beside));
    }
    Ok(rows)
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
