//! The audit log as people use it: who did what is told, and a log that was changed is found on the person's side.
//!
//! Decides what the commands must say. How lines hold each other is tested where it is decided.

use crate::fleet::Fleet;
use crate::programs::Desk;
use serde_json::{Value, json};
use std::fs;

#[test]
fn who_did_what_is_told_and_cannot_be_changed_unseen() {
    let mut fleet = Fleet::start();
    fleet.enlist("edge-1");
    fleet.desk.refused("petrel devices approve edge-9", &["edge-9", "404"], "petrel devices ls");
    fleet.desk.refused("petrel rollout start digits@1.0.0", &["404"], "petrel devices ls");
    assert_eq!(fleet.post_as("wrong", "/devices/edge-1/reject", &json!({})).0, 401);
    assert_eq!(fleet.post_as("wrong", "/rollouts", &json!({})).0, 401);

    let lines = fleet.desk.json("petrel audit ls");
    let lines: Vec<&Value> = lines.as_array().unwrap().iter().collect();
    let told = |who: &str, action: &str, subject: &str, outcome: &str| {
        let one = |line: &&&Value| {
            line["who"] == who
                && line["action"] == action
                && line["outcome"] == outcome
                && line["subject"].as_str().unwrap().starts_with(subject)
        };
        assert_eq!(lines.iter().filter(one).count(), 1, "{who} {action} {subject} {outcome}: {lines:#?}");
    };
    told("edge-1", "device.enrol", "edge-1", "done");
    told("director", "assign", "edge-1 generation 1", "done");
    told("admin", "device.approve", "edge-9", "not_found");
    told("admin", "rollout.start", "digits@1.0.0", "not_found");
    told("nobody", "POST /api/v1/devices/{id}/reject", "/api/v1/devices/edge-1/reject", "unauthorised");
    told("nobody", "POST /api/v1/rollouts", "/api/v1/rollouts", "unauthorised");
    assert_eq!(lines.len(), 7, "that a token was made is the seventh; looking leaves no line: {lines:#?}");
    let approve = fleet.desk.json("petrel audit ls --since 1h --who admin --action device");
    assert_eq!(approve.as_array().unwrap().len(), 1);
    assert!(fleet.desk.done("petrel audit ls --last 2").contains("unauthorised"));

    let verified = fleet.desk.json("petrel audit verify");
    assert_eq!((&verified["lines"], &verified["checkpoints"]), (&json!(7), &json!([])));
    let made = fleet.desk.json("petrel audit checkpoint --out kept.json");
    assert_eq!(made["line"], 8, "that it was signed is a line as well");
    fleet.desk.refused("petrel audit checkpoint --out kept.json", &["kept.json"], "");
    let verify = "petrel audit verify --checkpoint kept.json --root fleet/root.json";
    assert_eq!(fleet.desk.json(verify)["checkpoints"], json!([8]));

    the_end_is_cut_off(&mut fleet, verify);
}

/// A database from before the checkpoint: its lines hold each other, and only the checkpoint knows of more.
fn the_end_is_cut_off(fleet: &mut Fleet, verify: &str) {
    const FILES: [&str; 2] = ["bridge.db", "bridge.db-wal"];
    let copy = |desk: &Desk, from: &str, to: &str| {
        for file in FILES {
            let (from, to) = (desk.path(from).join(file), desk.path(to).join(file));
            let _ = fs::remove_file(&to);
            if from.exists() {
                fs::copy(from, to).unwrap();
            }
        }
    };
    fleet.desk.json("petrel audit checkpoint --out later.json");
    fs::create_dir(fleet.desk.path("before")).unwrap();
    fleet.cut_bridge_and(|desk| copy(desk, "fleet/data", "before"));
    let made = |number: u64| fleet.desk.json(&format!("petrel audit checkpoint --out last-{number}.json"));
    let [_, _, last] = [0, 1, 2].map(made).map(|checkpoint| checkpoint["line"].as_u64().unwrap());
    fleet.desk.json(&verify.replace("kept", "last-2"));
    fleet.cut_bridge_and(|desk| {
        copy(desk, "before", "fleet/data");
        let _ = fs::remove_file(desk.path("fleet/data/bridge.db-shm"));
    });
    let left = fleet.desk.json("petrel audit verify")["lines"].as_u64().unwrap();
    assert!(left < last, "{left} of {last} lines");
    fleet.desk.json(&verify.replace("kept", "later"));
    let named = format!("line {} and all up to line {last} are missing", left + 1);
    fleet.desk.refused(&verify.replace("kept", "last-2"), &[&named, "cut off"], "backup");

    // Whoever lets it grow again writes other lines than those that were cut off.
    for number in 3..6 {
        fleet.desk.json(&format!("petrel audit checkpoint --out last-{number}.json"));
    }
    let both = format!("{} --checkpoint later.json", verify.replace("kept", "last-2"));
    fleet.desk.refused(&both, &["written anew"], "backup");
    fleet
        .desk
        .write("kept.json", fleet.desk.read("kept.json").iter().map(|b| b ^ (*b == b'8') as u8).collect::<Vec<u8>>());
    fleet.desk.refused(verify, &["kept.json", "E_"], "petrel audit checkpoint");
}
