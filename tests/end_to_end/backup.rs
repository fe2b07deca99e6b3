//! A backup of a running bridge, and land put back from it while its device has gone on.

use crate::fleet::Fleet;
use crate::programs::wait_for;
use serde_json::{Value, json};
use std::fs;

fn runs(device: &Value) -> Value {
    device["streams"][0]["active"].clone()
}

#[test]
fn land_that_was_put_back_leaves_its_devices_what_they_run_and_says_what_it_has_forgotten() {
    let mut fleet = Fleet::start();
    fleet.enlist("edge-1");
    for version in ["1.0.0", "1.1.0"] {
        fleet.desk.bundle("digits", version, version);
    }
    let begin = |fleet: &Fleet, version: &str| {
        fleet.desk.json(&format!("petrel push {version}"));
        let id = fleet.desk.json(&format!("petrel rollout start digits@{version} --trial-window 1"))["id"].clone();
        fleet.rollout(&id, version, |rollout| rollout["state"] == "completed");
    };
    begin(&fleet, "1.0.0");
    let made = fleet.desk.json("petrel backup --config fleet/bridge.toml --out copy.petrel");
    assert!(made["files"].as_u64() >= Some(4) && made["audit"].as_u64() >= Some(3), "{made}");
    fleet.desk.refused("petrel backup --config fleet/bridge.toml --out copy.petrel", &["is there already"], "");
    let copy = fleet.desk.read("copy.petrel");
    for secret in ["fleet/data/admin.token", "fleet/keys/director.pem", "fleet/tls/devices.key"] {
        let secret = fleet.desk.read(secret);
        let secret = secret.trim_ascii().split(|byte| *byte == b'\n').max_by_key(|line| line.len()).unwrap();
        assert!(!copy.windows(secret.len()).any(|window| window == secret), "no secret is in it");
    }
    begin(&fleet, "1.1.0");
    let before = fleet.device("edge-1", "1.1.0", |device| runs(device) != Value::Null);

    let restore = "petrel restore copy.petrel --config fleet/bridge.toml";
    fleet.desk.refused(restore, &["holds something already"], "move that folder away");
    fleet.cut_bridge_and(|desk| {
        fs::rename(desk.path("fleet/data"), desk.path("fleet/lost")).unwrap();
        // Whatever is damaged is refused, and leaves nothing.
        for at in [700, copy.len() / 2, copy.len() * 3 / 4] {
            let mut damaged = copy.clone();
            damaged[at] ^= 1;
            desk.write("damaged.petrel", damaged);
            desk.refused(
                "petrel restore damaged.petrel --config fleet/bridge.toml",
                &["is no backup"],
                "nothing was changed",
            );
        }
        desk.write("damaged.petrel", &copy[..copy.len() / 2]);
        desk.refused(
            "petrel restore damaged.petrel --config fleet/bridge.toml",
            &["is no backup"],
            "nothing was changed",
        );
        assert!(!desk.path("fleet/data").exists());
        let said = desk.done(restore);
        assert!(said.contains("cannot learn from devices") && said.contains("petrel people ls"), "{said}");
        // The token lies where it lay.
        fs::copy(desk.path("fleet/lost/admin.token"), desk.path("fleet/data/admin.token")).unwrap();
    });
    // It runs what land does not know any more.
    let device = fleet.device("edge-1", "what land has forgotten", |device| device["alarm"].is_string());
    let what = device["alarm"].as_str().unwrap();
    assert!(what.starts_with("it has what land has forgotten, digits release"), "{what}");
    assert_eq!(runs(&device), runs(&before), "it was not moved");
    assert_eq!(fleet.desk.json("petrel status")["forgotten"], 1);
    fleet.desk.json("petrel push 1.1.0");
    wait_for("land to know again", || (fleet.desk.json("petrel status")["forgotten"] == 0).then_some(()));
    let told = fleet.device("edge-1", "an assignment of this land", |device| {
        assert!(runs(device) == runs(&before), "{device}");
        device["reported_generation"].as_u64() > made["made"].as_u64()
    });
    assert_eq!(runs(&told), runs(&before), "nor is it now");
    assert_eq!(told["streams"][0]["desired"], before["streams"][0]["desired"], "{told}");
    let lines = fleet.desk.json("petrel audit ls --action backup");
    assert_eq!(lines[0]["action"], json!("backup.restore"), "{lines}");
    fleet.desk.done("petrel audit verify");
}
