//! A fleet's authority: its first root of trust and the keys of its roles; and the signing of documents.
//!
//! Decides who holds which role in a new fleet. What a device believes of it is decided by `trust`,
//! which cannot sign; every root made here is checked there before it is written.

use crate::bundle::Staging;
use crate::ceremony::{self, Changes, Draft, Standing};
use crate::certificates;
use crate::fault::Fault;
use crate::keyfile;
use crate::service;
use anyhow::Context;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use protocol::FleetId;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use trust::{
    Envelope, Key, MAX_ROOT_BYTES, PayloadKind, Policy, Role, RoleKeys, Root, Scheme, Scope, Signature, Time, U53,
    Verified,
};

const DAY: u64 = 24 * 60 * 60;

/// What a new fleet is made of.
#[derive(Debug)]
pub(crate) struct NewFleet {
    /// Its name.
    pub(crate) fleet: FleetId,
    /// Who holds which role; for a role without anybody a key is made.
    pub(crate) holders: Vec<(Role, VerifyingKey)>,
    /// Thresholds, scopes and policy, where they are not what a new fleet has.
    pub(crate) changes: Changes,
    /// Names and addresses of the bridge, besides those of its own machine.
    pub(crate) hosts: Vec<String>,
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// How long the root and the certificate authority hold.
    pub(crate) days: u32,
}

/// What was made.
#[derive(Debug)]
pub(crate) struct Authority {
    /// The root: complete, or waiting for holders of the root role whose keys are elsewhere.
    pub(crate) root: Root,
    /// What devices would say of it.
    pub(crate) standing: Standing<Root>,
    /// The secret keys that were made, by role.
    pub(crate) keys: BTreeMap<&'static str, PathBuf>,
}

/// Makes `DIR/root.json`, `DIR/keys/<role>.pem`, `DIR/tls/` and `DIR/bridge.toml`: all of it or nothing.
///
/// # Errors
/// When `dir` holds anything already, a host is no name, or a file cannot be written.
pub(crate) fn init(new: &NewFleet, dir: &Path) -> anyhow::Result<Authority> {
    let staging = Staging::beside(dir)?;
    let mut secrets: BTreeMap<&'static str, SigningKey> = BTreeMap::new();
    let mut holders: BTreeMap<Role, Vec<VerifyingKey>> = BTreeMap::new();
    for role in Role::ALL {
        let named: Vec<_> = new.holders.iter().filter(|(held, _)| *held == role).map(|(_, key)| *key).collect();
        if !named.is_empty() {
            holders.insert(role, named);
            continue;
        }
        let key = keyfile::generate()?;
        holders.insert(role, vec![key.verifying_key()]);
        secrets.insert(role.as_str(), key);
    }
    let mut root = first_root(new, &holders)?;
    ceremony::apply(&mut root, &new.changes, new.now)?;
    let payload = serde_json::to_vec(&root).context("the root cannot be written as JSON")?;
    let mut draft = Draft::new(PayloadKind::Root, payload);
    if let Some(key) = secrets.get(Role::Root.as_str()) {
        draft.sign(key, Role::Root, &[&root])?;
    }
    let standing = ceremony::root_standing(None, &draft)?;
    let bytes = draft.to_bytes();

    for (role, key) in &secrets {
        keyfile::write_pair(&staging.path().join("keys"), role, key, None)?;
    }
    staging.folder("tls")?;
    certificates::write_first(&new.fleet, &new.hosts, new.now, new.days.into(), &staging.path().join("tls"))?;
    let write = |name: &str, text: &[u8]| keyfile::write_new(&staging.path().join(name), text, 0o644);
    write("root.json", &bytes)?;
    let bridge = service::starter(&new.fleet, "data", &service::Doorsteps::of(new.hosts.first()));
    write("bridge.toml", bridge.as_bytes())?;
    staging.commit()?;
    let keys = secrets.keys().map(|role| (*role, dir.join("keys").join(format!("{role}.pem")))).collect();
    Ok(Authority { root, standing, keys })
}

/// An envelope that `key` alone signed.
pub(crate) fn envelope(kind: PayloadKind, payload: Vec<u8>, key: &SigningKey) -> Envelope {
    let signature = signature(kind, &payload, key);
    Envelope { payload_type: kind.media_type().to_owned(), payload, signatures: vec![signature] }
}

/// The signature of `key` on a document of `kind`.
pub(crate) fn signature(kind: PayloadKind, payload: &[u8], key: &SigningKey) -> Signature {
    let signed = trust::pae(kind.media_type(), payload);
    Signature { key_id: keyfile::id(&key.verifying_key()), bytes: key.sign(&signed).to_bytes().to_vec() }
}

/// Reads and verifies the root that a person points to, for the fleet that it names itself.
///
/// # Errors
/// When it cannot be read, or a refusal.
pub(crate) fn read_root(path: &Path) -> anyhow::Result<Verified<Root>> {
    let bytes = read_document(path)?;
    let verified = fleet_of(&bytes).and_then(|fleet| trust::verify_root(&fleet, &bytes));
    let refused = |refusal| {
        Fault::new(format!("the root {} is refused", path.display()))
            .because(refusal)
            .remedy("give the root.json of `petrel root init`, from a source that you trust")
    };
    Ok(verified.map_err(refused)?)
}

/// A document that a person points to, of at most the size that one may have.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read_document(path: &Path) -> anyhow::Result<Vec<u8>> {
    let unreadable = |e: std::io::Error| {
        Fault::new(format!("cannot read {}", path.display()))
            .because(e)
            .remedy("give a document that `petrel root` or `petrel revoke` made")
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_ROOT_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// The fleet that a root says it is for; nothing of it is verified.
fn fleet_of(root: &[u8]) -> Result<String, trust::Refusal> {
    #[derive(serde::Deserialize)]
    struct Named {
        fleet: String,
    }
    let envelope = Envelope::parse(PayloadKind::Root, root, MAX_ROOT_BYTES)?;
    let named: Result<Named, _> = serde_json::from_slice(&envelope.payload);
    Ok(named.map_err(|e| trust::Refusal::new(trust::Code::Parse, format!("the root names no fleet: {e}")))?.fleet)
}

/// Version 1 of a root: each role with its keys, threshold 1, publishers for every stream.
fn first_root(new: &NewFleet, holders: &BTreeMap<Role, Vec<VerifyingKey>>) -> anyhow::Result<Root> {
    let after = |days: u64| i64::try_from(new.now + days * DAY).ok().and_then(Time::from_unix);
    let unwritable = || Fault::new("the root cannot be dated").because("its time is outside of the years 1970 to 9999");
    let one = U53::from(1);
    let ids = |keys: &[VerifyingKey]| keys.iter().map(keyfile::id).collect::<BTreeSet<_>>();
    let key = |key: &VerifyingKey| (keyfile::id(key), Key { scheme: Scheme::Ed25519, public: key.to_bytes() });
    let role = |(role, keys): (&Role, &Vec<VerifyingKey>)| {
        (role.as_str().to_owned(), RoleKeys { keyids: ids(keys), threshold: one, role_epoch: one })
    };
    let publishers = holders.get(&Role::Publisher).map(|keys| ids(keys)).unwrap_or_default();
    Ok(Root {
        spec: one,
        fleet: new.fleet.to_string(),
        issued: after(0).ok_or_else(unwritable)?,
        version: one,
        prev_sha256: None,
        expires: after(new.days.into()).ok_or_else(unwritable)?,
        keys: holders.values().flatten().map(key).collect(),
        roles: holders.iter().map(role).collect(),
        publisher_scopes: vec![Scope { keyids: publishers, streams: vec!["*".into()] }],
        policy: Policy::default(),
        clock_reset: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const NOW: u64 = 1_800_000_000;

    fn fleet(holders: Vec<(Role, VerifyingKey)>) -> NewFleet {
        NewFleet {
            fleet: "plant-3".parse().unwrap(),
            holders,
            changes: Changes::default(),
            hosts: vec!["bridge.example".into()],
            now: NOW,
            days: 30,
        }
    }

    #[test]
    fn a_new_fleet_has_a_root_that_holds() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("fleet");
        let made = init(&fleet(vec![]), &dir).unwrap();
        assert_eq!(*read_root(&dir.join("root.json")).unwrap(), made.root);
        assert_eq!(made.root.expires.unix(), (NOW + 30 * DAY) as i64);
        assert_eq!(made.keys.len(), Role::ALL.len());
        for (role, path) in &made.keys {
            let id =
                keyfile::id(&keyfile::read_private(path, &keyfile::Passphrase::default()).unwrap().verifying_key());
            assert_eq!(made.root.roles[*role].keyids, BTreeSet::from([id]), "{role}");
        }
        for secret in ["tls/ca.key", "tls/devices.key", "tls/bridge.key", "tls/petrel-bridge.key"] {
            assert_eq!(dir.join(secret).metadata().unwrap().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_publisher_that_is_given_keeps_its_key() {
        let parent = tempfile::tempdir().unwrap();
        let key = keyfile::generate().unwrap().verifying_key();
        let made = init(&fleet(vec![(Role::Publisher, key)]), &parent.path().join("fleet")).unwrap();
        assert!(!made.keys.contains_key("publisher"));
        assert!(made.root.in_scope(&keyfile::id(&key), "any-stream"));
    }

    #[test]
    fn nothing_is_written_over_and_nothing_is_left_behind() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("fleet");
        std::fs::create_dir_all(dir.join("keys")).unwrap();
        assert!(init(&fleet(vec![]), &dir).is_err());
        let bad = NewFleet { hosts: vec!["höst".into()], ..fleet(vec![]) };
        assert!(init(&bad, &parent.path().join("other")).is_err());
        let left: Vec<_> = std::fs::read_dir(parent.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["fleet"]);
    }
}
