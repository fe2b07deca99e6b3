//! Bundles: pushed as a tar, verified before anybody hears of them.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::{List, ReleaseView};
use crate::service::store::unix_millis;
use anyhow::Context;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use bridge_core::{Event, Release};
use http_body_util::BodyExt;
use protocol::StreamName;
use std::io::{Seek, Write};
use trust::{Code, Digest, Refusal};

/// The most bytes of a bundle's tar.
const MAX_BUNDLE_BYTES: u64 = 1 << 30;

/// Every release
#[utoipa::path(get, path = "/api/v1/releases", responses((status = 200, body = List<ReleaseView>), (status = 401, body = Problem)))]
pub(super) async fn list(State(doors): State<Doors>) -> Result<Json<List<ReleaseView>>, Problem> {
    let items = doors.driver.look(|bridge| bridge.releases().values().map(ReleaseView::from).collect()).await?;
    Ok(Json(List { items }))
}

/// Push a signed bundle as a tar; pushing the same one again changes nothing
#[utoipa::path(put, path = "/api/v1/bundles/{digest}", params(("digest" = String, Path, description = "the bundle's statement digest")),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 200, body = ReleaseView), (status = 401, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
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
    let release = Release {
        stream,
        version: manifest.version.clone(),
        release: manifest.release.get(),
        bundle: digest,
        total_size,
        pushed: unix_millis(),
    };
    let view = ReleaseView::from(&release);
    let subject = format!("{}@{} {digest}", release.stream, release.version);
    doors.request(&asked, "bundle.push", subject, Event::ReleasePushed(release)).await?;
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
