//! DSSE envelopes (Dead Simple Signing Envelope, version 1): payload, its kind, signatures.
//!
//! Keys are identified by what they are, never by what an envelope says of them.

use crate::root::{Role, Root};
use crate::{Code, Digest, Refusal, strict};
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most signatures of an envelope: work is bounded before it is done.
const MAX_SIGNATURES: usize = 16;

/// The kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// The root of trust.
    Root,
    /// A bundle's in-toto statement.
    Bundle,
    /// What a device should run.
    Assignment,
    /// What was taken away: keys, bundles, devices.
    Revocation,
    /// The time, and what is the newest.
    Beacon,
    /// Leave to go below a floor.
    Breakglass,
    /// A device's state.
    Report,
    /// A device's word on a release.
    Verdict,
    /// How far the audit log had come.
    Checkpoint,
    /// What land asks of a device now.
    Command,
    /// What came of it.
    Result,
}

impl PayloadKind {
    /// The envelope's `payloadType`.
    pub fn media_type(self) -> &'static str {
        match self {
            PayloadKind::Root => "application/vnd.petrel.root.v1+json",
            PayloadKind::Bundle => "application/vnd.in-toto+json",
            PayloadKind::Assignment => "application/vnd.petrel.assignment.v1+json",
            PayloadKind::Revocation => "application/vnd.petrel.revocation.v1+json",
            PayloadKind::Beacon => "application/vnd.petrel.beacon.v1+json",
            PayloadKind::Breakglass => "application/vnd.petrel.breakglass.v1+json",
            PayloadKind::Report => "application/vnd.petrel.report.v1+json",
            PayloadKind::Verdict => "application/vnd.petrel.verdict.v1+json",
            PayloadKind::Checkpoint => "application/vnd.petrel.checkpoint.v1+json",
            PayloadKind::Command => "application/vnd.petrel.command.v1+json",
            PayloadKind::Result => "application/vnd.petrel.result.v1+json",
        }
    }

    /// Whether a `payloadType` names this kind in another version than ours.
    fn is_another_version(self, payload_type: &str) -> bool {
        let name = self.media_type().strip_suffix(".v1+json");
        let version = name.and_then(|name| payload_type.strip_prefix(name)?.strip_prefix(".v")?.strip_suffix("+json"));
        version.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    }

    /// What it is called in a refusal.
    pub(crate) fn what(self) -> &'static str {
        match self {
            PayloadKind::Root => "root",
            PayloadKind::Bundle => "bundle envelope",
            PayloadKind::Assignment => "assignment",
            PayloadKind::Revocation => "revocation",
            PayloadKind::Beacon => "beacon",
            PayloadKind::Breakglass => "breakglass",
            PayloadKind::Report => "report",
            PayloadKind::Verdict => "verdict",
            PayloadKind::Checkpoint => "checkpoint",
            PayloadKind::Command => "command",
            PayloadKind::Result => "result",
        }
    }
}

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Hex SHA-256 of the raw Ed25519 key, or of the DER form of a device's P-256 key.
    pub key_id: String,
    /// 64 bytes: Ed25519, or ECDSA `r ‖ s`.
    pub bytes: Vec<u8>,
}

/// An envelope taken apart; nothing in it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What the payload claims to be.
    pub payload_type: String,
    /// The signed bytes.
    pub payload: Vec<u8>,
    /// At least one.
    pub signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEnvelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    keyid: String,
    sig: String,
}

/// The bytes that are signed: the pre-authentication encoding of DSSE v1.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// The id of a raw Ed25519 public key.
pub fn key_id(public: &[u8]) -> String {
    Digest::of(public).to_string()
}

impl Envelope {
    /// Takes an envelope of `kind` apart.
    pub fn parse(kind: PayloadKind, bytes: &[u8], max_bytes: usize) -> Result<Self, Refusal> {
        let what = kind.what();
        strict::limit(what, bytes, max_bytes)?;
        let wire: WireEnvelope = strict::parse(what, bytes)?;
        if wire.payload_type != kind.media_type() {
            let shown: String = wire.payload_type.chars().take(80).collect();
            if kind.is_another_version(&wire.payload_type) {
                let detail = format!("`{shown}` is of a version that this build does not know: update the older side");
                return Err(Refusal::new(Code::Version, detail));
            }
            return Err(Refusal::new(Code::Type, format!("`{shown}` came in the place of a {what}")));
        }
        if wire.signatures.is_empty() {
            return Err(Refusal::new(Code::Threshold, format!("the {what} is not signed")));
        }
        if wire.signatures.len() > MAX_SIGNATURES {
            return Err(Refusal::new(Code::Limit, format!("the {what} has more than {MAX_SIGNATURES} signatures")));
        }
        let decode = |text: &str| {
            STANDARD.decode(text).map_err(|e| Refusal::new(Code::Parse, format!("{what}: bad base64: {e}")))
        };
        let signatures =
            wire.signatures.iter().map(|s| Ok(Signature { key_id: s.keyid.clone(), bytes: decode(&s.sig)? }));
        Ok(Self {
            payload: decode(&wire.payload)?,
            signatures: signatures.collect::<Result<_, Refusal>>()?,
            payload_type: wire.payload_type,
        })
    }

    /// The envelope's bytes: compact JSON.
    ///
    /// # Panics
    /// Never: strings always have a JSON form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = WireEnvelope {
            payload: STANDARD.encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self
                .signatures
                .iter()
                .map(|s| WireSignature { keyid: s.key_id.clone(), sig: STANDARD.encode(&s.bytes) })
                .collect(),
        };
        serde_json::to_vec(&wire).expect("strings have a JSON form")
    }

    /// The keys of `role` in `root` that signed this envelope, each counted once by its bytes.
    ///
    /// A signature of an unknown key counts for nothing; one that claims a known key and does not
    /// verify refuses the whole envelope.
    pub(crate) fn signers(&self, what: &str, root: &Root, role: Role) -> Result<Vec<String>, Refusal> {
        let signed = pae(&self.payload_type, &self.payload);
        let mut signers: BTreeMap<[u8; 32], String> = BTreeMap::new();
        let mut foreign_role = false;
        for signature in &self.signatures {
            match root.role_key(role, &signature.key_id)? {
                Some(key) => {
                    verify_ed25519(what, &key, &signed, &signature.bytes)?;
                    signers.insert(key.to_bytes(), signature.key_id.clone());
                }
                None => foreign_role |= root.keys.contains_key(&signature.key_id),
            }
        }
        if signers.is_empty() && foreign_role {
            let detail = format!("the {what} is signed by a key that does not hold the role {role}");
            return Err(Refusal::new(Code::Role, detail));
        }
        Ok(signers.into_values().collect())
    }

    /// The signers among the keys of `role`; refuses the envelope unless they are enough.
    pub(crate) fn require(&self, kind: PayloadKind, root: &Root, role: Role) -> Result<Vec<String>, Refusal> {
        let signers = self.signers(kind.what(), root, role)?;
        enough(kind.what(), signers.len(), root.threshold(role))?;
        Ok(signers)
    }
}

/// The signers that `revoked` does not name; refuses when they are too few, though all of them were enough.
pub(crate) fn unrevoked(
    what: &str,
    signers: Vec<String>,
    threshold: u64,
    revoked: impl Fn(&str) -> bool,
) -> Result<Vec<String>, Refusal> {
    let signed = signers.len();
    let left: Vec<String> = signers.into_iter().filter(|key| !revoked(key)).collect();
    if left.len() as u64 >= threshold {
        return Ok(left);
    }
    let detail =
        format!("{} of {signed} signers of the {what} are revoked, {threshold} must be left", signed - left.len());
    Err(Refusal::new(Code::RevokedKey, detail))
}

/// Refuses fewer signers than the threshold.
pub(crate) fn enough(what: &str, signers: usize, threshold: u64) -> Result<(), Refusal> {
    if signers as u64 >= threshold {
        return Ok(());
    }
    let detail = format!("the {what} has {signers} valid signature(s) of the {threshold} that its role needs");
    Err(Refusal::new(Code::Threshold, detail))
}

fn verify_ed25519(what: &str, key: &VerifyingKey, signed: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    let fault = || Refusal::new(Code::Sig, format!("a signature of the {what} does not verify"));
    let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| fault())?;
    key.verify_strict(signed, &signature).map_err(|_| fault())
}
