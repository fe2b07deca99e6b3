//! Bytes and limits: CBOR inside a signed frame for what machines read, JSON for what people debug.
//!
//! A frame is `version (1 byte) ‖ ECDSA P-256 signature (64 bytes, r ‖ s) ‖ CBOR`. The kind of the
//! message is part of what is signed, so a telemetry message can never be replayed as a hello. Sizes
//! are checked before anything is parsed. Verifying the signature is the caller's business.

use crate::report::SPEC;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version byte of a frame.
const FRAME_VERSION: u8 = 1;
/// The length of a device's signature: ECDSA P-256 with SHA-256, fixed form `r ‖ s`.
pub const SIGNATURE_BYTES: usize = 64;

/// The kinds of framed CBOR messages, each with its largest size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A device's birth word.
    Hello,
    /// Chunks that did not arrive.
    Need,
    /// How a device and its models are doing.
    Telemetry,
    /// What a model saw, against what it was trained on.
    Drift,
    /// Leave to fetch a bundle over HTTPS.
    Fetch,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Hello => "hello",
            Kind::Need => "need",
            Kind::Telemetry => "telemetry",
            Kind::Drift => "drift",
            Kind::Fetch => "fetch",
        }
    }

    /// The most bytes of a whole frame.
    pub fn max_bytes(self) -> usize {
        match self {
            Kind::Hello => 2 * 1024,
            Kind::Need => 4 * 1024,
            Kind::Telemetry => 16 * 1024,
            Kind::Drift => 176 * 1024,
            Kind::Fetch => 512,
        }
    }
}

/// Why bytes could not become a message, or a message bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Larger than its kind allows; nothing was parsed.
    #[error("message of {got} bytes: at most {limit} are allowed")]
    TooLarge {
        /// Bytes received.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A version that this build does not speak.
    #[error("message version {0} is not known here: update the older side")]
    Version(u64),
    /// Not even a whole header.
    #[error("message is cut short")]
    Short,
    /// The body is not what the kind prescribes.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// A framed message whose signature has not been checked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedFrame<'a> {
    /// What the device signed with; see [`SignedFrame::signed_bytes`].
    pub signature: &'a [u8],
    /// The CBOR body.
    pub body: &'a [u8],
}

impl<'a> SignedFrame<'a> {
    /// Splits `bytes` after checking size and version.
    pub fn split(kind: Kind, bytes: &'a [u8]) -> Result<Self, CodecError> {
        limit(bytes, kind.max_bytes())?;
        let (version, rest) = bytes.split_first().ok_or(CodecError::Short)?;
        if *version != FRAME_VERSION {
            return Err(CodecError::Version((*version).into()));
        }
        let (signature, body) = rest.split_at_checked(SIGNATURE_BYTES).ok_or(CodecError::Short)?;
        Ok(Self { signature, body })
    }

    /// The bytes of a frame.
    pub fn join(signature: &[u8; SIGNATURE_BYTES], body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + SIGNATURE_BYTES + body.len());
        bytes.push(FRAME_VERSION);
        bytes.extend_from_slice(signature);
        bytes.extend_from_slice(body);
        bytes
    }

    /// What a device signs: `petrel <kind> v1`, a zero byte, the body.
    pub fn signed_bytes(kind: Kind, body: &[u8]) -> Vec<u8> {
        let mut bytes = format!("petrel {} v{FRAME_VERSION}\0", kind.name()).into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

fn limit(bytes: &[u8], limit: usize) -> Result<(), CodecError> {
    if bytes.len() > limit { Err(CodecError::TooLarge { got: bytes.len(), limit }) } else { Ok(()) }
}

/// A message as CBOR.
///
/// # Panics
/// Never for the messages of this crate: they hold nothing that CBOR cannot say.
pub fn encode_cbor<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(message, &mut bytes).expect("messages are plain data");
    bytes
}

/// A message from the body of a frame; trailing bytes are refused.
pub fn decode_cbor<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let mut rest = body;
    let message = ciborium::from_reader(&mut rest).map_err(|e| CodecError::Malformed(e.to_string()))?;
    if rest.is_empty() { Ok(message) } else { Err(CodecError::Malformed("bytes after the end".into())) }
}

/// A message as JSON.
///
/// # Panics
/// Never for the messages of this crate: they hold nothing that JSON cannot say.
pub fn encode_json<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages are plain data")
}

/// A message from JSON of at most `max_bytes`. One that says another `spec` is named as such, whatever else
/// it may hold.
pub fn decode_json<T: DeserializeOwned>(bytes: &[u8], max_bytes: usize) -> Result<T, CodecError> {
    limit(bytes, max_bytes)?;
    serde_json::from_slice(bytes).map_err(|e| match serde_json::from_slice(bytes) {
        Ok(Versioned { spec }) if spec != SPEC => CodecError::Version(spec),
        Ok(Versioned { .. }) | Err(_) => CodecError::Malformed(e.to_string()),
    })
}

/// What documents of every version have in common.
#[derive(Deserialize)]
struct Versioned {
    spec: u64,
}
