//! Devices that misuse their certificates, and devices that are thrown out: on the broker inside, and on Mosquitto as
//! `petrel broker config` sets it up, where it is installed.

use crate::client::{Client, Papers};
use crate::fleet::Fleet;
use crate::programs::wait_for;
use protocol::{BridgeTopic, DeviceId, Topics};
use rumqttc::v5::mqttbytes::v5::{PubAckReason, SubscribeReasonCode};
use serde_json::json;

fn topics() -> Topics {
    Topics::new(&"sea".parse().unwrap())
}

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

#[test]
fn what_a_certificate_is_good_for_on_the_broker_inside() {
    certificates_and_their_limits(Fleet::start());
}

#[test]
fn what_a_certificate_is_good_for_on_mosquitto() {
    certificates_and_their_limits(Fleet::on_mosquitto());
}

fn certificates_and_their_limits(mut fleet: Fleet) {
    fleet.enlist("a");
    fleet.enlist("b");
    the_whole_loop_works(&fleet);
    fleet.agents.remove("a");
    strangers_stay_outside(&fleet);
    a_device_keeps_to_its_own_topics(&fleet);
    a_twin_takes_over_nothing(&fleet);
    a_forged_report_is_ignored_and_counted(&fleet);
    a_revoked_device_is_out_at_once(&mut fleet);
    a_retired_device_leaves_its_name(&mut fleet);
}

fn the_whole_loop_works(fleet: &Fleet) {
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    let id = fleet.desk.json("petrel rollout start digits@1.0.0 --waves 1,100% --trial-window 1")["id"].clone();
    let ended = fleet.rollout(&id, "the end of the rollout", |rollout| rollout["ended"].is_u64());
    assert_eq!((&ended["state"], &ended["hit"]), (&json!("completed"), &json!(2)), "{ended}");
}

fn strangers_stay_outside(fleet: &Fleet) {
    assert!(Client::connect(fleet, None, "a", None).is_err(), "no certificate");
    let elsewhere = Fleet::start();
    elsewhere.enrol("a", "");
    assert!(Client::connect(fleet, Some(Papers::device(&elsewhere.desk, "a")), "a", None).is_err(), "another fleet");
}

fn a_device_keeps_to_its_own_topics(fleet: &Fleet) {
    let papers = || Some(Papers::device(&fleet.desk, "a"));
    let mut client = Client::connect(fleet, papers(), "a", None).unwrap();
    let topics = topics();
    let everything = topics.everything();
    for foreign in [
        topics.upstream(&BridgeTopic::Report(device("b"))),
        topics.assignment(&device("b")),
        topics.assignment(&device("a")),
        everything.replace('#', "all/revocation"),
        topics.envelope(&[0; 32]),
        topics.chunk(&[0; 32]),
    ] {
        assert_eq!(client.publish(&foreign, true, b"x"), PubAckReason::NotAuthorized, "{foreign}");
    }
    let own = topics.upstream(&BridgeTopic::Need(device("a")));
    assert!(matches!(client.publish(&own, false, b"x"), PubAckReason::Success | PubAckReason::NoMatchingSubscribers));
    let all_down = everything.replace('#', "d/+/down/#");
    for foreign in ["#".to_owned(), all_down, topics.assignment(&device("b")), topics.up_filter()] {
        let answer = client.subscribe(&foreign);
        // Mosquitto takes the subscription and delivers nothing.
        let refused = answer == SubscribeReasonCode::NotAuthorized;
        assert!(refused || fleet.has_broker_of_its_own(), "{foreign}: {answer:?}");
    }
    // Land's word for `b` is retained; had `a` been given it, it would have come before the last of its own.
    client.subscribe(&topics.down_filter(&device("a")));
    let own = topics.assignment(&device("a"));
    let mut times = if fleet.has_broker_of_its_own() { 3 } else { 1 };
    while times > 0 {
        let topic = client.next_topic();
        times -= usize::from(topic == own);
        assert!(topic == own || !topic.contains("/d/"), "{topic}");
    }
    drop(client);
    let will = topics.assignment(&device("b"));
    let with_will = Client::connect(fleet, papers(), "a", Some(&will));
    assert!(with_will.is_err() || fleet.has_broker_of_its_own(), "what it leaves behind must be its own");
}

fn a_twin_takes_over_nothing(fleet: &Fleet) {
    let before = fleet.agents["b"].said();
    let twin = Client::connect(fleet, Some(Papers::device(&fleet.desk, "a")), "b", None);
    // Mosquitto lets it in, as `a`.
    assert!(twin.is_err() || fleet.has_broker_of_its_own());
    if let Ok(mut twin) = twin {
        let topic = topics().upstream(&BridgeTopic::Presence(device("b")));
        assert_eq!(twin.publish(&topic, true, br#"{"boot":9,"online":false}"#), PubAckReason::NotAuthorized);
    }
    let device = fleet.device("b", "still there", |device| device["online"] == true);
    assert_eq!(device["status"], "approved");
    let lost = |said: &str| said.matches("the connection is lost").count();
    assert_eq!(lost(&fleet.agents["b"].said()), lost(&before));
}

/// T70: a broker, or whoever holds the bridge's papers, cannot speak for a device.
fn a_forged_report_is_ignored_and_counted(fleet: &Fleet) {
    let count = |why: &str| fleet.ask("/status").1["disbelieved"][why].as_u64().unwrap_or(0);
    let before = fleet.device("b", "its report", |device| device["reported_generation"].is_u64());
    let counted = count("malformed") + count("signature");
    let mut forger = Client::connect(fleet, Some(Papers::bridge(&fleet.desk)), "petrel-bridge-forger", None).unwrap();
    let forged = json!({ "payload": "e30=", "payloadType": "application/vnd.petrel.report.v1+json",
        "signatures": [{ "keyid": before["key_id"], "sig": "A".repeat(86) + "==" }] });
    let topic = topics().upstream(&BridgeTopic::Report(device("b")));
    forger.publish(&topic, true, forged.to_string().as_bytes());
    drop(forger);
    wait_for("the forged report to be counted", || (count("malformed") + count("signature") > counted).then_some(()));
    let after = fleet.device("b", "its report", |_| true);
    assert_eq!(
        (&after["reported_generation"], &after["streams"]),
        (&before["reported_generation"], &before["streams"])
    );
}

fn a_revoked_device_is_out_at_once(fleet: &mut Fleet) {
    let papers = || Some(Papers::device(&fleet.desk, "a"));
    let mut live = Client::connect(fleet, papers(), "a", None).unwrap();
    fleet.desk.json("petrel devices revoke a");
    live.ended();
    wait_for("the certificate to be refused", || Client::connect(fleet, papers(), "a", None).is_err().then_some(()));
    assert_eq!(fleet.ask("/devices/a").1["status"], "revoked");
    fleet.desk.refused("petrel devices approve a", &["revoked"], "petrel devices ls");
    fleet.desk.refused("petrel devices token new a --out again.join", &["`a`", "name_taken"], "petrel devices ls");
    // The agent itself is told, and goes on with its model.
    fleet.start_agent("a");
    wait_for("the agent to hear of it", || {
        fleet.agents["a"].said().contains("does not want this device").then_some(())
    });
    wait_for("its model", || (fleet.local("a", "/v2/models/digits/ready", None).0 == 200).then_some(()));
    assert_eq!(fleet.local("a", "/status", None).1["connected"], false);
    fleet.device("b", "still there", |device| device["online"] == true);
}

fn a_retired_device_leaves_its_name(fleet: &mut Fleet) {
    let before = fleet.device("b", "its key", |_| true);
    fleet.desk.json("petrel devices retire b");
    assert_eq!(fleet.ask("/devices/b").1["status"], "retired");
    fleet.agents.remove("b");
    fleet.desk.json("petrel devices token new b --out again.join");
    assert!(
        fleet.desk.done("petrel-agent enrol again.join --config b.toml").contains(before["key_id"].as_str().unwrap())
    );
    fleet.desk.done("petrel-agent enrol again.join --config b.toml --again");
    fleet.start_agent("b");
    let after = fleet.device("b", "back", |device| device["reported_generation"].is_u64() && device["online"] == true);
    assert_ne!(after["key_id"], before["key_id"]);
    assert_eq!(after["status"], "approved");
    assert!(after["generation"].as_u64() > before["generation"].as_u64(), "{after}");
}

/// T64: a copy of a device's folder takes the connection from it, and it takes it back.
#[test]
fn two_agents_with_one_identity_raise_an_alarm() {
    let mut fleet = Fleet::on_mosquitto();
    fleet.enlist("a");
    fleet.desk.done("/bin/cp -r a twin");
    let config = String::from_utf8(fleet.desk.read("a.toml")).unwrap();
    fleet.desk.write("twin.toml", config.replace("state = \"a\"", "state = \"twin\""));
    let twin = fleet.desk.start("petrel-agent run --config twin.toml", "twin.log");
    fleet.agents.insert("twin".into(), twin);
    let told = |alarm: &serde_json::Value| alarm.as_str().is_some_and(|what| what.starts_with("two agents use this"));
    fleet.device("a", "the alarm", |device| told(&device["alarm"]));
    let shown = fleet.desk.done("petrel devices show a");
    assert!(shown.contains("ALARM") && shown.contains("two agents"), "{shown}");
}
