//! Errors as RFC 9457 problem details: a status, a stable code, words for a person.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bridge_core::Rejection;
use serde::{Deserialize, Serialize};
use trust::Refusal;
use utoipa::ToSchema;

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

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let refused = Extension(Refused(self.code.clone()));
        (status, [(CONTENT_TYPE, "application/problem+json")], refused, Json(self)).into_response()
    }
}
