//! A hostile broker says things to a device that answers, and to land: each is refused with its code, the device says
//! so in its report, the old model goes on answering, and both programs live.
//!
//! Decides what is seen from outside. Every way in which a document can be hostile is tried where it is decided.

use crate::answers::npy;
use crate::client::{Client, Papers};
use crate::fleet::Fleet;
use crate::programs::{Desk, wait_for};
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use protocol::{BRIDGE_NAME, BridgeTopic, DeviceId, Topics};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use trust::{Envelope, PayloadKind, Signature, key_id, pae};

/// Where a device hears what it should run.
fn down() -> String {
    topics().assignment(&"edge-1".parse().unwrap())
}

fn topics() -> Topics {
    Topics::new(&"sea".parse().unwrap())
}

/// One device that runs digits.
fn serving() -> Fleet {
    let mut fleet = Fleet::on_mosquitto();
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
fn directed(desk: &Desk, payload_type: &str, payload: &Value) -> Vec<u8> {
    let pem = String::from_utf8(desk.read("fleet/keys/director.pem")).unwrap();
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

/// What a broker says while land is away, in the bridge's own name: nobody stops it.
fn in_the_name_of_land(fleet: &mut Fleet, says: impl FnOnce(&Desk, &mut Client)) {
    let broker = fleet.broker();
    fleet.cut_bridge_and(|desk| {
        let papers = Papers::bridge(desk);
        let mut broker = Client::at(desk, broker, Some(papers), BRIDGE_NAME, None).expect("it may come in");
        says(desk, &mut broker);
    });
}

/// Waits until a device reports that it refused something with `code`, so many times.
fn refused(fleet: &Fleet, code: &str, times: u64) -> Value {
    let reported = |device: &Value| {
        let refusals = device["refusals"].as_array().into_iter().flatten();
        refusals.filter(|r| r["code"] == *code).any(|r| r["count"].as_u64() >= Some(times))
    };
    fleet.device("edge-1", &format!("a report of {code}"), reported)
}

#[test]
fn the_old_model_answers_whatever_a_broker_says() {
    let mut fleet = serving();
    answers(&fleet);
    let mut codes = Vec::new();
    in_the_name_of_land(&mut fleet, |desk, broker| {
        let assigned = broker.hears(&down());
        let media = PayloadKind::Assignment.media_type();
        let flipped = {
            let mut envelope = Envelope::parse(PayloadKind::Assignment, &assigned, 1 << 18).unwrap();
            envelope.payload[20] ^= 1;
            envelope.to_bytes()
        };
        let hostile: Vec<(&str, Vec<u8>)> = vec![
            ("E_SIG", flipped),
            ("E_TYPE", directed(desk, PayloadKind::Beacon.media_type(), &json!({}))),
            ("E_PARSE", b"{".to_vec()),
            ("E_FLEET", directed(desk, media, &edited(&assigned, |p| p["fleet"] = "land".into()))),
            ("E_DEVICE", directed(desk, media, &edited(&assigned, |p| p["device_id"] = "edge-2".into()))),
            ("E_VERSION", directed(desk, media, &edited(&assigned, |p| p["spec"] = 2.into()))),
            ("E_REPLAY", directed(desk, media, &edited(&assigned, |p| p["streams"] = json!([])))),
        ];
        for (code, bytes) in hostile {
            broker.publish(&down(), true, &bytes);
            codes.push(code);
        }
        broker.publish(&down(), true, &assigned);
    });
    for code in codes {
        let device = refused(&fleet, code, 1);
        assert_eq!(device["streams"][0]["active"], 1_000_000, "{code}: {device}");
    }
    answers(&fleet);
    fleet.agents.get_mut("edge-1").unwrap().runs();
    fleet.device("edge-1", "as wanted", |device| device["streams"][0]["converged"] == true);
}

#[test]
fn a_version_that_is_not_known_is_refused_by_both_sides_and_both_go_on() {
    let mut fleet = serving();
    fleet.enlist("edge-2");
    let edge_2: DeviceId = "edge-2".parse().unwrap();
    let up = |topic: fn(DeviceId) -> BridgeTopic| topics().upstream(&topic(edge_2.clone()));
    let mut report = Vec::new();
    in_the_name_of_land(&mut fleet, |desk, broker| {
        report = broker.hears(&up(BridgeTopic::Report));
        let assigned = broker.hears(&down());
        // A document from the future may say things that nobody has heard of, under a type that says so.
        let future = edited(&assigned, |payload| {
            payload["spec"] = 2.into();
            payload["unheard"] = json!([1]);
        });
        let v1 = PayloadKind::Assignment.media_type();
        for media in [v1.to_owned(), v1.replace(".v1+", ".v2+")] {
            broker.publish(&down(), true, &directed(desk, &media, &future));
        }
        broker.publish(&down(), true, &assigned);
    });
    refused(&fleet, "E_VERSION", 2);
    answers(&fleet);

    // Land: a frame and a report of version 2, from a device that it knows.
    fleet.agents.get_mut("edge-2").unwrap().terminate();
    let papers = Papers::device(&fleet.desk, "edge-2");
    let mut device = Client::connect(&fleet, Some(papers), "edge-2", None).expect("it may come in");
    let report = String::from_utf8(report).unwrap().replace("report.v1+json", "report.v2+json");
    for (topic, bytes) in [
        (up(BridgeTopic::Hello), vec![2; 100]),
        (up(BridgeTopic::Telemetry), vec![2; 100]),
        (up(BridgeTopic::Report), report.into_bytes()),
    ] {
        device.publish(&topic, false, &bytes);
        let told = |line: &str| line.contains("E_VERSION") && line.contains(&topic);
        wait_for(&format!("the bridge's word on {topic}"), || fleet.bridge.said().lines().any(told).then_some(()));
    }
    assert_eq!(fleet.desk.json("petrel status")["devices"], 2);

    // A person: a root of version 2 is refused by name, with what to do.
    let root = String::from_utf8(fleet.desk.read("fleet/root.json")).unwrap().replace("root.v1+json", "root.v2+json");
    fleet.desk.write("future.json", root);
    fleet.desk.refused("petrel verify digits --root future.json", &["future.json", "E_VERSION"], "root.json");
    fleet.bridge.runs();
    fleet.agents.get_mut("edge-1").unwrap().runs();
    fleet.device("edge-1", "as wanted", |device| device["streams"][0]["converged"] == true);
}
