//! `petrel drift STREAM`: what the fleet's models see, beside what they were trained on.

use super::alarms::loud;
use super::{chart, short};
use crate::cli::Out;
use crate::cli::client::{Client, encoded};
use crate::cli::table::{ago, bars, table};
use crate::fault::Fault;
use crate::service::unix_millis;
use crate::service::view::{DriftFeatureView, DriftGroupView, DriftView};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What to show.
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The stream
    #[arg(required = true)]
    stream: Option<String>,
    /// Windows that ended in this time: a number and s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = crate::cli::token::duration)]
    since: Duration,
    /// Add windows up by fleet, device, board, or label:KEY, beside their release
    #[arg(long, value_name = "WHAT", default_value = "fleet")]
    by: String,
    /// Only what this device sees
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only this feature, bin by bin
    #[arg(long, value_name = "FEATURE")]
    feature: Option<String>,
    /// Draw it as well, each feature beside what it was
    #[arg(long, value_name = "FILE")]
    pub(super) png: Option<PathBuf>,
    /// The same, to be printed in any size
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
}

impl Show {
    pub(super) fn run(&self, client: &Client, out: &Out) -> anyhow::Result<()> {
        let stream = self.stream.as_deref().unwrap_or_default();
        let since = unix_millis().saturating_sub(u64::try_from(self.since.as_millis()).unwrap_or(u64::MAX));
        let mut path = format!("/drift/{stream}?since={since}&by={}", encoded(&self.by));
        for (name, value) in [("device", &self.device), ("feature", &self.feature)] {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(path, "&{name}={}", encoded(value));
            }
        }
        let view: DriftView = client.get(&path)?;
        if let Some(feature) = &self.feature
            && !view.groups.is_empty()
            && view.groups.iter().all(|group| group.features.is_empty())
        {
            let fault = Fault::new(format!("no baseline of {stream} has a feature `{feature}`"));
            return Err(fault.remedy(format!("`petrel drift {stream}` shows what there is")).into());
        }
        if self.png.is_some() || self.svg.is_some() {
            chart::write(self, &view)?;
        }
        out.result(&view, self.people(&view))
    }

    fn people(&self, view: &DriftView) -> String {
        if view.groups.is_empty() {
            return format!(
                "no window of {} has come in that time; a device closes one an hour, when its model has seen 200 rows",
                view.stream
            );
        }
        let now = unix_millis();
        let groups: Vec<String> = view.groups.iter().map(|group| self.group(group, now)).collect();
        groups.join("\n\n")
    }

    fn group(&self, group: &DriftGroupView, now: u64) -> String {
        let count = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let devices = count(group.devices.len() as u64, "device");
        let (windows, rows) = (count(group.windows, "window"), count(group.rows, "row"));
        let (key, release, level) = (&group.key, group.release, loud(&group.level));
        let mut text = format!(
            "{key}, release {release}: {level}; {windows} of {devices}, {rows}, the last {}\n",
            ago(group.until, now)
        );
        if let Some(performance) = group.performance.told() {
            text += &(performance + "\n");
        }
        if group.features.is_empty() {
            return text + "land does not have its bundle any more, and so no baseline to hold it against";
        }
        let header = ["FEATURE", "LEVEL", "WHAT", "MEAN", "MISSING", "EFFECT", "PSI", "TRAINED", "NOW"];
        text += table(header, group.features.iter().map(row)).to_string().trim_end();
        if self.feature.is_some() {
            group.features.iter().for_each(|feature| text += &format!("\n\n{}", each_bin(feature)));
        }
        text
    }
}

fn row(feature: &DriftFeatureView) -> [String; 9] {
    let percent = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.1} %", 100.0 * share));
    let [trained, now] = feature.missing.map(percent);
    let [before, mean] = feature.mean.map(short);
    // Both from nothing to the most of either: what is level looks level.
    let most = feature.trained.iter().chain(&feature.now).copied().fold(0.0, f64::max);
    [
        feature.name.clone(),
        loud(&feature.level),
        feature.detail.clone().unwrap_or_default(),
        format!("{before} > {mean}"),
        format!("{trained} > {now}"),
        feature.effect.map_or("-".into(), |effect| format!("{effect:.2}")),
        short(feature.psi),
        bars(&feature.trained, 0.0, most),
        bars(&feature.now, 0.0, most),
    ]
}

/// Each bin or category of a feature with its shares.
fn each_bin(feature: &DriftFeatureView) -> String {
    const WIDTH: f64 = 30.0;
    let most = feature.trained.iter().chain(&feature.now).copied().fold(f64::MIN_POSITIVE, f64::max);
    let bar = |share: f64| "█".repeat((share / most * WIDTH).round() as usize);
    let name = |at: usize| match (feature.categories.is_empty(), feature.edges.get(at)) {
        (false, _) => feature.categories.get(at).cloned().unwrap_or_else(|| "all others".into()),
        (true, Some(edge)) => format!("to {}", short(Some((*edge).into()))),
        (true, None) => "above".into(),
    };
    let rows = feature.trained.iter().zip(&feature.now).enumerate().map(|(at, (trained, now))| {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        [name(at), percent(*trained), bar(*trained), percent(*now), bar(*now)]
    });
    table([feature.name.as_str(), "TRAINED", "", "NOW", ""], rows).to_string()
}
