//! How devices come in and get newer certificates: the routes that need no token of a person.
//!
//! Decides what proves what: a one-time token that somebody was allowed this name, a request's own signature that
//! it comes from who holds the key, a client certificate or an old key's signature that it is the same device.

use super::Doors;
use super::problem::Problem;
use crate::certificates::{Issued, Request, Unacceptable};
use crate::service::driver::DONE;
use crate::service::store::unix_millis;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::{Extension, Json};
use axum_server::tls::TlsInfo;
use bridge_core::audit::Deed;
use bridge_core::{Device, Event, Status};
use protocol::{DeviceId, EnrolRequest, Enrolled, Exchanged, RenewRequest, ReturnRequest, SPEC};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use trust::{DeviceKey, Digest};

type Answer = Result<Json<Enrolled>, Problem>;

/// A device comes in with a one-time token and a certificate request
#[utoipa::path(post, path = "/api/v1/enrol", request_body(content = String, content_type = "application/json", description = "{spec, device, token, csr, profile}"),
    responses((status = 200, description = "{spec, chain, from, until, pending}"), (status = 400), (status = 401), (status = 409), (status = 429)))]
pub(super) async fn enrol(
    State(doors): State<Doors>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Answer {
    let mut who = None;
    admit(&doors, from)?;
    let answer = let_in(&doors, &body, &mut who).await;
    tell(&doors, from, "device.enrol", who, answer).await
}

async fn let_in(doors: &Doors, body: &[u8], who: &mut Option<DeviceId>) -> Answer {
    let EnrolRequest { device, token, csr, profile, .. } = EnrolRequest::read(body).map_err(malformed)?;
    *who = Some(device.clone());
    // The cheap question first: the signature in a request costs more than a look at the table.
    doors.store.look_at_join_token(&token, &device, None).await?.map_err(Problem::no_entry)?;
    let csr = Request::read(&csr, &device).map_err(unacceptable)?;
    for word in [&profile.board, &profile.arch, &profile.agent] {
        if word.len() > 64 || word.contains(char::is_control) {
            return Err(Problem::bad("malformed", "the profile is no plain text"));
        }
    }
    let invitation = doors.store.use_join_token(&token, &device, &csr.key.id()).await?.map_err(Problem::no_entry)?;
    let issued = doors.issuer.issue(&device, &csr, unix_millis() / 1_000)?;
    let credential = issued.credential.clone();
    let event = Event::DeviceEnrolled { device: device.clone(), credential, profile, invitation };
    if let Err(rejection) = doors.driver.request(event, by_itself(&device, "device.enrol")).await? {
        doors.store.give_back_join_token(&token).await?;
        return Err(Problem::name_taken(&rejection));
    }
    answer(doors, device, issued).await
}

/// A device gets a certificate for a new key, over TLS with the certificate that it has
#[utoipa::path(post, path = "/api/v1/renew", request_body(content = String, content_type = "application/json", description = "{spec, csr}"),
    responses((status = 200, description = "{spec, chain, from, until, pending}"), (status = 400), (status = 401), (status = 403), (status = 429)))]
pub(super) async fn renew(
    State(doors): State<Doors>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Extension(tls): Extension<Arc<TlsInfo>>,
    body: Bytes,
) -> Answer {
    let mut who = None;
    admit(&doors, from)?;
    let answer = renewed(&doors, &tls, &body, &mut who).await;
    tell(&doors, from, "device.renew", who, answer).await
}

async fn renewed(doors: &Doors, tls: &TlsInfo, body: &[u8], who: &mut Option<DeviceId>) -> Answer {
    let needed = || Problem::refused("certificate_needed", "show the device's certificate in the TLS handshake");
    let certificate = tls.peer_certificates.first().map(|der| Digest::of(der)).ok_or_else(needed)?;
    let has = move |d: &&Device| d.status.is_member() && d.credentials().any(|c| c.certificate == certificate);
    let known = doors.driver.look(move |bridge| bridge.devices().values().find(has).cloned()).await?;
    let known = known.ok_or_else(|| Problem::forbidden("certificate_unknown", "this certificate counts no more"))?;
    *who = Some(known.id.clone());
    let request = RenewRequest::read(body).map_err(malformed)?;
    let shown = known.credentials().find(|c| c.certificate == certificate).map(|c| c.key.clone()).unwrap_or_default();
    let (device, issued) = reissue(doors, known, &request.csr)?;
    let event = Event::KeyRenewed { device: device.clone(), shown, credential: issued.credential.clone() };
    doors.driver.request(event, by_itself(&device, "device.renew")).await??;
    answer(doors, device, issued).await
}

/// A device whose certificate has expired asks for a new one, with a new key that its old one signs
#[utoipa::path(post, path = "/api/v1/re-enrol", request_body(content = String, content_type = "application/json", description = "{spec, device, csr, signature}"),
    responses((status = 200, description = "{spec, chain, from, until, pending}"), (status = 400), (status = 401), (status = 403), (status = 409), (status = 429)))]
pub(super) async fn re_enrol(
    State(doors): State<Doors>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Answer {
    let mut who = None;
    admit(&doors, from)?;
    let answer = taken_back(&doors, &body, &mut who).await;
    tell(&doors, from, "device.return", who, answer).await
}

async fn taken_back(doors: &Doors, body: &[u8], who: &mut Option<DeviceId>) -> Answer {
    let ReturnRequest { device, csr, signature, .. } = ReturnRequest::read(body).map_err(malformed)?;
    *who = Some(device.clone());
    let known = doors.driver.look(move |bridge| bridge.devices().get(&device).cloned()).await?;
    let signed = ReturnRequest::signed_bytes(&csr);
    let by = |key: &[u8]| DeviceKey::from_spki(key).is_ok_and(|key| key.verify(&signed, &signature).is_ok());
    // One answer for a name that nobody has and for a key that is not its own.
    let unsigned = || Problem::refused("signature", "no device of that name signed this");
    let known = known.filter(|d| d.credentials().any(|c| by(&c.key))).ok_or_else(unsigned)?;
    if !known.status.is_member() {
        return Err(Problem::forbidden("certificate_unknown", &format!("this device is {}", known.status)));
    }
    let (device, issued) = reissue(doors, known, &csr)?;
    let event = Event::DeviceReturned { device: device.clone(), credential: issued.credential.clone() };
    doors.driver.request(event, by_itself(&device, "device.return")).await??;
    answer(doors, device, issued).await
}

/// A certificate for another key of a device that is known.
fn reissue(doors: &Doors, known: Device, csr: &str) -> Result<(DeviceId, Issued), Problem> {
    let csr = Request::read(csr, &known.id).map_err(unacceptable)?;
    if csr.key.spki() == known.credential.key {
        return Err(Problem::bad("key_reused", "a new certificate needs a new key"));
    }
    let issued = doors.issuer.issue(&known.id, &csr, unix_millis() / 1_000)?;
    Ok((known.id, issued))
}

fn admit(doors: &Doors, from: SocketAddr) -> Result<(), Problem> {
    if doors.limiter.admits(from.ip(), Instant::now()) { Ok(()) } else { Err(Problem::too_often()) }
}

/// The line of what a device asked for itself; what came of it, the core says.
fn by_itself(device: &DeviceId, action: &str) -> Deed {
    Deed::new(device.as_str(), action, device.as_str(), DONE)
}

/// What was in vain is written down, and counted against whoever asked.
async fn tell(doors: &Doors, from: SocketAddr, action: &str, who: Option<DeviceId>, answer: Answer) -> Answer {
    if let Err(problem) = &answer {
        doors.limiter.failed(from.ip());
        let subject = who.as_ref().map_or("-", DeviceId::as_str);
        doors.witness_stranger(Deed::new(&from.ip().to_string(), action, subject, &problem.code)).await?;
    }
    answer
}

async fn answer(doors: &Doors, device: DeviceId, issued: Issued) -> Answer {
    let status = doors.driver.look(move |bridge| bridge.devices().get(&device).map(|d| d.status)).await?;
    let pending = status == Some(Status::Pending);
    let Issued { chain, from, until, .. } = issued;
    Ok(Json(Enrolled { spec: SPEC, chain, from, until, pending }))
}

fn malformed(error: protocol::CodecError) -> Problem {
    Problem::bad("malformed", &error.to_string())
}

fn unacceptable(why: Unacceptable) -> Problem {
    let code = match why {
        Unacceptable::Malformed(_) => "csr_malformed",
        Unacceptable::Unproved => "csr_unproved",
        Unacceptable::Key => "csr_key",
        Unacceptable::Name(_) => "csr_name",
    };
    Problem::bad(code, &why.to_string())
}
