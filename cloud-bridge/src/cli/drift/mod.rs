//! `petrel drift`: what was measured, against what was trained on.
//!
//! Decides which question is asked. How figures are made is decided by `drift`; docs/drift.md has the conventions.

mod alarms;
mod chart;
mod compare;
mod show;

use super::Out;
use super::client::Client;

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

fn short(value: Option<f64>) -> String {
    let shown = |value: f64| match value.abs() {
        size if size == 0.0 || (0.001..1e6).contains(&size) => format!("{value:.3}"),
        _ => format!("{value:.2e}"),
    };
    value.map_or("-".to_owned(), shown)
}
