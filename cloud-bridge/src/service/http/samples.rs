//! Inputs that devices keep: who asks for them, who approves that, and what came.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::List;
use crate::service::store::samples::Given;
use crate::service::store::unix_millis;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bridge_core::access::Right;
use bridge_core::{Answer, Asked as AskedDevice, Event, SampleRequest, SampleTurn, SampleWish, UnixMillis};
use protocol::{DeviceId, StreamName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Inputs that a person asks for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSampleRequest {
    /// Of which stream.
    pub(crate) stream: String,
    /// Of which devices, 1 to 100.
    pub(crate) devices: Vec<String>,
    /// At most so many of each device, 1 to 200.
    pub(crate) count: u64,
    /// In at most so many bytes, 1 to 131,072.
    pub(crate) bytes: u64,
    /// Seconds until nobody is asked any more, 60 to 2,592,000.
    pub(crate) for_s: u64,
    /// What for, in one line.
    pub(crate) reason: String,
}

/// What a person wants of a request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TurnedSampleRequest {
    /// `approve` or `end`.
    pub(crate) wish: String,
}

/// A request for inputs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct SampleRequestView {
    /// Its number.
    pub(crate) id: u64,
    /// Of which stream.
    pub(crate) stream: String,
    /// `approval`, `open`, `answered` or `over`.
    pub(crate) state: String,
    /// At most so many inputs of each device.
    pub(crate) count: u64,
    /// In at most so many bytes.
    pub(crate) bytes: u64,
    /// What for.
    pub(crate) reason: String,
    /// Who asks.
    pub(crate) by: String,
    /// When, milliseconds since 1970.
    pub(crate) made: u64,
    /// Nobody is asked any more from then on.
    pub(crate) until: u64,
    /// Who approved it.
    pub(crate) approved: Option<String>,
    /// Who ended it before its time.
    pub(crate) ended: Option<String>,
    /// What became of it at each device.
    pub(crate) devices: Vec<AskedView>,
}

/// What became of a request at a device.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct AskedView {
    /// Which.
    pub(crate) device: String,
    /// `waiting`, `asked`, `gave` or `refused`.
    pub(crate) state: String,
    /// How many it gave.
    pub(crate) samples: u64,
    /// Why it gave none.
    pub(crate) why: Option<String>,
}

/// What a device gave.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct GivenView {
    /// Which.
    pub(crate) device: String,
    /// When it came, milliseconds since 1970.
    pub(crate) at: u64,
    /// Its inputs, as docs/protocol.md has them.
    #[schema(value_type = Vec<Object>)]
    pub(crate) samples: Vec<protocol::Sample>,
}

impl SampleRequestView {
    fn new(request: &SampleRequest, now: UnixMillis) -> Self {
        let asked = |(device, asked): (&DeviceId, &AskedDevice)| {
            let (state, samples, why) = match asked {
                AskedDevice::No => ("waiting", 0, None),
                AskedDevice::By { .. } => ("asked", 0, None),
                AskedDevice::Gave(samples) => ("gave", *samples, None),
                AskedDevice::Refused(why) => ("refused", 0, Some(why.clone())),
            };
            AskedView { device: device.to_string(), state: state.into(), samples, why }
        };
        Self {
            id: request.id,
            stream: request.stream.to_string(),
            state: request.state(now).as_str().into(),
            count: request.count,
            bytes: request.bytes,
            reason: request.reason.clone(),
            by: request.by.clone(),
            made: request.made,
            until: request.until,
            approved: request.approved.clone(),
            ended: request.ended.clone(),
            devices: request.devices.iter().map(asked).collect(),
        }
    }
}

/// Every request for inputs that devices keep
#[utoipa::path(get, path = "/api/v1/sample-requests", responses((status = 200, body = List<SampleRequestView>)))]
pub(super) async fn list(State(doors): State<Doors>) -> Result<Json<List<SampleRequestView>>, Problem> {
    let now = unix_millis();
    let look = move |bridge: &bridge_core::Bridge| {
        bridge.sample_requests().values().map(|request| SampleRequestView::new(request, now)).collect()
    };
    Ok(Json(List::of(doors.driver.look(look).await?)))
}

/// One request for inputs
#[utoipa::path(get, path = "/api/v1/sample-requests/{id}", params(("id" = u64, Path)),
    responses((status = 200, body = SampleRequestView), (status = 404)))]
pub(super) async fn show(State(doors): State<Doors>, Path(id): Path<u64>) -> Result<Json<SampleRequestView>, Problem> {
    Ok(Json(SampleRequestView::new(&known(&doors, id).await?, unix_millis())))
}

/// Ask for inputs that devices keep; somebody else must approve it
#[utoipa::path(post, path = "/api/v1/sample-requests", request_body = NewSampleRequest,
    responses((status = 201, body = SampleRequestView), (status = 404), (status = 409), (status = 422)))]
pub(super) async fn ask(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Json(new): Json<NewSampleRequest>,
) -> Result<(StatusCode, Json<SampleRequestView>), Problem> {
    let stream: StreamName = new.stream.parse().map_err(Problem::invalid)?;
    asked.allows(&[Right::Operate], &stream)?;
    let devices: BTreeSet<DeviceId> =
        new.devices.iter().map(|id| id.parse()).collect::<Result<_, _>>().map_err(Problem::invalid)?;
    let names: Vec<&str> = devices.iter().map(DeviceId::as_str).collect();
    let (count, bytes, reason) = (new.count, new.bytes, &new.reason);
    let subject = format!("{stream}, {reason}: {count} in {bytes} bytes of {}", names.join(","));
    let wish = SampleWish {
        stream,
        devices,
        count: new.count,
        bytes: new.bytes,
        reason: new.reason,
        good_for: new.for_s.saturating_mul(1_000),
        by: asked.who().into(),
    };
    match doors.request(&asked, "samples.ask", subject, Event::SamplesWanted(Box::new(wish))).await? {
        Answer::Wanted { request } => {
            let view = SampleRequestView::new(&known(&doors, request).await?, unix_millis());
            Ok((StatusCode::CREATED, Json(view)))
        }
        answer => Err(anyhow::anyhow!("the core answered {answer:?}").into()),
    }
}

/// Approve or end a request for inputs
#[utoipa::path(post, path = "/api/v1/sample-requests/{id}", params(("id" = u64, Path)), request_body = TurnedSampleRequest,
    responses((status = 200, body = SampleRequestView), (status = 404), (status = 409), (status = 422)))]
pub(super) async fn turn(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<u64>,
    Json(turned): Json<TurnedSampleRequest>,
) -> Result<Json<SampleRequestView>, Problem> {
    let turns = [SampleTurn::Approve, SampleTurn::End];
    let turn = turns.into_iter().find(|turn| turn.as_str() == turned.wish);
    let turn = turn.ok_or_else(|| Problem::invalid(format!("`{}` is no wish: approve or end", turned.wish)))?;
    let stream = known(&doors, id).await?.stream;
    match turn {
        SampleTurn::Approve => asked.allows(&[Right::Approve], &stream)?,
        SampleTurn::End => asked.allows(&[Right::Operate, Right::Approve], &stream)?,
    }
    let event = Event::SamplesTurned { request: id, by: asked.who().into(), since: asked.since(), turn };
    doors.request(&asked, &format!("samples.{}", turn.as_str()), id, event).await?;
    Ok(Json(SampleRequestView::new(&known(&doors, id).await?, unix_millis())))
}

/// What devices gave for a request; the log tells who looked
#[utoipa::path(get, path = "/api/v1/sample-requests/{id}/samples", params(("id" = u64, Path)),
    responses((status = 200, body = List<GivenView>), (status = 404)))]
pub(super) async fn given(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<u64>,
) -> Result<Json<List<GivenView>>, Problem> {
    let stream = known(&doors, id).await?.stream;
    asked.allows(&[Right::Publish, Right::Operate, Right::Approve], &stream)?;
    doors.witness(&asked, "samples.read", format!("{id} of {stream}")).await?;
    let view = |Given { device, at, samples }: Given| GivenView { device: device.to_string(), at, samples };
    Ok(Json(List::of(doors.store.samples(id).await?.into_iter().map(view).collect())))
}

async fn known(doors: &Doors, id: u64) -> Result<SampleRequest, Problem> {
    let request = doors.driver.look(move |bridge| bridge.sample_requests().get(&id).cloned()).await?;
    request.ok_or_else(|| Problem::not_found(format!("there is no request for samples {id}")))
}
