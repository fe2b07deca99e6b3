//! A hostile broker, and what people take away, meet a device that answers: each is refused with its code, the device says
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
    signed(desk, "director", payload_type, payload)
}

/// A document that the holder of a role signed.
fn signed(desk: &Desk, role: &str, payload_type: &str, payload: &Value) -> Vec<u8> {
    let pem = String::from_utf8(desk.read(&format!("fleet/keys/{role}.pem"))).unwrap();
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

#[test]
fn seven_attacks_are_refused_while_the_model_answers() {
    let desk = Desk::new();
    let told = desk.json("petrel demo --attack --devices 2");
    let codes: Vec<&str> = told["attacks"].as_array().unwrap().iter().map(|a| a["code"].as_str().unwrap()).collect();
    let expected =
        ["E_SIG", "E_DEVICE", "E_REPLAY", "E_THRESHOLD", "E_UNDECLARED_ROLLBACK", "E_MISMATCH", "E_TIME_JUMP"];
    assert_eq!(codes, expected, "{told}");
    assert!(told["old_model_answered_throughout"] == true && told["requests"].as_u64() > Some(100), "{told}");
    assert_eq!(told["recovered"], 2);
}

/// The release that answers.
fn answering(fleet: &Fleet) -> Value {
    let (status, told) = fleet.local("edge-1", "/v2/models/digits", None);
    assert_eq!(status, 200, "{told}");
    told["versions"][0].clone()
}

/// Rolls a version of digits out to all.
fn install(fleet: &Fleet, version: &str) {
    fleet.desk.bundle("digits", version, version);
    fleet.desk.json(&format!("petrel push {version}"));
    let line = format!("petrel rollout start digits@{version} --trial-window 1 --trial-answers 0");
    let id = fleet.desk.json(&line)["id"].clone();
    fleet.rollout(&id, "the end of the rollout", |rollout| rollout["state"] == "completed");
}

/// T19 and T22.
#[test]
fn what_was_taken_away_falls_back_within_seconds_and_installs_no_more() {
    let mut fleet = serving();
    install(&fleet, "1.1.0");
    assert_eq!(answering(&fleet), "1001000");
    fleet.desk.bundle("digits", "1.2.0", "next");
    fleet.desk.json("petrel push next");
    fleet.desk.done(
        "petrel revoke --root fleet/root.json --out one.json --take-bundle digits:1001000-1001000 --severity fallback \
         --reason wrong --key fleet/keys/revocation.pem",
    );
    let began = Instant::now();
    fleet.desk.done("petrel publish one.json");
    wait_for("the release before it", || (answering(&fleet) == "1000000").then_some(()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let device = refused(&fleet, "E_REVOKED_BUNDLE", 1);
    assert_eq!(device["streams"][0]["active"], 1_000_000, "{device}");

    // The publisher's key is taken away; whoever holds land hands out what it signed before.
    fleet.desk.done(
        "petrel revoke --root fleet/root.json --after one.json --out two.json --take-key keys/publisher.pub \
         --reason stolen --key fleet/keys/revocation.pem",
    );
    fleet.desk.done("petrel publish two.json");
    fleet.device("edge-1", "the revocation", |device| device["revocation"] == 2);
    let statement = fleet.desk.json("petrel inspect next");
    let files = statement["files"].as_array().unwrap();
    let size: u64 = files.iter().map(|file| file["size"].as_u64().unwrap()).sum();
    in_the_name_of_land(&mut fleet, |desk, broker| {
        let digest = statement["statement_sha256"].as_str().unwrap();
        let topic = topics().envelope(&digest.parse::<trust::Digest>().unwrap().0);
        broker.publish(&topic, true, &desk.read("next/bundle.dsse.json"));
        let assigned = broker.hears(&down());
        let wish = edited(&assigned, |payload| {
            payload["seq"] = (payload["seq"].as_u64().unwrap() + 1).into();
            let stream = &mut payload["streams"][0];
            stream["release"] = 1_002_000.into();
            stream["statement_sha256"] = digest.into();
            stream["total_size"] = size.into();
        });
        broker.publish(&down(), true, &directed(desk, PayloadKind::Assignment.media_type(), &wish));
    });
    refused(&fleet, "E_REVOKED_KEY", 1);
    assert_eq!(answering(&fleet), "1000000");
    answers(&fleet);
}

/// T14.
#[test]
fn after_the_root_has_expired_the_old_model_answers_until_a_newer_root_comes() {
    let fleet = serving();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let first = Envelope::parse(PayloadKind::Root, &fleet.desk.read("fleet/root.json"), 1 << 16).unwrap();
    let mut root: Value = serde_json::from_slice(&first.payload).unwrap();
    root["version"] = 2.into();
    root["prev_sha256"] = json!(trust::Digest::of(&first.payload));
    root["expires"] = json!(trust::Time::from_unix(i64::try_from(now).unwrap() + 5).unwrap());
    let root = signed(&fleet.desk, "root", PayloadKind::Root.media_type(), &root);
    fleet.desk.write("root-2.json", root);
    fleet.desk.done("petrel publish root-2.json");
    let device = fleet.device("edge-1", "the end of the root", |device| device["clock"] == "expired");
    assert_eq!(device["root_version"], 2, "{device}");
    fleet.desk.bundle("digits", "1.1.0", "next");
    fleet.desk.json("petrel push next");
    let id = fleet.desk.json("petrel rollout start digits@1.1.0 --trial-window 1 --trial-answers 0")["id"].clone();
    let device = refused(&fleet, "E_EXPIRED_ROOT", 1);
    assert_eq!(device["streams"][0]["active"], 1_000_000, "{device}");
    answers(&fleet);

    fleet.desk.done("petrel root rotate --root root-2.json --out root-3.json");
    fleet.desk.done("petrel root sign root-3.json --root root-2.json --key fleet/keys/root.pem");
    fleet.desk.done("petrel publish root-3.json");
    fleet.rollout(&id, "the end of the rollout", |rollout| rollout["state"] == "completed");
    assert_eq!(answering(&fleet), "1001000");
}

/// T60: whatever is retained on every topic that a device hears, before it connects.
#[test]
fn poison_that_is_retained_everywhere_keeps_nobody_from_answering_or_from_the_next_release() {
    let mut fleet = serving();
    let packed = fleet.desk.bundle("digits", "1.1.0", "next");
    fleet.desk.json("petrel push next");
    let statement = fleet.desk.json("petrel inspect next");
    let digest = |text: &Value| text.as_str().unwrap().parse::<trust::Digest>().unwrap().0;
    let bundle = digest(&packed["statement_sha256"]);
    let files = statement["files"].as_array().unwrap();
    let index = files.iter().find(|file| file["name"] == "chunks.bin").unwrap();
    let mut poisoned = vec![
        down(),
        topics().answer(&"edge-1".parse().unwrap()),
        topics().root(2),
        topics().revocation(),
        topics().beacon(),
        topics().breakglass(),
        topics().envelope(&bundle),
        topics().offer(&bundle),
        topics().chunk(&digest(&index["digest"])),
    ];
    poisoned.push(topics().down_filter(&"edge-1".parse().unwrap()).replace('+', "unheard"));
    fleet.agents.get_mut("edge-1").unwrap().terminate();
    let broker = fleet.broker();
    let addresses = fleet.desk.read("fleet/data/bridge.json");
    fleet.bridge.kill();
    let mut client = Client::at(&fleet.desk, broker, Some(Papers::bridge(&fleet.desk)), BRIDGE_NAME, None).unwrap();
    for topic in &poisoned {
        client.publish(topic, true, &vec![b'{'; 60_000]);
    }
    drop(client);
    fleet.start_agent("edge-1");
    wait_for("the model", || (fleet.local("edge-1", "/v2/models/digits/ready", None).0 == 200).then_some(()));
    let count = || {
        let told = fleet.local("edge-1", "/status", None).1;
        told["refusals"].as_array().unwrap().iter().map(|r| r["count"].as_u64().unwrap()).sum::<u64>()
    };
    wait_for("all the poison that is heard at once", || (count() >= 6).then_some(()));
    answers(&fleet);
    fleet.bridge_again(&addresses);
    let line = "petrel rollout start digits@1.1.0 --trial-window 1 --trial-answers 0";
    let id = fleet.desk.json(line)["id"].clone();
    fleet.rollout(&id, "the end of the rollout", |rollout| rollout["state"] == "completed");
    assert_eq!(answering(&fleet), "1001000");
}

/// T63: a flood costs a bounded memory, and no answer.
#[test]
fn a_flood_takes_no_memory_and_no_answer() {
    let mut fleet = serving();
    let pid = fleet.agents["edge-1"].id();
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    answers(&fleet);
    let before = peak();
    in_the_name_of_land(&mut fleet, |_, broker| broker.flood(&down(), 30_000, &[b'{'; 2_000]));
    answers(&fleet);
    refused(&fleet, "E_PARSE", 1);
    let after = peak();
    assert!(after < before + 32, "{before} MiB before, {after} MiB after");
    fleet.agents.get_mut("edge-1").unwrap().runs();
}
