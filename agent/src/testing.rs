//! For this crate's tests: a fleet with one key, and signed bundles made of the example models.

use ed25519_dalek::{Signer, SigningKey};
use engine::{Data, Golden, Limits, Model, read_npy};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trust::{
    Assignment, Beacon, Budget, Digest, Envelope, FileRole, GoldenTerms, Intent, Key, ListedFile, Manifest,
    PayloadKind, Policy, Refusal, Resource, Revocation, RevokedBundle, Role, RoleKeys, Root, Runtime, Scheme, Scope,
    Severity, Signature, Statement, StreamAssignment, Time, Trial, Trust, U53, WhichBundle,
};

pub(crate) const FLEET: &str = "harbour";

/// A signed bundle in a folder of its own.
pub(crate) struct Fixture {
    pub(crate) trust: Arc<Trust>,
    pub(crate) digest: Digest,
    pub(crate) envelope: Vec<u8>,
    pub(crate) total_size: u64,
    dir: tempfile::TempDir,
}

pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models")
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn number(n: u64) -> U53 {
    n.try_into().unwrap()
}

fn sign(kind: PayloadKind, payload: Vec<u8>) -> Vec<u8> {
    let bytes = key().sign(&trust::pae(kind.media_type(), &payload)).to_bytes().to_vec();
    let key_id = trust::key_id(key().verifying_key().as_bytes());
    let signatures = vec![Signature { key_id, bytes }];
    Envelope { payload_type: kind.media_type().into(), payload, signatures }.to_bytes()
}

/// The root of the fleet, signed: one key holds every role.
pub(crate) fn root_bytes() -> Vec<u8> {
    sign(PayloadKind::Root, serde_json::to_vec(&first_root()).unwrap())
}

/// The root of a version, which says what the first one says.
pub(crate) fn later_root_bytes(version: u64) -> Vec<u8> {
    let mut bytes = root_bytes();
    for version in 2..=version {
        let before = trust::verify_root(FLEET, &bytes).unwrap().digest();
        let root = Root { version: number(version), prev_sha256: Some(before), ..first_root() };
        bytes = sign(PayloadKind::Root, serde_json::to_vec(&root).unwrap());
    }
    bytes
}

/// A revocation: who runs this bundle goes back to the release before it.
pub(crate) fn revocation_bytes(bundle: Digest) -> Vec<u8> {
    let bundle = WhichBundle::StatementSha256(bundle);
    let revocation = Revocation {
        spec: number(1),
        fleet: FLEET.into(),
        issued: Time::from_unix(0).unwrap(),
        role_epoch: number(1),
        version: number(1),
        keys: Vec::new(),
        bundles: vec![RevokedBundle { bundle, severity: Severity::Fallback, reason: "wrong labels".into() }],
        devices: Vec::new(),
        floors: BTreeMap::new(),
    };
    sign(PayloadKind::Revocation, serde_json::to_vec(&revocation).unwrap())
}

/// A beacon that answers a nonce.
pub(crate) fn beacon_bytes(nonce: &str) -> Vec<u8> {
    let beacon = Beacon {
        spec: number(1),
        fleet: FLEET.into(),
        issued: Time::from_unix(0).unwrap(),
        role_epoch: number(1),
        seq: number(1),
        now: Time::from_unix(60).unwrap(),
        nonce: Some(nonce.into()),
        root_version: number(1),
        revocation_version: number(0),
    };
    sign(PayloadKind::Beacon, serde_json::to_vec(&beacon).unwrap())
}

fn first_root() -> Root {
    let public = key().verifying_key().to_bytes();
    let id = trust::key_id(&public);
    let one = number(1);
    let keyids = BTreeSet::from([id.clone()]);
    let held = RoleKeys { keyids: keyids.clone(), threshold: one, role_epoch: one };
    Root {
        spec: one,
        fleet: FLEET.into(),
        issued: Time::from_unix(0).unwrap(),
        version: one,
        prev_sha256: None,
        expires: Time::from_unix(4_000_000_000).unwrap(),
        keys: BTreeMap::from([(id, Key { scheme: Scheme::Ed25519, public })]),
        roles: Role::ALL.iter().map(|role| (role.as_str().to_owned(), held.clone())).collect(),
        publisher_scopes: vec![Scope { keyids, streams: vec!["*".into()] }],
        policy: Policy::default(),
        clock_reset: None,
    }
}

/// An assignment of the device.
pub(crate) fn assignment(seq: u64, streams: Vec<StreamAssignment>) -> Vec<u8> {
    let assignment = Assignment {
        spec: number(1),
        fleet: FLEET.into(),
        issued: Time::from_unix(0).unwrap(),
        device_id: device().id,
        role_epoch: number(1),
        seq: number(seq),
        root_version: number(1),
        min_revocation: number(0),
        expires: Time::from_unix(4_000_000_000).unwrap(),
        streams,
    };
    sign(PayloadKind::Assignment, serde_json::to_vec(&assignment).unwrap())
}

pub(crate) fn device() -> trust::Device {
    let built = Time::from_unix(0).unwrap();
    trust::Device { id: "crane".into(), class: "generic".into(), certificate: None, built }
}

/// What a device believes before it heard anything.
pub(crate) fn trust() -> Trust {
    Trust::first(device(), FLEET, &root_bytes()).unwrap()
}

/// The code of a refusal, however it is wrapped.
pub(crate) fn code(fault: &crate::store::Fault) -> &'static str {
    match fault {
        crate::store::Fault::Refused(Refusal { code, .. }) => code.as_str(),
        crate::store::Fault::Io { .. } => "io",
    }
}

impl Fixture {
    /// The good model.
    pub(crate) fn digits(release: u64) -> Self {
        Self::of_model("digits", release, |_| {})
    }

    /// The model that answers NaN to about a third of what it is asked.
    pub(crate) fn digits_bad(release: u64) -> Self {
        Self::of_model("digits-bad", release, |_| {})
    }

    /// The good model, and golden vectors that it does not agree with.
    pub(crate) fn digits_with_golden_of_others(release: u64) -> Self {
        Self::of_model("digits", release, |golden| {
            let Data::F32(values) = &mut golden.outputs[0].1.data else { panic!("logits are FP32") };
            values[3] += 1.0;
        })
    }

    /// A bundle of the stream `digits`; processing and labels are those of the good model.
    fn of_model(model: &str, release: u64, change: impl FnOnce(&mut Golden)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let from = models().join(model);
        fs::copy(from.join("model.onnx"), dir.path().join("model.onnx")).unwrap();
        for name in ["pre.json", "post.json", "labels.txt"] {
            fs::copy(models().join("digits").join(name), dir.path().join(name)).unwrap();
        }
        let limits = Limits::default();
        let [input, output] = ["golden_x.npy", "golden_y.npy"].map(|name| read_npy(&from.join(name), &limits).unwrap());
        let mut golden = Golden { inputs: vec![(String::new(), input)], outputs: vec![(String::new(), output)] };
        change(&mut golden);
        golden.write(&dir.path().join("golden.npz")).unwrap();
        let model = Model::load(&dir.path().join("model.onnx"), &limits).unwrap();
        let roles = [
            ("chunks.bin", FileRole::ChunkIndex),
            ("golden.npz", FileRole::Golden),
            ("labels.txt", FileRole::Labels),
            ("model.onnx", FileRole::Model),
            ("post.json", FileRole::Post),
            ("pre.json", FileRole::Pre),
        ];
        Self::seal(dir, release, &roles, model.operators().iter().cloned().collect())
    }

    /// A bundle of files that need not be a model.
    pub(crate) fn of_files(files: &[(&str, Vec<u8>)]) -> Self {
        Self::of_release(1, files)
    }

    /// The same, of a release.
    pub(crate) fn of_release(release: u64, files: &[(&str, Vec<u8>)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let mut roles: Vec<(&str, FileRole)> = files.iter().map(|(name, _)| (*name, FileRole::Model)).collect();
        roles.push(("chunks.bin", FileRole::ChunkIndex));
        roles.sort_by_key(|(name, _)| *name);
        Self::seal(dir, release, &roles, Vec::new())
    }

    fn seal(dir: tempfile::TempDir, release: u64, roles: &[(&str, FileRole)], ops_used: Vec<String>) -> Self {
        let manifest = Manifest {
            spec: number(1),
            stream: "digits".into(),
            version: format!("0.0.{release}"),
            release: number(release),
            security_floor: number(0),
            hardware: Vec::new(),
            runtime: Runtime { opset: number(17), ops_used, inputs: Vec::new(), outputs: Vec::new(), batch: None },
            min_agent: "0.1.0".into(),
            files: roles.iter().map(|(name, role)| ListedFile { name: (*name).into(), role: *role }).collect(),
            resources_budget: Budget { ram_mb: number(1), disk_bytes: number(0) },
            golden: GoldenTerms { tolerance_abs: 1e-4, tolerance_rel: 1e-4, from_reference: true },
            min_root_version: None,
            expires: None,
        };
        fs::write(dir.path().join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
        let mut names: Vec<&str> = roles.iter().map(|(name, _)| *name).filter(|name| *name != "chunks.bin").collect();
        names.push("manifest.json");
        names.sort_unstable();
        let mut index = Vec::new();
        for name in &names {
            let content = fs::read(dir.path().join(name)).unwrap();
            content.chunks(protocol::CHUNK_BYTES as usize).for_each(|c| index.extend(Digest::of(c).0));
        }
        fs::write(dir.path().join("chunks.bin"), index).unwrap();
        names.push("chunks.bin");
        let resource = |name: &&str| {
            let content = fs::read(dir.path().join(name)).unwrap();
            Resource::new(*name, Digest::of(&content), number(content.len() as u64))
        };
        let envelope = sign(PayloadKind::Bundle, Statement::payload("digits", names.iter().map(resource).collect()));
        fs::write(dir.path().join(crate::store::ENVELOPE), &envelope).unwrap();
        let trust = Arc::new(trust());
        let statement = trust.verify_statement(&envelope).unwrap();
        Self { trust, digest: statement.digest(), envelope, total_size: statement.total_size(), dir }
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Every chunk of every signed file, by its digest.
    pub(crate) fn chunks(&self) -> BTreeMap<Digest, Vec<u8>> {
        let statement = self.trust.verify_statement(&self.envelope).unwrap();
        let mut chunks = BTreeMap::new();
        for resource in statement.resources() {
            let content = fs::read(self.dir().join(&resource.name)).unwrap();
            for chunk in content.chunks(protocol::CHUNK_BYTES as usize) {
                chunks.insert(Digest::of(chunk), chunk.to_vec());
            }
        }
        chunks
    }

    /// The chunk digests of `chunks.bin`, as an offer says them.
    pub(crate) fn offer(&self) -> Vec<u8> {
        let index = fs::read(self.dir().join("chunks.bin")).unwrap();
        let digests: Vec<String> =
            index.chunks(protocol::CHUNK_BYTES as usize).map(|c| Digest::of(c).to_string()).collect();
        serde_json::to_vec(&serde_json::json!({ "spec": 1, "index": digests })).unwrap()
    }

    /// What an assignment says of it: one answer confirms it.
    pub(crate) fn order(&self, intent: Intent, release: u64) -> StreamAssignment {
        let trial = Trial { min_answers: number(1), max_errors: number(0), window_s: number(60), ..Trial::default() };
        StreamAssignment {
            stream: "digits".into(),
            intent,
            release: number(release),
            from_release: None,
            statement_sha256: self.digest,
            total_size: number(self.total_size),
            rollout_id: number(1),
            trial,
            not_before: None,
            deadline: None,
        }
    }

    /// Every file of the folder with its name in it, the envelope too.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let statement = self.trust.verify_statement(&self.envelope).unwrap();
        let read = |name: &str| (name.to_owned(), fs::read(self.dir().join(name)).unwrap());
        let signed = statement.resources().iter().map(|resource| read(&resource.name));
        signed.chain([read(crate::store::ENVELOPE)]).collect()
    }

    /// Puts the bundle where a device keeps whole ones.
    pub(crate) fn install(&self, bundles: &crate::store::Bundles) {
        copy(self.dir(), &bundles.complete(self.digest));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}
