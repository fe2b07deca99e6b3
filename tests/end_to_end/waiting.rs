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
