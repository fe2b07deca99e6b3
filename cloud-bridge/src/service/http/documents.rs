//! The documents that people sign for everybody: the chain of roots, revocations, breakglass.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::{DocumentView, List};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use bridge_core::{Answer, Event};
use protocol::DocumentKind;
use trust::{Envelope, MAX_ROOT_BYTES, PayloadKind};

/// Every document that the fleet is told of
#[utoipa::path(get, path = "/api/v1/documents", responses((status = 200, body = List<DocumentView>)))]
pub(super) async fn list(State(doors): State<Doors>) -> Result<Json<List<DocumentView>>, Problem> {
    let items = doors.driver.look(|bridge| bridge.documents().map(DocumentView::from).collect()).await?;
    Ok(Json(List::of(items)))
}

/// Publish a signed root, revocation or breakglass; the same one again changes nothing
#[utoipa::path(post, path = "/api/v1/documents", request_body(content = String, content_type = "application/json"),
    responses((status = 200, body = DocumentView), (status = 409), (status = 413), (status = 422)))]
pub(super) async fn publish(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    body: Bytes,
) -> Result<(StatusCode, Json<DocumentView>), Problem> {
    let (kind, envelope) = kind(&body).ok_or_else(|| Problem::invalid("this is no root, revocation or breakglass"))?;
    let sha256 = trust::Digest::of(&envelope.payload).to_string();
    let (action, subject) = ("document.publish", format!("{} {sha256}", DocumentView::name(kind)));
    match doors.request(&asked, action, subject, Event::DocumentPushed { kind, bytes: body.to_vec() }).await? {
        Answer::Taken { number, new, .. } => {
            Ok((StatusCode::OK, Json(DocumentView { kind: DocumentView::name(kind).into(), number, new, sha256 })))
        }
        answer => Err(anyhow::anyhow!("the core answered {answer:?}").into()),
    }
}

/// What an envelope says that it holds; nothing of it is verified.
fn kind(bytes: &[u8]) -> Option<(DocumentKind, Envelope)> {
    let kinds = [
        (DocumentKind::Root, PayloadKind::Root),
        (DocumentKind::Revocation, PayloadKind::Revocation),
        (DocumentKind::Breakglass, PayloadKind::Breakglass),
    ];
    kinds.into_iter().find_map(|(kind, payload)| Some((kind, Envelope::parse(payload, bytes, MAX_ROOT_BYTES).ok()?)))
}
