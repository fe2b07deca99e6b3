//! Rollouts as people live with them: a plan, a policy, approval by somebody else, a breach that the evidence makes, a way
//! back; and a bridge that is killed again and again in the middle.

use crate::answers::npy;
use crate::fleet::Fleet;
use crate::programs::wait_for;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Kills of the bridge, where nobody asks for more.
const KILLS: u64 = 8;

const POLICY: &str = "\
approval = true

[[wave]]
size = \"1\"
soak = \"1h\"

[trial]
min_answers = 5
max_errors = 0
window_s = 60

[gates]
min_answers = 50
patience = \"1h\"
";

/// Asks the device about held-out digits, some times.
fn ask(fleet: &Fleet, id: &str, images: &[f64], times: usize) {
    for at in (0..times).map(|n| n % (images.len() / 64) * 64) {
        let (status, answer) = fleet.try_classes(id, &images[at..at + 64]);
        assert!(status == 200 || status == 404, "{answer}");
    }
}

#[test]
fn a_release_that_only_looks_good_is_stopped_by_its_answers_and_taken_back() {
    let mut fleet = Fleet::start();
    for id in ["edge-1", "edge-2"] {
        fleet.enlist_with(id, "drift_window_s = 1\n");
    }
    for (model, version) in [("digits", "1.0.0"), ("digits-eights", "1.1.0")] {
        fleet.desk.bundle(model, version, version);
        fleet.desk.json(&format!("petrel push {version}"));
    }
    let images = npy(&fleet.desk.path("models/digits/heldout_x.npy"));
    fleet.desk.json("petrel devices label edge-1 site=plant-3 timezone=Europe/Berlin");
    let id = fleet.desk.json("petrel rollout start digits@1.0.0 --trial-window 1")["id"].clone();
    fleet.rollout(&id, "the first release", |rollout| rollout["state"] == "completed");

    // What it answers now is what the next release is held against.
    ask(&fleet, "edge-1", &images, 1_000);
    wait_for("the answers of a thousand digits on land", || {
        let view = fleet.ask("/drift/digits?by=device&device=edge-1").1;
        (view["groups"][0]["rows"].as_u64() >= Some(1_000)).then_some(())
    });

    // Monitors see what runs and what it answers.
    let token = format!("Bearer {}", String::from_utf8(fleet.desk.read("fleet/data/admin.token")).unwrap());
    wait_for("a thousand answers in the metrics", || {
        let page = String::from_utf8(fleet.fetch("/metrics", &[("authorization", &token)]).2).unwrap();
        let value = |series: &str| page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
        let of = "{stream=\"digits\",version=\"1.0.0\"}";
        assert_eq!(value("petrel_rollouts{state=\"completed\"}"), Some(1.0), "{page}");
        assert_eq!(value(&format!("petrel_devices_running{of}")), Some(2.0), "{page}");
        assert!(value(&format!("petrel_answer_seconds_total{of}")) > Some(0.0), "{page}");
        (value(&format!("petrel_answers_total{of}")) >= Some(1_000.0)).then_some(())
    });

    // Devices page by page, and those that are meant.
    let page = |query: &str| fleet.ask(&format!("/devices?limit=1{query}")).1;
    let (first, second) = (page(""), page("&after=edge-1"));
    assert_eq!((&first["items"][0]["id"], &first["next"]), (&json!("edge-1"), &json!("edge-1")));
    assert_eq!((&second["items"][0]["id"], &second["next"]), (&json!("edge-2"), &Value::Null));
    for (asked, ids) in [
        ("--to site=plant-3", &["edge-1"][..]),
        ("-l site=plant-3", &["edge-1"]),
        ("--to id!=edge-1", &["edge-2"]),
        ("", &["edge-1", "edge-2"]),
    ] {
        let meant = fleet.desk.json(&format!("petrel devices ls {asked}"));
        let meant: Vec<&Value> = meant.as_array().unwrap().iter().map(|device| &device["id"]).collect();
        assert_eq!(meant, ids, "{asked}");
    }

    // Who would get it, who not, and what is weak.
    fleet.desk.write("canary.toml", POLICY);
    let wanted = "digits@1.1.0 --policy canary.toml --to";
    let plan = fleet.desk.json(&format!("petrel rollout plan {wanted} site=plant-3"));
    let devices: Vec<&Value> = plan["waves"].as_array().unwrap().iter().map(|wave| &wave["devices"]).collect();
    assert_eq!(devices, [&json!(["edge-1"])]);
    assert!(plan["warnings"][0].as_str().unwrap().contains("too few to be compared"), "{plan}");
    let whole = fleet.desk.json("petrel rollout plan digits@1.1.0")["links"][0].clone();
    assert_eq!((&whole["link"], &whole["devices"]), (&json!("unmetered"), &json!(2)));
    assert!(whole["bytes"].as_u64() < Some(2 * 200_000), "chunks that they share are not sent: {whole}");
    fleet.desk.refused(&format!("petrel rollout plan {wanted} site="), &["a value was expected here"], "");

    // The approver is not the starter, nor somebody whom the starter lets in for it.
    let bert = fleet.token_of("bert", "approver");
    let rollout = fleet.desk.json(&format!("petrel rollout start {wanted} site=plant-3"));
    let id = rollout["id"].clone();
    assert_eq!(rollout["state"], "approval");
    fleet.desk.refused(&format!("petrel rollout approve {id}"), &["somebody else must approve it"], "");
    let approve = |token: &str| fleet.post_as(token, &format!("/rollouts/{id}"), &json!({ "wish": "approve" }));
    let (status, problem) = approve(&fleet.token_of("carl", "approver"));
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("was let in after"), "{problem}");
    assert_eq!(approve(&bert).0, 200);

    let judged = |fleet: &Fleet| {
        ask(fleet, "edge-1", &images, 500);
        let rollout = fleet.ask(&format!("/rollouts/{id}")).1;
        (rollout["state"] == "reverting" || rollout["state"] == "stopped").then_some(rollout)
    };
    let stopped = wait_for("the judgement", || judged(&fleet));
    let reason = stopped["reason"].as_str().unwrap();
    assert!(reason.starts_with("drift: ") && reason.contains("are `8`"), "{stopped}");
    let stopped = fleet.rollout(&id, "everybody's return", |rollout| rollout["state"] == "stopped");
    assert_eq!((&stopped["hit"], &stopped["returned"]), (&json!(1), &json!(1)), "{stopped}");
    assert_eq!(stopped["judgement"]["weak"], true);
    let told = fleet.desk.done(&format!("petrel rollout show {id}"));
    assert!(told.contains("judgement: fail (weak") && told.contains("are `8`"), "{told}");
    fleet.device("edge-1", "the old release", |device| device["streams"][0]["active"] == 1_000_000);

    // A draft, a pause, an end, and the way back.
    let draft = fleet.desk.json("petrel rollout start digits@1.1.0 --to edge-2 --trial-window 1 --draft")["id"].clone();
    fleet.desk.json(&format!("petrel rollout begin {draft}"));
    fleet.rollout(&draft, "the draft's end", |rollout| rollout["state"] == "completed");
    fleet.desk.json(&format!("petrel rollout undo {draft}"));
    let undone = fleet.rollout(&draft, "its undoing", |rollout| rollout["state"] == "stopped");
    assert_eq!((undone["reason"].as_str(), &undone["returned"]), (Some("undone by admin"), &json!(1)));
    fleet.device("edge-2", "the old release", |device| device["streams"][0]["active"] == 1_000_000);
    fleet.desk.json("petrel devices pin edge-2");
    fleet.desk.refused("petrel rollout plan digits@1.1.0 --to edge-2", &["is pinned"], "");
}

/// `PETREL_BRIDGE_KILLS` says how often, `PETREL_SEED` when.
#[test]
fn a_bridge_that_is_killed_in_the_middle_assigns_nobody_twice_and_forgets_nobody() {
    let asked = |name: &str, usual| std::env::var(name).map_or(usual, |n| n.parse().expect("a number"));
    let (kills, mut dice) = (asked("PETREL_BRIDGE_KILLS", KILLS), fastrand::Rng::with_seed(asked("PETREL_SEED", 9)));
    let mut fleet = Fleet::start();
    let devices = ["edge-1", "edge-2", "edge-3", "edge-4"];
    devices.iter().for_each(|id| fleet.enlist(id));
    for version in ["1.0.0", "2.0.0"] {
        fleet.desk.bundle("digits", version, version);
        fleet.desk.json(&format!("petrel push {version}"));
    }
    let (mut began, mut completed) = (0, 0);
    let mut rollout = Value::Null;
    let mut killed = 0;
    // Kills come one after the other while rollouts do; the last rollout ends in peace.
    while killed < kills || !fleet.ask(&format!("/rollouts/{rollout}")).1["ended"].is_u64() {
        if rollout.is_null() || fleet.ask(&format!("/rollouts/{rollout}")).1["ended"].is_u64() {
            let version = ["1.0.0", "2.0.0"][began % 2];
            let line =
                format!("petrel rollout start digits@{version} --waves 1,2,100% --trial-answers 0 --trial-window 1");
            rollout = fleet.desk.json(&line)["id"].clone();
            began += 1;
        }
        if killed < kills {
            // At a moment of chance: after so many looks, or after so many looks since it last got on.
            let look = || fleet.ask(&format!("/rollouts/{rollout}")).1;
            if dice.u8(..3) > 0 {
                let (wave, before) = (look()["wave"].clone(), look()["waves"].clone());
                wait_for("progress", || {
                    (look()["ended"].is_u64() || look()["wave"] != wave || look()["waves"] != before).then_some(())
                });
            }
            (0..dice.u64(..60)).for_each(|_| drop(look()));
            fleet.cut_bridge();
            killed += 1;
        } else {
            let end = fleet.rollout(&rollout, "the end of the last rollout", |rollout| rollout["ended"].is_u64());
            assert_eq!(end["state"], "completed", "{end}");
        }
    }
    // Every rollout reached everybody, once: the audit log has each assignment that was ever signed.
    let mut assigned: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in fleet.desk.json("petrel audit ls --who director --last 1000").as_array().unwrap() {
        if line["action"] == "assign" {
            let subject = line["subject"].as_str().unwrap();
            let (device, rest) = subject.split_once(' ').unwrap();
            let (_, streams) = rest.split_once(", ").unwrap_or((rest, ""));
            assigned.entry(device.to_owned()).or_default().push(streams.to_owned());
        }
    }
    for rollout in fleet.ask("/rollouts").1["items"].as_array().unwrap() {
        assert_eq!((&rollout["state"], &rollout["hit"]), (&json!("completed"), &json!(4)), "{rollout}");
        completed += 1;
    }
    for device in devices {
        let releases: Vec<&String> = assigned[device].iter().filter(|streams| streams.starts_with("digits")).collect();
        assert_eq!(releases.len(), completed, "{device}: {releases:?}");
        assert!(releases.windows(2).all(|pair| pair[0] != pair[1]), "{device}: {releases:?}");
    }
    println!(
        "{killed} kills of the bridge, {completed} rollouts, {} assignments, nobody twice, nobody forgotten",
        completed * devices.len()
    );
}
