//! The local API: inference and status, over HTTP on loopback.
//!
//! Decides paths, codes and limits. It asks nobody who they are: whoever is on the device may ask, and
//! nobody else can.

mod binary;
mod door;
mod metrics;
mod oip;

pub(crate) use oip::{InferRequest, Written};

use crate::fetch::{Gap, Part};
use crate::keeper::Counter;
use crate::status::Status;
use crate::worker::{Failure, Question, Serving, Truth, Worker};
use axum::body::Bytes;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use door::Door;
use oip::ModelMetadata;
use protocol::{CHUNK_BYTES, Joined, StreamName};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use trust::Digest;

/// The largest request.
const MAX_BODY_BYTES: usize = 8 << 20;
/// The largest list of labels: some ten thousand.
const MAX_LABELS_BYTES: usize = 1 << 20;
/// What has no more bytes is read, or written, in less time than it takes to hand it to somebody.
const SMALL_BYTES: usize = 16 << 10;
/// Larger requests in memory at a time; while it is parsed, each takes many times its own size.
pub(crate) const MOST_LARGE: usize = 2;
/// How long another waits for its turn.
const LARGE_PATIENCE: Duration = Duration::from_secs(5);

/// What the local API answers from.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    /// What serves.
    pub(crate) worker: Arc<Worker>,
    /// Large requests that are worked on at a time.
    pub(crate) large: Arc<Semaphore>,
    /// Who takes bundles that somebody brings.
    pub(crate) counter: Counter,
    /// What the driver last said of the device.
    pub(crate) status: watch::Receiver<Arc<Status>>,
}

/// What was right.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    labels: Vec<Truth>,
}

/// Why a request was not answered: `{"error": …}` with a code.
#[derive(Debug)]
struct Denied {
    code: StatusCode,
    error: String,
}

/// Answers at both doors until `stop` is closed; what was asked before is still answered.
///
/// # Errors
/// What the system said of a listener.
pub(crate) async fn serve(
    listener: TcpListener,
    socket: Option<UnixListener>,
    api: Api,
    stop: watch::Receiver<()>,
) -> std::io::Result<()> {
    let stopped = |mut stop: watch::Receiver<()>| async move { while stop.changed().await.is_ok() {} };
    let router = router(api);
    let listener = Door::new(listener, door::MOST, door::PATIENCE);
    let by_address = axum::serve(listener, router.clone()).with_graceful_shutdown(stopped(stop.clone()));
    match socket {
        Some(socket) => {
            let socket = Door::new(socket, door::MOST, door::PATIENCE);
            let by_path = axum::serve(socket, router).with_graceful_shutdown(stopped(stop));
            tokio::try_join!(by_address.into_future(), by_path.into_future()).map(drop)
        }
        None => by_address.await,
    }
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/bundles/{bundle}", get(gap))
        .route("/bundles/{bundle}/{part}", post(give))
        .route("/v2", get(server))
        .route("/v2/", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(model))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/labels", post(labels).layer(DefaultBodyLimit::max(MAX_LABELS_BYTES)))
        .route("/v2/models/{model}/versions/{release}", get(release))
        .route("/v2/models/{model}/versions/{release}/ready", get(release_ready))
        .route("/v2/models/{model}/versions/{release}/infer", post(infer_release))
        .fallback(async || denied(StatusCode::NOT_FOUND, "there is nothing here; the API begins at /v2"))
        .method_not_allowed_fallback(async || denied(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method"))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api)
}

async fn status(State(api): State<Api>) -> Json<Status> {
    Json(Status::clone(&api.status.borrow()))
}

async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::TEXT)], metrics::page(&api.status.borrow()))
}

/// What a bundle lacks next, for who brings it: `null` when it is not wanted, or lacks nothing.
async fn gap(State(api): State<Api>, Path(bundle): Path<String>) -> Result<Json<Option<Gap>>, Denied> {
    let bundle = named(&bundle)?;
    Ok(Json(at_the_counter(move || api.counter.gap(bundle)).await?))
}

/// Takes a part of a bundle that somebody brings: what is not what was signed changes nothing.
async fn give(
    State(api): State<Api>,
    Path((bundle, part)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, Denied> {
    let bundle = named(&bundle)?;
    let unknown = || denied(StatusCode::NOT_FOUND, "a part is envelope, index or chunk");
    let part = Part::named(&part).ok_or_else(unknown)?;
    if part == Part::Chunk && body.len() as u64 > CHUNK_BYTES {
        return Err(denied(StatusCode::PAYLOAD_TOO_LARGE, format!("a chunk has at most {CHUNK_BYTES} bytes")));
    }
    at_the_counter(move || api.counter.give(bundle, part, body.to_vec())).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn named(bundle: &str) -> Result<Digest, Denied> {
    bundle.parse().map_err(|_| denied(StatusCode::BAD_REQUEST, "a bundle is named by the 64 hex digits of its digest"))
}

/// The keeper may be busy for long, and nobody else may wait for it.
async fn at_the_counter<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Denied> {
    let stopping = |_| denied(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping");
    tokio::task::spawn_blocking(work).await.map_err(stopping)
}

async fn server() -> Json<serde_json::Value> {
    Json(json!({ "name": "petrel-agent", "version": env!("CARGO_PKG_VERSION"), "extensions": [binary::EXTENSION] }))
}

async fn live() -> Json<serde_json::Value> {
    Json(json!({ "live": true }))
}

/// Ready when every stream that should answer does.
async fn ready(State(api): State<Api>) -> Result<Json<serde_json::Value>, Denied> {
    let answers = |stream: &StreamName| api.worker.find(stream.as_str()).is_ok_and(|(_, serving)| serving.is_up());
    let status = api.status.borrow().clone();
    let missing = status.streams.iter().find(|s| s.should_serve() && !answers(&s.stream));
    match missing {
        Some(stream) => Err(denied(StatusCode::SERVICE_UNAVAILABLE, format!("`{}` is not loaded yet", stream.stream))),
        None => Ok(Json(json!({ "ready": true }))),
    }
}

async fn model(State(api): State<Api>, Path(model): Path<String>) -> Result<Json<ModelMetadata>, Denied> {
    let (name, serving) = api.worker.find(&model)?;
    let loaded: Vec<_> = serving.loaded().map(AsRef::as_ref).collect();
    Ok(Json(ModelMetadata::of(name.as_str(), &loaded)))
}

async fn release(
    State(api): State<Api>,
    Path((model, release)): Path<(String, String)>,
) -> Result<Json<ModelMetadata>, Denied> {
    let (name, serving) = api.worker.find(&model)?;
    let loaded = serving.of(&name, &release)?;
    Ok(Json(ModelMetadata::of(name.as_str(), &[&loaded])))
}

async fn model_ready(State(api): State<Api>, Path(model): Path<String>) -> Result<Json<serde_json::Value>, Denied> {
    let (name, serving): (_, Serving) = api.worker.find(&model)?;
    if !serving.is_up() {
        return Err(Failure::Away.into());
    }
    Ok(Json(json!({ "name": name, "ready": true })))
}

async fn release_ready(
    State(api): State<Api>,
    Path((model, release)): Path<(String, String)>,
) -> Result<Json<serde_json::Value>, Denied> {
    let (name, serving) = api.worker.find(&model)?;
    if !serving.of(&name, &release)?.is_up() {
        return Err(Failure::Away.into());
    }
    Ok(Json(json!({ "name": name, "ready": true })))
}

async fn infer(State(api): State<Api>, Path(model): Path<String>, request: Request) -> Result<Response, Denied> {
    answer(api, model, None, request).await
}

async fn infer_release(
    State(api): State<Api>,
    Path((model, release)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Denied> {
    answer(api, model, Some(release), request).await
}

/// What was right, by the ids of requests: how many were remembered.
async fn labels(
    State(api): State<Api>,
    Path(model): Path<String>,
    body: Result<Json<Labels>, JsonRejection>,
) -> Result<Json<Joined>, Denied> {
    let Json(Labels { labels }) = body.map_err(|why| denied(why.status(), why.body_text()))?;
    Ok(Json(api.worker.judge(&model, &labels)?))
}

/// What is small is read and written here; a large request is worked on elsewhere, and holds nobody else up. Few of them
/// are in memory at a time, the others wait before they are read.
async fn answer(api: Api, model: String, release: Option<String>, request: Request) -> Result<Response, Denied> {
    api.worker.find(&model)?;
    let headers = request.headers().clone();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|said| said.to_str().ok()?.parse().ok());
    let small = length.is_some_and(|length: usize| length <= SMALL_BYTES);
    let _turn = match small {
        true => None,
        false => Some(timeout(LARGE_PATIENCE, api.large.acquire()).await.map_err(|_| Failure::Busy)?),
    };
    let body = Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let limit = MAX_BODY_BYTES >> 20;
            denied(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body has more than {limit} MiB; send fewer rows at a time"),
            )
        }
        code => denied(code, rejection.body_text()),
    })?;
    let json_length = json_length(&headers, body.len())?;
    let wrong = |why: String| denied(StatusCode::BAD_REQUEST, why);
    let read = move || {
        let (json, bytes) = body.split_at(json_length);
        let mut request = InferRequest::parse(json)?;
        let question = Question::of(&request.input(bytes)?)?.known_as(request.id());
        Ok((request, question))
    };
    let (request, question) = worked(small, read).await?.map_err(wrong)?;
    let answered = api.worker.infer(&model, release.as_deref(), question).await?;
    request.id().iter().for_each(|id| answered.note(id));
    let elements: usize = answered.answer.outputs.iter().map(|(_, tensor)| tensor.data.len()).sum();
    let written = worked(elements <= SMALL_BYTES / 8, move || request.respond(&model, answered)).await?;
    let Written { body, json_length } = written.map_err(wrong)?;
    Ok(match json_length {
        None => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Some(length) => {
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            ([kind, (binary::JSON_LENGTH, HeaderValue::from(length))], body).into_response()
        }
    })
}

/// Does a small thing here, and a large one on a thread that may take its time.
async fn worked<T: Send + 'static>(small: bool, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    if small {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::Broken)
}

/// How much of a body is JSON: all of it, unless a header says that bytes follow.
fn json_length(headers: &HeaderMap, length: usize) -> Result<usize, Denied> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        let advice = "the body is compressed; send it as it is, it does not leave this device";
        return Err(denied(StatusCode::UNSUPPORTED_MEDIA_TYPE, advice));
    }
    let Some(said) = headers.get(binary::JSON_LENGTH) else { return Ok(length) };
    let said = said.to_str().ok().and_then(|said| said.trim().parse().ok()).filter(|said| *said <= length);
    let advice = format!("{} is no number up to the {length} bytes of the body", binary::JSON_LENGTH);
    said.ok_or_else(|| denied(StatusCode::BAD_REQUEST, advice))
}

fn denied(code: StatusCode, error: impl Into<String>) -> Denied {
    Denied { code, error: error.into() }
}

impl From<Failure> for Denied {
    fn from(failure: Failure) -> Self {
        let code = match failure {
            Failure::UnknownModel(_) | Failure::UnknownRelease { .. } => StatusCode::NOT_FOUND,
            Failure::Request(_) => StatusCode::BAD_REQUEST,
            Failure::Model(_) | Failure::Broken => StatusCode::INTERNAL_SERVER_ERROR,
            Failure::Away | Failure::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        denied(code, failure.to_string())
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let mut response = (self.code, Json(json!({ "error": self.error }))).into_response();
        if self.code == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests;
