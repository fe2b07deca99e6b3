//! Devices: who they are, who may come in, how they are doing.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::{DeviceView, List, TelemetryView};
use crate::service::store::unix_millis;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bridge_core::{Bridge, Device, Event, Target};
use protocol::DeviceId;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Bound;
use utoipa::{IntoParams, ToSchema};

/// Which devices.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct Those {
    /// An expression over facts and labels, such as `site=plant-3 and not online`; all without it.
    to: Option<String>,
    /// Only names behind this one: `next` of the answer before.
    after: Option<String>,
    /// How many, 1 to 1,000.
    #[serde(default = "thousand")]
    limit: usize,
}

fn thousand() -> usize {
    MOST_DEVICES
}

/// The most devices of one answer.
const MOST_DEVICES: usize = 1_000;

/// Devices in the order of their names
#[utoipa::path(get, path = "/api/v1/devices", params(Those), responses((status = 200, body = List<DeviceView>), (status = 422)))]
pub(super) async fn list(
    State(doors): State<Doors>,
    Query(Those { to, after, limit }): Query<Those>,
) -> Result<Json<List<DeviceView>>, Problem> {
    let to: Option<Target> = to.map(|to| to.parse()).transpose().map_err(Problem::invalid)?;
    let after: Option<DeviceId> = after.map(|id| id.parse()).transpose().map_err(Problem::invalid)?;
    let limit = limit.clamp(1, MOST_DEVICES);
    let arrivals = doors.driver.arrivals.clone();
    let those = move |bridge: &Bridge| {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = bridge.devices().range((from, Bound::Unbounded)).map(|(_, device)| device);
        let mut those = behind.filter(|device| to.as_ref().is_none_or(|to| to.holds(device))).take(limit + 1);
        let view = |device| DeviceView::new(device, &arrivals, unix_millis());
        let items: Vec<DeviceView> = those.by_ref().take(limit).map(view).collect();
        let next = those.next().and(items.last().map(|device| device.id.clone()));
        List { items, next }
    };
    Ok(Json(doors.driver.look(those).await?))
}

/// One device
#[utoipa::path(get, path = "/api/v1/devices/{id}", params(("id" = String, Path)),
    responses((status = 200, body = DeviceView), (status = 404), (status = 422)))]
pub(super) async fn show(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Json<DeviceView>, Problem> {
    let id: DeviceId = id.parse().map_err(Problem::invalid)?;
    let missing = format!("there is no device `{id}`");
    let arrivals = doors.driver.arrivals.clone();
    let view = move |device: &Device| DeviceView::new(device, &arrivals, unix_millis());
    let found = doors.driver.look(move |bridge| bridge.devices().get(&id).map(view)).await?;
    found.map(Json).ok_or_else(|| Problem::not_found(missing))
}

/// Let a pending device in
#[utoipa::path(post, path = "/api/v1/devices/{id}/approve", params(("id" = String, Path)),
    responses((status = 204), (status = 404), (status = 422)))]
pub(super) async fn approve(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let device = id.parse().map_err(Problem::invalid)?;
    doors.request(&asked, "device.approve", &id, Event::DeviceApproved { device }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Turn a pending device away
#[utoipa::path(post, path = "/api/v1/devices/{id}/reject", params(("id" = String, Path)),
    responses((status = 204), (status = 404), (status = 409), (status = 422)))]
pub(super) async fn reject(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let device = id.parse().map_err(Problem::invalid)?;
    doors.request(&asked, "device.reject", &id, Event::DeviceRejected { device }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Labels to be set, or taken away where there is no value.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLabels {
    labels: BTreeMap<String, Option<String>>,
}

/// Say what a device is called beside its name
#[utoipa::path(post, path = "/api/v1/devices/{id}/labels", params(("id" = String, Path)), request_body = NewLabels,
    responses((status = 200, body = DeviceView), (status = 404), (status = 422)))]
pub(super) async fn label(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<String>,
    Json(NewLabels { labels }): Json<NewLabels>,
) -> Result<Json<DeviceView>, Problem> {
    let device = id.parse().map_err(Problem::invalid)?;
    doors.request(&asked, "device.label", &id, Event::DeviceLabelled { device, labels }).await?;
    show(State(doors), Path(id)).await
}

/// Throw a device out: its certificate counts no more, its session ends, its name stays taken
#[utoipa::path(post, path = "/api/v1/devices/{id}/revoke", params(("id" = String, Path)),
    responses((status = 204), (status = 404), (status = 409), (status = 422)))]
pub(super) async fn revoke(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let device = id.parse().map_err(Problem::invalid)?;
    doors.request(&asked, "device.revoke", &id, Event::DeviceRevoked { device }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take a device out of the fleet and free its name
#[utoipa::path(post, path = "/api/v1/devices/{id}/retire", params(("id" = String, Path)),
    responses((status = 204), (status = 404), (status = 422)))]
pub(super) async fn retire(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let device = id.parse().map_err(Problem::invalid)?;
    doors.request(&asked, "device.retire", &id, Event::DeviceRetired { device }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct Latest {
    /// How many of the latest messages, 1 to 1,000.
    #[serde(default = "sixty")]
    limit: u32,
}

fn sixty() -> u32 {
    60
}

/// The latest telemetry of a device, the oldest first
#[utoipa::path(get, path = "/api/v1/devices/{id}/telemetry", params(("id" = String, Path), Latest),
    responses((status = 200, body = List<TelemetryView>), (status = 422)))]
pub(super) async fn telemetry(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    Query(latest): Query<Latest>,
) -> Result<Json<List<TelemetryView>>, Problem> {
    let id: DeviceId = id.parse().map_err(Problem::invalid)?;
    let taken = doors.store.telemetry(&id, latest.limit.clamp(1, 1_000)).await?;
    Ok(Json(List::of(taken.iter().map(|t| TelemetryView::new(t.at, &t.telemetry)).collect())))
}
