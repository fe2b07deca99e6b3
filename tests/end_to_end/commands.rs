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

#[test]
fn many_devices_are_asked_at_once() {
    let mut fleet = Fleet::start();
    for (id, site) in [("edge-1", "north"), ("edge-2", "north"), ("edge-3", "south"), ("edge-4", "north")] {
        fleet.enlist(id);
        fleet.desk.done(&format!("petrel devices label {id} site={site}"));
    }
    assert!(fleet.agents.get_mut("edge-4").unwrap().terminate().success());
    fleet.device("edge-4", "gone", |device| device["online"] == false);

    let told = fleet.desk.json("petrel devices command -l site=north report");
    assert_eq!((&told["given"], &told["left_out"]), (&json!(2), &json!(1)), "{told}");
    assert_eq!(told["answers"], json!({ "waiting": 0, "done": 2, "refused": 0, "failed": 0, "silent": 0 }));
    let people = fleet.desk.done("petrel devices command -l site=north --to not(id=edge-2) log-level debug --for 1m");
    for word in ["fan-out 2 of admin", "1 devices were asked, 1 were not there", "done"] {
        assert!(people.contains(word), "{people}");
    }
    let whose = fleet.desk.json("petrel devices fan-outs 1 --commands");
    let whose: Vec<_> =
        whose.as_array().unwrap().iter().map(|command| (&command["device"], &command["state"])).collect();
    assert_eq!(whose, [(&json!("edge-1"), &json!("done")), (&json!("edge-2"), &json!("done"))]);
    // Each device's own list has it too.
    let own = fleet.desk.json("petrel devices commands edge-1");
    assert_eq!(own.as_array().unwrap().len(), 2, "{own}");

    // Nobody has this stream: each says so itself.
    let said = fleet.desk.run("petrel devices command --to site=south restart digits");
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("edge-3") && said.out.contains("E_REQUEST"), "{}", said.out);
    assert!(said.err.contains("1 of 1 devices have not done it"), "{}", said.err);
    assert!(fleet.desk.done("petrel devices fan-outs 3").contains("E_REQUEST"));
    assert_eq!(fleet.ask("/fan-outs/3/commands?state=done").1["items"], json!([]));
    assert_eq!(fleet.ask("/fan-outs/3/commands?state=refused").1["items"][0]["device"], "edge-3");
    let all = fleet.desk.done("petrel devices fan-outs");
    assert!(all.contains("label.site=") && all.contains("site=south"), "{all}");

    fleet.desk.refused("petrel devices command --to id=edge-4 report", &["none of the 1 devices"], "petrel devices");
    fleet.desk.refused("petrel devices command --to site=west report", &["no device of the fleet"], "petrel devices");
    let token = fleet.token_of("ann", "operator");
    for (to, what, code) in
        [("site=", "report", "invalid"), ("online", "diagnostics", "invalid"), ("online", "x", "E_REQUEST")]
    {
        let body = json!({ "to": to, "request": { "what": what } });
        let (status, problem) = fleet.post_as(&token, "/fan-outs", &body);
        assert_eq!((status, &problem["code"]), (422, &json!(code)), "{to} {what}: {problem}");
    }
    let long = json!({ "to": "online", "request": { "what": "restart", "stream": "x".repeat(64) } });
    assert_eq!(fleet.post_as(&token, "/fan-outs", &long).1["code"], "E_REQUEST");
    assert_eq!(fleet.ask("/fan-outs/3/commands?state=dance").0, 400);
    assert_eq!(fleet.ask("/fan-outs/1/commands?limit=1").1["next"], "edge-1");
    assert_eq!(fleet.ask("/fan-outs/1/commands?after=edge-1").1["items"][0]["device"], "edge-2");
    // What cannot be done of many, or names nobody, is told before anybody is asked.
    fleet.desk.refused(
        "petrel devices command -l site=north --wait report",
        &["--wait is for one device"],
        "without it",
    );
    for line in ["edge-1 -l site=north report", "report", "-l site=a\"b report"] {
        assert_eq!(fleet.desk.run(&format!("petrel devices command {line}")).code, Some(2), "{line}");
    }
    let audit = fleet.ask("/audit?action=device.fan_out&limit=50").1["items"].as_array().unwrap().clone();
    let lines: Vec<Value> =
        audit.iter().map(|line| serde_json::from_str(line["text"].as_str().unwrap()).unwrap()).collect();
    let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    let outcome = |line: usize| outcomes[line];
    assert_eq!(outcomes.len(), 9, "{lines:?}");
    assert_eq!([6, 7, 8].map(outcome), ["conflict", "conflict", "invalid"], "{lines:?}");
    assert!((0..6).all(|line| outcome(line) == "done"), "{lines:?}");
    assert_eq!(lines[0]["subject"], "{\"what\":\"report\"} to label.site=\"north\"");
    assert_eq!(lines[1]["subject"], "1: 2 devices asked, 1 not there");
}
