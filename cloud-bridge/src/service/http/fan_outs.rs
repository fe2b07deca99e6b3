//! Fan-outs: what a person asks of many devices at once, and what came of it.

use super::Doors;
use super::audit::Asked;
use super::commands::{CommandView, asked_for, thirty};
use super::problem::Problem;
use super::view::List;
use crate::service::store::commands::Answers;
use crate::service::store::unix_millis;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bridge_core::{Answer, Event, FanOut, FanOutWish, Target};
use protocol::{CommandOutcome, DeviceId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What a person asks of many devices.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewFanOut {
    /// Which devices are meant, as `site=plant-3 and board=rpi4`; those of them that are there are asked.
    pub(crate) to: String,
    /// `{"what": "report"}`, `{"what": "restart", "stream": …}`, or
    /// `{"what": "log-level", "level": "debug", "for_s": 600}`.
    #[schema(value_type = Object)]
    pub(crate) request: serde_json::Value,
    /// Seconds for which it counts, 1 to 3,600.
    #[serde(default = "thirty")]
    pub(crate) good_for_s: u64,
}

/// What was asked of many devices at once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct FanOutView {
    /// Its number.
    pub(crate) id: u64,
    /// Which devices were meant.
    pub(crate) to: String,
    /// What was asked.
    #[schema(value_type = Object)]
    pub(crate) request: serde_json::Value,
    /// Who asked.
    pub(crate) by: String,
    /// When, milliseconds since 1970.
    pub(crate) at: u64,
    /// Until when it counts.
    pub(crate) deadline: u64,
    /// So many devices were asked.
    pub(crate) given: u64,
    /// So many were meant, and not there.
    pub(crate) left_out: u64,
    /// What came of it so far, of the commands that are still kept; only when one fan-out is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answers: Option<AnswersView>,
}

/// How many devices answered, and how.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct AnswersView {
    /// Those whose answer may still come.
    pub(crate) waiting: u64,
    /// Those that did it.
    pub(crate) done: u64,
    /// Those that would not.
    pub(crate) refused: u64,
    /// Those that could not.
    pub(crate) failed: u64,
    /// Those that did not answer in time.
    pub(crate) silent: u64,
}

impl FanOutView {
    fn new(fan_out: FanOut, answers: Option<Answers>) -> Result<Self, serde_json::Error> {
        let is_open = unix_millis() <= fan_out.deadline;
        let view = |Answers { none, done, refused, failed }: Answers| {
            let (waiting, silent) = if is_open { (none, 0) } else { (0, none) };
            AnswersView { waiting, done, refused, failed, silent }
        };
        Ok(Self {
            id: fan_out.id,
            to: fan_out.to.to_string(),
            request: serde_json::to_value(&fan_out.request)?,
            by: fan_out.by,
            at: fan_out.at,
            deadline: fan_out.deadline,
            given: fan_out.given,
            left_out: fan_out.left_out,
            answers: answers.map(view),
        })
    }
}

/// Ask something of many devices that are there
#[utoipa::path(post, path = "/api/v1/fan-outs", request_body = NewFanOut,
    responses((status = 201, body = FanOutView), (status = 409), (status = 422)))]
pub(super) async fn give(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Json(new): Json<NewFanOut>,
) -> Result<(StatusCode, Json<FanOutView>), Problem> {
    let to: Target = new.to.parse().map_err(Problem::invalid)?;
    let request = asked_for(&new.request)?;
    // What was asked is short, and whom it meant may be cut.
    let subject = format!("{} to {to}", new.request);
    let good_for = new.good_for_s.saturating_mul(1_000);
    let wish = FanOutWish { to, request, good_for, by: asked.who().to_owned() };
    match doors.request(&asked, "device.fan_out", subject, Event::FanOutRequested(Box::new(wish))).await? {
        Answer::FannedOut { fan_out } => Ok((StatusCode::CREATED, Json(look(&doors, fan_out).await?))),
        answer => Err(anyhow::anyhow!("the core answered {answer:?}").into()),
    }
}

/// The latest fan-outs, the oldest first
#[utoipa::path(get, path = "/api/v1/fan-outs", responses((status = 200, body = List<FanOutView>)))]
pub(super) async fn list(State(doors): State<Doors>) -> Result<Json<List<FanOutView>>, Problem> {
    let all: Vec<FanOut> = doors.driver.look(|bridge| bridge.fan_outs().values().cloned().collect()).await?;
    let items = all.into_iter().map(|fan_out| FanOutView::new(fan_out, None)).collect::<Result<_, _>>();
    Ok(Json(List::of(items.map_err(anyhow::Error::from)?)))
}

/// One fan-out, and how many devices answered
#[utoipa::path(get, path = "/api/v1/fan-outs/{id}", params(("id" = u64, Path)),
    responses((status = 200, body = FanOutView), (status = 404)))]
pub(super) async fn show(State(doors): State<Doors>, Path(id): Path<u64>) -> Result<Json<FanOutView>, Problem> {
    look(&doors, id).await.map(Json)
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct Which {
    /// Only those in this state; `waiting` and `silent` both mean those without an answer.
    #[param(inline)]
    state: Option<CommandState>,
    /// Only devices behind this one: `next` of the answer before.
    after: Option<String>,
    /// How many, 1 to 1,000.
    #[serde(default = "thousand")]
    limit: u32,
}

fn thousand() -> u32 {
    MOST_COMMANDS
}

/// The most commands of one answer.
const MOST_COMMANDS: u32 = 1_000;

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum CommandState {
    Waiting,
    Done,
    Refused,
    Failed,
    Silent,
}

/// The commands of a fan-out and what came of each, by their devices
#[utoipa::path(get, path = "/api/v1/fan-outs/{id}/commands", params(("id" = u64, Path), Which),
    responses((status = 200, body = List<CommandView>), (status = 400), (status = 404), (status = 422)))]
pub(super) async fn commands(
    State(doors): State<Doors>,
    Path(id): Path<u64>,
    Query(which): Query<Which>,
) -> Result<Json<List<CommandView>>, Problem> {
    let Which { state, after, limit } = which;
    let (limit, now) = (limit.clamp(1, MOST_COMMANDS), unix_millis());
    let after: Option<DeviceId> = after.map(|id| id.parse()).transpose().map_err(Problem::invalid)?;
    known(&doors, id).await?;
    let outcome = state.map(|state| match state {
        CommandState::Done => Some(CommandOutcome::Done),
        CommandState::Refused => Some(CommandOutcome::Refused),
        CommandState::Failed => Some(CommandOutcome::Failed),
        // One becomes the other while somebody asks for the next page.
        CommandState::Waiting | CommandState::Silent => None,
    });
    let mut given = doors.store.commands_of(id, outcome, after.as_ref(), limit + 1).await?;
    let there_is_more = given.len() > limit as usize;
    given.truncate(limit as usize);
    let next = given.last().filter(|_| there_is_more).map(|last| last.draft.device.to_string());
    let items = given.into_iter().map(|given| CommandView::new(given, now, false)).collect::<Result<_, _>>();
    Ok(Json(List { items: items.map_err(anyhow::Error::from)?, next }))
}

async fn known(doors: &Doors, id: u64) -> Result<FanOut, Problem> {
    let missing = || Problem::not_found(format!("there is no fan-out {id}, or it is not kept any more"));
    doors.driver.look(move |bridge| bridge.fan_outs().get(&id).cloned()).await?.ok_or_else(missing)
}

async fn look(doors: &Doors, id: u64) -> Result<FanOutView, Problem> {
    let (fan_out, answers) = (known(doors, id).await?, doors.store.answers(id).await?);
    Ok(FanOutView::new(fan_out, Some(answers)).map_err(anyhow::Error::from)?)
}
