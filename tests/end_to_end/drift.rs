//! A sensor that breaks, from the device that sees it to the person on land who is told.
//!
//! Decides what people may rely on: each kind of broken sensor is called by its name, on the device, on land and in the
//! alarms; what is in order is not alarmed on; and what was seen offline is not lost. Which figures are made is another room's.

use crate::answers::npy;
use crate::fleet::Fleet;
use crate::programs::wait_for;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

const SENSORS: [&str; 10] = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"];
/// What breaks, and what it is called.
const BROKEN: [(&str, &str); 4] = [("bmi", "stuck"), ("bp", "missing"), ("s1", "saturated"), ("s5", "unit_change")];

/// Rows of ten sensors that swing around 20 degrees; `broken` ones as they break.
fn rows(seed: u64, count: usize, broken: bool) -> String {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut text = SENSORS.join(",") + "\n";
    for _ in 0..count {
        let cells = SENSORS.map(|sensor| {
            // Near enough to a normal distribution.
            let value = 14.0 + (0..12).map(|_| dice.f64()).sum::<f64>();
            match BROKEN.iter().find(|(name, _)| *name == sensor).filter(|_| broken) {
                Some((_, "stuck")) => "20.5".to_owned(),
                Some((_, "missing")) if dice.u8(..10) < 3 => String::new(),
                Some((_, "saturated")) => format!("{}", value.min(20.2)),
                Some((_, "unit_change")) => format!("{}", value * 1.8 + 32.0),
                _ => format!("{value}"),
            }
        });
        text += &(cells.join(",") + "\n");
    }
    text
}

/// A device that reads tables from a folder, with windows of a second.
fn enlist(fleet: &mut Fleet, id: &str) {
    let feed = format!(
        "[[feed]]\nkind = \"folder\"\nmodel = \"diabetes\"\npath = \"{id}-in\"\nout = \"{id}-out/answers.jsonl\"\n"
    );
    fleet.enlist_with(id, &format!("drift_window_s = 1\n{feed}"));
}

/// Gives a device a table, whole.
fn feed(fleet: &Fleet, id: &str, name: &str, table: &str) {
    fleet.desk.write("table.csv", table);
    fs::rename(fleet.desk.path("table.csv"), fleet.desk.path(&format!("{id}-in/{name}.csv"))).unwrap();
}

/// What land knows of what one device sees, when it has heard of so many rows.
fn seen(fleet: &Fleet, id: &str, rows: u64) -> Value {
    wait_for(&format!("{id}: {rows} rows on land"), || {
        let view = fleet.ask(&format!("/drift/diabetes?by=device&device={id}")).1;
        let group = view["groups"].get(0)?.clone();
        (group["rows"].as_u64() >= Some(rows)).then_some(group)
    })
}

/// Causes by feature, of the inputs alone: the answers of a model that is fed nonsense may move as they like.
fn causes(alarms: &Value, name: &str) -> BTreeMap<String, String> {
    let text = |alarm: &Value, key: &str| alarm[key].as_str().unwrap_or_default().to_owned();
    let alarms = alarms.as_array().unwrap().iter().filter(|alarm| alarm["cause"].is_string());
    alarms.map(|a| (text(a, name), text(a, "cause"))).filter(|(name, _)| !name.starts_with("answer.")).collect()
}

#[test]
fn a_broken_sensor_is_called_by_its_name_from_the_device_to_land() {
    let mut fleet = Fleet::start();
    enlist(&mut fleet, "sound");
    enlist(&mut fleet, "broken");
    fleet.desk.write("trained.csv", rows(1, 5_000, false));
    let bundle = "--stream diabetes --version 1.0.0 --golden models/diabetes/golden_x.npy models/diabetes/golden_y.npy";
    let steps = "--pre models/diabetes/pre.json --post models/diabetes/post.json";
    let packed = fleet
        .desk
        .json(&format!("petrel pack models/diabetes/model.onnx {bundle} {steps} --data trained.csv -o sensors"));
    assert_eq!(packed["baseline"]["rows"], 5_000, "{packed}");
    fleet.desk.done("petrel sign sensors --key keys/publisher.pem");
    fleet.desk.json("petrel push sensors");
    let id = fleet.desk.json("petrel rollout start diabetes@1.0.0 --waves 100% --trial-window 1")["id"].clone();
    fleet.rollout(&id, "the end of the rollout", |rollout| rollout["state"] == "completed");

    // All is well.
    for (n, device) in ["sound", "broken"].into_iter().enumerate() {
        feed(&fleet, device, "well", &rows(10 + n as u64, 400, false));
        let group = seen(&fleet, device, 400);
        assert_eq!(group["level"], "quiet", "{group}");
    }
    assert!(fleet.desk.done("petrel drift alarms").contains("no model sees drift"));

    // Sensors break while nobody hears of it.
    let addresses = fleet.desk.read("fleet/data/bridge.json");
    fleet.bridge.kill();
    feed(&fleet, "broken", "broken", &rows(20, 600, true));
    feed(&fleet, "sound", "well-again", &rows(21, 600, false));
    let local = wait_for("an alarm beside the device", || {
        let drift = fleet.local("broken", "/status", None).1["streams"][0]["drift"].clone();
        (drift["level"] != "quiet" && drift["rows"].as_u64() >= Some(600)).then_some(drift)
    });
    let expected: BTreeMap<String, String> = BROKEN.map(|(name, cause)| (name.to_owned(), cause.to_owned())).into();
    assert_eq!(causes(&local["alarms"], "feature"), expected, "{local}");
    let told = fleet.desk.done("petrel-agent status --config broken.toml");
    assert!(
        told.contains("drift, WARN") && told.contains("stuck: one value") && told.contains("Celsius to Fahrenheit"),
        "{told}"
    );

    fleet.bridge_again(&addresses);
    let group = seen(&fleet, "broken", 1_000);
    assert_eq!(causes(&group["features"], "name"), expected, "{group}");
    assert_eq!(seen(&fleet, "sound", 1_000)["level"], "quiet");
    let alarms = fleet.desk.json("petrel drift alarms diabetes");
    assert!(alarms.as_array().unwrap().iter().all(|alarm| alarm["device"] == "broken"), "{alarms}");
    assert_eq!(causes(&alarms, "feature"), expected, "{alarms}");

    // What people see.
    let shown = fleet.desk.done("petrel drift diabetes --by device");
    for part in
        ["broken, release 1000000: warn", "sound, release 1000000: quiet", "missing: ", "saturated: ", "▁", "bp"]
    {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    for (device, site) in [("broken", "north"), ("sound", "south")] {
        fleet.desk.done(&format!("petrel devices label {device} site={site} line=1"));
        fleet.desk.done(&format!("petrel devices label {device} line-"));
    }
    let north = fleet.desk.json("petrel devices ls -l site=north");
    assert_eq!((north.as_array().unwrap().len(), &north[0]["labels"]), (1, &json!({ "site": "north" })), "{north}");
    let sites = fleet.desk.done("petrel drift diabetes --by label:site");
    assert!(
        sites.contains("north, release 1000000: warn") && sites.contains("south, release 1000000: quiet"),
        "{sites}"
    );
    let bins = fleet.desk.done("petrel drift diabetes --feature s5");
    assert!(bins.contains("TRAINED") && bins.contains("█") && !bins.contains("bmi"), "{bins}");
    fleet.desk.json("petrel drift diabetes --by device --png drift.png --svg drift.svg");
    let (png, svg) = (fleet.desk.read("drift.png"), String::from_utf8(fleet.desk.read("drift.svg")).unwrap());
    assert!(
        png.starts_with(b"\x89PNG") && png.len() > 10_000 && svg.contains("s5 (broken 1000000): drift"),
        "{} bytes",
        png.len()
    );
    let first = alarms[0]["id"].clone();
    fleet.desk.done(&format!("petrel drift ack {first}"));
    let again = fleet.desk.json("petrel drift alarms");
    let seen_by = again.as_array().unwrap().iter().find(|alarm| alarm["id"] == first).unwrap();
    assert_eq!(seen_by["acknowledged_by"], "admin", "{again}");
    assert!(fleet.desk.done("petrel audit ls").contains("drift.acknowledge"));
}

/// The truth comes late, by the ids of requests; what is told of it are counts.
#[test]
fn labels_that_come_back_tell_how_right_a_model_is() {
    let mut fleet = Fleet::start();
    fleet.enrol("edge-1", "");
    let config = String::from_utf8(fleet.desk.read("edge-1.toml")).unwrap();
    fleet.desk.write("edge-1.toml", format!("{config}drift_window_s = 1\n"));
    fleet.start_agent("edge-1");
    fleet.device("edge-1", "its first assignment", |device| device["reported_generation"].is_u64());
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    let id = fleet.desk.json("petrel rollout start digits@1.0.0 --trial-window 1")["id"].clone();
    fleet.rollout(&id, "the end of the rollout", |rollout| rollout["state"] == "completed");
    let images = npy(&fleet.desk.path("models/digits/heldout_x.npy"));
    let classes = npy(&fleet.desk.path("models/digits/heldout_class.npy"));
    // 300 images in one request, whose id is 7; every tenth label is wrong, and one is of another request.
    let answered = fleet.classes("edge-1", 300, &images[..300 * 64]);
    assert_eq!(answered["id"], "7");
    let label = |at: usize| json!({ "id": format!("7#{}", at + 1), "label": (classes[at] as usize + usize::from(at.is_multiple_of(10))).to_string() });
    let mut labels: Vec<Value> = (0..300).map(label).collect();
    labels.push(json!({ "id": "somebody else's", "label": 3 }));
    let (status, joined) = fleet.local("edge-1", "/v2/models/digits/labels", Some(&json!({ "labels": labels })));
    assert_eq!((status, &joined["joined"], &joined["unknown"]), (200, &json!(300), &json!(1)), "{joined}");
    let performance = wait_for("how right it was", || {
        let view = fleet.ask("/drift/digits").1;
        let performance = view["groups"].get(0)?["performance"].clone();
        (performance["classes"].as_u64() == Some(300)).then_some(performance)
    });
    assert_eq!((performance["accuracy"].as_f64(), &performance["unknown"]), (Some(0.9), &json!(1)), "{performance}");
    let (apart, estimate) = (performance["calibration_error"].as_f64(), performance["estimated_accuracy"].as_f64());
    assert!(apart > Some(0.05) && estimate > Some(0.95), "surer than it is right: {performance}");
    let told = fleet.desk.done("petrel drift digits");
    assert!(told.contains("accuracy 90.0 % of 300 answers") && told.contains("ESTIMATED"), "{told}");
    // From land: by hundreds, each once.
    let answered = fleet.classes("edge-1", 200, &images[300 * 64..]);
    assert_eq!(answered["id"], "7");
    let lines = (300..500).map(|at| format!("edge-1,7#{},{}\n", at - 299, classes[at]));
    fleet.desk.write("labels.csv", "device,id,label\nedge-1,nobody's,4\n".to_owned() + &lines.collect::<String>());
    let brought = fleet.desk.json("petrel labels push digits labels.csv");
    assert_eq!((&brought["edge-1"]["joined"], &brought["edge-1"]["unknown"]), (&json!(200), &json!(1)), "{brought}");
    wait_for("how right the rest was", || {
        let view = fleet.ask("/drift/digits").1;
        (view["groups"].get(0)?["performance"]["classes"].as_u64() == Some(500)).then_some(())
    });
    let (status, _) = fleet.local("edge-1", "/v2/models/nobody/labels", Some(&json!({ "labels": [] })));
    assert_eq!(status, 404);
    let (status, why) = fleet.local("edge-1", "/v2/models/digits/labels", Some(&json!({ "labels": [{ "id": 3 }] })));
    assert!((400..500).contains(&status) && why["error"].is_string(), "{status} {why}");
}
