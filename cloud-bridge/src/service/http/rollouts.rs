//! Rollouts: begun by people, decided by the core.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::{List, NewRollout, RolloutView};
use crate::service::store::unix_millis;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bridge_core::{Answer, Event, Rollout, RolloutRequest, Targets};
use std::collections::BTreeSet;
use trust::{Trial, U53};

/// Every rollout
#[utoipa::path(get, path = "/api/v1/rollouts", responses((status = 200, body = List<RolloutView>), (status = 401, body = Problem)))]
pub(super) async fn list(State(doors): State<Doors>) -> Result<Json<List<RolloutView>>, Problem> {
    let arrivals = doors.driver.arrivals.clone();
    let view = move |rollout: &Rollout| RolloutView::new(rollout, &arrivals, unix_millis());
    let items = doors.driver.look(move |bridge| bridge.rollouts().values().map(view).collect()).await?;
    Ok(Json(List { items }))
}

/// One rollout
#[utoipa::path(get, path = "/api/v1/rollouts/{id}", params(("id" = u64, Path)),
    responses((status = 200, body = RolloutView), (status = 400), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn show(State(doors): State<Doors>, Path(id): Path<u64>) -> Result<Json<RolloutView>, Problem> {
    look(&doors, id).await.map(Json)
}

/// Start a rollout
#[utoipa::path(post, path = "/api/v1/rollouts", request_body = NewRollout,
    responses((status = 201, body = RolloutView), (status = 401, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn start(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    body: Result<Json<NewRollout>, JsonRejection>,
) -> Result<(StatusCode, Json<RolloutView>), Problem> {
    let Json(new) = body.map_err(|e| Problem::invalid(e.body_text()))?;
    let request = understand(&new)?;
    let subject = format!("{}@{}", request.stream, request.version);
    match doors.request(&asked, "rollout.start", subject, Event::RolloutRequested(request)).await? {
        Answer::Started { rollout } => Ok((StatusCode::CREATED, Json(look(&doors, rollout).await?))),
        Answer::Done | Answer::Known { .. } | Answer::Taken { .. } | Answer::Forgotten { .. } => {
            Err(anyhow::anyhow!("a rollout was asked for and none began").into())
        }
    }
}

async fn look(doors: &Doors, id: u64) -> Result<RolloutView, Problem> {
    let arrivals = doors.driver.arrivals.clone();
    let view = move |rollout: &Rollout| RolloutView::new(rollout, &arrivals, unix_millis());
    let found = doors.driver.look(move |bridge| bridge.rollouts().get(&id).map(view)).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no rollout {id}")))
}

/// What was said becomes what is meant.
fn understand(new: &NewRollout) -> Result<RolloutRequest, Problem> {
    let number = |n: u64| U53::try_from(n).map_err(Problem::invalid);
    let to = match &new.devices {
        None => Targets::All,
        Some(names) => {
            let ids: Result<BTreeSet<_>, _> = names.iter().map(|name| name.parse()).collect();
            Targets::Devices(ids.map_err(Problem::invalid)?)
        }
    };
    let waves: Result<Vec<_>, _> = new.waves.iter().map(|wave| wave.parse()).collect();
    Ok(RolloutRequest {
        stream: new.stream.parse().map_err(Problem::invalid)?,
        version: new.version.clone(),
        to,
        waves: waves.map_err(Problem::invalid)?,
        trial: Trial {
            min_answers: number(new.trial_answers)?,
            max_errors: number(new.trial_errors)?,
            window_s: number(new.trial_window_s)?,
            max_slowdown: new.trial_slowdown.map(number).transpose()?,
        },
        max_failed: new.max_failed,
        deadline_s: new.deadline_s,
        at_once: new.at_once,
    })
}
