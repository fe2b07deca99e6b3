//! The root of trust: which keys hold which role in a fleet.

use crate::dsse::{Envelope, PayloadKind, key_id};
use crate::strict::{self, Time, U53};
use crate::{Code, Digest, MAX_ROOT_BYTES, Refusal, Verified};
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The roles that keys hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Signs the next root.
    Root,
    /// Signs bundles.
    Publisher,
    /// Takes keys and bundles away.
    Revocation,
    /// Assigns bundles to devices.
    Director,
    /// Tells the time.
    Beacon,
    /// Goes below a floor.
    Breakglass,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 6] =
        [Role::Root, Role::Publisher, Role::Revocation, Role::Director, Role::Beacon, Role::Breakglass];

    /// The role's name in documents and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::Publisher => "publisher",
            Role::Revocation => "revocation",
            Role::Director => "director",
            Role::Beacon => "beacon",
            Role::Breakglass => "breakglass",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The root document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Version of the form: 1.
    pub spec: U53,
    /// The fleet that it speaks for.
    pub fleet: String,
    /// When it was made.
    pub issued: Time,
    /// 1, then one more each time.
    pub version: U53,
    /// Digest of the previous root's payload; absent in version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_sha256: Option<Digest>,
    /// After this a device changes nothing any more (it goes on inferring).
    pub expires: Time,
    /// Public keys by id.
    pub keys: BTreeMap<String, Key>,
    /// Keys and thresholds by role, all six.
    pub roles: BTreeMap<String, RoleKeys>,
    /// Which publishers may sign which streams.
    pub publisher_scopes: Vec<Scope>,
    /// What the fleet allows.
    pub policy: Policy,
    /// When it grows, devices forget the time that they were told and begin again with this root's:
    /// the way back from a stolen beacon key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_reset: Option<U53>,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The algorithm.
    pub scheme: Scheme,
    /// 32 bytes, hex.
    #[serde(with = "hex")]
    pub public: [u8; 32],
}

/// Signature algorithms of documents from land.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Ed25519, verified strictly.
    Ed25519,
}

/// Who holds a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKeys {
    /// Key ids.
    pub keyids: BTreeSet<String>,
    /// How many of them must sign.
    pub threshold: U53,
    /// Grows when the role is renewed; counters of the role begin again.
    pub role_epoch: U53,
}

/// What some publishers may sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Key ids.
    pub keyids: BTreeSet<String>,
    /// Stream names, with one `*` at the end at most.
    pub streams: Vec<String>,
}

/// What the fleet allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The director may send a device back to an older release above its floor.
    pub director_may_rollback: bool,
    /// A person beside a device may install a signed bundle without an assignment.
    pub sideload: bool,
    /// What a device does when too few signers of its active bundle are left unrevoked.
    pub on_active_revoked: OnRevoked,
    /// Nothing is installed unless the bridge answered in this boot.
    pub require_fresh_install: bool,
    /// A signed time that is further ahead of what a device knows is refused, in days.
    pub max_time_jump_days: U53,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            director_may_rollback: true,
            sideload: true,
            on_active_revoked: OnRevoked::Keep,
            require_fresh_install: false,
            max_time_jump_days: 730_u32.into(),
        }
    }
}

/// What a device does with an active bundle whose signers are revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRevoked {
    /// It goes on, and says so.
    Keep,
    /// The previous good release takes over.
    Fallback,
}

impl Root {
    /// The key of that id, if it holds the role. All keys were found strong when the root was read.
    pub(crate) fn role_key(&self, role: Role, id: &str) -> Result<Option<VerifyingKey>, Refusal> {
        let holds = self.role(role)?.keyids.contains(id);
        let Some(key) = self.keys.get(id).filter(|_| holds) else { return Ok(None) };
        VerifyingKey::from_bytes(&key.public).map(Some).map_err(|_| weak())
    }

    /// How many keys of a role must sign; a role that is not there can never be met.
    pub fn threshold(&self, role: Role) -> u64 {
        self.roles.get(role.as_str()).map_or(u64::MAX, |r| r.threshold.get())
    }

    /// The epoch of a role.
    pub fn role_epoch(&self, role: Role) -> u64 {
        self.epoch(role).get()
    }

    pub(crate) fn epoch(&self, role: Role) -> U53 {
        self.roles.get(role.as_str()).map_or(U53::default(), |r| r.role_epoch)
    }

    /// Whether the publisher `key` may sign for `stream`.
    pub fn in_scope(&self, key: &str, stream: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => stream.starts_with(prefix),
            None => stream == pattern,
        };
        self.publisher_scopes.iter().any(|s| s.keyids.contains(key) && s.streams.iter().any(matches))
    }

    /// Refuses a document that is not for this fleet, or of another epoch of the role that signed it.
    pub(crate) fn check_speaks_for(&self, what: &str, fleet: &str, role: Role, epoch: U53) -> Result<(), Refusal> {
        if fleet != self.fleet {
            return Err(Refusal::new(Code::Fleet, format!("the {what} is not for fleet `{}`", self.fleet)));
        }
        if epoch.get() != self.role_epoch(role) {
            let detail = format!(
                "the {what} is of epoch {epoch} of the role {role}, which is in epoch {}",
                self.role_epoch(role)
            );
            return Err(Refusal::new(Code::Replay, detail));
        }
        Ok(())
    }

    fn role(&self, role: Role) -> Result<&RoleKeys, Refusal> {
        self.roles.get(role.as_str()).ok_or_else(|| schema(format!("the role {role} is not there")))
    }

    fn check_schema(&self) -> Result<(), Refusal> {
        if self.keys.len() > 64 || self.publisher_scopes.len() > 256 {
            return Err(Refusal::new(Code::Limit, "the root has more than 64 keys or 256 scopes"));
        }
        for (id, key) in &self.keys {
            if key_id(&key.public) != *id {
                return Err(Refusal::new(Code::KeyId, format!("key id {} is not the hash of its key", clip(id))));
            }
            check_strong(&key.public)?;
        }
        if let Some(unknown) = self.roles.keys().find(|name| Role::ALL.iter().all(|r| r.as_str() != name.as_str())) {
            return Err(schema(format!("`{}` is no role", clip(unknown))));
        }
        for role in Role::ALL {
            let held = self.role(role)?;
            if held.keyids.iter().any(|id| !self.keys.contains_key(id)) {
                return Err(schema(format!("the role {role} names a key that is not there")));
            }
            if held.threshold.get() == 0 || held.threshold.get() > held.keyids.len() as u64 {
                return Err(schema(format!("threshold {} of {} keys for {role}", held.threshold, held.keyids.len())));
            }
        }
        if (self.version.get() == 1) != self.prev_sha256.is_none() || self.version.get() == 0 {
            return Err(schema("version 1 has no root before it, and every later one names it; there is no version 0"));
        }
        if self.issued > self.expires {
            return Err(schema("it expires before it was issued"));
        }
        if self.policy.max_time_jump_days.get() == 0 {
            return Err(schema("max_time_jump_days is 0: no signed time would ever be taken"));
        }
        let star_inside = |s: &String| s.is_empty() || s.trim_end_matches('*').contains('*') || s.ends_with("**");
        if self.publisher_scopes.iter().any(|s| s.streams.iter().any(star_inside)) {
            return Err(schema("a scope's pattern has one `*`, at its end"));
        }
        Ok(())
    }
}

/// Believes the first root of a device: signed by the threshold of its own root role.
///
/// # Errors
/// A refusal when the form, the fleet, a key or the signatures are wrong.
pub fn verify_root(fleet: &str, bytes: &[u8]) -> Result<Verified<Root>, Refusal> {
    let (envelope, root) = read_root(fleet, bytes)?;
    envelope.require(PayloadKind::Root, &root, Role::Root)?;
    Ok(Verified::new(root, &envelope.payload))
}

/// A root whose form, fleet and keys are right; nobody's signature on it is checked.
pub(crate) fn read_root(fleet: &str, bytes: &[u8]) -> Result<(Envelope, Root), Refusal> {
    let envelope = Envelope::parse(PayloadKind::Root, bytes, MAX_ROOT_BYTES)?;
    let root: Root = strict::parse_versioned("root", &envelope.payload)?;
    if root.fleet != fleet {
        let detail = format!("the root is for fleet `{}`, not for `{fleet}`", clip(&root.fleet));
        return Err(Refusal::new(Code::Fleet, detail));
    }
    root.check_schema()?;
    Ok((envelope, root))
}

fn weak() -> Refusal {
    Refusal::new(Code::KeyWeak, "a key of the root is weak or no point of the curve")
}

fn check_strong(public: &[u8; 32]) -> Result<(), Refusal> {
    let key = VerifyingKey::from_bytes(public).map_err(|_| weak())?;
    // The library keeps the bytes that it was given: only the point itself tells their canonical form.
    let canonical = key.to_edwards().compress();
    if key.is_weak() || canonical.as_bytes() != public { Err(weak()) } else { Ok(()) }
}

pub(crate) fn schema(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::RootSchema, detail)
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
