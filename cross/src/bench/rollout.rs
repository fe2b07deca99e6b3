//! Rollouts in figures: what a release that misbehaves costs a fleet, with our judge and with rules that people use.
//!
//! Decides what each figure should be. The fleet is modelled by an example of the tests, under the real core of the bridge.

use super::{Asked, Row};
use crate::build::output;
use anyhow::Context;
use serde_json::Value;
use std::process::Command;

/// What the page says of it.
pub(super) const ABOUT: &str = "Ten thousand modelled devices under the real core of the bridge, in virtual time, with fixed seeds: 200 rollouts of each kind for our judge, 50 for each rule. \
Waves of 1, 10, 50 and 100 %, looked at for two hours, one, one and one; a device tells its figures every half hour, is asked 120 to 1,200 times an hour, fails about 1 % of that, and differs from the others in all of it: \
errors by a factor of three, latency by five, classes by three. Errors (by a half), latency (15 %) and one class (40 %) follow the hour of the day, and a rollout begins at any hour. One device of a thousand refuses any release. A rule sees the same figures of the same devices; *reached* is the share of the fleet that had the release \
when it was stopped, or everybody. Without a change a stop is a false one.";

/// The program that measures.
pub(super) const EXAMPLE: (&str, &str) = ("world", "rollout");

pub(super) fn run(Asked { folder, .. }: Asked) -> anyhow::Result<Vec<Row>> {
    let seen: Value = serde_json::from_str(&output(&mut Command::new(folder.join("examples/rollout")))?)?;
    let mut rows = Vec::new();
    for cell in seen["cells"].as_array().context("nothing was measured")? {
        let name = cell["cell"].as_str().unwrap_or_default();
        let percent = |of: &Value, figure: &str| {
            of[figure].as_f64().map(|share| 100.0 * share).with_context(|| format!("no {figure} of {name}"))
        };
        let ours = &cell["ours"];
        let rules = cell["rules"].as_array().context("no rule was tried")?;
        let beside = |figure: &str| -> anyhow::Result<String> {
            let told = rules.iter().map(|rule| {
                anyhow::Ok(format!(
                    "{} {:.1} %",
                    rule["rule"].as_str().unwrap_or_default(),
                    percent(&rule["seen"], figure)?
                ))
            });
            Ok(told.collect::<anyhow::Result<Vec<_>>>()?.join("; "))
        };
        if name == "no change" {
            rows.push(
                Row::new("no change: stopped", percent(ours, "stopped")?, "%").at_most(1.0).beside(&beside("stopped")?),
            );
            let hours = ours["hours"].as_f64().unwrap_or_default();
            rows.push(
                Row::new("no change: went on to its end by itself", percent(ours, "completed")?, "%")
                    .at_least(100.0)
                    .beside(&format!("after {hours:.1} h on average; its soaks are five")),
            );
            continue;
        }
        let hours = ours["hours"].as_f64().unwrap_or_default();
        let anchor = format!("after {hours:.1} h with the way back; rules, on average: {}", beside("mean_hit")?);
        rows.push(
            Row::new(&format!("{name}: reached, at most"), percent(ours, "worst_hit")?, "%")
                .at_most(1.5)
                .beside(&anchor),
        );
        let left = ours["left"].as_f64().context("nobody looked who is left")?;
        rows.push(Row::new(&format!("{name}: devices that did not go back"), left, "").at_most(0.0));
    }
    Ok(rows)
}
