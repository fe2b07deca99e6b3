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
        let people = format!(
            "devices   {} ({} online, {} pending)\nreleases  {}\nrolling   {}\nbridge    {}",
            status.devices, status.online, status.pending, status.releases, status.rolling, status.version
        );
        out.result(&status, people)
    }
}
