//! The pen of a running bridge: signs assignments, commands, beacons and checkpoints of the audit log, and nothing else.
//!
//! Decides nothing of what it signs: the core drafts it. The same draft of an assignment is always signed
//! to the same bytes. Its keys hold the director's and the beacon's role and no other; both are wiped
//! from memory when it is dropped.

use super::config::BridgeConfig;
use crate::fault::Fault;
use crate::keyfile::Passphrase;
use crate::{authority, keyfile};
use bridge_core::audit::Head;
use bridge_core::{AssignmentDraft, BeaconDraft, CommandDraft};
use ed25519_dalek::SigningKey;
use protocol::FleetId;
use std::path::Path;
use trust::{Assignment, Beacon, Checkpoint, Command, PayloadKind, Role, Root, Time, U53};

/// How long an assignment is good for: a year, since devices may be away for long.
const GOOD_FOR_SECONDS: u64 = 365 * 24 * 3_600;

/// Holds the keys of a running bridge.
pub(crate) struct Pen {
    fleet: FleetId,
    director: SigningKey,
    beacon: SigningKey,
}

impl Pen {
    /// With the keys in the files that the configuration names.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn open(config: &BridgeConfig) -> anyhow::Result<Self> {
        let read = |path: &Path, passphrase: &Option<std::path::PathBuf>| {
            keyfile::read_private(path, &Passphrase::from(passphrase.clone()))
        };
        Ok(Self {
            fleet: config.fleet.clone(),
            director: read(&config.director_key, &config.director_passphrase)?,
            beacon: read(&config.beacon_key, &config.beacon_passphrase)?,
        })
    }

    /// Refuses keys that do not hold their role in `root`, or hold another one besides: a bridge that is
    /// taken over must not be a publisher, or worse.
    ///
    /// # Errors
    /// Which key, and why.
    pub(crate) fn check(&self, root: &Root) -> Result<(), Fault> {
        for (role, key) in [(Role::Director, &self.director), (Role::Beacon, &self.beacon)] {
            let id = keyfile::id(&key.verifying_key());
            let holds = |role: Role| root.roles.get(role.as_str()).is_some_and(|held| held.keyids.contains(&id));
            if !holds(role) {
                return Err(Fault::new(format!(
                    "the {role} key {id} does not hold that role in root {}",
                    root.version
                ))
                .remedy(format!("set `{role}_key` to the key that root {} names", root.version)));
            }
            let online = [Role::Director, Role::Beacon];
            if let Some(other) = Role::ALL.into_iter().filter(|role| !online.contains(role)).find(|role| holds(*role)) {
                return Err(Fault::new(format!("the {role} key {id} also holds the role {other}"))
                    .because("a running bridge holds keys of the director and the beacon only")
                    .remedy("make a key of its own for it: petrel keys new, petrel root rotate"));
            }
        }
        Ok(())
    }

    /// The signed envelope of an assignment.
    ///
    /// # Errors
    /// When a number or a time cannot be written.
    pub(crate) fn assignment(&self, draft: &AssignmentDraft) -> anyhow::Result<Vec<u8>> {
        let issued = draft.issued / 1_000;
        let assignment = Assignment {
            spec: U53::from(1),
            fleet: self.fleet.to_string(),
            issued: time(issued)?,
            device_id: draft.device.to_string(),
            role_epoch: number(draft.numbers.director)?,
            seq: number(draft.seq)?,
            root_version: number(draft.numbers.root)?,
            min_revocation: number(draft.numbers.revocation)?,
            expires: time(issued + GOOD_FOR_SECONDS)?,
            streams: draft.streams.clone(),
        };
        let payload = serde_json::to_vec(&assignment)?;
        Ok(authority::envelope(PayloadKind::Assignment, payload, &self.director).to_bytes())
    }

    /// The signed envelope of a command.
    ///
    /// # Errors
    /// When a number or a time cannot be written.
    pub(crate) fn command(&self, draft: &CommandDraft) -> anyhow::Result<Vec<u8>> {
        let command = Command {
            spec: U53::from(1),
            fleet: self.fleet.to_string(),
            issued: time(draft.issued / 1_000)?,
            device_id: draft.device.to_string(),
            role_epoch: number(draft.numbers.director)?,
            nonce: draft.nonce.clone(),
            heard: time(draft.heard / 1_000)?,
            seq: number(draft.seq)?,
            // Rounded in the device's favour, or one of a second might never count.
            deadline: time(draft.deadline.div_ceil(1_000))?,
            request: serde_json::to_value(&draft.request)?,
        };
        let payload = serde_json::to_vec(&command)?;
        Ok(authority::envelope(PayloadKind::Command, payload, &self.director).to_bytes())
    }

    /// The signed envelope of a beacon of this moment.
    ///
    /// # Errors
    /// When a number or a time cannot be written.
    pub(crate) fn beacon(&self, draft: &BeaconDraft, unix_seconds: u64) -> anyhow::Result<Vec<u8>> {
        let beacon = Beacon {
            spec: U53::from(1),
            fleet: self.fleet.to_string(),
            issued: time(unix_seconds)?,
            role_epoch: number(draft.numbers.beacon)?,
            seq: number(draft.seq)?,
            now: time(unix_seconds)?,
            nonce: draft.nonce.clone(),
            root_version: number(draft.numbers.root)?,
            revocation_version: number(draft.numbers.revocation)?,
        };
        let payload = serde_json::to_vec(&beacon)?;
        Ok(authority::envelope(PayloadKind::Beacon, payload, &self.beacon).to_bytes())
    }

    /// The signed envelope of how far the audit log has come; `epoch` is the director's in the newest root.
    ///
    /// # Errors
    /// When a number or a time cannot be written.
    pub(crate) fn checkpoint(&self, head: &Head, epoch: u64, unix_seconds: u64) -> anyhow::Result<Vec<u8>> {
        let checkpoint = Checkpoint {
            spec: U53::from(1),
            fleet: self.fleet.to_string(),
            issued: time(unix_seconds)?,
            role_epoch: number(epoch)?,
            seq: number(head.seq)?,
            sha256: head.sha256,
        };
        let payload = serde_json::to_vec(&checkpoint)?;
        Ok(authority::envelope(PayloadKind::Checkpoint, payload, &self.director).to_bytes())
    }
}

impl std::fmt::Debug for Pen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pen").finish_non_exhaustive()
    }
}

fn number(n: u64) -> Result<U53, Fault> {
    U53::try_from(n).map_err(|e| Fault::new("a counter is too large").because(e))
}

fn time(unix_seconds: u64) -> Result<Time, Fault> {
    let moment = i64::try_from(unix_seconds).ok().and_then(Time::from_unix);
    moment.ok_or_else(|| Fault::new("the system clock is not set").remedy("set this machine's clock"))
}
