//! Who asks, and the audit log: every request that may change something leaves a line in it.
//!
//! What goes through the core is written in one with what the core saves ([`Doors::request`]). Whatever
//! else was done or refused is written by the guard around all routes, so no handler can forget it.

use super::Doors;
use super::access::needs;
use super::problem::{Problem, Refused, in_words};
use super::view::{AuditView, BaseView, LineView};
use super::{etag, once};
use crate::service::driver::DONE;
use crate::service::store::audit::Which;
use crate::service::store::once::Once;
use crate::service::store::people::Person;
use crate::service::store::unix_millis;
use axum::Json;
use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, IF_NONE_MATCH};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bridge_core::access::{Access, Right};
use bridge_core::audit::{Deed, Head, Quota};
use bridge_core::{Answer, Event, UnixMillis};
use protocol::StreamName;
use serde::Deserialize;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tracing::Instrument;
use trust::Role;
use utoipa::IntoParams;

/// Who holds no token that is known here, in the log.
const NOBODY: &str = "nobody";
/// The answer's header with the request's name in the log.
const REQUEST_ID: &str = "x-request-id";

/// The request under way: who asks, and whether the log has a line of it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    who: Arc<str>,
    access: Option<Arc<Access>>,
    request: Arc<str>,
    told: Arc<AtomicBool>,
    once: Option<Arc<Once>>,
}

impl Asked {
    fn new(holder: Option<&Person>) -> anyhow::Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|e| anyhow::anyhow!("the system gives no randomness: {e}"))?;
        let who = holder.map_or(NOBODY, |person| &person.name).into();
        let access = holder.map(|person| Arc::new(person.access.clone()));
        Ok(Self { who, access, request: hex::encode(name).into(), told: Arc::default(), once: None })
    }

    /// The name of who asks.
    pub(super) fn who(&self) -> &str {
        &self.who
    }

    /// The log has a line of it.
    pub(super) fn was_told(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// When who asks was let in.
    pub(super) fn since(&self) -> UnixMillis {
        self.access.as_ref().map_or(UnixMillis::MAX, |access| access.since)
    }

    /// Whether who asks may do what takes one of these rights to a stream.
    pub(super) fn allows(&self, rights: &[Right], stream: &StreamName) -> Result<(), Problem> {
        let nobody = || "nobody asks".to_owned();
        let allowed = self.access.as_ref().ok_or_else(nobody).and_then(|access| access.allows(rights, Some(stream)));
        allowed.map_err(|why| Problem::forbidden("forbidden", &why))
    }

    /// A line of the log.
    pub(super) fn deed(&self, action: &str, subject: impl Display, outcome: &str) -> Deed {
        Deed::new(&self.who, action, &subject.to_string(), outcome).asked_by(&self.request)
    }
}

impl Doors {
    /// Requests something of the core in the name of who asks; the audit log tells of it, also when it
    /// is refused.
    pub(crate) async fn request(
        &self,
        asked: &Asked,
        action: &str,
        subject: impl Display,
        event: Event,
    ) -> Result<Answer, Problem> {
        let once = asked.once.as_deref().cloned();
        let answer = self.driver.request_once(event, asked.deed(action, subject, DONE), once).await?;
        asked.was_told();
        Ok(answer?)
    }

    /// Writes a line before something is done that the core does not know of.
    pub(crate) async fn witness(&self, asked: &Asked, action: &str, subject: impl Display) -> anyhow::Result<()> {
        self.store.witness(&asked.deed(action, subject, DONE)).await?;
        asked.was_told();
        Ok(())
    }

    /// Writes that a stranger was refused: so many a minute, and the others as a number.
    pub(crate) async fn witness_stranger(&self, deed: Deed) -> anyhow::Result<()> {
        let quota = self.strangers.lock().unwrap_or_else(PoisonError::into_inner).take(unix_millis());
        match quota {
            None => Ok(()),
            Some(0) => self.store.witness(&deed).await,
            Some(left_out) => {
                let subject = format!("{} ({left_out} refusals before it were not written)", deed.subject);
                self.store.witness(&Deed { subject, ..deed }).await
            }
        }
    }
}

/// How many lines strangers may cause.
pub(crate) type Strangers = Arc<Mutex<Quota>>;

/// Lets in whoever holds a token that is good for the route, and writes down what no handler has written.
pub(super) async fn guard(State(doors): State<Doors>, request: Request, next: Next) -> Response {
    let changes = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    let action = format!("{} {route}", request.method());
    let subject = request.uri().path().to_owned();
    let needs = needs(request.method(), route);
    let holder = match token(&request) {
        None => Ok(None),
        Some(token) => doors.store.holder(token).await,
    };
    let mut asked = match Asked::new(holder.as_ref().ok().and_then(Option::as_ref)) {
        Ok(asked) => asked,
        Err(error) => return Problem::from(error).into_response(),
    };
    let mut counts = asked.access.is_some();
    let admitted = holder.map_err(Problem::from).and_then(|holder| {
        let person = match (holder, token(&request).is_some()) {
            (Some(person), _) => person,
            (None, false) => return Err(Problem::unauthorised("a token is needed: run `petrel login`")),
            (None, true) => return Err(Problem::unauthorised("this token is not known here")),
        };
        // Whoever may not ask at all fills no log.
        counts = !person.access.has_ended(unix_millis()) && doors.turns.admits(&asked.who, Instant::now());
        if person.access.has_ended(unix_millis()) {
            return Err(Problem::refused("token_expired", "this token has ended: an admin makes a new one"));
        }
        if !counts {
            return Err(Problem::too_often());
        }
        needs.ok_or_else(|| Problem::forbidden("forbidden", "nobody may do this"))?.check(&person.access)
    });
    let known = request.headers().get(IF_NONE_MATCH).cloned();
    let admitted = match admitted {
        Ok(()) => once::read(request, route, &asked.who).await,
        Err(problem) => Err(problem),
    };
    let mut response = match admitted {
        Ok((mut request, once)) => {
            asked.once = once.map(Arc::new);
            request.extensions_mut().insert(asked.clone());
            // Whatever is logged on the way says of which request.
            let span = tracing::info_span!("request", id = %asked.request, who = %asked.who, action);
            let response = in_words(next.run(request).instrument(span).await).await;
            if changes { response } else { etag::tagged(response, known.as_ref()).await }
        }
        Err(problem) => problem.into_response(),
    };
    if let Ok(name) = HeaderValue::from_str(&asked.request) {
        response.headers_mut().insert(REQUEST_ID, name);
    }
    if changes && !asked.told.load(Ordering::Relaxed) {
        let deed = asked.deed(&action, subject, &outcome(&response));
        let written = if counts { doors.store.witness(&deed).await } else { doors.witness_stranger(deed).await };
        if let Err(error) = written {
            tracing::error!(error = format!("{error:#}"), "a line of the audit log was not written");
        }
    }
    response
}

fn token(request: &Request) -> Option<&str> {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    header.and_then(|value| value.strip_prefix("Bearer "))
}

/// The code of a refusal; otherwise the status, when it tells of one.
fn outcome(response: &Response) -> String {
    match response.extensions().get::<Refused>() {
        Some(Refused(code)) => code.clone(),
        None if response.status().is_success() => DONE.into(),
        None => response.status().as_u16().to_string(),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct Asks {
    /// Lines behind this number, from there on; without it the last ones.
    after: Option<u64>,
    /// How many, 1 to 1,000.
    #[serde(default = "hundred")]
    limit: u32,
    /// Written at this time or later, milliseconds since 1970.
    since: Option<u64>,
    /// By this name.
    who: Option<String>,
    /// This action, or one that begins with it and a dot.
    action: Option<String>,
}

fn hundred() -> u32 {
    100
}

/// Lines of the audit log, the oldest first
#[utoipa::path(get, path = "/api/v1/audit", params(Asks),
    responses((status = 200, body = AuditView)))]
pub(super) async fn list(State(doors): State<Doors>, Query(asks): Query<Asks>) -> Result<Json<AuditView>, Problem> {
    let Asks { after, limit, since, who, action } = asks;
    let which = Which { after, limit, since, who, action };
    // Whoever verifies asks for pages without a filter, and old lines may go meanwhile: what is told belongs together.
    let mut base = doors.store.audit_base().await?;
    let lines = loop {
        let lines = doors.store.audit(&which).await?;
        let now = doors.store.audit_base().await?;
        if now == base || !which.is_any() {
            break lines;
        }
        base = now;
    };
    let fleet = doors.store.fleet().to_owned();
    let base = base.map(|Head { seq, sha256 }| BaseView { seq, sha256 });
    Ok(Json(AuditView { fleet, base, items: lines.into_iter().map(LineView::from).collect() }))
}

/// Sign how far the audit log has come, to be kept elsewhere
#[utoipa::path(post, path = "/api/v1/audit/checkpoint",
    responses((status = 200, description = "a checkpoint in a DSSE envelope", content_type = "application/json")))]
pub(super) async fn checkpoint(
    State(doors): State<Doors>,
    axum::Extension(asked): axum::Extension<Asked>,
) -> Result<Response, Problem> {
    doors.witness(&asked, "audit.checkpoint", "").await?;
    let head = doors.store.audit_head().await?;
    let epoch = doors.driver.look(|bridge| bridge.believed().0.map_or(0, |root| root.role_epoch(Role::Director)));
    let signed = doors.pen.checkpoint(&head, epoch.await?, unix_millis() / 1_000)?;
    Ok(([(CONTENT_TYPE, "application/json")], signed).into_response())
}
