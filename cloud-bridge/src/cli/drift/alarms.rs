//! Alarms of drift: what devices would have somebody look at, and who has seen it.

use crate::cli::Out;
use crate::cli::client::Client;
use crate::cli::table::{ago, table};
use crate::service::unix_millis;
use crate::service::view::DriftAlarmView;
use anyhow::Context;

/// Which alarms.
#[derive(Debug, clap::Args)]
pub(super) struct Alarms {
    /// Only of this stream
    stream: Option<String>,
    /// Also those that have not come again for a day
    #[arg(long)]
    all: bool,
}

/// An alarm that was seen.
#[derive(Debug, clap::Args)]
pub(super) struct Acknowledge {
    /// Its number, as `petrel drift alarms` shows it
    id: i64,
}

impl Alarms {
    pub(super) fn run(&self, client: &Client, out: &Out) -> anyhow::Result<()> {
        let stream = self.stream.as_ref().map(|stream| format!("&stream={stream}")).unwrap_or_default();
        let alarms: Vec<DriftAlarmView> = client.list(&format!("/drift-alarms?all={}{stream}", self.all))?;
        if alarms.is_empty() {
            return out.result(&alarms, "no model sees drift");
        }
        let now = unix_millis();
        let rows = alarms.iter().map(|alarm| {
            [
                alarm.id.to_string(),
                loud(&alarm.level),
                alarm.stream.clone(),
                alarm.device.clone().unwrap_or_else(|| "-".into()),
                if alarm.feature.is_empty() { "-".into() } else { alarm.feature.clone() },
                alarm.detail.clone(),
                alarm.windows.to_string(),
                ago(alarm.first, now),
                ago(alarm.last, now),
                alarm.acknowledged_by.clone().unwrap_or_else(|| "-".into()),
            ]
        });
        let header = ["ID", "LEVEL", "STREAM", "DEVICE", "FEATURE", "WHAT", "WINDOWS", "SINCE", "LAST", "SEEN BY"];
        out.result(&alarms, table(header, rows))
    }
}

impl Acknowledge {
    pub(super) fn run(&self, client: &Client, out: &Out) -> anyhow::Result<()> {
        let body = serde_json::Map::new();
        let alarm: Option<DriftAlarmView> = client.post(&format!("/drift-alarms/{}/acknowledge", self.id), &body)?;
        let alarm = alarm.context("the bridge's answer was empty")?;
        let by = alarm.acknowledged_by.as_deref().unwrap_or_default();
        let told = format!("alarm {} ({} {}) was seen by {by}", alarm.id, alarm.stream, alarm.feature);
        out.result(&alarm, told)
    }
}

/// A page is louder than a warning.
pub(super) fn loud(level: &str) -> String {
    if level == "page" { level.to_uppercase() } else { level.to_owned() }
}
