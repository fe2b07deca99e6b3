//! A fleet in memory: keys from fixed seeds, the documents that they sign, and ways to spoil them.
//!
//! Honest by default; each test says how it becomes hostile. The crate under test cannot sign.

#![allow(dead_code)] // every test binary takes what it needs

use ed25519_dalek::{Signer as _, SigningKey};
use petrel_trust::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

mod land;
#[allow(unused_imports)] // every test binary takes what it needs
pub(crate) use land::*;

pub(crate) const FLEET: &str = "demo";
pub(crate) const DEVICE: &str = "rpi-1";

/// Keys are named by the byte that their seed repeats.
pub(crate) const ROOTS: [u8; 3] = [1, 2, 3];
pub(crate) const PUBLISHERS: [u8; 3] = [11, 12, 13];
pub(crate) const REVOCATION: u8 = 21;
pub(crate) const DIRECTOR: u8 = 31;
pub(crate) const BEACON: u8 = 41;
pub(crate) const BREAKGLASS: [u8; 2] = [51, 52];
/// The second holder of the revocation role: a `stop` needs both.
pub(crate) const REVOCATION_2: u8 = 22;
pub(crate) const STRANGER: u8 = 99;

pub(crate) fn key(name: u8) -> SigningKey {
    SigningKey::from_bytes(&[name; 32])
}

pub(crate) fn public(name: u8) -> [u8; 32] {
    key(name).verifying_key().to_bytes()
}

pub(crate) fn id(name: u8) -> String {
    key_id(&public(name))
}

pub(crate) fn number(n: u64) -> U53 {
    U53::try_from(n).expect("tests count below 2^53")
}

pub(crate) fn moment(unix: i64) -> Time {
    Time::from_unix(unix).expect("a year below 10000")
}

pub(crate) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data")
}

/// An envelope of `payload`, signed by each of `keys`.
pub(crate) fn envelope(kind: PayloadKind, payload: &[u8], keys: &[u8]) -> Envelope {
    let payload_type = kind.media_type().to_owned();
    let signed = pae(&payload_type, payload);
    let sign = |name: &u8| Signature { key_id: id(*name), bytes: key(*name).sign(&signed).to_bytes().to_vec() };
    Envelope { payload_type, payload: payload.to_vec(), signatures: keys.iter().map(sign).collect() }
}

pub(crate) fn sealed(kind: PayloadKind, payload: &[u8], keys: &[u8]) -> Vec<u8> {
    envelope(kind, payload, keys).to_bytes()
}

/// The root: two of three for itself and for publishers, two publishers for `digits*`, one for `vib-*`.
pub(crate) fn root() -> Root {
    let ids = |names: &[u8]| names.iter().map(|n| id(*n)).collect::<BTreeSet<_>>();
    let held = |role: Role, names: &[u8], threshold: u32| {
        let keys = RoleKeys { keyids: ids(names), threshold: threshold.into(), role_epoch: 3_u32.into() };
        (role.to_string(), keys)
    };
    let every = [&ROOTS[..], &PUBLISHERS, &[REVOCATION, REVOCATION_2, DIRECTOR, BEACON], &BREAKGLASS].concat();
    let listed = |name: &u8| (id(*name), Key { scheme: Scheme::Ed25519, public: public(*name) });
    Root {
        spec: number(SPEC),
        fleet: FLEET.into(),
        issued: moment(1_700_000_000),
        version: number(1),
        prev_sha256: None,
        expires: moment(2_000_000_000),
        keys: every.iter().map(listed).collect(),
        roles: BTreeMap::from([
            held(Role::Root, &ROOTS, 2),
            held(Role::Publisher, &PUBLISHERS, 2),
            held(Role::Revocation, &[REVOCATION, REVOCATION_2], 1),
            held(Role::Director, &[DIRECTOR], 1),
            held(Role::Beacon, &[BEACON], 1),
            held(Role::Breakglass, &BREAKGLASS, 2),
        ]),
        publisher_scopes: vec![
            Scope { keyids: ids(&PUBLISHERS[..2]), streams: vec!["digits*".into()] },
            Scope { keyids: ids(&PUBLISHERS[2..]), streams: vec!["vib-*".into(), "digits-lab".into()] },
        ],
        policy: Policy::default(),
        clock_reset: None,
    }
}

pub(crate) fn root_bytes() -> Vec<u8> {
    sealed(PayloadKind::Root, &json(&root()), &ROOTS[..2])
}

pub(crate) fn trusted() -> Verified<Root> {
    verify_root(FLEET, &root_bytes()).expect("the honest root is believed")
}

pub(crate) fn assignment() -> Assignment {
    let stream = StreamAssignment {
        stream: "digits".into(),
        intent: Intent::Install,
        release: number(1_002_000),
        statement_sha256: Digest::of(b"the statement"),
        total_size: number(4_000_000),
        rollout_id: number(7),
        trial: Trial { min_answers: number(100), max_errors: number(1), window_s: number(600), ..Trial::default() },
        from_release: None,
        not_before: None,
        deadline: None,
    };
    Assignment {
        spec: number(SPEC),
        fleet: FLEET.into(),
        issued: moment(1_700_000_000),
        device_id: DEVICE.into(),
        role_epoch: number(3),
        seq: number(44),
        root_version: number(1),
        min_revocation: number(0),
        expires: moment(1_800_000_000),
        streams: vec![stream],
    }
}

/// One whose trial says all that one can say.
pub(crate) fn careful_assignment() -> Assignment {
    let mut careful = assignment();
    let trial = &mut careful.streams[0].trial;
    trial.max_slowdown = Some(number(150));
    trial.max_memory_percent = Some(number(120));
    trial.shadow = Some(Shadow { answers: number(500), max_disagreement: number(2) });
    careful
}

pub(crate) fn assignment_bytes() -> Vec<u8> {
    sealed(PayloadKind::Assignment, &json(&assignment()), &[DIRECTOR])
}

pub(crate) fn manifest() -> Manifest {
    let listed = |(name, role): (&str, FileRole)| ListedFile { name: name.into(), role };
    let port = |name: &str, shape: &[i64], unit: Option<&str>| ManifestPort {
        name: name.into(),
        dtype: "FP32".into(),
        shape: shape.to_vec(),
        unit: unit.map(str::to_owned),
    };
    Manifest {
        spec: number(SPEC),
        stream: "digits".into(),
        version: "1.2.0".into(),
        release: number(1_002_000),
        security_floor: number(1_000_000),
        hardware: vec![Hardware { arch: "aarch64".into(), class: None, min_ram_mb: number(512) }],
        runtime: Runtime {
            opset: number(17),
            ops_used: vec!["Gemm".into(), "Relu".into()],
            inputs: vec![port("pixels", &[-1, 64], Some("1"))],
            outputs: vec![port("scores", &[-1, 10], None)],
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
        resources_budget: Budget { ram_mb: number(24), disk_bytes: number(4_000_000) },
        golden: GoldenTerms { tolerance_abs: 1e-4, tolerance_rel: 0.5, from_reference: true },
        min_root_version: None,
        expires: None,
    }
}

/// The files of a bundle with this manifest.
pub(crate) fn files(manifest: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let other = |name: &str| (name.to_owned(), format!("content of {name}").into_bytes());
    let mut files = BTreeMap::from(["chunks.bin", "golden.npz", "labels.txt", "model.onnx"].map(other));
    files.insert("manifest.json".into(), manifest.to_vec());
    files
}

pub(crate) fn resources(files: &BTreeMap<String, Vec<u8>>) -> Vec<Resource> {
    let resource =
        |(name, bytes): (&String, &Vec<u8>)| Resource::new(name.clone(), Digest::of(bytes), number(bytes.len() as u64));
    files.iter().map(resource).collect()
}

pub(crate) fn statement_payload() -> Vec<u8> {
    Statement::payload("digits-1.2.0", resources(&files(&json(&manifest()))))
}

pub(crate) fn bundle_bytes() -> Vec<u8> {
    sealed(PayloadKind::Bundle, &statement_payload(), &PUBLISHERS[..2])
}

pub(crate) fn believed() -> Verified<Statement> {
    verify_statement(&trusted(), &bundle_bytes()).expect("the honest bundle is believed")
}

/// A device's key from a fixed scalar, 7 or 8 in every byte.
pub(crate) fn device_pair(name: u8) -> EcdsaKeyPair {
    let point = match name {
        7 => {
            "041e18532fd4754c02f3041d9c75ceb33b83ffd81ac7ce4fe882ccb1c98bc5896e\
              a46c311c4e2ff40dd96a3653e6e45445d32dfe486eced75c7a90c6a18881c0a3"
        }
        8 => {
            "043adab15d66256bf15cd716035b3f041444e512fed1dd64d4ba75597d20e366f1\
              546d2c90a83ebaba01595099e5f3ffbbd3384c7494de6759fdd5e65efae9cc67"
        }
        other => panic!("no device {other}"),
    };
    let point = hex::decode(point).expect("hex");
    let rng = SystemRandom::new();
    EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &[name; 32], &point, &rng)
        .expect("the point belongs to the scalar")
}

pub(crate) fn device_key(name: u8) -> DeviceKey {
    DeviceKey::from_point(device_pair(name).public_key().as_ref()).expect("a P-256 key")
}

/// A report's envelope, signed by a device. ECDSA draws a number, so its bytes differ each time.
pub(crate) fn device_envelope(kind: PayloadKind, payload: &[u8], name: u8) -> Envelope {
    let payload_type = kind.media_type().to_owned();
    let signature = device_pair(name).sign(&SystemRandom::new(), &pae(&payload_type, payload)).expect("ring signs");
    let signature = Signature { key_id: device_key(name).id().to_string(), bytes: signature.as_ref().to_vec() };
    Envelope { payload_type, payload: payload.to_vec(), signatures: vec![signature] }
}

/// What a device would report, opaque to this crate.
pub(crate) const REPORT: &[u8] = br#"{"spec":1,"fleet":"demo","device_id":"rpi-1","boot":3,"seq":9}"#;

fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The committed bytes of a document.
pub(crate) fn golden(name: &str) -> Vec<u8> {
    let bytes = std::fs::read(golden_path(name)).expect("a golden file for every document");
    bytes.strip_suffix(b"\n").expect("a golden file ends its only line").to_vec()
}

/// Writes a golden file anew, when a person asked for it with `PETREL_BLESS=1`.
pub(crate) fn bless(name: &str, bytes: impl FnOnce() -> Vec<u8>) {
    if std::env::var_os("PETREL_BLESS").is_some() {
        std::fs::write(golden_path(name), [&bytes()[..], b"\n"].concat()).expect("the golden folder can be written");
    }
}

/// An ECDSA signature in ASN.1 by a device's key, as a P-256 publisher makes it.
pub(crate) fn der_signature(name: u8, signed: &[u8]) -> Vec<u8> {
    let fixed = device_pair(name).sign(&SystemRandom::new(), signed).expect("ring signs");
    let whole = |n: &[u8]| {
        let mut bytes: Vec<u8> = n.iter().copied().skip_while(|b| *b == 0).collect();
        if bytes[0] & 0x80 != 0 {
            bytes.insert(0, 0);
        }
        [&[0x02, bytes.len() as u8], &bytes[..]].concat()
    };
    let body = [whole(&fixed.as_ref()[..32]), whole(&fixed.as_ref()[32..])].concat();
    [&[0x30, body.len() as u8], &body[..]].concat()
}
