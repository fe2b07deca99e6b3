//! A release that nobody hears yet: it is compared with the one that answers, and goes on trial or goes back.

use crate::answers::npy;
use crate::fleet::Fleet;
use crate::programs::wait_for;
use serde_json::{Value, json};
use std::cell::Cell;

/// Asks about one picture after the other, until the rollout has ended; gives it and the releases that answered.
fn asked_until_the_end(fleet: &Fleet, id: &Value) -> (Value, Vec<String>) {
    let images = npy(&fleet.desk.path("models/digits/heldout_x.npy"));
    let (next, mut by) = (Cell::new(0), Vec::new());
    let mut ask = || {
        let at = next.replace((next.get() + 1) % (images.len() / 64)) * 64;
        let (status, answer) = fleet.try_classes("edge-1", &images[at..at + 64]);
        assert_eq!(status, 200, "{answer}");
        by.push(answer["model_version"].as_str().unwrap().to_owned());
    };
    let ended = wait_for("the end of the rollout", || {
        (0..20).for_each(|_| ask());
        Some(fleet.ask(&format!("/rollouts/{id}")).1).filter(|rollout| rollout["ended"].is_u64())
    });
    by.dedup();
    (ended, by)
}

#[test]
fn a_release_is_compared_before_anybody_hears_it() {
    let mut fleet = Fleet::start();
    fleet.enlist("edge-1");
    let push = |fleet: &Fleet, model: &str, version: &str| {
        fleet.desk.bundle(model, version, version);
        fleet.desk.json(&format!("petrel push {version}"));
    };
    push(&fleet, "digits", "1.0.0");
    // With nothing to be compared with, the first release goes on trial at once.
    let line = "petrel rollout start digits@1.0.0 --trial-window 1 --shadow 50";
    let id = fleet.desk.json(line)["id"].clone();
    fleet.rollout(&id, "the first release", |rollout| rollout["state"] == "completed");

    // One that cannot answer everything goes back, and nobody has heard it.
    push(&fleet, "digits-bad", "1.1.0");
    let line = "petrel rollout start digits@1.1.0 --shadow 100 --max-disagreement 2";
    let id = fleet.desk.json(line)["id"].clone();
    let (ended, by) = asked_until_the_end(&fleet, &id);
    let result = &ended["results"][0];
    assert_eq!(
        (&ended["state"], &result["outcome"], &result["code"]),
        (&json!("stopped"), &json!("reverted"), &json!("E_PROBATION")),
        "{ended}"
    );
    assert!(result["detail"].as_str().unwrap().contains("in the shadow"), "{ended}");
    assert_eq!(by, ["1000000"], "nobody heard it");

    // One that answers alike goes on trial, and is confirmed. Meanwhile people see how far it is.
    push(&fleet, "digits", "1.2.0");
    let line = "petrel rollout start digits@1.2.0 --trial-answers 5 --shadow 200 --max-disagreement 0";
    let id = fleet.desk.json(line)["id"].clone();
    fleet.device("edge-1", "in the shadow", |device| device["streams"][0]["shadow"]["compared"].is_u64());
    assert!(fleet.desk.done("petrel devices show edge-1").contains("in the shadow: 0 of "));
    let (status, seen) = fleet.local("edge-1", "/status", None);
    assert_eq!(
        (status, &seen["streams"][0]["phase"], &seen["streams"][0]["serving"]),
        (200, &json!("in the shadow"), &json!(1_000_000))
    );
    let (ended, by) = asked_until_the_end(&fleet, &id);
    assert_eq!(ended["state"], "completed", "{ended}");
    assert_eq!(by, ["1000000", "1002000"]);
}
