//! A fleet's authority: its first root of trust, the keys of its roles, its certificates; and the
//! signing of documents.
//!
//! Decides who holds which role in a new fleet. What a device believes of it is decided by `trust`,
//! which cannot sign; every root made here is checked there before it is written.

use crate::bundle::Staging;
use crate::ceremony::{self, Changes, Draft, Standing};
use crate::fault::Fault;
use crate::keyfile;
use crate::service;
use anyhow::Context;
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use protocol::FleetId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trust::{
    Envelope, Key, MAX_ROOT_BYTES, PayloadKind, Policy, Role, RoleKeys, Root, Scheme, Scope, Signature, Time, U53,
    Verified,
};

const DAY: u64 = 24 * 60 * 60;
/// How long the bridge's certificate holds.
const SERVER_DAYS: u64 = 2 * 365;
/// Every bridge answers on its own machine.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

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

/// Makes `DIR/root.json`, `DIR/keys/<role>.pem`, `DIR/tls/`, `DIR/bridge.toml` and `DIR/agent.toml`: all of it or nothing.
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
    write_certificates(new, &staging)?;
    let write = |name: &str, text: &[u8]| keyfile::write_new(&staging.path().join(name), text, 0o644);
    write("root.json", &bytes)?;
    let bridge = service::starter(&new.fleet, "data", service::default_listen(), service::default_broker_listen());
    write("bridge.toml", bridge.as_bytes())?;
    write("agent.toml", first_agent(&new.fleet).as_bytes())?;
    staging.commit()?;
    let keys = secrets.keys().map(|role| (*role, dir.join("keys").join(format!("{role}.pem")))).collect();
    Ok(Authority { root, standing, keys })
}

/// A configuration for a first agent, on the bridge's own machine.
fn first_agent(fleet: &FleetId) -> String {
    let broker = service::default_broker_listen();
    format!(
        "# For an agent on the bridge's own machine; elsewhere copy root.json and tls/ca.pem beside it.\n\
         # Every key is explained in docs/operations.md.\n\
         fleet = \"{fleet}\"\ndevice = \"edge-1\"\nbroker = \"mqtts://{broker}\"\nca = \"tls/ca.pem\"\nroot = \"root.json\"\n\
         state = \"edge-1\"\n"
    )
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

/// `tls/`: the fleet's certificate authority, and the bridge's certificate.
fn write_certificates(new: &NewFleet, staging: &Staging) -> anyhow::Result<()> {
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("no key for the certificate authority")?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name = named("petrel CA", &new.fleet);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    valid_for(&mut ca, new.now, new.days.into());
    let ca_certificate = ca.self_signed(&ca_key).context("the certificate authority cannot be made")?;

    let hosts: BTreeSet<String> = LOCAL_HOSTS.map(str::to_owned).into_iter().chain(new.hosts.iter().cloned()).collect();
    let bridge_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("no key for the bridge")?;
    let no_host = |e| Fault::new("a host of the bridge is no name and no address").because(e);
    let mut bridge = CertificateParams::new(hosts.into_iter().collect::<Vec<_>>()).map_err(no_host)?;
    bridge.distinguished_name = named("petrel-bridge", &new.fleet);
    bridge.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    bridge.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    bridge.use_authority_key_identifier_extension = true;
    valid_for(&mut bridge, new.now, SERVER_DAYS.min(new.days.into()));
    let issuer = Issuer::from_params(&ca, &ca_key);
    let bridge_certificate =
        bridge.signed_by(&bridge_key, &issuer).context("the bridge's certificate cannot be made")?;

    let secret = |key: &KeyPair| Zeroizing::new(key.serialize_pem());
    let write =
        |name: &str, pem: &str, mode| keyfile::write_new(&staging.path().join("tls").join(name), pem.as_bytes(), mode);
    staging.folder("tls")?;
    write("ca.pem", &ca_certificate.pem(), 0o644)?;
    write("ca.key", &secret(&ca_key), 0o600)?;
    write("bridge.pem", &bridge_certificate.pem(), 0o644)?;
    write("bridge.key", &secret(&bridge_key), 0o600)
}

fn named(name: &str, fleet: &FleetId) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::OrganizationName, fleet.as_str());
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From the day before, because clocks differ.
fn valid_for(certificate: &mut CertificateParams, now: u64, days: u64) {
    let at = |seconds: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    certificate.not_before = at(now.saturating_sub(DAY));
    certificate.not_after = at(now + days * DAY);
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
        for secret in ["tls/ca.key", "tls/bridge.key"] {
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

    #[test]
    fn the_bridge_is_believed_by_its_own_fleet_only() {
        use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier};
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
        let parent = tempfile::tempdir().unwrap();
        let dirs = ["a", "b"].map(|name| parent.path().join(name));
        for dir in &dirs {
            init(&fleet(vec![]), dir).unwrap();
        }
        let certificate = |path: &str, dir: &Path| CertificateDer::from_pem_file(dir.join("tls").join(path)).unwrap();
        let believed = |ca: &Path, name: &'static str, seconds: u64| {
            let mut store = rustls::RootCertStore::empty();
            store.add(certificate("ca.pem", ca)).unwrap();
            let provider = rustls::crypto::ring::default_provider().into();
            let verifier =
                WebPkiServerVerifier::builder_with_provider(std::sync::Arc::new(store), provider).build().unwrap();
            let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let name = ServerName::try_from(name).unwrap();
            verifier.verify_server_cert(&certificate("bridge.pem", &dirs[0]), &[], &name, &[], at).is_ok()
        };
        for name in ["localhost", "127.0.0.1", "::1", "bridge.example"] {
            assert!(believed(&dirs[0], name, NOW), "{name}");
        }
        assert!(!believed(&dirs[1], "localhost", NOW), "another fleet");
        assert!(!believed(&dirs[0], "elsewhere.example", NOW), "another host");
        assert!(!believed(&dirs[0], "localhost", NOW - 2 * DAY), "before its time");
        assert!(!believed(&dirs[0], "localhost", NOW + 31 * DAY), "after its time");
    }
}
