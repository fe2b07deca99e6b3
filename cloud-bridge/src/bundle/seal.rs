//! Sealing: a bundle's statement, and the signatures on it.
//!
//! Decides that signatures of one envelope are all on the same files. Whether they are enough is
//! decided by `trust` against a root.

use super::read::{read_bounded, read_manifest};
use super::{MANIFEST, SEAL, chunks, read};
use crate::authority;
use crate::fault::Fault;
use anyhow::Context;
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

/// Signs the bundle in `dir` with a publisher's key, beside the signatures of other keys.
///
/// # Errors
/// When the folder is not what `pack` left, or other signatures are on other files.
pub(crate) fn seal(dir: &Path, key: &SigningKey) -> anyhow::Result<Sealed> {
    let described = describe(dir)?;
    check_listing(&described)?;
    chunks::check(dir, &described.files)?;
    let digest = described.digest();
    let signature = authority::signature(PayloadKind::Bundle, &described.payload, key);
    let key_id = signature.key_id.clone();
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
    replace(dir, &bytes)?;
    Ok(Sealed { digest, key_id, signatures: count })
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

/// The new envelope takes the place of the old one in one step.
fn replace(dir: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", dir.join(SEAL).display());
    let mut builder = tempfile::Builder::new();
    let mut file =
        builder.prefix(".seal-").permissions(Permissions::from_mode(0o644)).tempfile_in(dir).with_context(cannot)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).with_context(cannot)?;
    file.persist(dir.join(SEAL)).with_context(cannot)?;
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(cannot)
}
