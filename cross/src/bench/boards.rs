//! The agent as boards get it, and its memory while it runs no model: what a board always pays.
//!
//! Decides which agent is measured, and by whose method.

use super::{Asked, Row};
use crate::build::output;
use crate::cross::{Wanted, folder};
use anyhow::Context;
use board::Target;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MB: f64 = 1e6;
/// The most that it should be.
const GOAL: f64 = 12.0;

/// The agent as boards get it, built for this machine, beside land's programs, as people have them; gives the folder.
pub(super) fn programs(land: &Path) -> anyhow::Result<PathBuf> {
    let host = Target::ALL.into_iter().find(|target| target.arch() == std::env::consts::ARCH);
    let agent = Wanted::all(host.context("there is no agent for this machine")?, false).build()?.program;
    let place = folder().join("cross/measured-host");
    fs::create_dir_all(&place)?;
    for (from, name) in [(agent, "petrel-agent"), (land.join("petrel"), "petrel")] {
        fs::copy(&from, place.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(place)
}

/// Proportional set size: of a program under an emulator the figure means nothing.
pub(super) fn idle(Asked { folder: land, full }: Asked, programs: &Path) -> anyhow::Result<Row> {
    let figure = if full { "idle_full" } else { "idle" };
    let said = output(Command::new(land.join("measure")).arg(programs).args(["device", figure]))?;
    let seen: Value = serde_json::from_str(&said).context("the program that measures did not say what it saw")?;
    let seen = &seen[figure];
    let number = |name: &str| seen[name].as_f64().with_context(|| format!("no {name} was seen"));
    let beside = format!(
        "the middle of {} minutes after {} s, the middle of {} runs, from {:.1} to {:.1}; {:.1} MB of it are its own, the rest is of its file",
        number("seconds")? / 60.0,
        number("settled_s")?,
        number("runs")?,
        number("least")? / MB,
        number("greatest")? / MB,
        number("anonymous")? / MB
    );
    Ok(Row::new("idle, connected by TLS, no model: PSS", number("pss")? / MB, "MB").at_most(GOAL).beside(&beside))
}
