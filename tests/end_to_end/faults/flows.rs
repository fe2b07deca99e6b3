//! The flows in which a device writes, each from a disk at rest to a disk at rest, with a real bridge on land.
//!
//! Decides what land does in each flow and what a device at rest looks like. Which faults it meets on the way is
//! decided by the sweep.

use crate::fleet::Fleet;
use crate::programs::wait_for;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Nobody starts its agent: chunks stay with the broker for as long as it lacks them.
const ABSENT: &str = "absent";

/// A way from rest to rest.
pub(super) struct Flow {
    pub(super) name: &'static str,
    /// What land does, once.
    pub(super) land: fn(&Fleet),
    /// Whether a device at rest has gone it.
    pub(super) gone: fn(&Value) -> bool,
    /// A device says its verdict on the way.
    pub(super) verdict: bool,
    /// What can begin anew from the disk as it is; the others begin from the disk of before.
    pub(super) again: Option<fn(&Path)>,
}

/// The flows of the specification, each beginning where the one before ended.
pub(super) const FLOWS: [Flow; 7] = [
    Flow {
        name: "first install",
        land: |fleet| install(fleet, "1.0.0"),
        gone: |rest| runs(rest, 1_000_000),
        verdict: true,
        again: None,
    },
    Flow {
        name: "upgrade",
        land: |fleet| install(fleet, "2.0.0"),
        gone: |rest| runs(rest, 2_000_000),
        verdict: true,
        again: None,
    },
    Flow {
        name: "rollback",
        land: |fleet| roll_out(fleet, "1.0.0"),
        gone: |rest| runs(rest, 1_000_000),
        verdict: true,
        again: None,
    },
    Flow {
        name: "upgrade that clears away",
        land: |fleet| install(fleet, "3.0.0"),
        gone: |rest| runs(rest, 3_000_000) && rest["bundles"].as_array().unwrap().len() == 2,
        verdict: true,
        again: None,
    },
    Flow {
        name: "three roots",
        land: rotate,
        gone: |rest| rest["believes"]["root_version"] == 4,
        verdict: false,
        again: None,
    },
    Flow {
        name: "revocation",
        land: revoke,
        gone: |rest| rest["believes"]["revocation"].is_object(),
        verdict: false,
        again: None,
    },
    Flow { name: "renewal", land: |_| {}, gone: |_| true, verdict: false, again: Some(age) },
];

fn runs(rest: &Value, release: u64) -> bool {
    let stream = &rest["streams"]["digits"];
    stream["active"]["release"] == release && stream["settled"] == true && stream["trial"].is_null()
}

/// A fleet of `devices` that are enrolled and have never run, and one that never will.
pub(super) fn fleet(devices: usize) -> (Fleet, Vec<String>) {
    let fleet = Fleet::start();
    let names: Vec<String> = (1..=devices).map(|at| format!("edge-{at}")).collect();
    for name in names.iter().map(String::as_str).chain([ABSENT]) {
        fleet.enrol(name, "");
        let state = fleet.desk.path(name);
        let config = String::from_utf8(fleet.desk.read(&format!("{name}.toml"))).unwrap();
        // strace knows files by their whole names.
        let config = config.replace(&format!("state = \"{name}\""), &format!("state = \"{}\"", state.display()));
        fleet.desk.write(&format!("{name}.toml"), config.replace("telemetry_s = 1\n", ""));
        if name != ABSENT {
            fs::write(state.join("mine.txt"), "not the agent's").unwrap();
        }
    }
    (fleet, names)
}

fn install(fleet: &Fleet, version: &str) {
    fleet.desk.bundle("digits", version, version);
    fleet.desk.json(&format!("petrel push {version}"));
    roll_out(fleet, version);
}

fn roll_out(fleet: &Fleet, version: &str) {
    fleet.desk.json(&format!("petrel rollout start digits@{version} --trial-answers 0 --waves 100%"));
}

/// Lets the device that was absent come, so that what was rolled out is done everywhere.
pub(super) fn finish(fleet: &mut Fleet) {
    fleet.start_agent(ABSENT);
    wait_for("the end of every rollout", || {
        let rollouts = fleet.ask("/rollouts").1;
        let done = |rollout: &Value| rollout["state"] == "completed";
        rollouts["items"].as_array()?.iter().all(done).then_some(())
    });
    fleet.agents.remove(ABSENT);
}

fn rotate(fleet: &Fleet) {
    let desk = &fleet.desk;
    for version in 2..=4 {
        let last = if version == 2 { "fleet/root.json".to_owned() } else { format!("root-{}.json", version - 1) };
        let next = format!("root-{version}.json");
        desk.done(&format!("petrel root rotate --root {last} --out {next}"));
        desk.done(&format!("petrel root sign {next} --root {last} --key fleet/keys/root.pem"));
        desk.done(&format!("petrel publish {next}"));
    }
}

fn revoke(fleet: &Fleet) {
    fleet.desk.done(
        "petrel revoke --root root-4.json --out one.json --take-bundle digits:2000000-2000000 --severity no-new \
         --reason wrong --key fleet/keys/revocation.pem",
    );
    fleet.desk.done("petrel publish one.json");
}

/// As if its certificate had been given long ago.
fn age(state: &Path) {
    for slot in ["a", "b"] {
        let path = state.join(format!("identity/{slot}.json"));
        let Ok(text) = fs::read(&path) else { continue };
        let mut held: Value = serde_json::from_slice(&text).unwrap();
        held["from"] = json!(0);
        fs::write(&path, held.to_string()).unwrap();
    }
}

/// Puts a disk back as it was.
pub(super) fn put_back(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// What a device at rest believes, runs and holds, which must be the same whenever it has gone a flow; nothing while
/// something is under way. Numbers that only count starts, words and time are none of it.
pub(super) fn rest(state: &Path) -> Option<Value> {
    let mut ledger = ledger(state)?;
    let trust = ledger["trust"].as_object_mut()?;
    trust.retain(|key, _| !["beacon", "assignment", "time", "time_was_told"].contains(&key.as_str()));
    for stream in ledger["streams"].as_object_mut()?.values_mut() {
        stream["wanted"].as_object_mut().map(|wanted| wanted.remove("generation"));
        stream["verdict"].as_object_mut().map(|verdict| verdict.remove("generation"));
    }
    for cost in ledger["costs"].as_object_mut()?.values_mut() {
        cost.as_object_mut()?.remove("row_us");
    }
    let names = |folder: &str| {
        let entries = fs::read_dir(state.join(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    // The two slots of the identity take turns.
    let identity: Vec<String> = names("identity").iter().map(|name| name.replacen("b.", "a.", 1)).collect();
    let papers = ["a", "b"].iter().filter_map(|slot| fs::read(state.join(format!("identity/{slot}.json"))).ok());
    let aged = papers.filter_map(|text| serde_json::from_slice(&text).ok()).any(|held: Value| held["from"] == 0);
    let beside: Vec<String> = names(".").into_iter().filter(|name| !name.starts_with("http.")).collect();
    let at_rest = ledger["outbox"] == json!([])
        && names("incoming").is_empty()
        && !aged
        && identity.len() == 2
        && !beside.iter().chain(&identity).any(|name| name.ends_with(".new"));
    at_rest.then(|| {
        json!({
            "believes": ledger["trust"], "streams": ledger["streams"], "signers": ledger["signers"],
            "costs": ledger["costs"], "bundles": names("bundles"),
            "identity": identity, "beside": beside, "mine": fs::read_to_string(state.join("mine.txt")).ok(),
        })
    })
}

/// The newest whole slot.
pub(super) fn ledger(state: &Path) -> Option<Value> {
    let slot = |name: &str| -> Option<(u64, Value)> {
        let text = fs::read_to_string(state.join(name)).ok()?;
        let (header, payload) = text.split_once('\n')?;
        Some((header.split(' ').nth(2)?.parse().ok()?, serde_json::from_str(payload).ok()?))
    };
    [slot("ledger.a"), slot("ledger.b")].into_iter().flatten().max_by_key(|(number, _)| *number).map(|(_, l)| l)
}

/// Waits until a device has gone a flow and is at rest.
pub(super) fn settled(state: &Path, flow: &Flow) -> Value {
    wait_for(&format!("the end of `{}`", flow.name), || rest(state).filter(flow.gone))
}
