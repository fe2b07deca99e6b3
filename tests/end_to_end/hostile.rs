//! A hostile broker says things to a device that answers, and to land: each is refused with its code, the device says
//! so in its report, the old model goes on answering, and both programs live.
//!
//! Decides what is seen from outside. Every way in which a document can be hostile is tried where it is decided.

use crate::answers::npy;
use crate::fleet::Fleet;
use crate::programs::wait_for;
use crate::stranger::Stranger;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use trust::{Envelope, PayloadKind, Signature, key_id, pae};

const DOWN: &str = "petrel/v1/sea/d/edge-1/down/assignment";

/// One device that runs digits.
fn serving() -> Fleet {
    let mut fleet = Fleet::start();
    fleet.enlist("edge-1");
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    let id = fleet.desk.json("petrel rollout start digits@1.0.0 --trial-window 1 --trial-answers 0")["id"].clone();
    fleet.rollout(&id, "the end of the rollout", |rollout| rollout["state"] == "completed");
    fleet
}

/// The model answers as Python did, within a second.
fn answers(fleet: &Fleet) {
    let images = npy(&fleet.desk.path("models/digits/heldout_x.npy"));
    let expected = npy(&fleet.desk.path("models/digits/heldout_class.npy"));
    let began = Instant::now();
    let answer = fleet.classes("edge-1", 1, &images[..64]);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(answer["outputs"][0]["data"][0].as_f64(), Some(expected[0]));
}

/// A document that the fleet's director signed, whoever holds that key now.
fn directed(fleet: &Fleet, payload_type: &str, payload: &Value) -> Vec<u8> {
    let pem = String::from_utf8(fleet.desk.read("fleet/keys/director.pem")).unwrap();
    let key = SigningKey::from_pkcs8_pem(&pem).unwrap();
    let (payload_type, payload) = (payload_type.to_owned(), serde_json::to_vec(payload).unwrap());
    let bytes = key.sign(&pae(&payload_type, &payload)).to_bytes().to_vec();
    let signatures = vec![Signature { key_id: key_id(key.verifying_key().as_bytes()), bytes }];
    Envelope { payload_type, payload, signatures }.to_bytes()
}

/// What the retained assignment says, after `edit`.
fn edited(assigned: &[u8], edit: impl FnOnce(&mut Value)) -> Value {
    let envelope = Envelope::parse(PayloadKind::Assignment, assigned, 1 << 18).unwrap();
    let mut payload = serde_json::from_slice(&envelope.payload).unwrap();
    edit(&mut payload);
    payload
}

#[test]
fn the_old_model_answers_whatever_a_broker_says() {
    let mut fleet = serving();
    answers(&fleet);
    let mut stranger = Stranger::at(&fleet);
    let assigned = stranger.hears(DOWN);
    let media = PayloadKind::Assignment.media_type();
    let flipped = {
        let mut envelope = Envelope::parse(PayloadKind::Assignment, &assigned, 1 << 18).unwrap();
        envelope.payload[20] ^= 1;
        envelope.to_bytes()
    };
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("E_SIG", flipped),
        ("E_TYPE", directed(&fleet, PayloadKind::Beacon.media_type(), &json!({}))),
        ("E_PARSE", b"{".to_vec()),
        ("E_FLEET", directed(&fleet, media, &edited(&assigned, |p| p["fleet"] = "land".into()))),
        ("E_DEVICE", directed(&fleet, media, &edited(&assigned, |p| p["device_id"] = "edge-2".into()))),
        ("E_VERSION", directed(&fleet, media, &edited(&assigned, |p| p["spec"] = 2.into()))),
        ("E_REPLAY", directed(&fleet, media, &edited(&assigned, |p| p["streams"] = json!([])))),
    ];
    for (code, bytes) in &hostile {
        stranger.says(DOWN, bytes, true);
        let reported = |device: &Value| {
            let refusals = device["refusals"].as_array();
            refusals.is_some_and(|all| all.iter().any(|refusal| refusal["code"] == *code))
        };
        let device = fleet.device("edge-1", &format!("a report of {code}"), reported);
        assert_eq!(device["streams"][0]["active"], 1_000_000, "{code}: {device}");
        answers(&fleet);
    }
    fleet.agents.get_mut("edge-1").unwrap().runs();
    stranger.says(DOWN, &assigned, true);
    fleet.device("edge-1", "as wanted", |device| device["streams"][0]["converged"] == true);
}

#[test]
fn a_version_that_is_not_known_is_refused_by_both_sides_and_both_go_on() {
    let mut fleet = serving();
    let mut stranger = Stranger::at(&fleet);
    let assigned = stranger.hears(DOWN);
    // A document from the future may say things that nobody has heard of, under a type that says so.
    let future = edited(&assigned, |payload| {
        payload["spec"] = 2.into();
        payload["unheard"] = json!([1]);
    });
    let v2 = PayloadKind::Assignment.media_type().replace(".v1+", ".v2+");
    let refused = |device: &Value, times: u64| {
        let refusals = device["refusals"].as_array().into_iter().flatten();
        refusals.filter(|r| r["code"] == "E_VERSION").any(|r| r["count"].as_u64() >= Some(times))
    };
    stranger.says(DOWN, &directed(&fleet, PayloadKind::Assignment.media_type(), &future), true);
    fleet.device("edge-1", "a report of E_VERSION", |device| refused(device, 1));
    stranger.says(DOWN, &directed(&fleet, &v2, &future), true);
    fleet.device("edge-1", "another report of E_VERSION", |device| refused(device, 2));
    answers(&fleet);

    // Land: a frame, a report and a verdict of version 2, on the topics of a device that it knows.
    let report = stranger.hears("petrel/v1/sea/d/edge-1/up/report");
    let report = String::from_utf8(report).unwrap().replace("report.v1+json", "report.v2+json");
    for (leaf, bytes) in [("hello", vec![2; 100]), ("telemetry", vec![2; 100]), ("report", report.into_bytes())] {
        stranger.says(&format!("petrel/v1/sea/d/edge-1/up/{leaf}"), &bytes, false);
        let told = |line: &str| line.contains("E_VERSION") && line.contains(&format!("/up/{leaf}"));
        wait_for(&format!("the bridge's word on {leaf}"), || fleet.bridge.said().lines().any(told).then_some(()));
    }
    let status = fleet.desk.json("petrel status");
    assert_eq!(status["devices"], 1);

    // A person: a root of version 2 is refused by name, with what to do.
    let root = String::from_utf8(fleet.desk.read("fleet/root.json")).unwrap().replace("root.v1+json", "root.v2+json");
    fleet.desk.write("future.json", root);
    fleet.desk.refused("petrel verify digits --root future.json", &["future.json", "E_VERSION"], "root.json");
    fleet.bridge.runs();
    fleet.agents.get_mut("edge-1").unwrap().runs();
    stranger.says(DOWN, &assigned, true);
    fleet.device("edge-1", "as wanted", |device| device["streams"][0]["converged"] == true);
}
