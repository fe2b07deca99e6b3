//! Keys of a fleet, and what they sign: assignments and small whole bundles.
//!
//! Everything here is real and is believed by `trust` itself; only the keys are made from a number, so
//! that the same world signs the same bytes.

use agent_core::{Found, Ledger};
use bridge_core::{AssignmentDraft, BeaconDraft, CommandDraft, Numbers};
use ed25519_dalek::{Signer as _, SigningKey};
use protocol::{DeviceId, StreamName};
use std::collections::{BTreeMap, BTreeSet};
use trust::{
    Assignment, Beacon, Budget, Command, Digest, Envelope, FileRole, GoldenTerms, Intent, Key, ListedFile, Manifest,
    PayloadKind, Policy, Resource, Revocation, Role, RoleKeys, Root, Runtime, Scheme, Scope, Signature, Statement,
    StreamAssignment, Time, Trial, Trust, U53, Verified, key_id, pae,
};

/// The fleet of every test.
pub const FLEET: &str = "world";

/// What the first root says.
pub const FIRST: Numbers = Numbers { root: 1, revocation: 0, director: 1, beacon: 1 };

/// The keys of the fleet.
#[derive(Debug)]
pub struct Signer {
    keys: BTreeMap<Role, SigningKey>,
    root: Verified<Root>,
    root_bytes: Vec<u8>,
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
        let root_bytes = envelope(PayloadKind::Root, payload, &keys[&Role::Root]);
        let root = trust::verify_root(FLEET, &root_bytes).expect("the root of the tests holds");
        Self { keys, root, root_bytes }
    }

    /// What a device believes before it heard anything.
    ///
    /// # Panics
    /// When `trust` refuses the root.
    pub fn trust(&self, device: &DeviceId, ledger: &Ledger, documents: &BTreeMap<Digest, Vec<u8>>) -> Trust {
        let device =
            trust::Device { id: device.to_string(), class: "generic".into(), certificate: None, built: moment(0) };
        let Some(counters) = &ledger.trust else {
            return Trust::first(device, FLEET, &self.root_bytes).expect("the root of the tests holds");
        };
        let root = documents.get(&counters.root_digest()).unwrap_or(&self.root_bytes);
        let revocation = counters.revocation_digest().and_then(|digest| documents.get(&digest));
        Trust::open(device, FLEET, counters.clone(), root, revocation.map(Vec::as_slice))
            .expect("what was believed is on the disk")
    }

    /// The root of trust.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// The signed root.
    pub fn root_bytes(&self) -> &[u8] {
        &self.root_bytes
    }

    /// The root after `last`, signed by the old and the new, after `edit`.
    ///
    /// # Panics
    /// When `last` is no root.
    pub fn root_after(&self, last: &[u8], edit: impl FnOnce(&mut Root)) -> Vec<u8> {
        let last = Envelope::parse(PayloadKind::Root, last, trust::MAX_ROOT_BYTES).expect("an envelope").payload;
        let mut root: Root = serde_json::from_slice(&last).expect("a root");
        root.version = number(root.version.get() + 1);
        root.prev_sha256 = Some(Digest::of(&last));
        edit(&mut root);
        let payload = serde_json::to_vec(&root).expect("plain data");
        envelope(PayloadKind::Root, payload, &self.keys[&Role::Root])
    }

    /// A revocation of that version, after `edit`.
    pub fn revocation(&self, version: u64, edit: impl FnOnce(&mut Revocation)) -> Vec<u8> {
        let mut revocation = Revocation {
            spec: number(1),
            fleet: FLEET.into(),
            issued: moment(1_700_000_000),
            role_epoch: number(1),
            version: number(version),
            keys: Vec::new(),
            bundles: Vec::new(),
            devices: Vec::new(),
            floors: BTreeMap::new(),
        };
        edit(&mut revocation);
        let payload = serde_json::to_vec(&revocation).expect("plain data");
        envelope(PayloadKind::Revocation, payload, &self.keys[&Role::Revocation])
    }

    /// A beacon as land drafted it, at a moment.
    pub fn beacon(&self, draft: &BeaconDraft, unix: u64) -> Vec<u8> {
        let now = moment(i64::try_from(unix).expect("a moment of the tests"));
        let beacon = Beacon {
            spec: number(1),
            fleet: FLEET.into(),
            issued: now,
            role_epoch: number(draft.numbers.beacon),
            seq: number(draft.seq),
            now,
            nonce: draft.nonce.clone(),
            root_version: number(draft.numbers.root),
            revocation_version: number(draft.numbers.revocation),
        };
        let payload = serde_json::to_vec(&beacon).expect("plain data");
        envelope(PayloadKind::Beacon, payload, &self.keys[&Role::Beacon])
    }

    /// A command as land drafted it, for what may be nothing that is known.
    ///
    /// # Panics
    /// When a number is above 2^53 - 1.
    pub fn command(&self, draft: &CommandDraft, request: serde_json::Value) -> Vec<u8> {
        let at = |millis: u64| moment(i64::try_from(millis / 1_000).expect("a moment of the tests"));
        let command = Command {
            spec: number(1),
            fleet: FLEET.into(),
            issued: at(draft.issued),
            device_id: draft.device.to_string(),
            role_epoch: number(draft.numbers.director),
            nonce: draft.nonce.clone(),
            heard: at(draft.heard),
            seq: number(draft.seq),
            deadline: at(draft.deadline),
            request,
        };
        let payload = serde_json::to_vec(&command).expect("plain data");
        envelope(PayloadKind::Command, payload, &self.keys[&Role::Director])
    }

    /// An assignment as land drafted it.
    pub fn drafted(&self, draft: &AssignmentDraft) -> Vec<u8> {
        self.signed_assignment(&draft.device, draft.seq, draft.numbers, draft.issued / 1_000, &draft.streams)
    }

    /// An assignment for `device` under the first root, signed by the director.
    ///
    /// # Panics
    /// When a number is above 2^53 - 1.
    pub fn assignment(&self, device: &DeviceId, seq: u64, streams: &[StreamAssignment]) -> Vec<u8> {
        self.signed_assignment(device, seq, FIRST, 1_700_000_000, streams)
    }

    fn signed_assignment(
        &self,
        device: &DeviceId,
        seq: u64,
        numbers: Numbers,
        issued: u64,
        streams: &[StreamAssignment],
    ) -> Vec<u8> {
        let assignment = Assignment {
            spec: number(1),
            fleet: FLEET.into(),
            issued: moment(i64::try_from(issued).expect("a moment of the tests")),
            device_id: device.to_string(),
            role_epoch: number(numbers.director),
            seq: number(seq),
            root_version: number(numbers.root),
            min_revocation: number(numbers.revocation),
            expires: moment(4_000_000_000),
            streams: streams.to_vec(),
        };
        let payload = serde_json::to_vec(&assignment).expect("plain data");
        envelope(PayloadKind::Assignment, payload, &self.keys[&Role::Director])
    }

    /// A bundle of `stream`, signed by the publisher; `edit` changes its manifest before it is signed.
    ///
    /// # Panics
    /// When `stream` is no name.
    pub fn bundle(&self, stream: &str, release: u64, edit: impl FnOnce(&mut Manifest)) -> Bundle {
        self.bundle_with(stream, release, edit, [])
    }

    /// The same with more files.
    ///
    /// # Panics
    /// When `stream` is no name.
    pub fn bundle_with(
        &self,
        stream: &str,
        release: u64,
        edit: impl FnOnce(&mut Manifest),
        more: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Bundle {
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
        for (name, bytes) in more {
            manifest.files.push(ListedFile { name: name.clone(), role: FileRole::ModelData });
            files.insert(name, bytes);
        }
        files.insert("manifest.json".into(), serde_json::to_vec(&manifest).expect("plain data"));
        let version = manifest.version;
        let payload = Statement::payload(&format!("{stream}-{version}"), resources(&files));
        Bundle {
            stream: stream.parse().expect("tests use good names"),
            version,
            release,
            digest: Digest::of(&payload),
            envelope: envelope(PayloadKind::Bundle, payload, &self.keys[&Role::Publisher]),
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
    /// What a device finds of it on its disk when it has all of it.
    pub fn found(&self) -> Box<Found> {
        Box::new(Found {
            envelope: self.envelope.clone(),
            manifest: self.files["manifest.json"].clone(),
            files: resources(&self.files),
            room: 1 << 30,
        })
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
            ram_mb: 0,
            pushed: 0,
        }
    }
}

/// The terms of a trial.
pub fn trial(min_answers: u64, max_errors: u64, window_s: u64) -> Trial {
    Trial {
        min_answers: number(min_answers),
        max_errors: number(max_errors),
        window_s: number(window_s),
        ..Trial::default()
    }
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
