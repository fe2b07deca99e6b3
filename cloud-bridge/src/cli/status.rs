//! `petrel status`: the fleet in a few numbers.

use super::client::Client;
use super::table::{ago, ends};
use super::{Out, bytes};
use crate::service::expiry::soon;
use crate::service::unix_millis;
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
            "devices   {} ({} online, {} pending)\nreleases  {} ({})\nrolling   {}\nbridge    {}\ndatabase  {}, {} lines of the audit log; {} free on its disk\ntelemetry {}\nlag       {}",
            status.devices,
            status.online,
            status.pending,
            status.releases,
            bytes(status.bundles_bytes),
            status.rolling,
            status.version,
            bytes(status.database_bytes),
            status.audit_lines,
            bytes(status.disk_free_bytes),
            since(&status),
            lag(&status)
        );
        if status.forgotten > 0 {
            people += &format!(
                "\ndevices that are told nothing since land was put back from a copy: {} (not heard yet, or see `petrel devices show`)",
                status.forgotten
            );
        }
        for (what, end) in soon(&status.ends, unix_millis()) {
            people +=
                &format!("\nends: {what}, {} (`A certificate ends` in docs/operations.md)", ends(end, unix_millis()));
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

/// How far back telemetry goes.
fn since(status: &StatusView) -> String {
    let now = unix_millis();
    match (status.telemetry_since, status.hours_since) {
        (None, None) => "none yet".into(),
        (Some(each), None) => format!("from {} on", ago(each, now)),
        (None, Some(hours)) => format!("by the hour from {} on", ago(hours, now)),
        (Some(each), Some(hours)) => format!("from {} on; by the hour from {} on", ago(each, now), ago(hours, now)),
    }
}

/// How far what devices say is behind.
fn lag(status: &StatusView) -> String {
    let waiting = if status.waiting > 0 { format!("; {} more wait", status.waiting) } else { String::new() };
    format!("{} ms from a message's arrival to the disk{waiting}", status.lag_ms)
}
