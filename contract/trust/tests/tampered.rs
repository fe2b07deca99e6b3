//! Documents damaged in every bit and in very many other ways: nothing else than what was signed is believed.
//!
//! `PETREL_TAMPERED=1000000 cargo test -p petrel-trust --test tampered -- --nocapture` makes a million
//! other ways where a plain run makes fewer.
//!
//! A door that still opens must show the very same content; what cannot be told apart after reading
//! (an envelope with a space more) is no other document.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are on the room: its tests read golden files and the clock"
)]

mod signer;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use petrel_trust::*;
use serde_json::Value;
use signer::*;
use std::collections::BTreeSet;

/// What came through a door.
#[derive(Debug, Clone, PartialEq)]
enum Believed {
    Root(Verified<Root>),
    Assignment(Verified<Assignment>),
    Statement(Verified<Statement>),
    Manifest(Verified<Manifest>),
    Report(Vec<u8>),
    Verdict(Vec<u8>),
    Checkpoint(Verified<Checkpoint>),
    Revocation(Verified<Revocation>),
    Beacon(Verified<Beacon>),
    Breakglass(Verified<Breakglass>),
    Model(Verified<Vec<ModelFile>>),
    Command(Verified<Command>),
}

/// Shows bytes to a copy of a device; a refusal must leave what it remembers as it was.
fn shown<T>(device: &Trust, door: impl FnOnce(&mut Trust) -> Result<T, Refusal>) -> Result<T, Refusal> {
    let mut copy = device.clone();
    let got = door(&mut copy);
    assert!(got.is_ok() || copy.counters() == device.counters(), "a refusal changed the state");
    got
}

/// How bytes come to be believed.
type Believe = Box<dyn Fn(&[u8]) -> Result<Believed, Refusal> + Sync>;

struct Door {
    name: &'static str,
    bytes: Vec<u8>,
    honest: Believed,
    believe: Believe,
}

fn doors() -> Vec<Door> {
    let door = |name, believe: Believe| {
        let bytes = golden(name);
        let honest = believe(&bytes).expect("the golden document is believed");
        Door { name, bytes, honest, believe }
    };
    let (root, statement, device) = (trusted(), believed(), device_key(7));
    let (director, publisher, auditor) = (root.clone(), root.clone(), root.clone());
    let [one, two, three, four, five] = [(); 5].map(|()| trust());
    let (model, sender) = (device.clone(), device.clone());
    vec![
        door(
            "root-2.dsse.json",
            Box::new(move |b| shown(&one, |t| t.accept_root(b, UP)).map(|a| Believed::Root(a.document().clone()))),
        ),
        door(
            "revocation.dsse.json",
            Box::new(move |b| {
                shown(&two, |t| t.accept_revocation(b, UP)).map(|a| Believed::Revocation(a.document().clone()))
            }),
        ),
        door(
            "beacon.dsse.json",
            Box::new(move |b| {
                shown(&three, |t| t.accept_beacon(b, UP)).map(|a| Believed::Beacon(a.document().clone()))
            }),
        ),
        door(
            "breakglass.dsse.json",
            Box::new(move |b| shown(&four, |t| t.accept_breakglass(b, UP)).map(Believed::Breakglass)),
        ),
        door("command.dsse.json", Box::new(move |b| five.verify_command(b).map(Believed::Command))),
        door("model.sig", Box::new(move |b| verify_model_signature(&model, b).map(Believed::Model))),
        door("root.dsse.json", Box::new(|b| verify_root(FLEET, b).map(Believed::Root))),
        door(
            "assignment.dsse.json",
            Box::new(move |b| verify_assignment(&director, DEVICE, b).map(Believed::Assignment)),
        ),
        door("bundle.dsse.json", Box::new(move |b| verify_statement(&publisher, b).map(Believed::Statement))),
        door("manifest.json", Box::new(move |b| verify_manifest(&root, &statement, b).map(Believed::Manifest))),
        door(
            "report.dsse.json",
            Box::new(move |b| verify_device_document(PayloadKind::Report, &device, b).map(Believed::Report)),
        ),
        door(
            "verdict.dsse.json",
            Box::new(move |b| verify_device_document(PayloadKind::Verdict, &sender, b).map(Believed::Verdict)),
        ),
        door("checkpoint.dsse.json", Box::new(move |b| verify_checkpoint(&auditor, b).map(Believed::Checkpoint))),
    ]
}

/// Golden files that nobody believes by themselves: payloads, which lie inside the envelopes above, and the
/// counters, whose slot on the disk has a digest of its own (the disk's tests flip its bits).
const INSIDE: [&str; 10] = [
    "assignment-careful.json",
    "assignment.json",
    "beacon.json",
    "breakglass.json",
    "checkpoint.json",
    "command.json",
    "counters.json",
    "revocation.json",
    "root.json",
    "statement.json",
];

#[test]
fn every_golden_document_has_a_door_here() {
    let doors: BTreeSet<String> = doors().iter().map(|door| door.name.to_owned()).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = std::fs::read_dir(folder).expect("the golden folder").map(|entry| entry.expect("an entry").file_name());
    let files: BTreeSet<String> = files.map(|name| name.into_string().expect("a plain name")).collect();
    let documents: BTreeSet<String> = files.into_iter().filter(|name| !INSIDE.contains(&name.as_str())).collect();
    assert_eq!(documents, doors);
}

/// Runs `work` for each door in a thread of its own.
fn each_door<T: Send>(work: impl Fn(&Door) -> T + Sync) -> Vec<T> {
    let doors = doors();
    std::thread::scope(|scope| {
        let threads: Vec<_> = doors.iter().map(|door| scope.spawn(|| work(door))).collect();
        threads.into_iter().map(|t| t.join().expect("no damage makes a panic")).collect()
    })
}

#[test]
fn every_flipped_bit_is_refused() {
    let flips = each_door(|door| {
        let mut bytes = door.bytes.clone();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let got = (door.believe)(&bytes);
            assert!(got.is_err(), "{}: bit {bit} was flipped and believed: {:?}", door.name, bytes[bit / 8] as char);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(bytes, door.bytes);
        bytes.len() * 8
    });
    println!("{} bits flipped in {} documents, 0 believed", flips.iter().sum::<usize>(), flips.len());
}

/// A third signature where two are needed: who breaks it takes one signer away and changes nothing else.
#[test]
fn a_signature_more_than_needed_may_be_lost_and_nothing_else() {
    let root = trusted();
    let bytes = sealed(PayloadKind::Bundle, &statement_payload(), &PUBLISHERS);
    let honest = verify_statement(&root, &bytes).unwrap();
    assert_eq!(honest.signers().len(), 3);
    let mut believed = 0;
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let Ok(statement) = verify_statement(&root, &damaged) else { continue };
        assert_eq!((statement.digest(), statement.resources()), (honest.digest(), honest.resources()));
        assert_eq!(statement.signers().len(), 2, "a signature with a broken key id counts for nothing");
        assert!(statement.signers().iter().all(|s| honest.signers().contains(s)));
        believed += 1;
    }
    println!("{} bits flipped, {believed} took a surplus signature away", bytes.len() * 8);
    assert!(believed > 0, "key ids are 64 characters of the envelope");
}

/// r, n - s: the same signature to every verifier of ECDSA. What it signs stays the same, and a
/// report's sequence number makes it count once.
#[test]
fn the_other_form_of_a_devices_signature_signs_the_same() {
    const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let mut envelope = device_envelope(PayloadKind::Report, REPORT, 7);
    let mut borrow = 0;
    for (s, n) in envelope.signatures[0].bytes[32..].iter_mut().zip(hex::decode(N).unwrap()).rev() {
        let difference = i16::from(n) - i16::from(*s) - borrow;
        borrow = i16::from(difference < 0);
        *s = difference.rem_euclid(256) as u8;
    }
    let payload = verify_device_document(PayloadKind::Report, &device_key(7), &envelope.to_bytes());
    assert_eq!(payload.unwrap(), REPORT);
}

/// Pieces that JSON and envelopes are made of, to be put where they do not belong.
const TOKENS: [&str; 16] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\u0000",
    "null",
    "1e400",
    "-0",
    " ",
    "\n",
    r#""keyid":"""#,
    r#""spec":1,"#,
    "=",
];

/// Damage to the text: cuts, repeats, moves, and pieces of other documents.
fn damage_text(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        bytes.push(rng.u8(..)); // an earlier damage took all of it
    }
    let at = rng.usize(..bytes.len());
    let end = rng.usize(at..bytes.len().min(at + 200)) + 1;
    match rng.u8(..6) {
        0 => drop(bytes.drain(at..end)),
        1 => {
            let piece = bytes[at..end].to_vec();
            let to = rng.usize(..=bytes.len());
            bytes.splice(to..to, piece);
        }
        2 => {
            let from = rng.usize(..other.len());
            let piece = other[from..other.len().min(from + end - at)].to_vec();
            bytes.splice(at..end, piece);
        }
        3 => drop(bytes.splice(at..at, rng.choice(TOKENS).expect("tokens").bytes())),
        4 => bytes[at..end].reverse(),
        _ => bytes[at..end].iter_mut().for_each(|b| *b = rng.u8(..)),
    }
    if bytes.is_empty() {
        bytes.push(rng.u8(..));
    }
}

/// The JSON pointers of all values inside `value`.
fn places(value: &Value, here: String, found: &mut Vec<String>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, v)| (key.replace('~', "~0").replace('/', "~1"), v)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => vec![],
    };
    for (name, value) in inner {
        places(value, format!("{here}/{name}"), found);
        found.push(format!("{here}/{name}"));
    }
}

/// Damage to the tree: values removed, exchanged, repeated, put elsewhere, turned into other types.
fn damage_tree(rng: &mut fastrand::Rng, value: &mut Value) {
    let mut found = Vec::new();
    places(value, String::new(), &mut found);
    let (Some(one), Some(two)) = (rng.choice(&found), rng.choice(&found)) else { return };
    let [Some(first), Some(second)] = [one, two].map(|at| value.pointer(at).cloned()) else { return };
    let (parent, name) = one.rsplit_once('/').expect("a pointer has a slash");
    match (rng.u8(..6), value.pointer_mut(parent)) {
        (0, Some(Value::Object(map))) => drop(map.remove(name)),
        (0, Some(Value::Array(items))) => drop(items.remove(name.parse().expect("an index"))),
        (1, Some(Value::Object(map))) => drop(map.insert(format!("{name}{}", rng.lowercase()), first)),
        (1, Some(Value::Array(items))) => items.insert(rng.usize(..=items.len()), second),
        (2, _) => {
            put(value, one, second);
            put(value, two, first);
        }
        (3, _) => put(value, one, second),
        (4, _) => put(value, one, rng.choice(others(&first)).expect("some")),
        _ => put(value, one, Value::Array(vec![first])),
    }
}

fn put(value: &mut Value, at: &str, new: Value) {
    if let Some(place) = value.pointer_mut(at) {
        *place = new;
    }
}

/// What might stand in the place of `value`.
fn others(value: &Value) -> Vec<Value> {
    let text = value.as_str().unwrap_or_default();
    let number = value.as_u64().unwrap_or_default();
    vec![
        Value::Null,
        Value::from(true),
        Value::from(number.saturating_add(1)),
        Value::from(number.saturating_sub(1)),
        Value::from(u64::MAX),
        Value::from(-1),
        Value::from(0.5),
        Value::from(text.to_uppercase()),
        Value::from(format!("{text}=")),
        Value::from(text.chars().rev().collect::<String>()),
        Value::from(serde_json::Map::new()),
    ]
}

/// One damage more to a document: to its text, to its tree, or to the tree inside its payload.
fn damage(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let Some(mut tree) = rng.bool().then(|| serde_json::from_slice::<Value>(bytes).ok()).flatten() else {
        return damage_text(rng, bytes, other);
    };
    let payload = tree.pointer("/payload").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
    match payload.filter(|_| rng.bool()) {
        Some(mut payload) => {
            match serde_json::from_slice(&payload) {
                Ok(mut inner) => {
                    damage_tree(rng, &mut inner);
                    payload = json(&inner);
                }
                Err(_) => damage_text(rng, &mut payload, other),
            }
            tree["payload"] = STANDARD.encode(payload).into();
        }
        None => damage_tree(rng, &mut tree),
    }
    *bytes = json(&tree);
}

#[test]
fn damage_of_every_other_kind_is_refused_or_changes_nothing() {
    let asked = std::env::var("PETREL_TAMPERED").map_or(80_000, |n| n.parse().expect("PETREL_TAMPERED is a number"));
    let rounds: usize = usize::div_ceil(asked, doors().len());
    let texts: Vec<Vec<u8>> = doors().into_iter().map(|d| d.bytes).collect();
    let met = each_door(|door| {
        let mut rng = fastrand::Rng::with_seed(door.bytes.len() as u64);
        let (mut same, mut codes) = (0, BTreeSet::new());
        for round in 0..rounds {
            let mut bytes = door.bytes.clone();
            for _ in 0..rng.u8(1..4) {
                let other = rng.choice(&texts).expect("documents");
                damage(&mut rng, &mut bytes, other);
            }
            let got = match (door.believe)(&bytes) {
                Ok(got) => got,
                Err(refusal) => {
                    codes.insert(refusal.code);
                    continue;
                }
            };
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(got, door.honest, "{}, round {round}: another content was believed: {text}", door.name);
            same += 1;
        }
        assert!(same < rounds / 10, "{}: the damage was too mild to prove anything", door.name);
        (same, codes)
    });
    let codes: BTreeSet<Code> = met.iter().flat_map(|(_, codes)| codes).copied().collect();
    let (rounds, same) = (rounds * met.len(), met.iter().map(|(same, _)| same).sum::<usize>());
    println!("{rounds} documents damaged, {same} of them still the same document, 0 believed as another, 0 panics");
    println!("refused with {codes:?}");
    for reached in [Code::Parse, Code::Type, Code::Sig, Code::Threshold, Code::KeyId, Code::Size, Code::Digest] {
        assert!(codes.contains(&reached), "no damage came as far as {reached}");
    }
}
