//! The bridge in a few numbers.

use super::Doors;
use super::problem::Problem;
use super::view::StatusView;
use crate::service::expiry;
use axum::Json;
use axum::extract::State;
use bridge_core::{Bridge, Disbelief, Needs, Status};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long the core may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that must be free where the data is: a bridge that cannot save ends.
const LEAST_FREE: u64 = 16 << 20;
/// How long what was seen of it is told.
const ONE_LOOK: Duration = Duration::from_secs(1);

/// When it was looked at last, and what was wrong.
pub(super) type Readiness = Arc<Mutex<Option<(Instant, Option<&'static str>)>>>;

/// How the fleet is doing
#[utoipa::path(get, path = "/api/v1/status", responses((status = 200, body = StatusView)))]
pub(super) async fn status(State(doors): State<Doors>) -> Result<Json<StatusView>, Problem> {
    let size = doors.store.size().await?;
    let (lag, waiting) = doors.tally.behind();
    let disk_free_bytes = doors.library.disk_free()?;
    let ends = doors.ends.clone();
    let count = move |bridge: &Bridge| {
        let of = |status| bridge.devices().values().filter(move |d| d.status == status);
        StatusView {
            version: env!("CARGO_PKG_VERSION").into(),
            devices: of(Status::Approved).count() as u64,
            online: of(Status::Approved).filter(|d| d.online).count() as u64,
            pending: of(Status::Pending).count() as u64,
            forgotten: of(Status::Approved).filter(|d| d.forgotten.is_some()).count() as u64,
            releases: bridge.releases().len() as u64,
            rolling: bridge.rollouts().values().filter(|r| r.wave().is_some()).count() as u64,
            disbelieved: bridge.disbelieved().iter().map(|(why, count)| (word(*why).into(), *count)).collect(),
            needed: needed(bridge.needs()).map(|(what, count)| (what.into(), count)).into(),
            waiting,
            lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
            database_bytes: size.database,
            bundles_bytes: bridge.releases().values().map(|release| release.total_size).sum(),
            disk_free_bytes,
            telemetry_since: size.telemetry_since,
            hours_since: size.hours_since,
            audit_lines: size.audit_lines,
            ends: expiry::with_root(&ends, bridge),
        }
    };
    Ok(Json(doors.driver.look(count).await?))
}

/// Whether requests can be served and devices heard: 503 with the reason when not. Nobody has to be known for it, so it
/// says nothing of the fleet.
pub(super) async fn ready(State(doors): State<Doors>) -> Result<&'static str, Problem> {
    // Strangers may ask: one look serves all of a second.
    let mut last = doors.readiness.lock().await;
    if let Some((_, why)) = last.as_ref().filter(|(at, _)| at.elapsed() < ONE_LOOK) {
        return why.map_or(Ok("ready\n"), |why| Err(Problem::not_ready(why)));
    }
    let asked = async {
        doors.driver.look(|_| ()).await?;
        doors.store.is_writable().await
    };
    let why = match tokio::time::timeout(PATIENCE, asked).await {
        Err(_) => Some("the core or its database does not answer"),
        Ok(Err(error)) => {
            tracing::warn!(error = format!("{error:#}"), "not ready");
            Some("the database cannot be written")
        }
        Ok(Ok(())) if doors.library.disk_free().is_ok_and(|free| free < LEAST_FREE) => Some("the disk is full"),
        Ok(Ok(())) if doors.connection.borrow().is_none() => Some("there is no connection to the broker"),
        Ok(Ok(())) => None,
    };
    *last = Some((Instant::now(), why));
    why.map_or(Ok("ready\n"), |why| Err(Problem::not_ready(why)))
}

/// What became of the parts that devices asked for again.
pub(super) fn needed(needs: Needs) -> [(&'static str, u64); 4] {
    let Needs { heard: _, answered, just_published, over_device, over_fleet } = needs;
    [
        ("answered", answered),
        ("just_published", just_published),
        ("over_device", over_device),
        ("over_fleet", over_fleet),
    ]
}

pub(super) fn word(why: Disbelief) -> &'static str {
    match why {
        Disbelief::Unknown => "unknown",
        Disbelief::Pending => "pending",
        Disbelief::Revoked => "revoked",
        Disbelief::Signature => "signature",
        Disbelief::Malformed => "malformed",
        Disbelief::Replayed => "replayed",
    }
}
