//! `petrel streams`: the releases of all streams, and the room that they take.

use super::client::Client;
use super::table::{ago, table};
use super::{Out, bytes};
use crate::service::view::StockView;
use std::time::{SystemTime, UNIX_EPOCH};

/// The releases of all streams, and the room that they take
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  petrel streams gc --dry-run")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Remove the releases that nothing needs from the bridge
    #[command(after_help = "\
Examples:
  petrel streams gc --dry-run    # every release, and why it stays or may go
  petrel streams gc

A release stays while a rollout is under way, a device should run it, holds it or would go back to it, and while it is one of the
newest two of its stream. One that was removed can be pushed again.")]
    Gc {
        /// Say what would be removed, and why the others stay
        #[arg(long)]
        dry_run: bool,
    },
}

impl Args {
    /// Asks the bridge.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let Command::Gc { dry_run } = self.command;
        let client = Client::from_context()?;
        let releases: Vec<StockView> =
            if dry_run { client.list("/releases/gc")? } else { client.post_list("/releases/gc")? };
        let gone: Vec<&StockView> = releases.iter().filter(|release| release.stays.is_none()).collect();
        let room = bytes(gone.iter().map(|release| release.total_size).sum());
        let done = if dry_run { "may go" } else { "removed" };
        let people = match (releases.is_empty(), gone.is_empty()) {
            (true, _) if dry_run => "there is no release: `petrel push` brings one".to_owned(),
            (true, _) => "nothing may go; `petrel streams gc --dry-run` says why".to_owned(),
            (false, true) => format!("{}\n\nnothing may go", shown(&releases, done)),
            (false, false) => format!("{}\n\n{} {done}, {room}", shown(&releases, done), gone.len()),
        };
        out.result(&releases, people)
    }
}

fn shown(releases: &[StockView], done: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let row = |release: &StockView| {
        let stays = release.stays.as_ref().map_or_else(|| done.to_owned(), |why| format!("stays: {why}"));
        [release.stream.clone(), release.version.clone(), bytes(release.total_size), ago(release.pushed, now), stays]
    };
    table(["STREAM", "VERSION", "SIZE", "PUSHED", ""], releases.iter().map(row)).to_string()
}
