//! Sealing: a bundle's statement, and the signatures on it.
//!
//! Decides that signatures of one envelope are all on the same files. Whether they are enough is
//! decided by `trust` against a root.

use super::read::{read_bounded, read_manifest};
use super::{MANIFEST, MODEL_SIG, SEAL, chunks, read};
use crate::authority;
use crate::fault::Fault;
use crate::keyfile::p256::P256Key;
use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::SigningKey;
use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use trust::{Digest, Envelope, MAX_DOCUMENT_BYTES, Manifest, PayloadKind, Resource, Statement};

/// A bundle as it lies there, signed or not; nothing of it is verified.
#[derive(Debug)]
pub(crate) struct Described {
    /// What it says of itself.
    pub(crate) manifest: Manifest,
    /// Its files, sorted by name, without those that hold signatures.
    pub(crate) files: Vec<Resource>,
    /// The statement that publishers sign.
    pub(crate) payload: Vec<u8>,
}

impl Described {
    /// The digest that names the bundle everywhere.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.payload)
    }
}

/// What was signed.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// The bundle's statement.
    pub(crate) digest: Digest,
    /// The key that signed.
    pub(crate) key_id: String,
    /// Signatures on it by now.
    pub(crate) signatures: usize,
    /// Whether `model.sig` lies beside them.
    pub(crate) model_sig: bool,
}

/// Reads a bundle's folder and makes its statement.
///
/// # Errors
/// When a file cannot be read, or is none that a bundle may have.
pub(crate) fn describe(dir: &Path) -> anyhow::Result<Described> {
    let manifest = read_manifest(dir)?;
    let files = read(dir)?;
    let payload = Statement::payload(&format!("{}-{}", manifest.stream, manifest.version), files.clone());
    Ok(Described { manifest, files, payload })
}

/// The envelope that lies in the folder, if there is one; nothing of it is verified.
///
/// # Errors
/// When it cannot be read or understood.
pub(crate) fn existing_seal(dir: &Path) -> anyhow::Result<Option<Envelope>> {
    let path = dir.join(SEAL);
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let bytes = read_bounded(&path, MAX_DOCUMENT_BYTES as u64)?;
    Ok(Some(Envelope::parse(PayloadKind::Bundle, &bytes, MAX_DOCUMENT_BYTES)?))
}

/// Signs the bundle in `dir` with a publisher's key, beside the signatures of other keys; and the same
/// bytes with a P-256 key, for other people's tools. Their file has room for one signature.
///
/// # Errors
/// When the folder is not what `pack` left, or other signatures are on other files.
pub(crate) fn seal(dir: &Path, key: &SigningKey, p256: Option<&P256Key>) -> anyhow::Result<Sealed> {
    let described = describe(dir)?;
    check_listing(&described)?;
    chunks::check(dir, &described.files)?;
    let digest = described.digest();
    let signature = authority::signature(PayloadKind::Bundle, &described.payload, key);
    let key_id = signature.key_id.clone();
    let model_sig = model_signature(dir, &described.payload, p256)?;
    let mut signatures = match existing_seal(dir)? {
        None => Vec::new(),
        Some(envelope) if envelope.payload == described.payload => envelope.signatures,
        Some(_) => {
            let fault = Fault::new(format!("{SEAL} holds signatures on other files"))
                .because("the bundle was changed after it was signed")
                .remedy(format!("if you meant to change it: remove {SEAL} and let every publisher sign again"));
            return Err(fault.into());
        }
    };
    signatures.retain(|other| other.key_id != key_id);
    signatures.push(signature);
    let count = signatures.len();
    let payload_type = PayloadKind::Bundle.media_type().to_owned();
    let bytes = Envelope { payload_type, payload: described.payload, signatures }.to_bytes();
    // What no device could take is not written.
    Envelope::parse(PayloadKind::Bundle, &bytes, MAX_DOCUMENT_BYTES)?;
    if let Some(bytes) = &model_sig {
        replace(dir, MODEL_SIG, bytes)?;
    }
    replace(dir, SEAL, &bytes)?;
    Ok(Sealed { digest, key_id, signatures: count, model_sig: model_sig.is_some() })
}

/// The `model.sig` of this key, or the one that is there: on these files, or it is refused.
fn model_signature(dir: &Path, payload: &[u8], p256: Option<&P256Key>) -> anyhow::Result<Option<Vec<u8>>> {
    if let Some(key) = p256 {
        let der = key.sign(&trust::pae(PayloadKind::Bundle.media_type(), payload))?;
        return Ok(Some(trust::model_signature(key.public(), payload, &der)));
    }
    let Some(bytes) = existing_model_signature(dir)? else { return Ok(None) };
    // Whose signature it is cannot be known without the key; what it is on, can.
    let file: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if file["dsseEnvelope"]["payload"].as_str() != Some(STANDARD.encode(payload).as_str()) {
        let fault = Fault::new(format!("{MODEL_SIG} is a signature on other files"))
            .because("the bundle was changed after it was signed")
            .remedy(format!("remove {MODEL_SIG}, or sign anew with --p256-key"));
        return Err(fault.into());
    }
    Ok(Some(bytes))
}

/// The `model.sig` that lies in the folder, if there is one; nothing of it is verified.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn existing_model_signature(dir: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let path = dir.join(MODEL_SIG);
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    read_bounded(&path, MAX_DOCUMENT_BYTES as u64).map(Some)
}

/// Refuses files that the manifest does not list: nobody meant to sign them.
fn check_listing(described: &Described) -> anyhow::Result<()> {
    let listed: BTreeSet<&str> = described.manifest.files.iter().map(|f| f.name.as_str()).chain([MANIFEST]).collect();
    let found: BTreeSet<&str> = described.files.iter().map(|f| f.name.as_str()).collect();
    let Some(odd) = listed.symmetric_difference(&found).next() else { return Ok(()) };
    let (why, remedy) = if found.contains(odd) {
        (format!("the manifest does not list `{odd}`"), format!("remove `{odd}`, or pack again"))
    } else {
        (format!("`{odd}` is not there, and the manifest lists it"), "pack again".to_owned())
    };
    Err(Fault::new("the folder is not what `petrel pack` left").because(why).remedy(remedy).into())
}

/// The new file takes the place of the old one in one step.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", dir.join(name).display());
    let mut builder = tempfile::Builder::new();
    let mut file =
        builder.prefix(".seal-").permissions(Permissions::from_mode(0o644)).tempfile_in(dir).with_context(cannot)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).with_context(cannot)?;
    file.persist(dir.join(name)).with_context(cannot)?;
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(cannot)
}
