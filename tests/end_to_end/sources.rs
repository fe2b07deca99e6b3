//! Where a bundle comes from: files at land over HTTPS, a stick that a person brings, and a broker that has forgotten it.

use crate::fleet::Fleet;
use crate::programs::wait_for;
use std::fs;

/// One chunk at once, and then one in 48 seconds.
const SLOWEST: &str = "fetch_rate = 1024";
/// Four chunks a second: a bundle takes some seconds.
const SLOW: &str = "fetch_rate = 200000";

/// Enrols `a` with a line more in its configuration, and starts it.
fn enlist(fleet: &mut Fleet, line: &str) {
    fleet.enrol("a", "");
    let config = String::from_utf8(fleet.desk.read("a.toml")).unwrap();
    fleet.desk.write("a.toml", format!("{config}{line}\n"));
    fleet.start_agent("a");
    fleet.device("a", "its first assignment", |device| device["reported_generation"].is_u64());
}

fn start_rollout(fleet: &Fleet) -> serde_json::Value {
    fleet.desk.json("petrel rollout start digits@1.0.0 --waves 100% --trial-window 1")["id"].clone()
}

fn completes(fleet: &Fleet, rollout: &serde_json::Value) {
    let ended = fleet.rollout(rollout, "the end of the rollout", |rollout| rollout["ended"].is_u64());
    assert_eq!(ended["state"], "completed", "{ended}");
}

#[test]
fn a_bundle_comes_over_https_where_that_is_the_source() {
    let mut fleet = Fleet::start();
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    enlist(&mut fleet, "sources = [\"https\"]");
    let rollout = start_rollout(&fleet);
    completes(&fleet, &rollout);
    assert!(fleet.agents["a"].said().contains("fetched over HTTPS"));
    assert!(!fleet.agents["a"].said().contains("does not come over HTTPS"), "{}", fleet.agents["a"].said());
}

#[test]
fn a_person_brings_a_bundle_on_a_stick() {
    let mut fleet = Fleet::start();
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    enlist(&mut fleet, SLOWEST);
    let install = "petrel-agent install stick --config a.toml";
    let copy =
        |name: &str| fs::copy(fleet.desk.path(&format!("digits/{name}")), fleet.desk.path(&format!("stick/{name}")));
    fs::create_dir(fleet.desk.path("stick")).unwrap();
    fleet.desk.refused(install, &["cannot read the bundle stick", "bundle.dsse.json"], "the tar or the folder");
    for entry in fs::read_dir(fleet.desk.path("digits")).unwrap() {
        copy(entry.unwrap().file_name().to_str().unwrap()).unwrap();
    }
    fleet.desk.refused(install, &["lacks nothing of bundle", "not assigned it"], "petrel rollout start");

    let rollout = start_rollout(&fleet);
    wait_for("the fetch", || fleet.agents["a"].said().contains("a bundle is fetched").then_some(()));
    let mut model = fleet.desk.read("digits/model.onnx");
    model[100] ^= 1;
    fleet.desk.write("stick/model.onnx", &model);
    fleet.desk.refused(install, &["model.onnx", "not what was signed"], "where it stopped");
    copy("model.onnx").unwrap();
    fleet.desk.done("/bin/tar -cf stick.tar -C stick .");
    let said = fleet.desk.done("petrel-agent install stick.tar --config a.toml");
    assert!(said.contains("is on this device"), "{said}");
    completes(&fleet, &rollout);
}

/// A link that costs by the byte carries what describes the bundle, and no more: the rest is brought.
#[test]
fn a_bundle_that_is_too_dear_for_the_link_waits_for_the_stick() {
    let mut fleet = Fleet::start();
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    enlist(&mut fleet, "sources = [\"https\", \"mqtt\"]\nmetered = { most = 1000 }");
    let rollout = start_rollout(&fleet);
    let device = fleet.device("a", "the wait", |device| device["streams"][0]["held"] == "E_LINK");
    assert_eq!(device["metered"], true, "{device}");
    let said = fleet.desk.done("petrel-agent status --config a.toml");
    assert!(said.contains("deferred") && said.contains("over a metered link, which takes 1000"), "{said}");
    fleet.desk.done("petrel-agent install digits --config a.toml");
    completes(&fleet, &rollout);
}

/// The broker is killed in the middle of a download and has lost all that it retained.
#[test]
fn a_broker_that_forgot_everything_still_delivers() {
    let mut fleet = Fleet::on_mosquitto();
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    enlist(&mut fleet, SLOW);
    let rollout = start_rollout(&fleet);
    wait_for("the fetch", || fleet.agents["a"].said().contains("a bundle is fetched").then_some(()));
    assert!(!fleet.agents["a"].said().contains("the bundle is stored"), "the download was over before");
    fleet.broker_forgets();
    completes(&fleet, &rollout);
}
