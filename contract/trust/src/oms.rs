//! `model.sig`: an OpenSSF Model Signing signature (v1.0) over the very statement of the bundle.
//!
//! A Sigstore bundle with one ECDSA P-256 signature, so that a customer can check a bundle with a tool
//! that we did not write. A device does not need it: it reads `bundle.dsse.json`.

use crate::dsse::{PayloadKind, pae};
use crate::statement::{Statement, read_statement};
use crate::{Code, DeviceKey, Digest, MAX_DOCUMENT_BYTES, Refusal, Verified, strict};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SigstoreBundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: ModelEnvelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    public_key: Hint,
    tlog_entries: [u8; 0],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    hint: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ModelEnvelope {
    payload: String,
    payload_type: String,
    signatures: [ModelSignature; 1],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelSignature {
    sig: String,
    keyid: String,
}

/// A file as model signing names it: without its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Path within the folder.
    pub name: String,
    /// SHA-256 of the content.
    pub digest: Digest,
}

impl DeviceKey {
    /// SubjectPublicKeyInfo in PEM: 64 characters a line, each ended by a line feed.
    pub fn pem(&self) -> String {
        let text = STANDARD.encode(self.spki());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for (at, character) in text.chars().enumerate() {
            if at > 0 && at % 64 == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        pem + "\n-----END PUBLIC KEY-----\n"
    }

    /// The hint by which `model.sig` names the key: the SHA-256 of its PEM text.
    pub fn hint(&self) -> Digest {
        Digest::of(self.pem().as_bytes())
    }
}

/// `model.sig` over a statement's `payload`. `der` is the ECDSA P-256 signature, in ASN.1, of
/// [`pae`]`("application/vnd.in-toto+json", payload)`.
///
/// # Panics
/// Never: strings always have a JSON form.
pub fn model_signature(key: &DeviceKey, payload: &[u8], der: &[u8]) -> Vec<u8> {
    let file = SigstoreBundle {
        media_type: MEDIA_TYPE.into(),
        verification_material: Material { public_key: Hint { hint: key.hint() }, tlog_entries: [] },
        dsse_envelope: ModelEnvelope {
            payload: STANDARD.encode(payload),
            payload_type: PayloadKind::Bundle.media_type().into(),
            signatures: [ModelSignature { sig: STANDARD.encode(der), keyid: String::new() }],
        },
    };
    serde_json::to_vec(&file).expect("strings have a JSON form")
}

/// Believes a `model.sig`, ours or one that the specification's own tool wrote: the files that the
/// holder of `key` signed, sorted by name. [`Verified::digest`] is that of the payload, so for a bundle of ours it is
/// the statement's.
///
/// # Errors
/// `E_KEYID` when it names another key, `E_SIG`, `E_TYPE`, `E_STATEMENT`, `E_PATH`, `E_PARSE`, `E_LIMIT`.
pub fn verify_model_signature(key: &DeviceKey, bytes: &[u8]) -> Result<Verified<Vec<ModelFile>>, Refusal> {
    strict::limit("model.sig", bytes, MAX_DOCUMENT_BYTES)?;
    let file: SigstoreBundle = strict::parse("model.sig", bytes)?;
    let [signature] = &file.dsse_envelope.signatures;
    let expected = (MEDIA_TYPE, PayloadKind::Bundle.media_type());
    if (file.media_type.as_str(), file.dsse_envelope.payload_type.as_str()) != expected {
        return Err(Refusal::new(Code::Type, "model.sig is no Sigstore bundle v0.3 of an in-toto statement"));
    }
    if file.verification_material.public_key.hint != key.hint() {
        return Err(Refusal::new(Code::KeyId, "model.sig names another key"));
    }
    let decode = |text: &str| {
        STANDARD.decode(text).map_err(|e| Refusal::new(Code::Parse, format!("model.sig: bad base64: {e}")))
    };
    let payload = decode(&file.dsse_envelope.payload)?;
    key.verify_der(&pae(expected.1, &payload), &decode(&signature.sig)?)?;
    let resources = read_statement(&payload)?;
    let mut files: Vec<ModelFile> =
        resources.into_iter().map(|r| ModelFile { name: r.name, digest: r.digest }).collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Verified::new(files, &payload))
}

impl Statement {
    /// Refuses a `model.sig` that was not made over this very statement.
    ///
    /// # Errors
    /// What [`verify_model_signature`] refuses; `E_MISMATCH` when another statement was signed.
    pub fn check_model_signature(this: &Verified<Self>, key: &DeviceKey, bytes: &[u8]) -> Result<(), Refusal> {
        if verify_model_signature(key, bytes)?.digest() == this.digest() {
            return Ok(());
        }
        Err(Refusal::new(Code::Mismatch, "model.sig and bundle.dsse.json are over different statements"))
    }
}
