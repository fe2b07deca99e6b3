//! `petrel status`: the fleet in a few numbers.

use super::Out;
use super::client::Client;
use crate::service::view::StatusView;

/// How the fleet is doing
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  petrel status")]
pub(crate) struct Args {}

impl Args {
    /// Asks the bridge.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let status: StatusView = Client::from_context()?.get("/status")?;
        let mut people = format!(
            "devices   {} ({} online, {} pending)\nreleases  {}\nrolling   {}\nbridge    {}",
            status.devices, status.online, status.pending, status.releases, status.rolling, status.version
        );
        if status.forgotten > 0 {
            people += &format!(
                "\ndevices that are told nothing since land was put back from a copy: {} (not heard yet, or see `petrel devices show`)",
                status.forgotten
            );
        }
        let doubts: Vec<String> = status.disbelieved.iter().map(|(why, count)| format!("{why} {count}")).collect();
        if !doubts.is_empty() {
            people += &format!("\nmessages that were not believed: {}", doubts.join(", "));
        }
        let needed: Vec<String> = status
            .needed
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        if !needed.is_empty() {
            people += &format!("\nparts of bundles that were asked for again: {}", needed.join(", "));
        }
        out.result(&status, people)
    }
}
