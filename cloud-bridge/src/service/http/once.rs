//! Keys of requests that count once: whoever heard no answer sends the same again, and nothing is begun twice.

use super::MAX_BODY_BYTES;
use super::problem::Problem;
use crate::service::store::once::Once;
use axum::body::Body;
use axum::extract::Request;
use trust::Digest;

/// The header with the key.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The most characters of a key.
const MAX_KEY: usize = 128;
/// The routes on which something is begun that has a number.
pub(super) const ROUTES: [&str; 4] =
    ["/api/v1/rollouts", "/api/v1/devices/{id}/commands", "/api/v1/fan-outs", "/api/v1/sample-requests"];

/// The key of a request, where it has one, with all that is asked.
///
/// # Errors
/// When it is no key, or is given where nothing is begun.
pub(super) async fn read(request: Request, route: &str, who: &str) -> Result<(Request, Option<Once>), Problem> {
    let Some(key) = request.headers().get(IDEMPOTENCY_KEY) else { return Ok((request, None)) };
    let plain = |key: &&str| !key.is_empty() && key.len() <= MAX_KEY && key.chars().all(|c| c.is_ascii_graphic());
    let no_key = || Problem::invalid(format!("Idempotency-Key: 1 to {MAX_KEY} letters, digits and signs"));
    let key = key.to_str().ok().filter(plain).ok_or_else(no_key)?.to_owned();
    if !(ROUTES.contains(&route) && request.method() == axum::http::Method::POST) {
        return Err(Problem::invalid(
            "this request takes no Idempotency-Key: sending it again does no harm, or is refused",
        ));
    }
    let (parts, body) = request.into_parts();
    let too_large = |_| Problem::too_large();
    let body = axum::body::to_bytes(body, MAX_BODY_BYTES).await.map_err(too_large)?;
    let asked = Digest::of(&[parts.uri.path().as_bytes(), &[0], &body].concat());
    let once = Once { who: who.into(), key, asked };
    Ok((Request::from_parts(parts, Body::from(body)), Some(once)))
}
