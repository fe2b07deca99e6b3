//! What must hold for any bytes whatever: no panic, a refusal changes nothing, no counter falls, and
//! what was believed says itself again. One function for each kind of document.
//!
//! Called with random bytes by `tests/properties.rs` and by the targets of `contract/trust/fuzz`. The
//! first byte says whether the rest is a whole envelope, or a payload that land signs honestly.

#![allow(dead_code)] // every caller takes what it needs

use crate::signer::*;
use petrel_trust::*;
use std::sync::LazyLock;

/// A target: its name, a document to begin with, and the function.
pub(crate) type Target = (&'static str, fn() -> Vec<u8>, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 10] = [
    ("dsse", root_bytes, any_dsse),
    ("root_chain", || json(&second_root()), any_root_chain),
    ("bundle", || json(&manifest()), any_bundle),
    ("revocation", || json(&full_revocation()), any_revocation),
    ("assignment", || json(&assignment()), any_assignment),
    ("beacon", || json(&beacon(9)), any_beacon),
    ("breakglass", || json(&breakglass()), any_breakglass),
    ("model_sig", statement_payload, any_model_sig),
    ("checkpoint", || json(&checkpoint()), any_checkpoint),
    ("command", || json(&command()), any_command),
];

/// A device at its beginning, and one that took a document of each kind.
static DEVICES: LazyLock<[Trust; 2]> = LazyLock::new(|| [trust(), settled()]);

/// Whole envelopes, or payloads sealed by `keys`.
fn offered(kind: PayloadKind, data: &[u8], keys: &[u8]) -> Option<Vec<u8>> {
    let (mode, rest) = data.split_first()?;
    Some(if mode % 2 == 0 { rest.to_vec() } else { sealed(kind, rest, keys) })
}

/// Envelopes of every kind: what is parsed is written and parsed again as the same.
pub(crate) fn any_dsse(data: &[u8]) {
    use PayloadKind::*;
    for kind in [Root, Bundle, Assignment, Revocation, Beacon, Breakglass, Report, Verdict, Checkpoint, Command, Result]
    {
        if let Ok(envelope) = Envelope::parse(kind, data, MAX_DOCUMENT_BYTES) {
            let again = Envelope::parse(kind, &envelope.to_bytes(), 2 * MAX_DOCUMENT_BYTES).expect("its own bytes");
            assert_eq!(again, envelope);
        }
        let _ = verify_device_document(kind, &device_key(7), data);
    }
}

/// Roots after the first: the version grows by one, the digest chain holds.
pub(crate) fn any_root_chain(data: &[u8]) {
    let Some(bytes) = offered(PayloadKind::Root, data, &[1, 2, 4, 5]) else { return };
    let mut t = DEVICES[0].clone();
    let before = t.root().clone();
    if unchanged(&mut t, |t| t.accept_root(&bytes, UP)).is_ok() && t.root().digest() != before.digest() {
        assert_eq!(t.root().version.get(), before.version.get() + 1);
        assert_eq!(t.root().prev_sha256, Some(before.digest()));
        let reopened = Trust::open(device(), FLEET, t.counters().clone(), &bytes, None).expect("its own root");
        assert_eq!(reopened.root(), t.root());
    }
    let _ = verify_root(FLEET, &bytes);
}

/// Manifests under an honest statement, and statements: what is believed is what lies there.
pub(crate) fn any_bundle(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let t = &DEVICES[0];
    let (envelope, manifest) = match mode % 3 {
        0 => (rest.to_vec(), json(&manifest())),
        1 => (sealed(PayloadKind::Bundle, rest, &PUBLISHERS[..2]), json(&manifest())),
        _ => {
            let payload = Statement::payload("digits", resources(&files(rest)));
            (sealed(PayloadKind::Bundle, &payload, &PUBLISHERS[..2]), rest.to_vec())
        }
    };
    let offer = Offer { envelope: &envelope, manifest: &manifest, order: None, ..bundle_offer() };
    let judgement = t.judge(&offer, UP);
    assert_eq!(judgement.findings.len(), 16, "every rule was asked once");
    if let Some((statement, believed)) = judgement.bundle {
        assert!(statement.resource("manifest.json").is_some_and(|r| r.check_bytes(&manifest).is_ok()));
        assert_eq!(serde_json::from_slice::<Manifest>(&json(&*believed)).expect("itself"), *believed);
    }
}

/// Nothing is known but the bundle.
fn bundle_offer() -> Offer<'static> {
    Offer { envelope: &[], manifest: &[], order: None, active: Some(9), files: None, board: None, free_disk: None }
}

/// Revocations, before and after an honest one.
pub(crate) fn any_revocation(data: &[u8]) {
    let Some(bytes) = offered(PayloadKind::Revocation, data, &[REVOCATION, REVOCATION_2]) else { return };
    for mut t in DEVICES.clone() {
        let floor = t.floor("digits");
        let _ = unchanged(&mut t, |t| t.accept_revocation(&bytes, UP));
        assert!(t.floor("digits") >= floor, "a floor never falls within an epoch");
    }
}

/// Assignments: what is taken is for this device and newer.
pub(crate) fn any_assignment(data: &[u8]) {
    let Some(bytes) = offered(PayloadKind::Assignment, data, &[DIRECTOR]) else { return };
    for mut t in DEVICES.clone() {
        let last = t.counters().assignment();
        let _ = unchanged(&mut t, |t| {
            let taken = t.accept_assignment(&bytes, UP)?;
            assert_eq!(taken.document().device_id, DEVICE);
            assert!(matches!(taken, Accepted::Again(_)) || t.counters().assignment() > last);
            Ok(taken)
        });
    }
}

/// Beacons: the time only grows, and stays within the root's.
pub(crate) fn any_beacon(data: &[u8]) {
    let Some(bytes) = offered(PayloadKind::Beacon, data, &[BEACON]) else { return };
    for mut t in DEVICES.clone() {
        let low = t.clock().low(UP);
        let _ = unchanged(&mut t, |t| t.accept_beacon(&bytes, UP));
        assert!(t.clock().low(UP) >= low && t.clock().low(UP) <= t.root().expires);
    }
}

/// Breakglasses: each name is taken once.
pub(crate) fn any_breakglass(data: &[u8]) {
    let Some(bytes) = offered(PayloadKind::Breakglass, data, &BREAKGLASS) else { return };
    for mut t in DEVICES.clone() {
        if unchanged(&mut t, |t| t.accept_breakglass(&bytes, UP)).is_ok() {
            let again = unchanged(&mut t, |t| t.accept_breakglass(&bytes, UP));
            assert_eq!(again.expect_err("a name is taken once").code, Code::Replay);
        }
    }
}

/// Checkpoints of the audit log: what is believed is for this fleet and says itself again.
pub(crate) fn any_checkpoint(data: &[u8]) {
    let Some(bytes) = offered(PayloadKind::Checkpoint, data, &[DIRECTOR]) else { return };
    if let Ok(known) = verify_checkpoint(DEVICES[0].root(), &bytes) {
        assert_eq!(known.fleet, FLEET);
        assert_eq!(serde_json::from_slice::<Checkpoint>(&json(&*known)).expect("itself"), *known);
    }
}

/// Commands: what is taken is for this device and this hello, and is taken once.
pub(crate) fn any_command(data: &[u8]) {
    let Some(bytes) = offered(PayloadKind::Command, data, &[DIRECTOR]) else { return };
    let mut t = DEVICES[0].clone();
    let Ok(command) = t.verify_command(&bytes) else { return };
    assert_eq!(command.device_id, DEVICE);
    if let Ok(request) = Request::read(&command.request) {
        assert_eq!(Request::read(&serde_json::to_value(&request).expect("plain data")), Ok(request));
    }
    if unchanged(&mut t, |t| t.take_command(&command, UP)).is_ok() {
        assert_eq!(command.nonce, NONCE);
        let again = unchanged(&mut t, |t| t.take_command(&command, UP));
        assert_eq!(again.expect_err("a command is taken once").code, Code::Replay);
    }
}

/// `model.sig`: whole files, or payloads that a P-256 key signed.
pub(crate) fn any_model_sig(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let key = device_key(7);
    let file = match mode % 2 {
        0 => rest.to_vec(),
        _ => model_signature(&key, rest, &der_signature(7, &pae(PayloadKind::Bundle.media_type(), rest))),
    };
    if let Ok(files) = verify_model_signature(&key, &file) {
        assert!(files.is_sorted_by(|a, b| a.name < b.name));
    }
}
