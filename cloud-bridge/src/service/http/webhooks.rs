//! Webhooks: who is told of events, what waits for them, and what was given up.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::List;
use crate::service::config::origin;
use crate::service::store::notices::Waiting;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bridge_core::notice::Notice;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most events that are shown.
const MOST_SHOWN: u32 = 1_000;

/// Somebody who is told of events.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct WebhookView {
    /// Its name.
    pub(crate) name: String,
    /// Scheme and host of where they are sent; the rest of an address may be a secret.
    pub(crate) origin: String,
    /// Kinds of events, or their first words; all where there are none.
    pub(crate) events: Vec<String>,
    /// Events that are still tried.
    pub(crate) waiting: u64,
    /// Events that were given up: dead letters.
    pub(crate) given_up: u64,
    /// What came of the last try that failed, of those events.
    pub(crate) error: Option<String>,
}

/// An event that was not taken yet.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct NoticeView {
    /// Its number here.
    pub(crate) id: i64,
    /// What happened.
    pub(crate) kind: String,
    /// When, milliseconds since 1970.
    pub(crate) at: u64,
    /// How often it was sent.
    pub(crate) tries: u32,
    /// When it is sent again; nothing when it was given up.
    pub(crate) due: Option<u64>,
    /// What came of the last try.
    pub(crate) error: Option<String>,
    /// The CloudEvent.
    #[schema(value_type = Object)]
    pub(crate) event: serde_json::Value,
}

impl From<Waiting> for NoticeView {
    fn from(waiting: Waiting) -> Self {
        let Waiting { id, kind, at, body, tries, due, error } = waiting;
        Self { id, kind, at, tries, due, error, event: serde_json::from_str(&body).unwrap_or_default() }
    }
}

/// How many events are tried again.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RetriedView {
    /// Events.
    pub(crate) again: u64,
}

/// Who is told of events
#[utoipa::path(get, path = "/api/v1/webhooks", responses((status = 200, body = List<WebhookView>)))]
pub(super) async fn list(State(doors): State<Doors>) -> Result<Json<List<WebhookView>>, Problem> {
    let mut items = Vec::new();
    for hook in doors.webhooks.iter() {
        let (waiting, given_up, error) = doors.store.box_of(&hook.name).await?;
        items.push(WebhookView {
            name: hook.name.clone(),
            origin: origin(&hook.url),
            events: hook.events.clone(),
            waiting,
            given_up,
            error,
        });
    }
    Ok(Json(List::of(items)))
}

/// Events that a webhook has not taken yet, the newest first
#[utoipa::path(get, path = "/api/v1/webhooks/{name}/notices", params(("name" = String, Path)),
    responses((status = 200, body = List<NoticeView>), (status = 404)))]
pub(super) async fn notices(
    State(doors): State<Doors>,
    Path(name): Path<String>,
) -> Result<Json<List<NoticeView>>, Problem> {
    known(&doors, &name)?;
    let items = doors.store.notices(&name, MOST_SHOWN).await?.into_iter().map(NoticeView::from).collect();
    Ok(Json(List::of(items)))
}

/// Send a webhook an event that means nothing
#[utoipa::path(post, path = "/api/v1/webhooks/{name}/test", params(("name" = String, Path)),
    responses((status = 202, description = "it is on its way"), (status = 404)))]
pub(super) async fn test(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    known(&doors, &name)?;
    doors.witness(&asked, "webhook.test", &name).await?;
    doors.store.try_hook(&name, &Notice::of_test(asked.who())).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Send again what was given up
#[utoipa::path(post, path = "/api/v1/webhooks/{name}/retry", params(("name" = String, Path)),
    responses((status = 200, body = RetriedView), (status = 404)))]
pub(super) async fn retry(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(name): Path<String>,
) -> Result<Json<RetriedView>, Problem> {
    known(&doors, &name)?;
    doors.witness(&asked, "webhook.retry", &name).await?;
    Ok(Json(RetriedView { again: doors.store.tell_again(&name).await? }))
}

fn known(doors: &Doors, name: &str) -> Result<(), Problem> {
    let none = || Problem::not_found(format!("there is no webhook `{name}`: they stand in the bridge's configuration"));
    doors.webhooks.iter().find(|hook| hook.name == name).map(|_| ()).ok_or_else(none)
}
