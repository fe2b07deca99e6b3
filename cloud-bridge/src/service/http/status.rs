//! The bridge in a few numbers.

use super::Doors;
use super::problem::Problem;
use super::view::StatusView;
use axum::Json;
use axum::extract::State;
use bridge_core::{Bridge, Disbelief, Needs, Status};
use std::time::Duration;

/// How long the core may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// How the fleet is doing
#[utoipa::path(get, path = "/api/v1/status", responses((status = 200, body = StatusView)))]
pub(super) async fn status(State(doors): State<Doors>) -> Result<Json<StatusView>, Problem> {
    let count = |bridge: &Bridge| {
        let of = |status| bridge.devices().values().filter(move |d| d.status == status);
        StatusView {
            version: env!("CARGO_PKG_VERSION").into(),
            devices: of(Status::Approved).count() as u64,
            online: of(Status::Approved).filter(|d| d.online).count() as u64,
            pending: of(Status::Pending).count() as u64,
            releases: bridge.releases().len() as u64,
            rolling: bridge.rollouts().values().filter(|r| r.wave().is_some()).count() as u64,
            disbelieved: bridge.disbelieved().iter().map(|(why, count)| (word(*why).into(), *count)).collect(),
            needed: needed(bridge.needs()).map(|(what, count)| (what.into(), count)).into(),
        }
    };
    Ok(Json(doors.driver.look(count).await?))
}

/// Whether requests can be served and devices heard: 503 with the reason when not. Nobody has to be known for it, so it
/// says nothing of the fleet.
pub(super) async fn ready(State(doors): State<Doors>) -> Result<&'static str, Problem> {
    let asked = async {
        doors.driver.look(|_| ()).await?;
        doors.store.is_writable().await
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Err(_) => Err(Problem::not_ready("the core or its database does not answer")),
        Ok(Err(error)) => {
            tracing::warn!(error = format!("{error:#}"), "not ready");
            Err(Problem::not_ready("the database cannot be written"))
        }
        Ok(Ok(())) if doors.connection.borrow().is_none() => {
            Err(Problem::not_ready("there is no connection to the broker"))
        }
        Ok(Ok(())) => Ok("ready\n"),
    }
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
