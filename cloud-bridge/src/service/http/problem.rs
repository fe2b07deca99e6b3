//! Errors as RFC 9457 problem details: a status, a stable code, words for a person.

use crate::service::store::NoEntry;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bridge_core::Rejection;
use protocol::DeviceId;
use serde::{Deserialize, Serialize};
use trust::Refusal;
use utoipa::ToSchema;

/// The type of a problem's body.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";
/// The most bytes of what a library says of a request.
const MAX_WORDS: usize = 4_096;

/// What went wrong with a request.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Problem {
    /// The HTTP status, again.
    pub(crate) status: u16,
    /// A stable code.
    pub(crate) code: String,
    /// What happened, and what to do.
    pub(crate) detail: String,
}

/// The code of a refusal, told to whoever writes the audit log.
#[derive(Debug, Clone)]
pub(super) struct Refused(pub(super) String);

impl Problem {
    fn new(status: StatusCode, code: &str, detail: String) -> Self {
        Self { status: status.as_u16(), code: code.to_owned(), detail }
    }

    /// What was asked for is not there.
    pub(crate) fn not_found(detail: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// Nobody we know asks.
    pub(crate) fn unauthorised(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorised", detail.to_owned())
    }

    /// Nobody whom we let in asks: a code of its own says why.
    pub(crate) fn refused(code: &str, detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail.to_owned())
    }

    /// Somebody known asks, who may not.
    pub(crate) fn forbidden(code: &str, detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail.to_owned())
    }

    /// What a device sent is not what it should be.
    pub(crate) fn bad(code: &str, detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail.to_owned())
    }

    /// A token lets nobody in.
    pub(crate) fn no_entry(why: NoEntry) -> Self {
        let code = match why {
            NoEntry::Unknown => "token_unknown",
            NoEntry::Expired => "token_expired",
            NoEntry::Used => "token_used",
            NoEntry::OtherDevice => "token_other_device",
        };
        Self::refused(code, &why.to_string())
    }

    /// Somebody else has the name.
    pub(crate) fn name_taken(why: &Rejection) -> Self {
        Self::new(StatusCode::CONFLICT, "name_taken", why.to_string())
    }

    /// A token for a name that somebody has.
    pub(crate) fn taken(device: &DeviceId) -> Self {
        let detail = format!("device `{device}` is enrolled already: retire it first, or choose another name");
        Self::new(StatusCode::CONFLICT, "name_taken", detail)
    }

    /// Too many have asked in vain.
    pub(crate) fn too_often() -> Self {
        let detail = "too many requests in the last minute: wait one";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_often", detail.into())
    }

    /// It is no time to ask anything.
    pub(crate) fn not_ready(detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail.into())
    }

    /// A file has no bytes there.
    pub(crate) fn no_such_range(size: u64) -> Self {
        let detail = format!("the file has {size} bytes: ask for some of them");
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", detail)
    }

    /// The body is too long.
    pub(crate) fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is too long".into())
    }

    /// The request makes no sense.
    pub(crate) fn invalid(detail: impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail.to_string())
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let detail = rejection.to_string();
        match rejection {
            Rejection::NotFound(_) => Self::not_found(detail),
            Rejection::Conflict(_) => Self::new(StatusCode::CONFLICT, rejection.code(), detail),
            Rejection::Invalid(_) => Self::invalid(detail),
            Rejection::Refused(refusal) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, refusal.code.as_str(), refusal.detail)
            }
        }
    }
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Self::new(StatusCode::UNPROCESSABLE_ENTITY, refusal.code.as_str(), refusal.detail.clone());
        }
        // The cause is for the log; a client learns nothing of this machine.
        tracing::error!(error = format!("{error:#}"), "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the bridge failed: see its log".into())
    }
}

/// What was refused before any handler was asked, such as a body that is no JSON, is told as a problem like all else.
pub(super) async fn in_words(response: Response) -> Response {
    let status = response.status();
    let is_problem = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON);
    if is_problem || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let said = axum::body::to_bytes(body, MAX_WORDS).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let code = match status {
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "media_type",
        _ if status.is_server_error() => "internal",
        _ => "invalid",
    };
    let said = if said.is_empty() { status.canonical_reason().unwrap_or("refused").to_owned() } else { said };
    let mut told = Problem::new(status, code, said).into_response();
    for (name, value) in &parts.headers {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            told.headers_mut().insert(name, value.clone());
        }
    }
    told
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let refused = Extension(Refused(self.code.clone()));
        (status, [(CONTENT_TYPE, PROBLEM_JSON)], refused, Json(self)).into_response()
    }
}
