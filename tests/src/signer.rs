//! Keys of a fleet, and what they sign: assignments and small whole bundles.
//!
//! Everything here is real and is believed by `trust` itself; only the keys are made from a number, so
//! that the same world signs the same bytes.

use ed25519_dalek::{Signer as _, SigningKey};
use protocol::{DeviceId, StreamName};
use std::collections::{BTreeMap, BTreeSet};
use trust::{
    Assignment, Budget, Digest, Envelope, FileRole, GoldenTerms, Intent, Key, ListedFile, Manifest, PayloadKind,
    Policy, Refusal, Resource, Role, RoleKeys, Root, Runtime, Scheme, Scope, Signature, Statement, StreamAssignment,
    Time, Trial, U53, Verified, key_id, pae,
};

/// The fleet of every test.
pub const FLEET: &str = "world";

/// The keys of the fleet.
#[derive(Debug)]
pub struct Signer {
    director: SigningKey,
    publisher: SigningKey,
    root: Verified<Root>,
}

/// A bundle as its publisher made it.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The stream.
    pub stream: StreamName,
    /// The version as people write it.
    pub version: String,
    /// The release number.
    pub release: u64,
    /// The digest of its statement.
    pub digest: Digest,
    /// The signed envelope.
    pub envelope: Vec<u8>,
    /// Its files by name; each is a single chunk.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The size of all files together.
    pub total_size: u64,
}

/// A whole number of a document.
///
/// # Panics
/// Above 2^53 - 1.
pub fn number(n: u64) -> U53 {
    U53::try_from(n).expect("tests count below 2^53")
}

fn moment(unix: i64) -> Time {
    Time::from_unix(unix).expect("a year below 10000")
}

fn envelope(kind: PayloadKind, payload: Vec<u8>, key: &SigningKey) -> Vec<u8> {
    let payload_type = kind.media_type().to_owned();
    let bytes = key.sign(&pae(&payload_type, &payload)).to_bytes().to_vec();
    let signatures = vec![Signature { key_id: key_id(key.verifying_key().as_bytes()), bytes }];
    Envelope { payload_type, payload, signatures }.to_bytes()
}

impl Signer {
    /// The fleet whose keys come from `seed`.
    ///
    /// # Panics
    /// When `trust` does not believe the root made here.
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let keys: BTreeMap<Role, SigningKey> = Role::ALL
            .map(|role| {
                let mut secret = [0; 32];
                rng.fill(&mut secret);
                (role, SigningKey::from_bytes(&secret))
            })
            .into();
        let ids = |role: Role| BTreeSet::from([key_id(keys[&role].verifying_key().as_bytes())]);
        let held = |role: &Role| RoleKeys { keyids: ids(*role), threshold: number(1), role_epoch: number(1) };
        let root = Root {
            spec: number(1),
            fleet: FLEET.into(),
            issued: moment(1_700_000_000),
            version: number(1),
            prev_sha256: None,
            expires: moment(4_000_000_000),
            keys: keys
                .values()
                .map(|k| k.verifying_key().to_bytes())
                .map(|public| (key_id(&public), Key { scheme: Scheme::Ed25519, public }))
                .collect(),
            roles: Role::ALL.iter().map(|role| (role.to_string(), held(role))).collect(),
            publisher_scopes: vec![Scope { keyids: ids(Role::Publisher), streams: vec!["*".into()] }],
            policy: Policy::default(),
            clock_reset: None,
        };
        let payload = serde_json::to_vec(&root).expect("plain data");
        let bytes = envelope(PayloadKind::Root, payload, &keys[&Role::Root]);
        let root = trust::verify_root(FLEET, &bytes).expect("the root of the tests holds");
        let key = |role: Role| keys[&role].clone();
        Self { director: key(Role::Director), publisher: key(Role::Publisher), root }
    }

    /// The root of trust.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// An assignment for `device`, signed by the director.
    ///
    /// # Panics
    /// When a number is above 2^53 - 1.
    pub fn assignment(&self, device: &DeviceId, seq: u64, streams: &[StreamAssignment]) -> Vec<u8> {
        let assignment = Assignment {
            spec: number(1),
            fleet: FLEET.into(),
            issued: moment(1_700_000_000),
            device_id: device.to_string(),
            role_epoch: number(1),
            seq: number(seq),
            root_version: number(1),
            min_revocation: number(0),
            expires: moment(4_000_000_000),
            streams: streams.to_vec(),
        };
        let payload = serde_json::to_vec(&assignment).expect("plain data");
        envelope(PayloadKind::Assignment, payload, &self.director)
    }

    /// The assignment as a device believes it.
    ///
    /// # Panics
    /// When `trust` refuses it.
    pub fn assigned(&self, device: &DeviceId, seq: u64, streams: &[StreamAssignment]) -> Verified<Assignment> {
        let bytes = self.assignment(device, seq, streams);
        trust::verify_assignment(&self.root, device.as_str(), &bytes).expect("the tests' assignments hold")
    }

    /// A bundle of `stream`, signed by the publisher; `edit` changes its manifest before it is signed.
    ///
    /// # Panics
    /// When `stream` is no name.
    pub fn bundle(&self, stream: &str, release: u64, edit: impl FnOnce(&mut Manifest)) -> Bundle {
        let mut manifest = manifest(stream, release);
        edit(&mut manifest);
        let content = |what: &str| format!("{what} of {stream} {release}").into_bytes();
        let mut files: BTreeMap<String, Vec<u8>> = [
            ("chunks.bin", content("index")),
            ("golden.npz", content("vectors")),
            // The same in every bundle: chunks are shared.
            ("labels.txt", b"yes\nno\n".to_vec()),
            ("model.onnx", content("weights")),
        ]
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .into();
        files.insert("manifest.json".into(), serde_json::to_vec(&manifest).expect("plain data"));
        let version = manifest.version;
        let payload = Statement::payload(&format!("{stream}-{version}"), resources(&files));
        Bundle {
            stream: stream.parse().expect("tests use good names"),
            version,
            release,
            digest: Digest::of(&payload),
            envelope: envelope(PayloadKind::Bundle, payload, &self.publisher),
            total_size: files.values().map(|f| f.len() as u64).sum(),
            files,
        }
    }
}

/// The files of a folder as a statement lists them.
pub fn resources(files: &BTreeMap<String, Vec<u8>>) -> Vec<Resource> {
    files
        .iter()
        .map(|(name, bytes)| Resource::new(name.clone(), Digest::of(bytes), number(bytes.len() as u64)))
        .collect()
}

impl Bundle {
    /// What a device makes of it when it has all of it.
    ///
    /// # Errors
    /// The refusal of `trust`.
    pub fn verify(&self, root: &Verified<Root>) -> Result<Verified<Manifest>, Refusal> {
        let statement = trust::verify_statement(root, &self.envelope)?;
        statement.check_files(&resources(&self.files))?;
        trust::verify_manifest(root, &statement, &self.files["manifest.json"])
    }

    /// The order to run it, by `rollout`.
    pub fn order(&self, intent: Intent, rollout: u64, trial: Trial) -> StreamAssignment {
        StreamAssignment {
            stream: self.stream.to_string(),
            intent,
            release: number(self.release),
            statement_sha256: self.digest,
            total_size: number(self.total_size),
            rollout_id: number(rollout),
            trial,
            from_release: None,
            not_before: None,
            deadline: None,
        }
    }

    /// The release as land knows it.
    pub fn released(&self) -> bridge_core::Release {
        bridge_core::Release {
            stream: self.stream.clone(),
            version: self.version.clone(),
            release: self.release,
            bundle: self.digest,
            total_size: self.total_size,
            pushed: 0,
        }
    }
}

/// The terms of a trial.
pub fn trial(min_answers: u64, max_errors: u64, window_s: u64) -> Trial {
    Trial { min_answers: number(min_answers), max_errors: number(max_errors), window_s: number(window_s) }
}

fn manifest(stream: &str, release: u64) -> Manifest {
    let listed = |(name, role): (&str, FileRole)| ListedFile { name: name.into(), role };
    Manifest {
        spec: number(1),
        stream: stream.into(),
        version: format!("1.{release}.0"),
        release: number(release),
        security_floor: number(0),
        hardware: Vec::new(),
        runtime: Runtime {
            opset: number(17),
            ops_used: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            batch: None,
        },
        min_agent: "0.1.0".into(),
        files: [
            ("chunks.bin", FileRole::ChunkIndex),
            ("golden.npz", FileRole::Golden),
            ("labels.txt", FileRole::Labels),
            ("model.onnx", FileRole::Model),
        ]
        .map(listed)
        .to_vec(),
        resources_budget: Budget { ram_mb: number(16), disk_bytes: number(1_000) },
        golden: GoldenTerms { tolerance_abs: 1e-4, tolerance_rel: 1e-4, from_reference: true },
        min_root_version: None,
        expires: None,
    }
}
