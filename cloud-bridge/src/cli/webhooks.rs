//! `petrel webhooks`: who is told of events, and what they have not taken.

use super::Out;
use super::client::Client;
use super::table::{ago, ends, table};
use crate::service::unix_millis;
use crate::service::webhooks::{NoticeView, RetriedView, WebhookView};
use anyhow::Context;
use serde_json::json;

/// See who is told of events, and send again what was not taken
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  petrel webhooks test pager    # whether it can be reached; then `petrel webhooks ls`\n\nThey stand in the bridge's configuration: see docs/operations.md."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Every webhook, and what waits for it
    Ls,
    /// What one has not taken yet, the newest first
    Show {
        /// Its name
        name: String,
    },
    /// Send one an event that means nothing
    Test {
        /// Its name
        name: String,
    },
    /// Send one again what was given up
    Retry {
        /// Its name
        name: String,
    },
}

impl Args {
    /// Asks the bridge.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let client = Client::from_context()?;
        let now = unix_millis();
        match self.command {
            Command::Ls => {
                let hooks: Vec<WebhookView> = client.list("/webhooks")?;
                let row = |hook: &WebhookView| {
                    let events = if hook.events.is_empty() { "all".into() } else { hook.events.join(", ") };
                    let error = hook.error.clone().unwrap_or_default();
                    let (waiting, given_up) = (hook.waiting.to_string(), hook.given_up.to_string());
                    [hook.name.clone(), hook.origin.clone(), events, waiting, given_up, error]
                };
                let header = ["NAME", "WHERE", "EVENTS", "WAITING", "GIVEN UP", "LAST ERROR"];
                out.result(&hooks, table(header, hooks.iter().map(row)))
            }
            Command::Show { name } => {
                let notices: Vec<NoticeView> = client.list(&format!("/webhooks/{name}/notices"))?;
                let row = |notice: &NoticeView| {
                    let next = notice.due.map_or_else(|| "given up".into(), |due| ends(due, now));
                    let error = notice.error.clone().unwrap_or_default();
                    [notice.kind.clone(), ago(notice.at, now), notice.tries.to_string(), next, error]
                };
                out.result(&notices, table(["EVENT", "WHEN", "TRIES", "NEXT", "LAST ERROR"], notices.iter().map(row)))
            }
            Command::Test { name } => {
                let _: Option<serde_json::Value> = client.post(&format!("/webhooks/{name}/test"), &json!({}))?;
                let people =
                    format!("an event is on its way to {name}: `petrel webhooks ls` says whether it was taken");
                out.result(&json!({ "tested": name }), people)
            }
            Command::Retry { name } => {
                let answer: Option<RetriedView> = client.post(&format!("/webhooks/{name}/retry"), &json!({}))?;
                let again = answer.context("the bridge's answer was empty")?.again;
                out.result(&json!({ "again": again }), format!("{again} event(s) are sent to {name} again"))
            }
        }
    }
}
