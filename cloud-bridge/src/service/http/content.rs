//! The files of a bundle over HTTPS, for devices whose policy allows that source.
//!
//! Decides who may have which bytes: an approved device the bundle that it should run, proved by its key's signature.
//! What the bytes are worth, the device finds out by itself, as with every other source.

use super::Doors;
use super::problem::Problem;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bridge_core::{Bridge, Status};
use protocol::{DeviceId, FETCH_SCHEME, Fetch, Kind, SignedFrame, decode_cbor};
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;
use trust::{DeviceKey, Digest};

/// Requests of one device in a window.
const FETCHES: u32 = 1_200;
const WINDOW: Duration = Duration::from_secs(60);
/// Bytes that are read of a file at once.
const READ_BYTES: usize = 64 * 1024;

/// How often each device asked in the window under way. Only devices that proved who they are take room.
#[derive(Debug)]
pub(super) struct Shares {
    window: Mutex<(Instant, BTreeMap<DeviceId, u32>)>,
}

impl Shares {
    pub(super) fn new() -> Self {
        Self { window: Mutex::new((Instant::now(), BTreeMap::new())) }
    }

    fn admits(&self, device: DeviceId, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.0) >= WINDOW {
            *window = (now, BTreeMap::new());
        }
        let asked = window.1.entry(device).or_default();
        *asked = asked.saturating_add(1);
        *asked <= FETCHES
    }
}

/// A file of a bundle, whole or a range of it, for a device that should run it
#[utoipa::path(get, path = "/api/v1/content/{statement}/{file}",
    params(("statement" = String, Path, description = "the bundle's statement digest"), ("file" = String, Path, description = "a file of the statement, with `/`"),
        ("Authorization" = String, Header, description = "`PetrelDevice`, a space, and the signed frame `fetch` in base64url without padding"),
        ("Range" = Option<String>, Header, description = "one range of bytes"), ("If-Range" = Option<String>, Header, description = "the `ETag` of what was fetched before")),
    responses((status = 200, content_type = "application/octet-stream"), (status = 206, content_type = "application/octet-stream"),
        (status = 401), (status = 403), (status = 404), (status = 416), (status = 429)))]
pub(super) async fn content(
    State(doors): State<Doors>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Path((statement, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let now = Instant::now();
    if !doors.fetchers.admits(from.ip(), now) {
        return Err(Problem::too_often());
    }
    let statement = statement.parse().map_err(|_| Problem::not_found("no bundle has this name".into()))?;
    let device = match prove(&doors, &headers, statement).await {
        Ok(device) => device,
        Err(problem) => {
            doors.fetchers.failed(from.ip());
            return Err(problem);
        }
    };
    if !doors.shares.admits(device, now) {
        return Err(Problem::too_often());
    }
    let library = doors.library.clone();
    let opened = tokio::task::spawn_blocking(move || library.file(statement, &name)).await;
    let opened = opened.map_err(anyhow::Error::from)??;
    let (mut file, size, digest) = opened.ok_or_else(|| Problem::not_found("the bundle has no such file".into()))?;
    let etag = format!("\"{digest}\"");
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let range = text(RANGE).filter(|_| text(IF_RANGE).is_none_or(|known| known == etag));
    let (status, first, length) = match range.map_or(Asked::Whole, |range| Asked::read(range, size)) {
        Asked::Whole => (StatusCode::OK, 0, size),
        Asked::Part { first, length } => (StatusCode::PARTIAL_CONTENT, first, length),
        Asked::Nothing => {
            let problem = Problem::no_such_range(size).into_response();
            return Ok(([(CONTENT_RANGE, format!("bytes */{size}"))], problem).into_response());
        }
    };
    file.seek(SeekFrom::Start(first)).map_err(anyhow::Error::from)?;
    let bytes = ReaderStream::with_capacity(tokio::fs::File::from_std(file).take(length), READ_BYTES);
    let mut response = (
        status,
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (ETAG, etag), (ACCEPT_RANGES, "bytes".into())],
        [(CONTENT_LENGTH, length.to_string())],
        Body::from_stream(bytes),
    )
        .into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {first}-{}/{size}", first + length - 1);
        response.headers_mut().insert(CONTENT_RANGE, range.parse().map_err(anyhow::Error::from)?);
    }
    Ok(response)
}

/// The device that asks, when its key says so and it should run the bundle.
async fn prove(doors: &Doors, headers: &HeaderMap, statement: Digest) -> Result<DeviceId, Problem> {
    let malformed = |what: &str| Problem::refused("authorization", what);
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let frame = header
        .strip_prefix(FETCH_SCHEME)
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or_else(|| malformed("a device's signed frame is needed: `Authorization: PetrelDevice …`"))?;
    // Nobody decodes what is longer than any frame.
    let frame = Some(frame).filter(|text| text.len() <= Kind::Fetch.max_bytes() * 4 / 3 + 4);
    let frame = frame.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let frame = frame.ok_or_else(|| malformed("the frame is no base64url, or too long"))?;
    let split = SignedFrame::split(Kind::Fetch, &frame).map_err(|e| malformed(&e.to_string()))?;
    let Fetch { device, statement: named } = decode_cbor(split.body).map_err(|e| malformed(&e.to_string()))?;
    if Digest(named) != statement {
        return Err(malformed("the frame is for another bundle"));
    }
    let signed = SignedFrame::signed_bytes(Kind::Fetch, split.body);
    let look = {
        let device = device.clone();
        move |bridge: &Bridge| {
            let known = bridge.devices().get(&device)?;
            let keys: Vec<Vec<u8>> = known.credentials().map(|credential| credential.key.clone()).collect();
            let assigned = known.desired.values().any(|wanted| wanted.bundle == statement);
            Some((keys, known.status == Status::Approved && assigned))
        }
    };
    let (keys, assigned) = doors.driver.look(look).await?.unwrap_or_default();
    let by = |key: &Vec<u8>| DeviceKey::from_spki(key).is_ok_and(|key| key.verify(&signed, split.signature).is_ok());
    if !keys.iter().any(by) {
        // One answer for a name that nobody has and for a key that is not its own.
        return Err(Problem::refused("signature", "no device of that name signed this"));
    }
    if !assigned {
        return Err(Problem::forbidden("not_assigned", "this device should not run this bundle"));
    }
    Ok(device)
}

/// What a request asks of a file.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part { first: u64, length: u64 },
    Nothing,
}

impl Asked {
    /// What `Range` says of a file of `size` bytes: one range; any other text asks for nothing in particular.
    fn read(range: &str, size: u64) -> Self {
        let Some((from, to)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Self::Whole;
        };
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
        let (first, last) = match (number(from), number(to)) {
            (Some(first), Some(last)) if first <= last => (first, last),
            (Some(first), None) if to.is_empty() => (first, u64::MAX),
            (None, Some(0)) if from.is_empty() => return Self::Nothing,
            (None, Some(count)) if from.is_empty() => (size.saturating_sub(count), u64::MAX),
            _ => return Self::Whole,
        };
        if first >= size {
            return Self::Nothing;
        }
        Self::Part { first, length: last.min(size - 1) - first + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_http_says() {
        let part = |first, length| Asked::Part { first, length };
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-9", part(0, 10)),
            ("bytes=4-", part(4, 6)),
            ("bytes=4-99", part(4, 6)),
            ("bytes=9-18446744073709551615", part(9, 1)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-99", part(0, 10)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=10-12", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=5-4", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=1-2,4-5", Asked::Whole),
            ("bytes=99999999999999999999-", Asked::Whole),
            ("lines=1-2", Asked::Whole),
            ("", Asked::Whole),
        ] {
            assert_eq!(Asked::read(range, 10), expected, "{range}");
        }
        assert_eq!(Asked::read("bytes=0-", 0), Asked::Nothing);
    }

    #[test]
    fn a_device_has_its_share_and_takes_nothing_from_another() {
        let shares = Shares::new();
        let (now, device) = (Instant::now(), |name: &str| name.parse::<DeviceId>().unwrap());
        assert!((0..FETCHES).all(|_| shares.admits(device("a"), now)));
        assert!(!shares.admits(device("a"), now) && shares.admits(device("b"), now));
        assert!(shares.admits(device("a"), now + WINDOW));
    }
}
