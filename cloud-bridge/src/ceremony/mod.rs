//! Documents that several people sign in turn, each on a machine of their own: roots, revocations and
//! breakglass.
//!
//! Decides what a draft is, and what it still lacks. Whether it is complete is decided by `trust`,
//! which is asked as a device would ask it. Knows no command line and no clock.

mod breakglass;
mod revocations;
mod roots;

pub(crate) use breakglass::{Allowed, breakglass, breakglass_standing};
pub(crate) use revocations::{Taken, next_revocation, revocation_standing};
pub(crate) use roots::{Changes, apply, next_root, root_standing};

use crate::fault::Fault;
use crate::{authority, keyfile};
use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::SigningKey;
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use trust::{Envelope, MAX_ROOT_BYTES, PayloadKind, Role, Root, Signature, Verified};

/// A document with as many signatures as it has by now.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    kind: PayloadKind,
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

/// How far a draft has come.
#[derive(Debug)]
pub(crate) enum Standing<T> {
    /// A device would take it.
    Complete(Verified<T>),
    /// These signatures are missing.
    Waiting(Vec<Need>),
}

/// Signatures that are missing.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Need {
    /// Of which keys.
    pub(crate) of: &'static str,
    /// How many of them signed.
    pub(crate) signed: u64,
    /// How many must.
    pub(crate) threshold: u64,
    /// Who could sign next.
    pub(crate) may_sign: Vec<String>,
}

impl Draft {
    /// Nobody signed it yet.
    pub(crate) fn new(kind: PayloadKind, payload: Vec<u8>) -> Self {
        Self { kind, payload, signatures: Vec::new() }
    }

    /// Reads a draft or a complete document; nothing of it is verified.
    ///
    /// # Errors
    /// When it is none of this kind.
    pub(crate) fn read(kind: PayloadKind, path: &Path) -> anyhow::Result<Self> {
        let bytes = authority::read_document(path)?;
        let parsed = Self::parse(kind, &bytes).with_context(|| format!("cannot use {}", path.display()))?;
        Ok(parsed)
    }

    fn parse(kind: PayloadKind, bytes: &[u8]) -> anyhow::Result<Self> {
        // An envelope must be signed; a draft may wait for its first signature.
        let wire: serde_json::Value = serde_json::from_slice(bytes).context("it is no JSON")?;
        if wire["signatures"].as_array().is_some_and(Vec::is_empty) && wire["payloadType"] == kind.media_type() {
            let payload = STANDARD.decode(wire["payload"].as_str().unwrap_or_default()).context("bad base64")?;
            return Ok(Self::new(kind, payload));
        }
        let envelope = Envelope::parse(kind, bytes, MAX_ROOT_BYTES)?;
        Ok(Self { kind, payload: envelope.payload, signatures: envelope.signatures })
    }

    /// What it says.
    ///
    /// # Errors
    /// When the payload is no such document.
    pub(crate) fn says<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        Ok(serde_json::from_slice(&self.payload).map_err(|e| Fault::new("the draft is malformed").because(e))?)
    }

    /// Says this from now on; who signed before signed something else, so their signatures go.
    /// Returns how many went.
    pub(crate) fn say(&mut self, payload: Vec<u8>) -> usize {
        let dropped = self.signatures.len();
        self.payload = payload;
        self.signatures.clear();
        dropped
    }

    /// Adds the signature of a key that holds `role` in one of `roots`.
    ///
    /// # Errors
    /// When the key's signature would count for nothing.
    pub(crate) fn sign(&mut self, key: &SigningKey, role: Role, roots: &[&Root]) -> anyhow::Result<String> {
        let id = keyfile::id(&key.verifying_key());
        let holds = |root: &&Root| root.roles.get(role.as_str()).is_some_and(|held| held.keyids.contains(&id));
        if !roots.iter().any(holds) {
            let fault = Fault::new(format!("key {id} does not hold the role {role}"));
            return Err(fault.remedy("`petrel root show` lists who does").into());
        }
        self.signatures.retain(|other| other.key_id != id);
        self.signatures.push(authority::signature(self.kind, &self.payload, key));
        Ok(id)
    }

    /// The document's bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (payload_type, payload) = (self.kind.media_type().to_owned(), self.payload.clone());
        Envelope { payload_type, payload, signatures: self.signatures.clone() }.to_bytes()
    }

    /// Writes it in the place of `path` in one step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", path.display());
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Nothing in it is secret, and the bridge must read it.
        let mode = Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(dir).with_context(cannot)?;
        file.write_all(&self.to_bytes()).and_then(|()| file.as_file().sync_all()).with_context(cannot)?;
        file.persist(path).with_context(cannot)?;
        Ok(())
    }

    /// The bytes to ask `trust` about. Where nobody signed, the signature of nobody stands in: it counts
    /// for nothing, and so the form is judged before the first person signs.
    fn to_ask(&self) -> Vec<u8> {
        let mut asked = self.clone();
        if asked.signatures.is_empty() {
            asked.signatures.push(Signature { key_id: String::new(), bytes: Vec::new() });
        }
        asked.to_bytes()
    }

    /// What is missing of the keys of `role` in `root`.
    fn need(&self, of: &'static str, root: &Root, role: Role, threshold: u64) -> Option<Need> {
        let signed: BTreeSet<&String> = self.signatures.iter().map(|s| &s.key_id).collect();
        let holders = root.roles.get(role.as_str()).map(|held| held.keyids.clone()).unwrap_or_default();
        let (have, may_sign): (Vec<String>, Vec<String>) = holders.into_iter().partition(|id| signed.contains(id));
        let signed = have.len() as u64;
        (signed < threshold).then_some(Need { of, signed, threshold, may_sign })
    }

    /// Who signed so far, by what the signatures say.
    pub(crate) fn signers(&self) -> Vec<String> {
        self.signatures.iter().map(|s| s.key_id.clone()).collect()
    }
}
