//! Inputs that devices keep, from the device that keeps them to the person who looks at them.
//!
//! Decides what people may rely on: what is dropped or hashed never leaves, nobody sees anything that nobody else approved, and
//! it ends when it should. Which inputs are kept is decided by tables of the core.

use crate::fleet::Fleet;
use crate::programs::wait_for;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

const SENSORS: [&str; 10] = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"];
/// Rows that a device is fed.
const ROWS: usize = 60;

/// A table whose every cell tells its row and column; `sex` is one of two.
fn table() -> String {
    let row = |row: usize| {
        let cell = |(column, name): (usize, &&str)| match *name {
            "sex" => format!("0.{}77", row % 2 + 1),
            _ => format!("0.0{column}{row:03}"),
        };
        SENSORS.iter().enumerate().map(cell).collect::<Vec<_>>().join(",")
    };
    SENSORS.join(",") + "\n" + &(0..ROWS).map(row).collect::<Vec<_>>().join("\n") + "\n"
}

/// A device that reads tables from a folder.
fn enlist(fleet: &mut Fleet, id: &str, samples: &str) {
    let feed = format!(
        "[[feed]]\nkind = \"folder\"\nmodel = \"diabetes\"\npath = \"{id}-in\"\nout = \"{id}-out/answers.jsonl\"\n"
    );
    fleet.enlist_with(id, &format!("{feed}{samples}"));
}

fn request(fleet: &Fleet, id: u64, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || Some(fleet.ask(&format!("/sample-requests/{id}")).1).filter(|request| good(request)))
}

/// The lines of the table that was written, by column.
fn lines(fleet: &Fleet, file: &str) -> Vec<BTreeMap<String, String>> {
    let text = String::from_utf8(fleet.desk.read(file)).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    lines.map(|line| header.iter().cloned().zip(line).collect()).collect()
}

#[test]
fn inputs_are_given_where_the_device_and_a_second_person_agree() {
    let mut fleet = Fleet::start();
    let [anna, bert, vera] =
        [("anna", "operator"), ("bert", "approver"), ("vera", "viewer")].map(|(name, role)| fleet.token_of(name, role));
    enlist(
        &mut fleet,
        "keeps",
        "[samples]\nstreams = [\"diabetes\"]\nbytes = 60000\ndrop = [\"age\"]\nhash = [\"sex\"]\n",
    );
    enlist(&mut fleet, "keeps-none", "");
    fleet.desk.bundle("diabetes", "1.0.0", "sugar");
    fleet.desk.json("petrel push sugar");
    let id = fleet.desk.json("petrel rollout start diabetes@1.0.0 --waves 100% --trial-window 1")["id"].clone();
    fleet.rollout(&id, "the end of the rollout", |rollout| rollout["state"] == "completed");

    for device in ["keeps", "keeps-none"] {
        fleet.desk.write("table.csv", table());
        fs::rename(fleet.desk.path("table.csv"), fleet.desk.path(&format!("{device}-in/monday.csv"))).unwrap();
        let answered = |status: Value| (status["feeds"][0]["answered"] == 1).then_some(status);
        let status = wait_for("answers", || answered(fleet.local(device, "/status", None).1));
        let kept = status["streams"][0]["samples"].as_u64().unwrap();
        assert_eq!(kept > 0, device == "keeps", "{status}");
    }
    let status = fleet.desk.done("petrel-agent status --config keeps.toml");
    assert!(status.contains("of its inputs are kept for people") && status.contains("in memory alone"), "{status}");

    // Who asks cannot approve, and nobody is asked before somebody else did.
    let wanted = json!({ "stream": "diabetes", "devices": ["keeps", "keeps-none"], "count": 12, "bytes": 20_000,
        "for_s": 3_600, "reason": "are these the right patients?" });
    assert_eq!(fleet.post_as(&vera, "/sample-requests", &wanted).0, 403);
    let (status, asked) = fleet.post_as(&anna, "/sample-requests", &wanted);
    assert_eq!((status, &asked["state"], &asked["id"]), (201, &json!("approval"), &json!(1)), "{asked}");
    let approve = json!({ "wish": "approve" });
    assert_eq!(fleet.post_as(&anna, "/sample-requests/1", &approve).0, 403);
    let (status, approved) = fleet.post_as(&bert, "/sample-requests/1", &approve);
    assert_eq!((status, &approved["approved"]), (200, &json!("bert")), "{approved}");
    let done = request(&fleet, 1, "answers of both devices", |request| request["state"] == "answered");
    assert_eq!(done["devices"][0], json!({ "device": "keeps", "state": "gave", "samples": 12, "why": null }), "{done}");
    assert!(done["devices"][1]["why"].as_str().unwrap().contains("this device keeps no inputs"), "{done}");

    the_samples_are_what_the_device_saw(&fleet);
    who_may_not_sees_nothing(&fleet, &vera);
    they_are_in_memory_alone(&mut fleet, &bert);
}

fn the_samples_are_what_the_device_saw(fleet: &Fleet) {
    let told = fleet.desk.done("petrel samples get 1 --out got");
    assert!(told.contains("got has 12 inputs of 1 device(s)"), "{told}");
    let lines = lines(fleet, "got/samples.csv");
    assert_eq!(lines.len(), 12);
    let mut sexes = BTreeMap::new();
    for line in &lines {
        let row: usize = line["id"].strip_prefix("monday.csv#").unwrap().parse::<usize>().unwrap() - 1;
        assert_eq!((&*line["device"], &*line["release"], &*line["chosen"]), ("keeps", "1000000", "drawn"), "{line:?}");
        assert_eq!(line["input.bmi"], format!("0.02{row:03}"), "{line:?}");
        let (_, answer) = line.iter().find(|(name, _)| name.starts_with("answer.")).unwrap();
        assert!(!line.contains_key("input.age") && answer.parse::<f64>().is_ok(), "{line:?}");
        assert!(line["input.sex"].starts_with("hashed:"), "{line:?}");
        sexes.entry(row % 2).or_insert_with(Vec::new).push(line["input.sex"].clone());
    }
    assert!(sexes.values().all(|hashes| hashes.iter().all(|hash| *hash == hashes[0])), "{sexes:?}");
    let whole = String::from_utf8(fleet.desk.read("got/samples.json")).unwrap();
    assert!(!whole.contains("0.177") && !whole.contains("0.277") && !whole.contains("0.00"), "{whole}");
    fleet.desk.refused("petrel samples get 1 --out got", &["got"], "");
    // Whoever knows better can say so.
    fleet.desk.write("labels.csv", format!("device,id,label\nkeeps,{},99.5\n", lines[0]["id"]));
    assert_eq!(fleet.desk.json("petrel labels push diabetes labels.csv")["keeps"]["joined"], 1);
}

fn who_may_not_sees_nothing(fleet: &Fleet, vera: &str) {
    let (status, problem) = fleet.ask_as(vera, "/sample-requests/1/samples");
    assert_eq!((status, &problem["code"]), (403, &json!("forbidden")), "{problem}");
    assert_eq!(fleet.ask_as(vera, "/sample-requests/1").0, 200, "that it was asked is no secret");
    let log = fleet.ask("/audit?limit=1000").1.to_string();
    for (action, who) in
        [("samples.ask", "anna"), ("samples.approve", "bert"), ("samples.given", "bridge"), ("samples.read", "admin")]
    {
        assert!(log.contains(action) && log.contains(who), "{action} by {who} is not in {log}");
    }
    assert!(log.contains("are these the right patients?") && !log.contains("0.02"), "{log}");
    // Neither is any input in what is known of the command.
    let commands = fleet.ask("/devices/keeps/commands").1;
    let number = &commands["items"][0]["seq"];
    assert!(!fleet.ask(&format!("/devices/keeps/commands/{number}")).1.to_string().contains("hashed:"));
    let shown = fleet.desk.done("petrel samples show 1");
    assert!(shown.contains("asked by anna") && shown.contains("approved by bert") && shown.contains("12"), "{shown}");
    assert!(fleet.desk.done("petrel samples ls").contains("12 of 1/2"));
}

fn they_are_in_memory_alone(fleet: &mut Fleet, bert: &str) {
    assert!(fleet.agents.get_mut("keeps").unwrap().terminate().success());
    fleet.device("keeps", "gone", |device| device["online"] == false);
    let files = walk(&fleet.desk.path("keeps"));
    assert!(files.iter().any(|path| path.ends_with("ledger.a")), "{files:?}");
    for entry in files {
        let bytes = fs::read(&entry).unwrap();
        assert!(!bytes.windows(7).any(|part| part == b"hashed:"), "{}", entry.display());
    }
    // One that begins anew has forgotten everything, and the request waits until it keeps something again.
    fleet.start_agent("keeps");
    fleet.device("keeps", "back", |device| device["online"] == true && device["reported_generation"].is_u64());
    let asked = fleet.desk.done("petrel samples ask diabetes --to keeps --count 5 --for 1h --reason again");
    assert!(asked.contains("request 2") && asked.contains("petrel samples approve 2"), "{asked}");
    fleet.desk.refused("petrel samples approve 2", &["request 2 is of `admin`", "somebody else"], "");
    assert_eq!(fleet.post_as(bert, "/sample-requests/2", &json!({ "wish": "approve" })).1["state"], "open");
    let empty = wait_for("an answer without inputs", || {
        let commands = fleet.ask("/devices/keeps/commands").1;
        let asked = commands["items"].as_array()?.iter().find(|command| command["request"]["request"] == 2)?;
        (asked["state"] == "done").then(|| fleet.ask("/sample-requests/2").1)
    });
    assert_eq!((&empty["state"], &empty["devices"][0]["samples"]), (&json!("open"), &json!(0)), "{empty}");
    fleet.desk.refused("petrel samples get 2 --out none", &["nothing came for request 2"], "petrel samples show 2");

    // One that a person ended is over.
    fleet.desk.done("petrel samples ask diabetes --to keeps --reason again");
    assert!(fleet.desk.done("petrel samples end 3").contains("is over"));
    let (status, problem) = fleet.post_as(bert, "/sample-requests/3", &json!({ "wish": "approve" }));
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")), "{problem}");
    fleet.desk.refused("petrel samples ask diabetes --to nobody --reason again", &["nobody"], "petrel devices ls");
}

/// Every file under a folder.
fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .filter(|path| path.is_file())
        .collect()
}
