//! A model can misbehave, the device cannot: processes of models are killed and stopped while people ask them.
//!
//! Decides what whoever asks may rely on. How a process is shut in and minded is the agent's own tests' matter.

use crate::answers::npy;
use crate::fleet::Fleet;
use crate::programs::wait_for;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

const INFER: &str = "/v2/models/digits/infer";

fn row(fleet: &Fleet) -> Value {
    let images = npy(&fleet.desk.path("models/digits/heldout_x.npy"));
    json!({ "inputs": [{ "name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": images[..64] }] })
}

/// What is good on this machine, and what is not there yet.
#[test]
fn a_board_is_checked_before_anything_depends_on_it() {
    let fleet = Fleet::start();
    fleet.enrol("a", "");
    let said = fleet.desk.done("petrel-agent self-test --config a.toml");
    for word in ["board", "memory", "disk", "clock", "root of trust", "identity", "as ONNX Runtime has them", "sandbox"]
    {
        assert!(said.contains(word), "{said}");
    }
    assert!(!fleet.desk.path("a/self-test").exists());
    let findings = fleet.desk.json("petrel-agent self-test --config a.toml");
    let engine = findings.as_array().unwrap().iter().find(|f| f["what"] == "engine").unwrap();
    assert_eq!(engine["grade"], "good", "{findings}");
    std::fs::remove_dir_all(fleet.desk.path("a/identity")).unwrap();
    let said = fleet.desk.run("petrel-agent self-test --config a.toml");
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.out.contains("petrel-agent enrol") && said.err.contains("1 of 8 checks failed"), "{}", said.out);
}

/// A fleet of one device that runs release 1.0.0.
fn running() -> Fleet {
    let mut fleet = Fleet::start();
    fleet.enlist("a");
    release(&fleet, "1.0.0");
    let id = fleet.desk.json("petrel rollout start digits@1.0.0 --trial-window 1")["id"].clone();
    let ended = fleet.rollout(&id, "the first release", |rollout| rollout["ended"].is_u64());
    assert_eq!(ended["state"], "completed", "{ended}");
    fleet
}

fn release(fleet: &Fleet, version: &str) {
    fleet.desk.bundle("digits", version, version);
    fleet.desk.json(&format!("petrel push {version}"));
}

/// The stream as the device itself tells of it, when it is as it should be.
fn stream(fleet: &Fleet, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || Some(fleet.local("a", "/status", None).1["streams"][0].clone()).filter(|s| good(s)))
}

fn signal(name: &str, process: &Value) {
    // A word of the shell: the program of that name is not everywhere.
    assert!(Command::new("sh").arg("-c").arg(format!("kill {name} {process}")).status().unwrap().success());
}

/// Asks all the time while `work` is done; gives how many answers each release gave. None may be missing.
fn while_asking(fleet: &Fleet, work: impl FnOnce()) -> BTreeMap<String, u64> {
    let (over, body) = (AtomicBool::new(false), row(fleet));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = BTreeMap::new();
            while !over.load(Ordering::Relaxed) {
                let (status, answer) = fleet.local("a", INFER, Some(&body));
                assert_eq!(status, 200, "{answer}");
                *answers.entry(answer["model_version"].as_str().unwrap().to_owned()).or_insert(0) += 1;
            }
            answers
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        let answers = asking.join();
        done.unwrap_or_else(|why| std::panic::resume_unwind(why));
        answers.unwrap_or_else(|why| std::panic::resume_unwind(why))
    })
}

#[test]
fn a_release_whose_process_is_killed_on_trial_goes_back_and_every_request_is_answered() {
    let fleet = running();
    release(&fleet, "1.1.0");
    let answers = while_asking(&fleet, || {
        // Requests that meet the dead process may be heard of before its end: they are allowed, and its end is not.
        let line =
            "petrel rollout start digits@1.1.0 --trial-answers 1000000 --trial-errors 1000000 --trial-window 600";
        let id = fleet.desk.json(line)["id"].clone();
        let on_trial = |s: &Value| s["serving"] == 1_001_000 && s["phase"] == "on trial" && s["process"].is_u64();
        let trial = stream(&fleet, "the trial", on_trial);
        let sandbox = &trial["sandbox"];
        assert!(sandbox["memory"] == true && (sandbox["calls"] == true || !cfg!(target_arch = "x86_64")), "{trial}");
        signal("-KILL", &trial["process"]);
        let ended = fleet.rollout(&id, "the end", |rollout| rollout["ended"].is_u64());
        assert_eq!(
            (&ended["state"], &ended["results"][0]["code"]),
            (&json!("stopped"), &json!("E_PROBATION")),
            "{ended}"
        );
        assert!(ended["results"][0]["detail"].as_str().unwrap().contains("SIGKILL"), "{ended}");
        stream(&fleet, "the release before", |s| s["serving"] == 1_000_000 && s["phase"] == "settled");
    });
    assert!(answers["1000000"] > 0 && answers.len() <= 2, "{answers:?}");
    let device = fleet.device("a", "how its model is shut in", |device| device["streams"][0]["sandbox"].is_object());
    assert_eq!(device["streams"][0]["sandbox"]["memory"], true);
}

#[test]
fn a_swap_under_load_loses_no_request() {
    let fleet = running();
    release(&fleet, "1.1.0");
    let answers = while_asking(&fleet, || {
        let id = fleet.desk.json("petrel rollout start digits@1.1.0 --trial-answers 200")["id"].clone();
        let ended = fleet.rollout(&id, "the end", |rollout| rollout["ended"].is_u64());
        assert_eq!(ended["state"], "completed", "{ended}");
    });
    assert!(answers["1000000"] > 0 && answers["1001000"] >= 200, "{answers:?}");
}

#[test]
fn a_confirmed_release_whose_process_hangs_answers_again_and_the_device_goes_on() {
    let mut fleet = running();
    let before = stream(&fleet, "a process", |s| s["process"].is_u64());
    signal("-STOP", &before["process"]);
    let stat = format!("/proc/{}/stat", before["process"]);
    wait_for("all of it to stop", || std::fs::read_to_string(&stat).unwrap().contains(") T ").then_some(()));
    let (status, answer) = fleet.local("a", INFER, Some(&row(&fleet)));
    assert!(status == 500 && answer["error"].as_str().unwrap().contains("gave no answer"), "{status} {answer}");
    wait_for("another process", || (fleet.local("a", INFER, Some(&row(&fleet))).0 == 200).then_some(()));
    let after = stream(&fleet, "another process", |s| s["process"].is_u64() && s["process"] != before["process"]);
    let device = fleet.device("a", "the fall", |d| d["refusals"].to_string().contains("gave no answer"));
    assert_eq!(device["online"], true, "{device}");

    // A killed agent leaves no model behind.
    fleet.agents.get_mut("a").unwrap().kill();
    let process = format!("/proc/{}", after["process"]);
    wait_for("the end of the model's process", || (!Path::new(&process).exists()).then_some(()));
}
