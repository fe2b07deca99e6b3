//! Entity tags: whoever asks again for what has not changed is told so, and no more.

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_LENGTH, ETAG};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use trust::Digest;

/// The most bytes of an answer.
const MAX_ANSWER: usize = 256 << 20;

/// The answer with a tag of its body; without the body for whoever has it already.
pub(super) async fn tagged(response: Response, known: Option<&HeaderValue>) -> Response {
    if response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // It lies in memory already: nothing of what is guarded is streamed.
    let Ok(body) = to_bytes(body, MAX_ANSWER).await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let tag = format!("\"{}\"", &Digest::of(&body).to_string()[..32]);
    let listed = |known: &HeaderValue| {
        let tags = known.to_str().unwrap_or_default().split(',').map(|tag| tag.trim().trim_start_matches("W/"));
        tags.into_iter().any(|one| one == tag || one == "*")
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        parts.headers.insert(ETAG, tag);
    }
    if known.is_some_and(listed) {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_has_it_is_told_so() {
        let ask = async |known: Option<&str>, status: StatusCode, body: &'static str| {
            let known = known.map(|tag| HeaderValue::from_str(tag).unwrap());
            let answer = tagged((status, body).into_response(), known.as_ref()).await;
            let tag = answer.headers().get(ETAG).map(|tag| tag.to_str().unwrap().to_owned());
            (answer.status().as_u16(), tag, to_bytes(answer.into_body(), 99).await.unwrap())
        };
        let (status, tag, body) = ask(None, StatusCode::OK, "sea").await;
        assert_eq!((status, &body[..]), (200, &b"sea"[..]));
        let tag = tag.unwrap();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".into()] {
            let (status, again, body) = ask(Some(&known), StatusCode::OK, "sea").await;
            assert_eq!((status, again.as_ref(), body.len()), (304, Some(&tag), 0), "{known}");
        }
        let (status, other, _) = ask(Some(&tag), StatusCode::OK, "lake").await;
        assert!(status == 200 && other.unwrap() != tag);
        assert_eq!(ask(Some("*"), StatusCode::NOT_FOUND, "").await.0, 404);
    }
}
