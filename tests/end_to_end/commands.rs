//! What an operator asks of a device from afar: a bundle for whoever looks for a fault, a new process, another log.
//!
//! Decides what people see of it. Who may ask, and when a command counts, are tables of the cores.

use crate::fleet::Fleet;
use crate::programs::wait_for;
use serde_json::{Value, json};

/// A fleet of one device that runs the digits.
fn running() -> Fleet {
    let mut fleet = Fleet::start();
    fleet.enlist("edge-1");
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    let id = fleet.desk.json("petrel rollout start digits@1.0.0 --trial-window 1")["id"].clone();
    fleet.rollout(&id, "the release", |rollout| rollout["state"] == "completed");
    fleet
}

fn process(fleet: &Fleet) -> Value {
    let up = |status: Value| Some(status["streams"][0]["process"].clone()).filter(Value::is_u64);
    wait_for("a model's process", || up(fleet.local("edge-1", "/status", None).1))
}

#[test]
fn an_operator_asks_a_device_from_afar() {
    let mut fleet = running();
    let done = |fleet: &Fleet, line: &str| fleet.desk.json(&format!("petrel devices command edge-1 {line}"));

    let before = process(&fleet);
    assert_eq!(done(&fleet, "restart digits")["state"], "done");
    assert_ne!(process(&fleet), before);
    let (status, _) = fleet.local("edge-1", "/v2/models/digits/ready", None);
    assert_eq!(status, 200);

    // The log says more for a time, and then as before.
    let said = |fleet: &mut Fleet| fleet.agents.get_mut("edge-1").unwrap().said();
    assert!(!said(&mut fleet).contains(" DEBUG "));
    assert_eq!(done(&fleet, "log-level debug --for 2s")["state"], "done");
    wait_for("a log that says more", || said(&mut fleet).contains(" DEBUG ").then_some(()));
    wait_for("a log as before", || (said(&mut fleet).matches("what is logged has changed").count() == 2).then_some(()));

    let latest = |fleet: &Fleet| {
        let items = fleet.ask("/devices/edge-1/telemetry?limit=1000").1["items"].as_array().unwrap().clone();
        items.len()
    };
    let before = latest(&fleet);
    assert_eq!(done(&fleet, "report")["state"], "done");
    wait_for("telemetry", || (latest(&fleet) > before).then_some(()));

    the_diagnostics_say_all_but_secrets(&fleet);
    what_cannot_be_done_is_told(&mut fleet);
}

fn the_diagnostics_say_all_but_secrets(fleet: &Fleet) {
    let line = "petrel devices command edge-1 diagnostics";
    let told = fleet.desk.done(&format!("{line} --out edge-1.json"));
    assert!(told.contains("edge-1.json"), "{told}");
    let written: Value = serde_json::from_slice(&fleet.desk.read("edge-1.json")).unwrap();
    let answer = fleet.desk.json(line);
    for diagnostics in [&written, &answer["diagnostics"]] {
        assert_eq!(diagnostics["status"]["streams"][0]["active"], 1_000_000, "{diagnostics}");
        assert_eq!(diagnostics["status"]["connected"], true);
        let settings = diagnostics["config"].as_array().unwrap();
        let broker = settings.iter().find(|setting| setting["key"] == "broker").unwrap();
        assert!(broker["value"].as_str().unwrap().contains("mqtts://"), "{broker}");
        assert_eq!(broker["from"], "edge-1.toml");
        let log = diagnostics["log"].as_array().unwrap();
        let lines: Vec<Value> = log.iter().map(|line| serde_json::from_str(line.as_str().unwrap()).unwrap()).collect();
        assert!(lines.iter().any(|line| line["message"] == "connected"), "{diagnostics}");
    }
    // Neither the key of the device nor what let it in is anywhere in it.
    let text = written.to_string();
    let join: Value = serde_json::from_slice(&fleet.desk.read("edge-1.join")).unwrap();
    let files = std::fs::read_dir(fleet.desk.path("edge-1/identity")).unwrap().map(|file| file.unwrap().path());
    let keys: Vec<_> = files.filter(|file| file.extension().is_some_and(|kind| kind == "key")).collect();
    assert!(!keys.is_empty(), "the device has a key");
    for key in keys {
        let bytes = std::fs::read(&key).unwrap();
        let said = String::from_utf8_lossy(&bytes);
        // As its file has it, in the longest line of that.
        let longest = said.lines().max_by_key(|line| line.len()).unwrap();
        assert!(longest.len() > 20 && !text.contains(longest), "{}", key.display());
    }
    assert!(!text.contains(join["token"].as_str().unwrap()) && !text.contains("PRIVATE KEY"));
    let people = fleet.desk.done(line);
    assert!(people.contains("KEY") && people.contains("connected"), "{people}");
}

fn what_cannot_be_done_is_told(fleet: &mut Fleet) {
    let line = |rest: &str| format!("petrel devices command edge-1 {rest}");
    fleet.desk.refused(
        &line("restart prime"),
        &["edge-1", "refused", "E_REQUEST", "prime"],
        "petrel devices show edge-1",
    );
    fleet.desk.refused("petrel devices command edge-9 report", &["edge-9"], "petrel devices ls");
    let (status, problem) = post(fleet, &json!({ "request": { "what": "dance" } }));
    assert_eq!((status, &problem["code"]), (422, &json!("E_REQUEST")), "{problem}");
    let (status, problem) = post(fleet, &json!({ "request": { "what": "report" }, "good_for_s": 0 }));
    assert_eq!((status, &problem["code"]), (422, &json!("invalid")), "{problem}");

    let told = fleet.desk.json("petrel devices commands edge-1");
    let states: Vec<_> = told.as_array().unwrap().iter().map(|c| (&c["seq"], c["state"].as_str().unwrap())).collect();
    assert_eq!(states.len(), 7, "{told}");
    assert!(states[..6].iter().all(|(_, state)| *state == "done") && states[6].1 == "refused", "{told}");
    assert!(
        told[3].get("diagnostics").is_none() && fleet.desk.done("petrel devices commands edge-1").contains("restart")
    );
    let audit = fleet.ask("/audit?action=device.command&limit=50").1;
    let outcomes: Vec<Value> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let line: Value = serde_json::from_str(line["text"].as_str().unwrap()).unwrap();
            line["outcome"].clone()
        })
        .collect();
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "done").count(), 7, "{audit}");

    assert!(fleet.agents.get_mut("edge-1").unwrap().terminate().success());
    fleet.device("edge-1", "gone", |device| device["online"] == false);
    fleet.desk.refused(&line("report"), &["edge-1", "offline"], "petrel devices");
    // Somebody waits until it is back.
    let mut waits = fleet.desk.start(&line("report --wait"), "waits.log");
    fleet.start_agent("edge-1");
    assert!(waits.ended().success(), "{}", waits.said());
}

fn post(fleet: &Fleet, body: &Value) -> (u16, Value) {
    let token = String::from_utf8(fleet.desk.read("fleet/data/admin.token")).unwrap();
    fleet.post_as(token.trim(), "/devices/edge-1/commands", body)
}
