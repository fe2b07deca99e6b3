//! Commands: what a person asks of one device now, and what came of it.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::{List, plain};
use crate::service::store::commands::{Given, KEPT};
use crate::service::store::unix_millis;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bridge_core::{Answer, Event, UnixMillis};
use protocol::{CommandOutcome, DeviceId};
use serde::{Deserialize, Serialize};
use trust::Request;
use utoipa::{IntoParams, ToSchema};

/// What a person asks of a device.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCommand {
    /// `{"what": "diagnostics"}`, `{"what": "restart", "stream": …}`, `{"what": "report"}`,
    /// `{"what": "labels", "stream": …, "labels": [{"id": …, "label": …}]}`, or
    /// `{"what": "log-level", "level": "debug", "for_s": 600}`.
    #[schema(value_type = Object)]
    pub(crate) request: serde_json::Value,
    /// Seconds for which it counts, 1 to 3,600.
    #[serde(default = "thirty")]
    pub(crate) good_for_s: u64,
}

pub(super) fn thirty() -> u64 {
    30
}

/// What is asked, as a device will understand it.
pub(super) fn asked_for(request: &serde_json::Value) -> Result<Request, Problem> {
    Ok(Request::read(request).map_err(anyhow::Error::from)?)
}

/// A command, and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct CommandView {
    /// Of which device.
    pub(crate) device: String,
    /// Its number among those for the device.
    pub(crate) seq: u64,
    /// When it was given, milliseconds since 1970.
    pub(crate) at: u64,
    /// Until when it counts.
    pub(crate) deadline: u64,
    /// What was asked.
    #[schema(value_type = Object)]
    pub(crate) request: serde_json::Value,
    /// `waiting`, `done`, `refused`, `failed`; or `silent`, when no answer came in its time.
    pub(crate) state: String,
    /// When land heard the answer.
    pub(crate) answered: Option<u64>,
    /// The stable code of a refusal.
    pub(crate) code: Option<String>,
    /// Why not, in words.
    pub(crate) detail: Option<String>,
    /// What was asked for, where it was that; only when one command is looked at, and of the latest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) diagnostics: Option<DiagnosticsView>,
    /// How many labels found their answers, where it brought some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<JoinedView>,
}

/// How many labels found their answers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct JoinedView {
    /// Those that did.
    pub(crate) joined: u64,
    /// Those of answers that are not remembered.
    pub(crate) unknown: u64,
}

/// What a person who looks for a fault wants to see of a device.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct DiagnosticsView {
    /// As `petrel-agent status --json` tells it.
    #[schema(value_type = Object)]
    pub(crate) status: serde_json::Value,
    /// Each key of the configuration that has a value.
    pub(crate) config: Vec<SettingView>,
    /// The latest lines of the log, the oldest first.
    pub(crate) log: Vec<String>,
    /// Lines before them that there was no room for.
    pub(crate) log_left_out: u64,
}

/// A value of the configuration.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct SettingView {
    /// The key.
    pub(crate) key: String,
    /// As TOML writes it.
    pub(crate) value: String,
    /// Where it was said.
    pub(crate) from: String,
}

impl CommandView {
    pub(super) fn new(given: Given, now: UnixMillis, whole: bool) -> Result<Self, serde_json::Error> {
        let Given { draft, answer } = given;
        let (answered, result) = answer.unzip();
        let state = match result.as_ref().map(|result| result.outcome) {
            Some(CommandOutcome::Done) => "done",
            Some(CommandOutcome::Refused) => "refused",
            Some(CommandOutcome::Failed) => "failed",
            None if now <= draft.deadline => "waiting",
            None => "silent",
        };
        let labels = result.as_ref().and_then(|result| result.labels);
        let (code, detail, diagnostics) = result.map_or((None, None, None), |r| (r.code, r.detail, r.diagnostics));
        let [code, detail] = [code, detail].map(|words| words.as_deref().map(plain));
        let view = |d: protocol::Diagnostics| DiagnosticsView {
            // A device that writes no JSON is shown as what it wrote.
            status: serde_json::from_str(&d.status).unwrap_or(d.status.into()),
            config: d.config.into_iter().map(|s| SettingView { key: s.key, value: s.value, from: s.from }).collect(),
            log: d.log,
            log_left_out: d.log_left_out,
        };
        Ok(Self {
            device: draft.device.to_string(),
            seq: draft.seq,
            at: draft.issued,
            deadline: draft.deadline,
            request: serde_json::to_value(&draft.request)?,
            labels: labels.map(|l| JoinedView { joined: l.joined, unknown: l.unknown }),
            state: state.into(),
            answered,
            code,
            detail,
            diagnostics: diagnostics.filter(|_| whole).map(view),
        })
    }
}

/// Ask something of a device that is there
#[utoipa::path(post, path = "/api/v1/devices/{id}/commands", params(("id" = String, Path)), request_body = NewCommand,
    responses((status = 201, body = CommandView), (status = 404), (status = 409), (status = 422)))]
pub(super) async fn give(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<String>,
    Json(new): Json<NewCommand>,
) -> Result<(StatusCode, Json<CommandView>), Problem> {
    let device: DeviceId = id.parse().map_err(Problem::invalid)?;
    let request = asked_for(&new.request)?;
    let subject = format!("{id} {}", new.request);
    let good_for = new.good_for_s.saturating_mul(1_000);
    let event = Event::CommandRequested { device: device.clone(), request, good_for };
    match doors.request(&asked, "device.command", subject, event).await? {
        Answer::Commanded { draft: Some(draft), .. } => {
            let given = CommandView::new(Given { draft: *draft, answer: None }, unix_millis(), true);
            Ok((StatusCode::CREATED, Json(given.map_err(anyhow::Error::from)?)))
        }
        Answer::Commanded { seq, draft: None } => Ok((StatusCode::CREATED, Json(look(&doors, &device, seq).await?))),
        answer => Err(anyhow::anyhow!("the core answered {answer:?}").into()),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct Latest {
    /// How many of the latest, 1 to 50.
    #[serde(default = "twenty")]
    limit: u32,
}

fn twenty() -> u32 {
    20
}

/// The latest commands of a device, the oldest first
#[utoipa::path(get, path = "/api/v1/devices/{id}/commands", params(("id" = String, Path), Latest),
    responses((status = 200, body = List<CommandView>), (status = 422)))]
pub(super) async fn list(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    Query(latest): Query<Latest>,
) -> Result<Json<List<CommandView>>, Problem> {
    let id: DeviceId = id.parse().map_err(Problem::invalid)?;
    let given = doors.store.commands(&id, latest.limit.clamp(1, KEPT)).await?;
    let now = unix_millis();
    let items = given.into_iter().map(|given| CommandView::new(given, now, false)).collect::<Result<_, _>>();
    Ok(Json(List::of(items.map_err(anyhow::Error::from)?)))
}

/// One command and what came of it
#[utoipa::path(get, path = "/api/v1/devices/{id}/commands/{seq}", params(("id" = String, Path), ("seq" = u64, Path)),
    responses((status = 200, body = CommandView), (status = 404), (status = 422)))]
pub(super) async fn show(
    State(doors): State<Doors>,
    Path((id, seq)): Path<(String, u64)>,
) -> Result<Json<CommandView>, Problem> {
    let id: DeviceId = id.parse().map_err(Problem::invalid)?;
    look(&doors, &id, seq).await.map(Json)
}

async fn look(doors: &Doors, id: &DeviceId, seq: u64) -> Result<CommandView, Problem> {
    let missing = || Problem::not_found(format!("there is no command {seq} of `{id}`, or it is not kept any more"));
    let given = doors.store.command(id, seq).await?.ok_or_else(missing)?;
    Ok(CommandView::new(given, unix_millis(), true).map_err(anyhow::Error::from)?)
}
