//! The very bytes of every document, and what they are believed to say.
//!
//! A change of these bytes is a decision: `PETREL_BLESS=1 cargo test -p petrel-trust --test golden`
//! writes them anew, and the difference shows in the review.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are on the room: its tests read golden files and the clock"
)]

mod signer;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use petrel_trust::*;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use signer::*;

fn same(name: &str, bytes: &[u8]) {
    bless(name, || bytes.to_vec());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("documents are text");
    assert_eq!(text(bytes), text(&golden(name)), "the bytes of {name} changed");
}

#[test]
fn documents_are_their_golden_bytes() {
    same("root.dsse.json", &root_bytes());
    same("root.json", &json(&root()));
    same("assignment.dsse.json", &assignment_bytes());
    same("assignment.json", &json(&assignment()));
    same("assignment-careful.json", &json(&careful_assignment()));
    same("manifest.json", &json(&manifest()));
    same("statement.json", &statement_payload());
    same("bundle.dsse.json", &bundle_bytes());
    same("root-2.dsse.json", &second_root_bytes());
    same("revocation.dsse.json", &revocation_bytes());
    same("revocation.json", &json(&full_revocation()));
    same("beacon.dsse.json", &beacon_bytes());
    same("beacon.json", &json(&beacon(9)));
    same("breakglass.dsse.json", &breakglass_bytes());
    same("breakglass.json", &json(&breakglass()));
    same("checkpoint.dsse.json", &checkpoint_bytes());
    same("checkpoint.json", &json(&checkpoint()));
    same("command.dsse.json", &command_bytes());
    same("command.json", &json(&command()));
    // The state of a device that took them all: what its ledger holds.
    same("counters.json", &json(settled().counters()));
}

#[test]
fn newer_golden_documents_are_believed_as_what_they_say() {
    let mut t = trust();
    assert_eq!(**t.accept_revocation(&golden("revocation.dsse.json"), UP).unwrap().document(), full_revocation());
    assert_eq!(**t.accept_beacon(&golden("beacon.dsse.json"), UP).unwrap().document(), beacon(9));
    assert_eq!(*t.accept_breakglass(&golden("breakglass.dsse.json"), UP).unwrap(), breakglass());
    assert_eq!(*t.verify_command(&golden("command.dsse.json")).unwrap(), command());
    assert_eq!(**t.accept_root(&golden("root-2.dsse.json"), UP).unwrap().document(), second_root());
    assert_eq!(t.root().digest(), Digest::of(&json(&second_root())));
    let counters: Counters = serde_json::from_slice(&golden("counters.json")).unwrap();
    assert_eq!(counters, *settled().counters());
}

/// ECDSA draws a number for every signature: these bytes were signed once.
#[test]
fn a_golden_model_sig_is_over_the_golden_statement() {
    bless("model.sig", || {
        let payload = statement_payload();
        model_signature(&device_key(7), &payload, &der_signature(7, &pae(PayloadKind::Bundle.media_type(), &payload)))
    });
    let statement = verify_statement(&trusted(), &golden("bundle.dsse.json")).unwrap();
    Statement::check_model_signature(&statement, &device_key(7), &golden("model.sig")).unwrap();
    let file: Value = serde_json::from_slice(&golden("model.sig")).unwrap();
    let pem = device_key(7).pem();
    let lines: Vec<&str> = pem.lines().collect();
    assert_eq!((lines.len(), lines[1].len(), lines[0]), (4, 64, "-----BEGIN PUBLIC KEY-----"));
    assert!(pem.ends_with("-----END PUBLIC KEY-----\n"));
    let hint = hex::encode(Sha256::digest(pem.as_bytes()));
    let expected = serde_json::json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": STANDARD.encode(golden("statement.json")),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": file["dsseEnvelope"]["signatures"][0]["sig"], "keyid": ""}],
        },
    });
    assert_eq!(file, expected);
}

#[test]
fn golden_documents_are_believed_as_what_they_say() {
    let trusted = verify_root(FLEET, &golden("root.dsse.json")).unwrap();
    assert_eq!(*trusted, root());
    assert_eq!(trusted.digest(), Digest::of(&golden("root.json")));

    let assigned = verify_assignment(&trusted, DEVICE, &golden("assignment.dsse.json")).unwrap();
    assert_eq!(*assigned, assignment());
    assert_eq!(assigned.digest(), Digest::of(&golden("assignment.json")));

    let careful = sealed(PayloadKind::Assignment, &golden("assignment-careful.json"), &[DIRECTOR]);
    assert_eq!(*verify_assignment(&trusted, DEVICE, &careful).unwrap(), careful_assignment());

    let statement = verify_statement(&trusted, &golden("bundle.dsse.json")).unwrap();
    assert_eq!(statement.digest(), Digest::of(&golden("statement.json")));
    let files = files(&golden("manifest.json"));
    assert_eq!(statement.resources(), resources(&files));
    assert_eq!(statement.total_size(), files.values().map(|f| f.len() as u64).sum::<u64>());
    let mut signers = PUBLISHERS[..2].iter().map(|k| id(*k)).collect::<Vec<_>>();
    let mut believed = statement.signers().to_vec();
    signers.sort();
    believed.sort();
    assert_eq!(believed, signers);
    statement.check_files(&resources(&files)).unwrap();

    let known = verify_checkpoint(&trusted, &golden("checkpoint.dsse.json")).unwrap();
    assert_eq!(*known, checkpoint());
    assert_eq!(known.digest(), Digest::of(&golden("checkpoint.json")));

    let contract = verify_manifest(&trusted, &statement, &golden("manifest.json")).unwrap();
    assert_eq!(*contract, manifest());
    assert_eq!(contract.digest(), Digest::of(&golden("manifest.json")));
}

#[test]
fn a_golden_report_is_believed_and_its_key_id_is_that_of_the_key() {
    // ECDSA draws a number for every signature: these bytes were signed once.
    bless("report.dsse.json", || device_envelope(PayloadKind::Report, REPORT, 7).to_bytes());
    let payload = verify_device_document(PayloadKind::Report, &device_key(7), &golden("report.dsse.json")).unwrap();
    assert_eq!(payload, REPORT);
    assert_eq!(device_key(7).spki().len(), 91);
    assert_eq!(DeviceKey::from_spki(device_key(7).spki()), Ok(device_key(7)));
    bless("verdict.dsse.json", || device_envelope(PayloadKind::Verdict, REPORT, 7).to_bytes());
    let payload = verify_device_document(PayloadKind::Verdict, &device_key(7), &golden("verdict.dsse.json")).unwrap();
    assert_eq!(payload, REPORT);
    let fresh = device_envelope(PayloadKind::Verdict, REPORT, 8).to_bytes();
    assert_eq!(verify_device_document(PayloadKind::Verdict, &device_key(8), &fresh).unwrap(), REPORT);
}

#[test]
fn what_is_signed_is_the_encoding_of_dsse_v1() {
    assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), {
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    });
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    let bundle = pae(PayloadKind::Bundle.media_type(), b"{}");
    assert_eq!(bundle, b"DSSEv1 28 application/vnd.in-toto+json 2 {}");
}

#[test]
fn kinds_have_the_media_types_of_the_protocol_page() {
    let media = |kind: PayloadKind| kind.media_type();
    assert_eq!(media(PayloadKind::Root), "application/vnd.petrel.root.v1+json");
    assert_eq!(media(PayloadKind::Assignment), "application/vnd.petrel.assignment.v1+json");
    assert_eq!(media(PayloadKind::Revocation), "application/vnd.petrel.revocation.v1+json");
    assert_eq!(media(PayloadKind::Beacon), "application/vnd.petrel.beacon.v1+json");
    assert_eq!(media(PayloadKind::Breakglass), "application/vnd.petrel.breakglass.v1+json");
    assert_eq!(media(PayloadKind::Report), "application/vnd.petrel.report.v1+json");
    assert_eq!(media(PayloadKind::Verdict), "application/vnd.petrel.verdict.v1+json");
    assert_eq!(media(PayloadKind::Checkpoint), "application/vnd.petrel.checkpoint.v1+json");
    assert_eq!(media(PayloadKind::Command), "application/vnd.petrel.command.v1+json");
    assert_eq!(media(PayloadKind::Result), "application/vnd.petrel.result.v1+json");
}

/// The statement as the Model Signing specification v1.0 lays it out, field by field and in order,
/// with the size that its schema allows in a resource; digests are computed here, not by the crate.
#[test]
fn a_statement_is_laid_out_as_model_signing_says() {
    let files = files(&json(&manifest()));
    let mut names: Vec<&String> = files.keys().collect();
    names.sort_by(|a, b| a.chars().cmp(b.chars()));
    let sha256 = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
    let raw: Vec<u8> = names.iter().flat_map(|name| sha256(&files[*name])).collect();
    let resource = |name: &&String| {
        let (digest, size) = (hex::encode(sha256(&files[*name])), files[*name].len());
        format!(r#"{{"name":"{name}","algorithm":"sha256","digest":"{digest}","size":{size}}}"#)
    };
    let expected = [
        r#"{"_type":"https://in-toto.io/Statement/v1","#,
        &format!(r#""subject":[{{"name":"digits-1.2.0","digest":{{"sha256":"{}"}}}}],"#, hex::encode(sha256(&raw))),
        r#""predicateType":"https://model_signing/signature/v1.0","#,
        r#""predicate":{"serialization":{"method":"files","hash_type":"sha256","allow_symlinks":false,"#,
        r#""ignore_paths":[".git",".gitattributes",".github",".gitignore","bundle.dsse.json","model.sig"]},"#,
        &format!(r#""resources":[{}]}}}}"#, names.iter().map(resource).collect::<Vec<_>>().join(",")),
    ]
    .concat();
    assert_eq!(String::from_utf8(statement_payload()).unwrap(), expected);
}

#[test]
fn a_statement_sorts_its_files_however_they_are_given() {
    let mut shuffled = resources(&files(&json(&manifest())));
    shuffled.reverse();
    assert_eq!(Statement::payload("digits-1.2.0", shuffled), statement_payload());
}

#[test]
fn ignore_paths_are_a_set_of_which_any_part_will_do() {
    let every = [".git", ".gitattributes", ".github", ".gitignore", "bundle.dsse.json", "model.sig"];
    for part in 0..1_u32 << every.len() {
        let mut value: Value = serde_json::from_slice(&statement_payload()).unwrap();
        let chosen = every.iter().rev().enumerate().filter(|(i, _)| part >> i & 1 == 1).map(|(_, name)| *name);
        value["predicate"]["serialization"]["ignore_paths"] = chosen.collect();
        let bytes = sealed(PayloadKind::Bundle, &json(&value), &PUBLISHERS[..2]);
        assert_eq!(verify_statement(&trusted(), &bytes).unwrap().resources(), believed().resources());
    }
}
