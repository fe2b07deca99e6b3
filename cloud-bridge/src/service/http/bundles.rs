//! Bundles: pushed as a tar, verified before anybody hears of them.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::{List, ReleaseView, StockView};
use crate::service::store::unix_millis;
use anyhow::Context;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use bridge_core::access::Right;
use bridge_core::{Answer, Bridge, Event, Rejection, Release, UnixMillis};
use http_body_util::BodyExt;
use protocol::StreamName;
use std::io::{Seek, Write};
use trust::{Code, Digest, Refusal};

/// The most bytes of a bundle's tar.
const MAX_BUNDLE_BYTES: u64 = 1 << 30;

/// Every release
#[utoipa::path(get, path = "/api/v1/releases", responses((status = 200, body = List<ReleaseView>)))]
pub(super) async fn list(State(doors): State<Doors>) -> Result<Json<List<ReleaseView>>, Problem> {
    let items = doors.driver.look(|bridge| bridge.releases().values().map(ReleaseView::from).collect()).await?;
    Ok(Json(List::of(items)))
}

/// Every release, and why it stays or that it may go
#[utoipa::path(get, path = "/api/v1/releases/gc", responses((status = 200, body = List<StockView>)))]
pub(super) async fn stock(State(doors): State<Doors>) -> Result<Json<List<StockView>>, Problem> {
    let view =
        |bridge: &Bridge| bridge.stock().into_iter().map(|(release, stay)| StockView::new(release, stay)).collect();
    Ok(Json(List::of(doors.driver.look(view).await?)))
}

/// Remove the releases that nothing needs; the answer names them
#[utoipa::path(post, path = "/api/v1/releases/gc", responses((status = 200, body = List<StockView>)))]
pub(super) async fn clear_stock(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
) -> Result<Json<List<StockView>>, Problem> {
    let answer = doors.request(&asked, "release.gc", "", Event::StockCleared { before: UnixMillis::MAX }).await?;
    let Answer::Forgotten { releases } = answer else {
        return Err(anyhow::anyhow!("releases were to be removed, and the core answers {answer:?}").into());
    };
    Ok(Json(List::of(releases.iter().map(|release| StockView::new(release, None)).collect())))
}

/// Push a signed bundle as a tar; pushing the same one again changes nothing
#[utoipa::path(put, path = "/api/v1/bundles/{digest}", params(("digest" = String, Path, description = "the bundle's statement digest")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = ReleaseView), (status = 409), (status = 422)))]
pub(super) async fn push(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(digest): Path<String>,
    body: Body,
) -> Result<Json<ReleaseView>, Problem> {
    let digest: Digest = digest.parse().map_err(Problem::invalid)?;
    let archive = receive(&doors, body).await?;
    let library = doors.library.clone();
    let taken = tokio::task::spawn_blocking(move || library.take(archive, digest));
    let (manifest, total_size) = taken.await.context("the push was interrupted")??;
    let stream: StreamName = manifest.stream.parse().map_err(Problem::invalid)?;
    asked.allows(&[Right::Publish], &stream)?;
    let release = Release {
        stream,
        version: manifest.version.clone(),
        release: manifest.release.get(),
        bundle: digest,
        total_size,
        ram_mb: manifest.resources_budget.ram_mb.get(),
        pushed: unix_millis(),
    };
    let view = ReleaseView::from(&release);
    let subject = format!("{}@{} {digest}", release.stream, release.version);
    doors.request(&asked, "bundle.push", subject, Event::ReleasePushed(release)).await?;
    if !doors.library.holds(digest) {
        // Between its arrival and this moment somebody removed the release of the same bundle.
        return Err(Problem::from(Rejection::Conflict("the release was just removed: push it again".into())));
    }
    Ok(Json(view))
}

/// Writes the body to a temporary file, up to the limit.
async fn receive(doors: &Doors, mut body: Body) -> anyhow::Result<std::fs::File> {
    let upload = doors.library.upload()?;
    let mut file = upload.reopen()?;
    let mut left = MAX_BUNDLE_BYTES;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Refusal::new(Code::Parse, format!("the upload broke off: {e}")))?;
        let Ok(bytes) = frame.into_data() else { continue };
        left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| Refusal::new(Code::Limit, format!("a bundle has at most {MAX_BUNDLE_BYTES} bytes")))?;
        tokio::task::block_in_place(|| file.write_all(&bytes)).context("cannot keep the upload")?;
    }
    file.rewind()?;
    // Its name may go now: the open file is all that is needed.
    drop(upload);
    Ok(file)
}
