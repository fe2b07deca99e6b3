//! The director's pen: signs assignments, and nothing else.

use crate::fault::Fault;
use crate::keyfile::Passphrase;
use crate::{authority, keyfile};
use bridge_core::AssignmentDraft;
use ed25519_dalek::SigningKey;
use std::path::Path;
use trust::{Assignment, PayloadKind, Role, Root, Time, U53, Verified};

/// How long an assignment is good for: a year, since devices may be away for long.
const GOOD_FOR_SECONDS: i64 = 365 * 24 * 3_600;

/// Holds the director's key.
pub(crate) struct Director {
    root: Verified<Root>,
    key: SigningKey,
}

/// The roles whose keys a running bridge may hold.
fn is_online(role: &str) -> bool {
    [Role::Director, Role::Beacon].iter().any(|online| online.as_str() == role)
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
        // A bridge that is taken over must not be a publisher, or worse.
        let others = root.roles.iter().filter(|(role, held)| !is_online(role) && held.keyids.contains(&id));
        if let Some((role, _)) = others.into_iter().next() {
            let fault = Fault::new(format!("{} also holds the role `{role}`", path.display()))
                .because("a running bridge holds keys of the director and of beacons only")
                .remedy("make a director's key of its own and a new root: petrel keys new, petrel root rotate");
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
}
