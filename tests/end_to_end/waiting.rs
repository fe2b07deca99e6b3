//! What a device measures while nobody hears it.
//!
//! Decides what land knows of it afterwards, when the agent too was started again meanwhile. How much fits, and what is
//! merged, is another room's.

use crate::fleet::Fleet;
use crate::programs::wait_for;
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[test]
fn telemetry_waits_for_a_land_that_is_away_and_is_taken_once() {
    let mut fleet = Fleet::start();
    fleet.enlist("edge-1");
    let addresses = fleet.desk.read("fleet/data/bridge.json");
    fleet.bridge.kill();
    let spool = |fleet: &Fleet, what: &str, good: fn(&Value) -> bool| {
        wait_for(what, || Some(fleet.local("edge-1", "/status", None).1).filter(good))["spool"].clone()
    };
    let waits = spool(&fleet, "what waits", |status| status["spool"]["waiting"].as_u64() >= Some(3));
    assert!(fleet.agents.get_mut("edge-1").unwrap().terminate().success());
    fleet.start_agent("edge-1");
    let more = spool(&fleet, "what waits after a restart", |status| status["spool"]["waiting"].as_u64() >= Some(6));
    assert!(more["bytes"].as_u64() > waits["bytes"].as_u64(), "{waits} {more}");
    let told = fleet.desk.done("petrel-agent status --config edge-1.toml");
    assert!(told.contains("messages wait"), "{told}");

    fleet.bridge_again(&addresses);
    let rest = spool(&fleet, "an empty spool", |s| s["connected"] == true && s["spool"]["waiting"] == 0);
    assert_eq!((&rest["merged"], &rest["dropped"], &rest["damaged"]), (&json!(0), &json!(0), &json!(0)));
    let taken = wait_for("what waited", || {
        let items = fleet.ask("/devices/edge-1/telemetry?limit=1000").1["items"].as_array()?.clone();
        (items.len() as u64 >= more["waiting"].as_u64()?).then_some(items)
    });
    let moments: Vec<u64> = taken.iter().filter_map(|t| t["measured_at"].as_u64()).collect();
    assert_eq!(BTreeSet::from_iter(&moments).len(), taken.len(), "each once: {moments:?}");
    assert!(moments.is_sorted(), "in order: {moments:?}");
    let told = fleet.desk.done("petrel devices telemetry edge-1");
    assert!(told.contains("they cover"), "{told}");
}

/// The bundle comes slowly, as the agent's configuration says; so there is something to be seen.
#[test]
fn people_see_how_far_a_bundle_has_arrived() {
    let mut fleet = Fleet::start();
    fleet.enrol("edge-1", "");
    let config = String::from_utf8(fleet.desk.read("edge-1.toml")).unwrap();
    fleet.desk.write("edge-1.toml", format!("{config}fetch_rate = 15000\n"));
    fleet.start_agent("edge-1");
    fleet.device("edge-1", "its first assignment", |device| device["reported_generation"].is_u64());
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    let id = fleet.desk.json("petrel rollout start digits@1.0.0 --trial-window 2")["id"].clone();
    let under_way = |row: &Value| {
        let number = |key: &str| row[key].as_u64().unwrap_or(0);
        row["devices"] == 1 && number("rate") > 0 && (1..number("total")).contains(&number("arrived"))
    };
    let rollout = fleet.rollout(&id, "what arrives", |rollout| under_way(&rollout["arriving"]));
    assert!(rollout["arriving"]["left_s"].is_u64(), "{rollout}");
    let shown = fleet.device("edge-1", "what arrives", |device| under_way(&device["streams"][0]["arriving"]));
    assert_eq!(shown["streams"][0]["arriving"]["total"], rollout["arriving"]["total"]);
    let beside = wait_for("what arrives, beside the device", || {
        Some(fleet.local("edge-1", "/status", None).1)
            .filter(|s| s["streams"][0]["progress"]["rate"].as_u64() > Some(0))
    });
    assert_eq!(beside["streams"][0]["progress"]["total"], rollout["arriving"]["total"]);
    fleet.rollout(&id, "the end of the rollout", |rollout| rollout["state"] == "completed");
    fleet.device("edge-1", "nothing that arrives", |device| device["streams"][0]["arriving"].is_null());
}
