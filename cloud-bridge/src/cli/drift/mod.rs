//! `petrel drift`: what was measured, against what was trained on.
//!
//! Decides which question is asked. How figures are made is decided by `drift`; docs/drift.md has the conventions.

mod alarms;
mod chart;
mod compare;
mod show;

use super::Out;
use super::client::Client;
use std::time::Duration;

/// How far data are from what a model was trained on
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  petrel drift digits
  petrel drift digits --since 7d --by device
  petrel drift digits --feature picture.brightness --svg brightness.svg
  petrel drift alarms
  petrel drift compare --baseline train.csv --window last-week.csv

What alarms is decided on each device, which alone knows how its inputs vary from window to
window; distances and effects are shown beside it. docs/drift.md says how each figure is made."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    show: show::Show,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare two tables of rows, feature by feature; nobody else is asked
    #[command(after_help = "\
Examples:
  petrel drift compare --baseline train.csv --window last-week.csv
  petrel drift compare --baseline train.npy --window week.npy --json

Distances (PSI, JS, KS, Wasserstein) are shown and never alarmed on. The levels are those of
a device that takes its rows for independent. docs/drift.md says how every figure is made,
so that it can be made again with scipy.")]
    Compare(compare::Compare),
    /// Alarms that devices raised, the newest first
    #[command(after_help = "Examples:\n  petrel drift alarms\n  petrel drift alarms digits --all --json")]
    Alarms(alarms::Alarms),
    /// Say that you have seen an alarm; a louder one is told again
    #[command(name = "ack", after_help = "Example:\n  petrel drift ack 12")]
    Acknowledge(alarms::Acknowledge),
}

impl Args {
    /// Asks and tells.
    ///
    /// # Errors
    /// When a table cannot be read, or the bridge does not answer.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        match self.command {
            Some(Command::Compare(compare)) => compare.run(out),
            Some(Command::Alarms(alarms)) => alarms.run(&Client::from_context()?, out),
            Some(Command::Acknowledge(acknowledge)) => acknowledge.run(&Client::from_context()?, out),
            None => self.show.run(&Client::from_context()?, out),
        }
    }
}

/// A time as people write it: `90s`, `30m`, `24h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("write a number and s, m, h or d, for example 24h".into()),
    };
    let number: u64 = number.parse().map_err(|_| "write a number and s, m, h or d, for example 24h".to_owned())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "that is too long".into())
}

fn short(value: Option<f64>) -> String {
    let shown = |value: f64| match value.abs() {
        size if size == 0.0 || (0.001..1e6).contains(&size) => format!("{value:.3}"),
        _ => format!("{value:.2e}"),
    };
    value.map_or("-".to_owned(), shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_one_unit() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        assert_eq!(["90s", "30m", "24h", "7d"].map(seconds), [Ok(90), Ok(1_800), Ok(86_400), Ok(604_800)]);
        for wrong in ["", "h", "1", "1w", "-1h", "1.5h", "ü", "99999999999999999999d", "9999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
