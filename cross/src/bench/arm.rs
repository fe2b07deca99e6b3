//! The agent for ARM: what its program weighs, with everything and for the smallest board, and what in it weighs.
//!
//! Decides what is worth a row. The goals are the budgets of `firmware-profiles`.

use super::Row;
use crate::cross::Wanted;
use crate::size::Size;
use std::path::Path;

/// What the page says of it.
pub(super) const ABOUT: &str = "The agent's program for 64-bit ARM, in the release profile, stripped: with everything, and as `firmware-profiles/rpi-zero-2w.toml` \
asks for it, without pictures and text. The budgets are those of the profiles. By crate: the functions and tables that are there because of a crate, before the file is stripped; \
what is inlined counts for the crate it is inlined into. `cargo xtask size --target aarch64-unknown-linux-gnu` shows all of it.";

/// With everything, and the smallest.
const BOARDS: [&str; 2] = ["generic-aarch64", "rpi-zero-2w"];
const MB: f64 = 1e6;
/// The largest crates of the first.
const CRATES: usize = 12;

pub(super) fn run(_: &Path) -> anyhow::Result<Vec<Row>> {
    let (mut rows, mut crates) = (Vec::new(), Vec::new());
    for board in BOARDS {
        let wanted = Wanted::of(board, false)?;
        let size = Size::of(&wanted.build()?)?;
        let text = size.sections.iter().find(|(name, _)| name == ".text").map_or(0, |(_, bytes)| *bytes);
        let budget = wanted.profile.as_ref().map_or(f64::MAX, |profile| profile.build.budget_mb as f64);
        let beside = format!("{:.1} MB of it are code", text as f64 / MB);
        rows.push(
            Row::new(&format!("the program of {board}"), size.file as f64 / MB, "MB").at_most(budget).beside(&beside),
        );
        if crates.is_empty() {
            crates = size.crates;
        }
    }
    let of = |(name, bytes): &(String, u64)| Row::new(&format!("{}: {name}", BOARDS[0]), *bytes as f64 / MB, "MB");
    rows.extend(crates.iter().take(CRATES).map(of));
    Ok(rows)
}
