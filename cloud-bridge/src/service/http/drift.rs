//! Drift: what the fleet's models see, and the alarms of it.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::{DriftAlarmView, DriftGroupView, DriftView, List};
use crate::service::store::drift::WhichWindows;
use crate::service::store::unix_millis;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use bridge_core::Device;
use bridge_core::drift::{Window, gather};
use protocol::{DeviceId, StreamName};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::IntoParams;

/// A day in milliseconds.
const DAY: u64 = 24 * 3_600_000;

/// What windows are added up by, beside their release.
#[derive(Debug, Clone)]
enum By {
    /// The whole fleet.
    Fleet,
    /// Each device.
    Device,
    /// Each firmware profile.
    Board,
    /// Each value of a label.
    Label(String),
}

impl By {
    fn read(text: Option<&str>) -> Result<Self, Problem> {
        match text {
            None | Some("fleet") => Ok(By::Fleet),
            Some("device") => Ok(By::Device),
            Some("board") => Ok(By::Board),
            Some(other) => match other.strip_prefix("label:") {
                Some(key) => Ok(By::Label(key.to_owned())),
                None => Err(Problem::invalid("windows are added up by fleet, device, board or label:KEY")),
            },
        }
    }

    /// What a device is told under; of a device that has none, nothing.
    fn of(&self, device: &Device) -> Option<String> {
        match self {
            By::Fleet => Some("fleet".to_owned()),
            By::Device => Some(device.id.to_string()),
            By::Board => Some(device.profile.board.clone()),
            By::Label(key) => device.labels.get(key).cloned(),
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct Asking {
    /// Windows that ended from then on, milliseconds since 1970; by default in the last 24 hours.
    since: Option<u64>,
    /// And before then.
    until: Option<u64>,
    /// `fleet`, `device`, `board` or `label:KEY`; by default `fleet`.
    by: Option<String>,
    /// Only of this device.
    device: Option<String>,
    /// Only this feature.
    feature: Option<String>,
}

/// What the models of a stream see, against what they were trained on
#[utoipa::path(get, path = "/api/v1/drift/{stream}", params(("stream" = String, Path), Asking),
    responses((status = 200, body = DriftView), (status = 422)))]
pub(super) async fn show(
    State(doors): State<Doors>,
    Path(stream): Path<String>,
    Query(asking): Query<Asking>,
) -> Result<Json<DriftView>, Problem> {
    let stream: StreamName = stream.parse().map_err(Problem::invalid)?;
    let now = unix_millis();
    let device = asking.device.as_deref().map(str::parse).transpose().map_err(Problem::invalid)?;
    let (since, until) = (asking.since.unwrap_or(now.saturating_sub(DAY)), asking.until.unwrap_or(now + 1));
    let which = WhichWindows { stream: stream.clone(), since, until, device };
    let windows = doors.store.windows(&which).await?;
    let by = By::read(asking.by.as_deref())?;
    let keys: BTreeMap<DeviceId, String> = doors
        .driver
        .look(move |bridge| {
            let key = |device: &Device| Some((device.id.clone(), by.of(device)?));
            bridge.devices().values().filter_map(key).collect()
        })
        .await?;
    let library = doors.library.clone();
    let groups = tokio::task::spawn_blocking(move || {
        let key = |window: &Window| keys.get(&window.drift.device).cloned().unwrap_or_else(|| "-".into());
        let view = |group| {
            let group: bridge_core::drift::Group = group;
            DriftGroupView::new(&group, library.baseline(group.bundle).as_deref(), asking.feature.as_deref())
        };
        gather(windows, key).into_iter().map(view).collect()
    });
    let groups = groups.await.map_err(anyhow::Error::from)?;
    Ok(Json(DriftView { stream: stream.to_string(), since, until, groups }))
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct Alarms {
    /// Only of this stream.
    stream: Option<String>,
    /// Also those that have not come again for a day.
    #[serde(default)]
    all: bool,
}

/// Alarms of drift, the newest first
#[utoipa::path(get, path = "/api/v1/drift-alarms", params(Alarms),
    responses((status = 200, body = List<DriftAlarmView>), (status = 422)))]
pub(super) async fn alarms(
    State(doors): State<Doors>,
    Query(asked): Query<Alarms>,
) -> Result<Json<List<DriftAlarmView>>, Problem> {
    let stream: Option<StreamName> = asked.stream.as_deref().map(str::parse).transpose().map_err(Problem::invalid)?;
    let alarms = doors.store.concerns(stream.as_ref(), asked.all).await?;
    Ok(Json(List::of(alarms.into_iter().map(DriftAlarmView::new).collect())))
}

/// Say that you have seen an alarm
#[utoipa::path(post, path = "/api/v1/drift-alarms/{id}/acknowledge", params(("id" = i64, Path)),
    responses((status = 200, body = DriftAlarmView), (status = 404)))]
pub(super) async fn acknowledge(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<i64>,
) -> Result<Json<DriftAlarmView>, Problem> {
    doors.witness(&asked, "drift.acknowledge", id).await?;
    let concern = doors.store.acknowledge(id, asked.who()).await?;
    let concern = concern.ok_or_else(|| Problem::not_found(format!("there is no drift alarm {id}")))?;
    Ok(Json(DriftAlarmView::new((id, concern))))
}
