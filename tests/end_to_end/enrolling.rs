//! Coming into a fleet: the join file, what goes wrong with it, and what is done again.

use crate::client::{Client, Papers};
use crate::fleet::{Fleet, agent_config};
use crate::programs::{Desk, wait_for};
use serde_json::{Value, json};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

fn join(desk: &Desk, name: &str) -> Value {
    serde_json::from_slice(&desk.read(name)).unwrap()
}

/// The same join file but for one field.
fn changed(desk: &Desk, field: &str, value: impl Into<Value>) {
    let mut join = join(desk, "edge.join");
    join[field] = value.into();
    desk.write("changed.join", join.to_string());
}

#[test]
fn a_device_comes_in_with_a_join_file_alone() {
    let mut fleet = Fleet::start();
    let desk = &fleet.desk;
    let made = desk.json("petrel devices token new edge-1 --pending --ttl 7d --out edge-1.join");
    assert_eq!(desk.path("edge-1.join").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let said = desk.done("petrel-agent enrol edge-1.join --config home/agent.toml --board rpi4");
    assert!(
        said.contains("edge-1 is enrolled in fleet sea") && said.contains("run --config home/agent.toml"),
        "{said}"
    );
    // Twice does no harm, and needs no token.
    assert_eq!(desk.done("petrel-agent enrol edge-1.join --config home/agent.toml"), said);
    assert_eq!(desk.path("home/state/identity/a.key").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let tokens = desk.json("petrel devices token ls");
    assert_eq!((&tokens[0]["id"], &tokens[0]["used"]), (&made["token"]["id"], &json!(true)));
    assert!(!tokens.to_string().contains("petrel_join_"));

    let config = String::from_utf8(desk.read("home/agent.toml")).unwrap();
    desk.write("home/agent.toml", format!("{config}listen = \"127.0.0.1:0\"\n"));
    let agent = desk.start("petrel-agent run --config home/agent.toml", "edge-1.log");
    fleet.agents.insert("edge-1".into(), agent);
    let pending = fleet.device("edge-1", "hello", |device| device["online"] == true);
    assert_eq!((&pending["status"], &pending["board"]), (&json!("pending"), &json!("rpi4")));
    assert!(said.contains(pending["key_id"].as_str().unwrap()));
    fleet.desk.json("petrel devices approve edge-1");
    fleet.device("edge-1", "its first assignment", |device| device["reported_generation"].is_u64());
    let told = fleet.desk.json("petrel audit ls").to_string();
    assert!(told.contains("device.enrol"), "{told}");
    assert!(![told, fleet.bridge.said()].concat().contains("petrel_join_"), "no secret is told");
}

/// T68, and the other ways in which a join file is of no use.
#[test]
fn every_way_to_fail_is_told_with_a_remedy_and_leaves_nothing() {
    let fleet = Fleet::start();
    let desk = &fleet.desk;
    desk.write("edge.toml", agent_config("edge", &fleet.broker_url(), "127.0.0.1:0"));
    desk.json("petrel devices token new edge --out edge.join");
    let enrol = "petrel-agent enrol changed.join --config edge.toml";

    desk.refused("petrel-agent enrol no.join --config edge.toml", &["no.join"], "token new");
    desk.refused("petrel-agent enrol fleet/root.json --config edge.toml", &["root.json", "no join file"], "token new");
    changed(desk, "colour", "blue");
    desk.refused(enrol, &["changed.join", "colour"], "token new");
    changed(desk, "spec", 2);
    desk.refused(enrol, &["changed.join", "version 2"], "token new");
    changed(desk, "root", "{}");
    desk.refused(enrol, &["root of trust", "E_PARSE"], "new join file");
    changed(desk, "bridge", "http://127.0.0.1:1");
    desk.refused(enrol, &["https://"], "new join file");
    changed(desk, "bridge", "https://127.0.0.1:1");
    desk.refused(enrol, &["127.0.0.1:1", "does not answer"], "is it running");
    let port = fleet.api.rsplit_once(':').unwrap().1;
    changed(desk, "bridge", format!("https://127.0.0.2:{port}"));
    desk.refused(enrol, &["127.0.0.2"], "");
    let elsewhere = Desk::with_fleet();
    changed(desk, "ca", String::from_utf8(elsewhere.read("fleet/tls/ca.pem")).unwrap());
    desk.refused(enrol, &["cannot prove who it is"], "another fleet");
    changed(desk, "token", format!("petrel_join_{}", "0".repeat(64)));
    desk.refused(enrol, &["token_unknown"], "token new");
    changed(desk, "token", "secret");
    assert!(!desk.refused(enrol, &["64 hex digits"], "token new").contains("secret"));
    changed(desk, "device", "edge-2");
    desk.refused(enrol, &["edge-2", "edge.toml"], "--config");
    desk.refused("petrel-agent enrol changed.join --config other.toml", &["token_other_device"], "join file");
    assert!(!desk.path("other.toml").exists() && !desk.path("state/identity/a.json").exists());
    assert!(!desk.path("edge/identity/a.json").exists(), "nothing came of it");

    // The same token lets one key in, and no other.
    desk.done("petrel-agent enrol edge.join --config edge.toml");
    desk.write(
        "twin.toml",
        agent_config("edge", &fleet.broker_url(), "127.0.0.1:0").replace("state = \"edge\"", "state = \"twin\""),
    );
    desk.refused("petrel-agent enrol edge.join --config twin.toml", &["token_used"], "token new");
    let told = fleet.desk.json("petrel audit ls").to_string();
    for code in ["token_unknown", "token_other_device", "token_used"] {
        assert!(told.contains(code), "{code}: {told}");
    }
}

#[test]
fn tokens_are_made_for_free_names_and_may_be_taken_back() {
    let fleet = Fleet::start();
    let desk = &fleet.desk;
    let new = "petrel devices token new";
    desk.refused(&format!("{new} Edge --out x.join"), &["Edge", "422"], "");
    desk.refused(&format!("{new} petrel-bridge --out x.join"), &["petrel-bridge", "422"], "");
    desk.refused(&format!("{new} edge --ttl 1m --out fleet/root.json"), &["root.json"], "another file");
    let id = desk.json(&format!("{new} edge --out edge.join"))["token"]["id"].as_str().unwrap().to_owned();
    desk.json(&format!("petrel devices token revoke {id}"));
    desk.refused(&format!("petrel devices token revoke {id}"), &[&id, "404"], "petrel devices ls");
    desk.write("edge.toml", agent_config("edge", &fleet.broker_url(), "127.0.0.1:0"));
    desk.refused("petrel-agent enrol edge.join --config edge.toml", &["token_unknown"], "token new");
    std::fs::remove_file(desk.path("edge.join")).unwrap();
    fleet.enrol("edge", "");
    desk.refused(&format!("{new} edge --out again.join"), &["`edge`", "name_taken"], "");
}

#[test]
fn a_certificate_is_renewed_with_a_new_key_and_the_old_one_counts_no_more() {
    let mut fleet = Fleet::start();
    fleet.enlist("edge");
    let before = fleet.device("edge", "its key", |_| true);
    fleet.agents.get_mut("edge").unwrap().terminate();
    let old_papers = Some(Papers::device(&fleet.desk, "edge"));
    // As if it had been given long ago.
    let mut held: Value = serde_json::from_slice(&fleet.desk.read("edge/identity/a.json")).unwrap();
    held["from"] = json!(0);
    fleet.desk.write("edge/identity/a.json", held.to_string());
    fleet.start_agent("edge");
    let after = fleet.device("edge", "a new key", |device| device["key_id"] != before["key_id"]);
    assert_eq!(after["status"], "approved");
    wait_for("the old slot to go", || (!fleet.desk.path("edge/identity/a.key").exists()).then_some(()));
    assert!(fleet.desk.path("edge/identity/b.json").exists() && !fleet.desk.path("edge/identity/a.json").exists());
    assert!(Client::connect(&fleet, old_papers, "edge", None).is_err(), "the old certificate");
    // The new pair is what the next start finds, and land hears it.
    fleet.start_agent("edge");
    let told = fleet.device("edge", "online", |device| {
        device["online"] == true && device["last_seen"].as_u64() > after["last_seen"].as_u64()
    });
    assert_eq!(told["key_id"], after["key_id"]);
}

/// T73: without a key a device says nothing to land, says so here, and its models go on.
#[test]
fn a_device_without_its_key_goes_on_answering() {
    let mut fleet = Fleet::start();
    fleet.enlist("edge");
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    let id = fleet.desk.json("petrel rollout start digits@1.0.0 --trial-window 1")["id"].clone();
    fleet.rollout(&id, "the end of the rollout", |rollout| rollout["state"] == "completed");
    fleet.agents.remove("edge");
    let key = fleet.desk.path("edge/identity/a.key");
    for spoil in [
        |path: &std::path::Path| std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap(),
        |path: &std::path::Path| {
            std::fs::remove_file(path).unwrap();
        },
    ] {
        spoil(&key);
        fleet.start_agent("edge");
        wait_for("its model", || (fleet.local("edge", "/v2/models/digits/ready", None).0 == 200).then_some(()));
        let status = wait_for("the word of it", || {
            Some(fleet.local("edge", "/status", None).1)
                .filter(|status| status["refusals"].to_string().contains("E_IDENTITY"))
        });
        assert_eq!(status["connected"], false);
        assert!(fleet.desk.done("petrel-agent status --config edge.toml").contains("NOT enrolled"));
    }
}
