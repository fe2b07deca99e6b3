//! Drift in figures: what an alarm is worth, and what it costs to measure.
//!
//! Decides what each figure should be. The streams are simulated by an example of the crate, with fixed seeds.

use super::{Asked, Row};
use crate::build::output;
use anyhow::Context;
use serde_json::Value;
use std::process::Command;

/// What the page says of it.
pub(super) const ABOUT: &str = "Simulated streams with fixed seeds ([drift.md](drift.md) has the methods). Without drift: windows of 50, 100, 200, 500, 1,000 and 3,600 rows \
of 10, 30 and 64 features of eight kinds (normal twice, log-normal, even, whole numbers, mostly zero, seldom yes, Cauchy; one in eight with 1 % missing), 1,000 windows in each of the 18 cells, a fresh \
baseline of 5,000 rows for every 125; the figure is that of the worst cell. Dependent rows: AR(1) with .9 of the last value, windows of 200 and 1,000 rows of 10 and 64 \
features, 400 windows of four devices each after the hundred that are learned from; the worst cell. Gradual drift: the mean of 400 runs, a normal feature and a fresh baseline each; \
between false alarms: 20 million rows watched against 40 baselines. On aarch64 an update of a usual value is 93 instructions, counted in the assembly (goal: at most 100). The figures beside ours are of the same kinds of windows, measured once with whylogs 1.6.4, \
Evidently and river.";

/// The program that measures.
pub(super) const EXAMPLE: (&str, &str) = ("petrel-drift", "drift");

pub(super) fn run(Asked { folder, .. }: Asked) -> anyhow::Result<Vec<Row>> {
    let seen: Value = serde_json::from_str(&output(&mut Command::new(folder.join("examples/drift")))?)?;
    let number = |at: &str| seen.pointer(at).and_then(Value::as_f64).with_context(|| format!("no {at} was measured"));
    let percent = |at: &str| anyhow::Ok(100.0 * number(at)?);
    let mut rows = vec![
        Row::new("one hourly summary, 64 features, 3,600 rows", number("/size/bytes")?, "bytes")
            .at_most(3_000.0)
            .beside(&format!("{} when every feature drifts; a whylogs profile 1.14 MB", number("/size/drifted_bytes")?)),
        Row::new("update, a value", number("/update/window_ns")?, "ns").at_most(50.0).beside(&format!(
            "{:.1} with the watch for gradual drift; whylogs 58,000 row by row",
            number("/update/monitor_ns")?
        )),
        Row::new("merges in other orders that differ by a bit", number("/merge/different")?, "")
            .at_most(0.0)
            .beside(&format!("of {} orders and groupings of 30 windows", number("/merge/orders")?)),
        Row::new("windows without drift that page", percent("/quiet/worst_paged")?, "%").at_most(1.0).beside(&format!(
            "{:.1} % warn or page, {:.2} % page over all cells; Evidently 5 to 99 %",
            percent("/quiet/worst_warned")?,
            percent("/quiet/paged")?
        )),
        Row::new("AR(1) without drift: alarms, warnings too, of a feature", percent("/dependent/worst")?, "%")
            .at_most(0.5)
            .beside(&format!("{:.0} % when its rows are taken for independent; KS 73 %", percent("/dependent/uncorrected")?)),
        Row::new("AR(1) without drift: windows that page", percent("/dependent/worst_paged_windows")?, "%")
            .at_most(1.0)
            .beside("the worst cell, up to 64 features"),
        Row::new("gradual drift: delay at .5 sigma", number("/gradual/delay_half")?, "rows").at_most(200.0).beside("ADWIN 112"),
        Row::new("gradual drift: delay at 1 sigma", number("/gradual/delay_one")?, "rows").at_most(50.0).beside("ADWIN 48"),
        Row::new("gradual drift: rows between false alarms, at least", number("/gradual/run_length")?, "rows")
            .at_least(1e5)
            .beside(&format!("{} in {} rows", number("/gradual/alarms")?, number("/gradual/rows_watched")?)),
        Row::new("missing 2 % of 200 rows: seen, 10 features", percent("/missing/seen")?, "%").at_least(75.0).beside(&format!(
            "{:.0} % as one of 64 features, {:.0} % with a baseline of 10,000 rows; Evidently none up to 50 % missing",
            percent("/missing/seen_of_64")?,
            percent("/missing/seen_of_64_with_more")?
        )),
    ];
    for cell in seen["seen"].as_array().context("no changes were measured")? {
        let text = |name: &str| cell[name].as_str().unwrap_or_default();
        let share = |name: &str| cell[name].as_f64().map(|share| 100.0 * share).with_context(|| format!("no {name}"));
        let (paged, named) = (share("paged")?, share("named")?);
        rows.push(
            Row::new(
                &format!("one of ten features {}, {} rows: seen", text("change"), cell["rows"]),
                share("seen")?,
                "%",
            )
            .beside(&format!("{paged:.0} % page; {named:.0} % of the alarms say {}", text("cause"))),
        );
    }
    Ok(rows)
}
