//! What devices sign: other keys, other kinds, two signatures, junk in place of keys.

use crate::signer::*;
use crate::{Case, case};
use petrel_trust::*;

/// A report after `spoil`.
fn reported(spoil: impl FnOnce(&mut Envelope)) -> Result<Vec<u8>, Refusal> {
    let mut envelope = device_envelope(PayloadKind::Report, REPORT, 7);
    spoil(&mut envelope);
    verify_device_document(PayloadKind::Report, &device_key(7), &envelope.to_bytes())
}

pub(crate) fn cases() -> Vec<Case> {
    assert_eq!(reported(|_| {}).expect("the honest report is believed"), REPORT);
    let by = |name| device_envelope(PayloadKind::Report, REPORT, name).signatures;
    let mut cases = keys();
    let mut try_it = |how: &str, expect, spoil: &dyn Fn(&mut Envelope)| {
        cases.push(case("T70", how, expect, reported(spoil)));
    };
    try_it("another device's key", Code::KeyId, &|e| e.signatures = by(8));
    try_it("another device's key under this one's id", Code::Sig, &|e| e.signatures[0].bytes = by(8)[0].bytes.clone());
    try_it("an id in capitals", Code::KeyId, &|e| e.signatures[0].key_id.make_ascii_uppercase());
    try_it("no id", Code::KeyId, &|e| e.signatures[0].key_id.clear());
    try_it("two signatures", Code::Threshold, &|e| e.signatures.extend(by(8)));
    try_it("its signature twice", Code::Threshold, &|e| e.signatures.extend(by(7)));
    try_it("no signature", Code::Threshold, &|e| e.signatures.clear());
    try_it("one bit of the payload", Code::Sig, &|e| e.payload[9] ^= 1);
    try_it("one bit of r", Code::Sig, &|e| e.signatures[0].bytes[3] ^= 1);
    try_it("one bit of s", Code::Sig, &|e| e.signatures[0].bytes[40] ^= 1);
    try_it("zeros", Code::Sig, &|e| e.signatures[0].bytes = vec![0; 64]);
    try_it("ones", Code::Sig, &|e| e.signatures[0].bytes = vec![0xff; 64]);
    try_it("a short signature", Code::Sig, &|e| e.signatures[0].bytes.truncate(63));
    try_it("a signature in DER", Code::Sig, &|e| e.signatures[0].bytes = der(&e.signatures[0].bytes));
    try_it("a verdict in its place", Code::Type, &|e| *e = device_envelope(PayloadKind::Verdict, REPORT, 7));
    try_it("a verdict's signature", Code::Sig, &|e| {
        e.signatures = device_envelope(PayloadKind::Verdict, REPORT, 7).signatures;
    });
    try_it("the director's signature", Code::KeyId, &|e| *e = envelope(PayloadKind::Report, REPORT, &[DIRECTOR]));
    let large = verify_device_document(PayloadKind::Report, &device_key(7), &vec![b' '; MAX_DOCUMENT_BYTES + 1]);
    cases.push(case("T15", "a report of 256 KiB and a byte", Code::Limit, large));
    cases
}

/// `r ‖ s` as an ASN.1 sequence, which is another form that libraries write.
fn der(fixed: &[u8]) -> Vec<u8> {
    let whole = |n: &[u8]| [&[0x02, 33, 0], n].concat();
    let body = [whole(&fixed[..32]), whole(&fixed[32..])].concat();
    [&[0x30, body.len() as u8], &body[..]].concat()
}

fn keys() -> Vec<Case> {
    let spki = device_key(7).spki().to_vec();
    let changed = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = spki.clone();
        edit(&mut bytes);
        DeviceKey::from_spki(&bytes)
    };
    let mut cases = Vec::new();
    let mut try_it = |how: &str, edit: &dyn Fn(&mut Vec<u8>)| {
        cases.push(case("T05", format!("a device key {how}"), Code::KeyWeak, changed(edit)));
    };
    try_it("of no bytes", &|k| k.clear());
    try_it("cut short", &|k| k.truncate(90));
    try_it("with a byte too many", &|k| k.push(0));
    try_it("of another curve", &|k| k[22] = 0x0a);
    try_it("that is compressed", &|k| k[26] = 0x02);
    try_it("with an indefinite length", &|k| k[1] = 0x80);
    try_it("that is Ed25519", &|k| {
        *k = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0], &public(1)[..]].concat()
    });
    try_it("of junk", &|k| k.fill(0x30));
    try_it("without its header", &|k| drop(k.drain(..26)));
    let point = &spki[26..];
    cases.push(case("T05", "a device point cut short", Code::KeyWeak, DeviceKey::from_point(&point[..64])));
    cases.push(case("T05", "a device point of infinity", Code::KeyWeak, DeviceKey::from_point(&[0])));
    // A point beside the curve has the right form; nothing ever verifies with it.
    let mut beside = spki.clone();
    beside[90] ^= 1;
    let beside = DeviceKey::from_spki(&beside).expect("the form is right");
    let signature = device_envelope(PayloadKind::Report, REPORT, 7).signatures[0].bytes.clone();
    let signed = pae(PayloadKind::Report.media_type(), REPORT);
    cases.push(case("T05", "a device point beside the curve", Code::Sig, beside.verify(&signed, &signature)));
    let origin = DeviceKey::from_point(&[&[4][..], &[0; 64]].concat()).expect("the form is right");
    cases.push(case("T05", "a device point 0, 0", Code::Sig, origin.verify(&signed, &signature)));
    cases
}
