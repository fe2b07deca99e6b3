//! The director's pen: signs assignments and checkpoints of the audit log, and nothing else.

use crate::fault::Fault;
use crate::keyfile::Passphrase;
use crate::{authority, keyfile};
use bridge_core::AssignmentDraft;
use bridge_core::audit::Head;
use ed25519_dalek::SigningKey;
use std::path::Path;
use trust::{Assignment, Checkpoint, PayloadKind, Role, Root, Time, U53, Verified};

/// How long an assignment is good for: a year, since devices may be away for long.
const GOOD_FOR_SECONDS: i64 = 365 * 24 * 3_600;

/// Holds the director's key.
pub(crate) struct Director {
    root: Verified<Root>,
    key: SigningKey,
}

impl std::fmt::Debug for Director {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Director").finish_non_exhaustive()
    }
}

impl Director {
    /// With the key in a file, which must hold the director's role in `root`.
    pub(crate) fn new(root: Verified<Root>, path: &Path, passphrase: &Passphrase) -> anyhow::Result<Self> {
        let key = keyfile::read_private(path, passphrase)?;
        let id = keyfile::id(&key.verifying_key());
        let holds = root.roles.get(Role::Director.as_str()).is_some_and(|r| r.keyids.contains(&id));
        if !holds {
            let fault = Fault::new(format!("{} is not the director's key of this root", path.display()))
                .remedy("give the key that `petrel root init` wrote as keys/director.pem");
            return Err(fault.into());
        }
        Ok(Self { root, key })
    }

    /// The signed envelope of an assignment.
    pub(crate) fn sign(&self, draft: &AssignmentDraft, unix_seconds: i64) -> anyhow::Result<Vec<u8>> {
        let number = |n| U53::try_from(n).map_err(|e| Fault::new("a counter is too large").because(e));
        let time = |s| Time::from_unix(s).ok_or_else(|| Fault::new("the system clock is not set"));
        let assignment = Assignment {
            spec: U53::from(1),
            fleet: self.root.fleet.clone(),
            issued: time(unix_seconds)?,
            device_id: draft.device.to_string(),
            role_epoch: number(self.root.role_epoch(Role::Director))?,
            seq: number(draft.seq)?,
            root_version: self.root.version,
            min_revocation: U53::from(0),
            expires: time(unix_seconds + GOOD_FOR_SECONDS)?,
            streams: draft.streams.clone(),
        };
        let payload = serde_json::to_vec(&assignment)?;
        Ok(authority::envelope(PayloadKind::Assignment, payload, &self.key).to_bytes())
    }

    /// The signed envelope of how far the audit log has come.
    pub(crate) fn checkpoint(&self, head: &Head, unix_seconds: i64) -> anyhow::Result<Vec<u8>> {
        let number = |n| U53::try_from(n).map_err(|e| Fault::new("a counter is too large").because(e));
        let checkpoint = Checkpoint {
            spec: U53::from(1),
            fleet: self.root.fleet.clone(),
            issued: Time::from_unix(unix_seconds).ok_or_else(|| Fault::new("the system clock is not set"))?,
            role_epoch: number(self.root.role_epoch(Role::Director))?,
            seq: number(head.seq)?,
            sha256: head.sha256,
        };
        let payload = serde_json::to_vec(&checkpoint)?;
        Ok(authority::envelope(PayloadKind::Checkpoint, payload, &self.key).to_bytes())
    }

    /// The fleet that it directs.
    pub(crate) fn fleet(&self) -> &str {
        &self.root.fleet
    }
}
