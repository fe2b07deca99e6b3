//! How a device comes into a fleet and stays in it: the join file, and what is said over HTTPS with it.
//!
//! All of it is JSON. The secret in a join file is its token and nothing else; what it lets in is decided on
//! land. Certificates, requests for them and the root pass through as the text that they are.

use crate::report::known_spec;
use crate::{CodecError, DeviceId, FleetId, Profile, decode_json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The name in the certificate of the bridge itself; no device's name begins with it.
pub const BRIDGE_NAME: &str = "petrel-bridge";
/// The most bytes of a join file: a root and a few kilobytes beside it.
pub const MAX_JOIN_BYTES: usize = 128 * 1024;
/// The most bytes of a request for a certificate.
pub const MAX_ENROL_BYTES: usize = 8 * 1024;
/// The most bytes of the answer: a chain of two certificates.
pub const MAX_ENROLLED_BYTES: usize = 32 * 1024;

/// Where the bridge takes [`EnrolRequest`].
pub const ENROL_PATH: &str = "/api/v1/enrol";
/// Where the bridge takes [`RenewRequest`], from whoever shows a client certificate.
pub const RENEW_PATH: &str = "/api/v1/renew";
/// Where the bridge takes [`ReturnRequest`].
pub const RETURN_PATH: &str = "/api/v1/re-enrol";

/// All that a device must be given to enrol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinFile {
    /// Version of this document: [`crate::SPEC`].
    #[serde(deserialize_with = "known_spec")]
    pub spec: u64,
    /// The fleet.
    pub fleet: FleetId,
    /// The device that the token is for.
    pub device: DeviceId,
    /// The bridge, `https://host:port`.
    pub bridge: String,
    /// The broker, `mqtts://host:port`.
    pub broker: String,
    /// The fleet's certificate authority, PEM: the only one that the device believes.
    pub ca: String,
    /// The fleet's root of trust, the text of `root.json`.
    pub root: String,
    /// What lets the device in, once.
    pub token: JoinToken,
}

/// A one-time token: `petrel_join_` and 64 hex digits. No log shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JoinToken(String);

const TOKEN_PREFIX: &str = "petrel_join_";

impl JoinToken {
    /// The token of 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(format!("{TOKEN_PREFIX}{}", hex::encode(secret)))
    }

    /// The secret, to be hashed or sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl TryFrom<String> for JoinToken {
    type Error = &'static str;
    fn try_from(token: String) -> Result<Self, Self::Error> {
        let digits = token.strip_prefix(TOKEN_PREFIX).unwrap_or_default();
        let good = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        // What is wrong with it is not quoted: it may be a secret all the same.
        if good { Ok(Self(token)) } else { Err("a join token is `petrel_join_` and 64 hex digits") }
    }
}

impl From<JoinToken> for String {
    fn from(token: JoinToken) -> String {
        token.0
    }
}

/// A device asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// Version of this document: [`crate::SPEC`].
    #[serde(deserialize_with = "known_spec")]
    pub spec: u64,
    /// Who asks.
    pub device: DeviceId,
    /// From the join file.
    pub token: JoinToken,
    /// PKCS#10 in PEM, for a P-256 key; its subject is the device's name alone.
    pub csr: String,
    /// What the device runs on.
    pub profile: Profile,
}

/// A device whose certificate comes to its end asks for one with a new key, over TLS with the old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Version of this document: [`crate::SPEC`].
    #[serde(deserialize_with = "known_spec")]
    pub spec: u64,
    /// As in [`EnrolRequest::csr`], for the new key.
    pub csr: String,
}

/// A device that was away until its certificate expired asks for a new one, with a new key that the old one signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnRequest {
    /// Version of this document: [`crate::SPEC`].
    #[serde(deserialize_with = "known_spec")]
    pub spec: u64,
    /// Who returns.
    pub device: DeviceId,
    /// As in [`EnrolRequest::csr`], for the new key.
    pub csr: String,
    /// The old key's signature of [`ReturnRequest::signed_bytes`], `r ‖ s`.
    #[serde(with = "hex")]
    pub signature: [u8; crate::SIGNATURE_BYTES],
}

impl ReturnRequest {
    /// What the old key signs: `petrel re-enrol v1`, a zero byte, the request for the new key.
    pub fn signed_bytes(csr: &str) -> Vec<u8> {
        [b"petrel re-enrol v1\0", csr.as_bytes()].concat()
    }
}

/// The answer to all three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// Version of this document: [`crate::SPEC`].
    #[serde(deserialize_with = "known_spec")]
    pub spec: u64,
    /// The device's certificate and then those that lead to the authority, PEM.
    pub chain: String,
    /// From when the certificate counts, in seconds since 1970.
    pub from: u64,
    /// Until when, in seconds since 1970.
    pub until: u64,
    /// Whether a person must still let the device in.
    pub pending: bool,
}

/// What went wrong with a request, as every route of the bridge says it (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The HTTP status, again.
    pub status: u16,
    /// A stable code.
    pub code: String,
    /// What happened, in words.
    pub detail: String,
}

/// The documents of this file, each with its largest size.
pub trait Exchanged: Serialize + DeserializeOwned {
    /// The most bytes of it.
    const MAX_BYTES: usize;

    /// Reads it, sizes first.
    ///
    /// # Errors
    /// When it is too large or malformed.
    fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        decode_json(bytes, Self::MAX_BYTES)
    }
}

impl Exchanged for JoinFile {
    const MAX_BYTES: usize = MAX_JOIN_BYTES;
}

impl Exchanged for EnrolRequest {
    const MAX_BYTES: usize = MAX_ENROL_BYTES;
}

impl Exchanged for RenewRequest {
    const MAX_BYTES: usize = MAX_ENROL_BYTES;
}

impl Exchanged for ReturnRequest {
    const MAX_BYTES: usize = MAX_ENROL_BYTES;
}

impl Exchanged for Enrolled {
    const MAX_BYTES: usize = MAX_ENROLLED_BYTES;
}

impl Exchanged for Problem {
    const MAX_BYTES: usize = MAX_ENROL_BYTES;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_form_and_is_not_shown() {
        let token = JoinToken::new(&[0xab; 32]);
        assert!(!format!("{token:?}").contains("ab"));
        let written = serde_json::to_string(&token).unwrap();
        assert_eq!(serde_json::from_str::<JoinToken>(&written).unwrap(), token);
        for bad in ["", "petrel_join_", "petrel_join_AB", "petrel_0", &written[1..20], &format!("{}0", token.as_str())]
        {
            let error = serde_json::from_str::<JoinToken>(&format!("\"{bad}\"")).unwrap_err().to_string();
            assert!(error.contains("64 hex digits") && (bad.len() < 15 || !error.contains(bad)), "{error}");
        }
        assert!(serde_json::from_str::<JoinToken>(&written.to_uppercase()).is_err());
    }
}
