//! Rollouts: begun and turned by people, decided by the core.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::{List, PlanView, RolloutView, lacking};
use crate::service::store::unix_millis;
use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bridge_core::access::Right;
use bridge_core::{Answer, Bridge, Event, Now, Policy, Rejection, RolloutRequest, Targets, Wish};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use trust::Digest;
use utoipa::ToSchema;

/// What a person asks of a rollout.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRollout {
    /// The stream.
    pub(crate) stream: String,
    /// The version to roll out.
    pub(crate) version: String,
    /// An expression over facts and labels, such as `site=plant-3 and board in (rpi4, rpi5)`; absent for every approved
    /// device. Devices that come later join while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// Device names, instead of an expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) devices: Option<Vec<String>>,
    /// How it goes: waves, gates, pace, windows (docs/rollout.md).
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) policy: Policy,
    /// It is only written down, and begun by `begin`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) draft: bool,
}

/// What a person wants of a rollout.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TurnedRollout {
    /// `begin`, `approve`, `pause`, `resume`, `abort` or `undo`.
    pub(crate) wish: String,
    /// Of `abort`: its devices keep what they have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) keep: bool,
}

/// Every rollout
#[utoipa::path(get, path = "/api/v1/rollouts", responses((status = 200, body = List<RolloutView>)))]
pub(super) async fn list(State(doors): State<Doors>) -> Result<Json<List<RolloutView>>, Problem> {
    let arrivals = doors.driver.arrivals.clone();
    let views = move |bridge: &Bridge| {
        let view = |rollout| RolloutView::new(rollout, bridge.devices(), &arrivals, unix_millis());
        bridge.rollouts().values().map(view).collect()
    };
    Ok(Json(List::of(doors.driver.look(views).await?)))
}

/// One rollout
#[utoipa::path(get, path = "/api/v1/rollouts/{id}", params(("id" = u64, Path)),
    responses((status = 200, body = RolloutView), (status = 404)))]
pub(super) async fn show(State(doors): State<Doors>, Path(id): Path<u64>) -> Result<Json<RolloutView>, Problem> {
    look(&doors, id).await.map(Json)
}

/// Start a rollout
#[utoipa::path(post, path = "/api/v1/rollouts", request_body = NewRollout,
    responses((status = 201, body = RolloutView), (status = 404), (status = 409), (status = 422)))]
pub(super) async fn start(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Json(new): Json<NewRollout>,
) -> Result<(StatusCode, Json<RolloutView>), Problem> {
    let request = understand(&new, asked.who())?;
    asked.allows(&[Right::Operate], &request.stream)?;
    let subject = format!("{}@{} to {}", request.stream, request.version, request.to);
    match doors.request(&asked, "rollout.start", subject, Event::RolloutRequested(Box::new(request))).await? {
        Answer::Started { rollout } => Ok((StatusCode::CREATED, Json(look(&doors, rollout).await?))),
        answer => Err(anyhow::anyhow!("the core answered {answer:?}").into()),
    }
}

/// What a rollout would be
#[utoipa::path(post, path = "/api/v1/rollouts/plan", request_body = NewRollout,
    responses((status = 200, body = PlanView), (status = 404), (status = 409), (status = 422)))]
pub(super) async fn plan(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Json(new): Json<NewRollout>,
) -> Result<Json<PlanView>, Problem> {
    let request = understand(&new, asked.who())?;
    let (library, asked_for) = (doors.library.clone(), request.clone());
    let holds = move |bridge: &Bridge| -> Result<(Digest, u64, BTreeSet<Option<Digest>>), Rejection> {
        let preview = bridge.preview(Now { unix: unix_millis() }, &asked_for)?;
        let devices = preview.rollout.members.keys().filter_map(|id| bridge.devices().get(id));
        let held = devices.map(|d| d.desired.get(&asked_for.stream).map(|desired| desired.bundle));
        Ok((preview.release.bundle, preview.release.total_size, held.collect()))
    };
    let (bundle, whole, held) = doors.driver.look(holds).await??;
    // Files are read for it, which nobody else should wait for.
    let weigh = move || -> BTreeMap<Option<Digest>, u64> {
        held.into_iter().map(|held| (held, lacking(&library, bundle, held).unwrap_or(whole))).collect()
    };
    let known = tokio::task::spawn_blocking(weigh).await.context("the request was interrupted")?;
    let view = move |bridge: &Bridge| -> Result<PlanView, Rejection> {
        let preview = bridge.preview(Now { unix: unix_millis() }, &request)?;
        let bytes = |held| known.get(&held).copied().unwrap_or(whole);
        Ok(PlanView::new(&preview, bridge.devices(), bytes))
    };
    Ok(Json(doors.driver.look(view).await??))
}

/// Begin, approve, pause, resume, abort or undo a rollout
#[utoipa::path(post, path = "/api/v1/rollouts/{id}", params(("id" = u64, Path)), request_body = TurnedRollout,
    responses((status = 200, body = RolloutView), (status = 404), (status = 409), (status = 422)))]
pub(super) async fn turn(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<u64>,
    Json(turned): Json<TurnedRollout>,
) -> Result<Json<RolloutView>, Problem> {
    let wishes = [Wish::Begin, Wish::Approve, Wish::Pause, Wish::Resume, Wish::Abort { keep: turned.keep }, Wish::Undo];
    let wish = wishes.into_iter().find(|wish| wish.as_str() == turned.wish).ok_or_else(|| {
        Problem::invalid(format!("`{}` is no wish: begin, approve, pause, resume, abort or undo", turned.wish))
    })?;
    let right = if wish == Wish::Approve { Right::Approve } else { Right::Operate };
    let stream = doors.driver.look(move |bridge| bridge.rollouts().get(&id).map(|rollout| rollout.stream.clone()));
    asked.allows(&[right], &stream.await?.ok_or_else(|| missing(id))?)?;
    let event = Event::RolloutTurned { rollout: id, by: asked.who().into(), since: asked.since(), wish };
    doors.request(&asked, &format!("rollout.{}", wish.as_str()), id, event).await?;
    look(&doors, id).await.map(Json)
}

async fn look(doors: &Doors, id: u64) -> Result<RolloutView, Problem> {
    let arrivals = doors.driver.arrivals.clone();
    let view = move |bridge: &Bridge| {
        let rollout = bridge.rollouts().get(&id)?;
        Some(RolloutView::new(rollout, bridge.devices(), &arrivals, unix_millis()))
    };
    let found = doors.driver.look(view).await?;
    found.ok_or_else(|| missing(id))
}

fn missing(id: u64) -> Problem {
    Problem::not_found(format!("there is no rollout {id}"))
}

/// What was said becomes what is meant.
fn understand(new: &NewRollout, by: &str) -> Result<RolloutRequest, Problem> {
    let to = match (&new.to, &new.devices) {
        (Some(_), Some(_)) => return Err(Problem::invalid("give `to` or `devices`, and not both")),
        (None, None) => Targets::All,
        (Some(expression), None) => Targets::Where(expression.parse().map_err(Problem::invalid)?),
        (None, Some(names)) => {
            let ids: Result<BTreeSet<_>, _> = names.iter().map(|name| name.parse()).collect();
            Targets::Devices(ids.map_err(Problem::invalid)?)
        }
    };
    Ok(RolloutRequest {
        stream: new.stream.parse().map_err(Problem::invalid)?,
        version: new.version.clone(),
        to,
        policy: new.policy.clone(),
        by: by.into(),
        draft: new.draft,
    })
}
