//! The light changes on some devices: their pictures get brighter, and somebody is told which, of what, and since when.
//!
//! Decides what counts as told: an alarm that pages, on each of these devices, of the brightness; and none on the others.

use super::fleet::Fleet;
use super::process::wait_for;
use super::traffic::{self, Traffic};
use crate::cli::table::{ago, table};
use crate::service::unix_millis;
use crate::service::view::{DriftAlarmView, List};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How many devices get another light.
const DEVICES: usize = 2;
const FEATURE: &str = "picture.brightness";
/// Twenty windows of a second each, on a machine that does everything at once.
const PATIENCE: Duration = Duration::from_secs(180);

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Drifted {
    /// Whose light changed.
    devices: Vec<String>,
    /// Who was named by an alarm of the brightness.
    named: Vec<String>,
    /// Who else paged.
    others: Vec<String>,
    /// Seconds from the change to the last of the alarms.
    seconds: f64,
    #[serde(skip)]
    table: String,
}

impl Drifted {
    /// Whether exactly those are named whose light changed.
    pub(crate) fn is_right(&self) -> bool {
        self.named == self.devices && self.others.is_empty()
    }

    /// What a person sees of it.
    pub(crate) fn told(&self) -> String {
        format!(
            "the light changed on {}; told after {:.0} s:\n{}",
            self.devices.join(" and "),
            self.seconds,
            self.table
        )
    }
}

/// Waits until every device knows how its pictures vary, changes the light on some, and waits for the alarms.
pub(crate) fn change(fleet: &mut Fleet, traffic: &[Traffic], step: impl Fn(&str)) -> anyhow::Result<Drifted> {
    step("waiting until each device knows how its pictures vary from window to window");
    let client = traffic::client();
    for number in 0..fleet.agents.len() {
        let url = format!("http://{}/status", fleet.agents[number].address);
        wait_for("what a device learns of its pictures", PATIENCE, || {
            fleet.check()?;
            let status: serde_json::Value = client.get(&url).call()?.body_mut().read_json()?;
            Ok((status["streams"][0]["drift"]["learning"] == false).then_some(()))
        })?;
    }
    // Not the first ones: they are the canaries.
    let first = fleet.agents.len().saturating_sub(DEVICES);
    let devices: BTreeSet<String> = fleet.agents[first..].iter().map(|device| device.id.clone()).collect();
    step(&format!("the light changes on {}", devices.iter().cloned().collect::<Vec<_>>().join(" and ")));
    let (changed, since) = (Instant::now(), unix_millis());
    traffic[first..].iter().for_each(Traffic::brighten);
    let pages = |fleet: &Fleet| -> anyhow::Result<Vec<DriftAlarmView>> {
        let alarms: List<DriftAlarmView> = fleet.client.get("/drift-alarms")?;
        Ok(alarms.items.into_iter().filter(|alarm| alarm.level == "page").collect())
    };
    let named = |alarms: &[DriftAlarmView]| -> BTreeSet<String> {
        let of_light = alarms.iter().filter(|alarm| alarm.feature == FEATURE && alarm.last >= since);
        of_light.filter_map(|alarm| alarm.device.clone()).collect()
    };
    let alarms = wait_for("the alarms", PATIENCE, || {
        fleet.check()?;
        Ok(Some(pages(fleet)?).filter(|alarms| named(alarms).is_superset(&devices)))
    })?;
    let others = alarms.iter().filter_map(|alarm| alarm.device.clone()).filter(|device| !devices.contains(device));
    let now = unix_millis();
    let row = |alarm: &DriftAlarmView| {
        let device = alarm.device.clone().unwrap_or_default();
        [device, alarm.feature.clone(), alarm.detail.clone(), format!("{:.2}", alarm.effect), ago(alarm.first, now)]
    };
    let shown = table(["DEVICE", "FEATURE", "WHAT", "EFFECT", "SINCE"], alarms.iter().map(row));
    Ok(Drifted {
        named: named(&alarms).into_iter().collect(),
        others: others.collect::<BTreeSet<_>>().into_iter().collect(),
        devices: devices.into_iter().collect(),
        seconds: changed.elapsed().as_secs_f64(),
        table: shown.to_string(),
    })
}
