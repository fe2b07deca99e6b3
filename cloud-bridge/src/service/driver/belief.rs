//! What devices say, before it is news: bytes of a topic, checked against the keys that land holds of the device.
//!
//! Decides what is well formed and whose word it is. What it means is decided by the core.

use anyhow::Context;
use bridge_core::{Bridge, Disbelief, Event, Status};
use protocol::{
    BridgeTopic, CodecError, CommandResult, DeviceId, Drift, DriftAlarm, Hello, Kind, MAX_DRIFT_ALARMS,
    MAX_STREAM_ROWS, MAX_SUMMARY_BYTES, Need, Presence, Report, SignedFrame, Telemetry, Verdict, decode_cbor,
    decode_json,
};
use trust::{Code, DeviceKey, Digest, MAX_DOCUMENT_BYTES, PayloadKind, Refusal, verify_device_document};

/// The most bytes of a hello's nonce, which a beacon must hold.
const MAX_NONCE_BYTES: usize = 64;
/// The most bytes of a word in an alarm: features have names of 256.
const MAX_WORD_BYTES: usize = 256;
/// The most bytes of a presence message.
const MAX_PRESENCE_BYTES: usize = 256;

/// What was said.
pub(super) enum Heard {
    Event(Box<Event>),
    Telemetry(Box<Telemetry>),
    Drift(Box<Drift>),
    Result(Box<CommandResult>),
    Nothing,
}

/// What a device said; and with which of its keys, where that may be news.
pub(super) struct Believed {
    pub(super) key: Option<(DeviceId, Vec<u8>)>,
    pub(super) heard: Heard,
}

impl Believed {
    fn event(event: Event) -> Self {
        Self { key: None, heard: Heard::Event(Box::new(event)) }
    }

    /// Whether it would be believed again: the key that has signed still speaks for the device.
    pub(super) fn still_counts(&self, bridge: &Bridge) -> bool {
        let speaks = |(id, key): &(DeviceId, Vec<u8>)| {
            bridge.devices().get(id).is_some_and(|device| device.is_approved() && device.holds(key))
        };
        self.key.as_ref().is_none_or(speaks)
    }
}

/// Why it was not believed.
pub(super) struct Doubt {
    pub(super) why: Disbelief,
    pub(super) reason: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Doubt {
    fn from(reason: E) -> Self {
        Self { why: Disbelief::Malformed, reason: reason.into() }
    }
}

/// The stable code of what was not believed, where it has one.
pub(super) fn code(reason: &anyhow::Error) -> Option<&'static str> {
    if let Some(refusal) = reason.downcast_ref::<Refusal>() {
        return Some(refusal.code.as_str());
    }
    let code = match reason.downcast_ref::<CodecError>()? {
        CodecError::Version(_) => Code::Version,
        CodecError::TooLarge { .. } => Code::Limit,
        CodecError::Short | CodecError::Malformed(_) => Code::Parse,
    };
    Some(code.as_str())
}

/// Bytes of a device, checked against the keys that land holds of it.
pub(super) fn understand(bridge: &Bridge, from: &BridgeTopic, bytes: &[u8]) -> Result<Believed, Doubt> {
    match from {
        BridgeTopic::Hello(device) => {
            let frame = SignedFrame::split(Kind::Hello, bytes)?;
            let hello: Hello = decode_cbor(frame.body)?;
            same(device, &hello.device)?;
            // Whether the key that it shows is its own, the core knows.
            let signed = SignedFrame::signed_bytes(Kind::Hello, frame.body);
            DeviceKey::from_spki(&hello.key).and_then(|key| key.verify(&signed, frame.signature)).map_err(unsigned)?;
            let Hello { device, boot, seq, key, nonce, profile } = hello;
            if nonce.len() > MAX_NONCE_BYTES {
                return Err(anyhow::anyhow!("its nonce is too long").into());
            }
            for word in [&profile.board, &profile.arch, &profile.agent] {
                if word.len() > 64 || word.contains(char::is_control) {
                    return Err(anyhow::anyhow!("its profile is no plain text").into());
                }
            }
            Ok(Believed::event(Event::HelloReceived { device, boot, seq, key, nonce, profile }))
        }
        BridgeTopic::Need(device) => {
            let (key, need): (_, Need) = framed(bridge, device, Kind::Need, bytes)?;
            same(device, &need.device)?;
            let chunks = need.digests().context("too many chunks at once")?;
            let (bundle, documents) = (Digest(need.statement), need.documents);
            let event = Event::ChunksNeeded { device: need.device, bundle, documents, chunks };
            Ok(Believed { key: Some(key), ..Believed::event(event) })
        }
        BridgeTopic::Telemetry(device) => {
            let (key, telemetry): (_, Telemetry) = framed(bridge, device, Kind::Telemetry, bytes)?;
            same(device, &telemetry.device)?;
            if telemetry.streams.len() > MAX_STREAM_ROWS {
                return Err(anyhow::anyhow!("it has too many rows").into());
            }
            Ok(Believed { key: Some(key), heard: Heard::Telemetry(Box::new(telemetry)) })
        }
        BridgeTopic::Drift(device) => {
            let (key, drift): (_, Drift) = framed(bridge, device, Kind::Drift, bytes)?;
            same(device, &drift.device)?;
            plain(&drift)?;
            Ok(Believed { key: Some(key), heard: Heard::Drift(Box::new(drift)) })
        }
        BridgeTopic::Presence(device) => {
            if bytes.is_empty() {
                return Ok(Believed { key: None, heard: Heard::Nothing });
            }
            let presence: Presence = decode_json(bytes, MAX_PRESENCE_BYTES)?;
            Ok(Believed::event(Event::PresenceReceived { device: device.clone(), online: presence.online }))
        }
        BridgeTopic::Report(device) => {
            if bytes.is_empty() {
                // A retained one was cleared.
                return Ok(Believed { key: None, heard: Heard::Nothing });
            }
            let (key, report): (_, Report) = document(bridge, device, PayloadKind::Report, bytes)?;
            same(device, &report.device_id)?;
            Ok(Believed { key: Some(key), ..Believed::event(Event::ReportReceived(Box::new(report))) })
        }
        BridgeTopic::Verdict(device) => {
            let (key, verdict): (_, Verdict) = document(bridge, device, PayloadKind::Verdict, bytes)?;
            same(device, &verdict.device_id)?;
            Ok(Believed { key: Some(key), ..Believed::event(Event::VerdictReceived(verdict)) })
        }
        BridgeTopic::Result(device) => {
            let (key, result): (_, CommandResult) = document(bridge, device, PayloadKind::Result, bytes)?;
            same(device, &result.device_id)?;
            Ok(Believed { key: Some(key), heard: Heard::Result(Box::new(result)) })
        }
    }
}

/// Words that people will read are short and plain, and no more than there may be.
fn plain(drift: &Drift) -> anyhow::Result<()> {
    let is_plain = |alarm: &DriftAlarm| {
        let words = [&alarm.feature, &alarm.cause, &alarm.detail];
        words.iter().all(|word| word.len() <= MAX_WORD_BYTES && !word.contains(char::is_control))
    };
    let fits = drift.alarms.len() <= MAX_DRIFT_ALARMS && drift.summary.len() <= MAX_SUMMARY_BYTES;
    anyhow::ensure!(fits && drift.alarms.iter().all(is_plain), "its alarms are no plain text, or too many");
    Ok(())
}

fn same(topic: &DeviceId, message: &DeviceId) -> Result<(), Doubt> {
    let other = || anyhow::anyhow!("the message of {message} came on the topic of {topic}");
    if topic == message { Ok(()) } else { Err(Doubt { why: Disbelief::Signature, reason: other() }) }
}

fn unsigned(refusal: trust::Refusal) -> Doubt {
    Doubt { why: Disbelief::Signature, reason: refusal.into() }
}

/// The keys of a device that belongs to the fleet: the one that speaks for it, and the one that may soon.
fn keys(bridge: &Bridge, device: &DeviceId) -> Result<Vec<DeviceKey>, Doubt> {
    let doubt = |why, reason: &str| Doubt { why, reason: anyhow::anyhow!("this device {reason}") };
    let known = bridge.devices().get(device).ok_or_else(|| doubt(Disbelief::Unknown, "was never enrolled"))?;
    match known.status {
        Status::Approved => {}
        Status::Pending => return Err(doubt(Disbelief::Pending, "waits for a person's decision")),
        Status::Revoked | Status::Retired => return Err(doubt(Disbelief::Revoked, "was thrown out")),
    }
    Ok(known.credentials().filter_map(|c| DeviceKey::from_spki(&c.key).ok()).collect())
}

/// Which of its keys has signed, as `verify` sees it.
fn signer<T>(
    bridge: &Bridge,
    device: &DeviceId,
    verify: impl Fn(&DeviceKey) -> Result<T, trust::Refusal>,
) -> Result<((DeviceId, Vec<u8>), T), Doubt> {
    let mut refused = None;
    for key in keys(bridge, device)? {
        match verify(&key) {
            Ok(verified) => return Ok(((device.clone(), key.spki().to_vec()), verified)),
            Err(refusal) => refused = refused.or(Some(refusal)),
        }
    }
    let none = || trust::Refusal::new(trust::Code::KeyId, "this device has no key");
    Err(unsigned(refused.unwrap_or_else(none)))
}

type Signed<T> = ((DeviceId, Vec<u8>), T);

fn framed<T: serde::de::DeserializeOwned>(
    bridge: &Bridge,
    device: &DeviceId,
    kind: Kind,
    bytes: &[u8],
) -> Result<Signed<T>, Doubt> {
    let frame = SignedFrame::split(kind, bytes)?;
    let signed = SignedFrame::signed_bytes(kind, frame.body);
    let (key, ()) = signer(bridge, device, |key| key.verify(&signed, frame.signature))?;
    Ok((key, decode_cbor(frame.body)?))
}

fn document<T: serde::de::DeserializeOwned>(
    bridge: &Bridge,
    device: &DeviceId,
    kind: PayloadKind,
    bytes: &[u8],
) -> Result<Signed<T>, Doubt> {
    let (key, payload) = signer(bridge, device, |key| verify_device_document(kind, key, bytes))?;
    Ok((key, decode_json(&payload, MAX_DOCUMENT_BYTES)?))
}

#[cfg(test)]
mod tests;
