//! Rollouts: begun by people, decided by the core.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::{List, RolloutView};
use crate::service::store::unix_millis;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bridge_core::{Answer, Event, Rollout, RolloutRequest, Targets};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use trust::{Shadow, Trial, U53};
use utoipa::ToSchema;

/// What a person asks of a rollout.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRollout {
    /// The stream.
    pub(crate) stream: String,
    /// The version to roll out.
    pub(crate) version: String,
    /// Device names; absent for every approved device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) devices: Option<Vec<String>>,
    /// How many devices have it after each wave: counts such as `1`, shares such as `10%`.
    pub(crate) waves: Vec<String>,
    /// Answers on trial after which a device confirms before the window ends.
    pub(crate) trial_answers: u64,
    /// One error more and a device reverts.
    pub(crate) trial_errors: u64,
    /// The longest trial in seconds.
    pub(crate) trial_window_s: u64,
    /// An answer on trial may take so much, in percent of what it takes the release before; absent for as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trial_slowdown: Option<u64>,
    /// Its process may hold so much memory on trial, in percent of what its manifest promises; absent for as much as a
    /// process may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trial_memory: Option<u64>,
    /// Before the trial it is asked what the release before answers, and nobody hears it; absent for no such time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shadow: Option<NewShadow>,
    /// One failed device more stops the rollout.
    pub(crate) max_failed: u64,
    /// Seconds after which a wave that is not done stops the rollout.
    pub(crate) deadline_s: u64,
    /// Devices that may be on their way to a verdict at a time; absent for all of a wave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at_once: Option<u64>,
}

/// How a release is compared with the one before it, before anybody hears it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewShadow {
    /// Answers that are compared, each row one; what was seen when the trial's window has passed decides too.
    pub(crate) answers: u64,
    /// Of a hundred so many may be others.
    pub(crate) max_disagreement: u64,
}

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
        answer => Err(anyhow::anyhow!("the core answered {answer:?}").into()),
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
    let shadow = |asked: NewShadow| {
        if asked.answers == 0 || asked.max_disagreement > 100 {
            return Err(Problem::invalid("a shadow compares at least one answer, of which 0 to 100 % may be others"));
        }
        let [answers, max_disagreement] = [asked.answers, asked.max_disagreement].map(number);
        Ok(Shadow { answers: answers?, max_disagreement: max_disagreement? })
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
            max_memory_percent: new.trial_memory.map(number).transpose()?,
            shadow: new.shadow.map(shadow).transpose()?,
        },
        max_failed: new.max_failed,
        deadline_s: new.deadline_s,
        at_once: new.at_once,
    })
}
