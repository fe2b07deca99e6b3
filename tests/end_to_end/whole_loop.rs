//! The whole loop: people let devices in and push a release, devices take it wave by wave and answer, and land
//! dies in the middle of it.
//!
//! Decides what an operator may rely on. How devices fare when they die is another room's.

use crate::answers::npy;
use crate::fleet::Fleet;
use serde_json::{Value, json};

#[test]
fn a_rollout_goes_on_after_the_bridge_and_all_that_its_broker_kept_is_gone() {
    let mut fleet = Fleet::start();
    fleet.enlist("edge-1");
    fleet.enlist("edge-2");
    let packed = fleet.desk.bundle("digits", "1.0.0", "digits");
    for _ in 0..2 {
        let pushed = fleet.desk.json("petrel push digits");
        assert_eq!(pushed["statement_sha256"], packed["statement_sha256"], "pushing again changes nothing");
    }
    let line = "petrel rollout start digits@1.0.0 --waves 1,100% --trial-window 2";
    let id = fleet.desk.json(line)["id"].clone();
    fleet.cut_bridge();
    fleet.rollout(&id, "the second wave", |rollout| rollout["wave"] == 2);
    fleet.cut_bridge();
    let ended = fleet.rollout(&id, "the end of the rollout", |rollout| rollout["ended"].is_u64());
    assert_eq!((&ended["state"], &ended["hit"]), (&json!("completed"), &json!(2)), "{ended}");
    let results = ended["results"].as_array().unwrap();
    assert!(results.len() == 2 && results.iter().all(|result| result["outcome"] == "confirmed"), "{ended}");
    for agent in fleet.agents.values_mut() {
        agent.runs();
    }

    fleet.desk.refused(line, &["no approved device is left", "422"], "petrel devices ls");
    every_command_tells(&fleet, &id);
    rest_describes_and_guards_itself(&fleet);
    every_device_answers(&fleet);
    let ended = fleet.agents.get_mut("edge-1").unwrap().terminate();
    assert!(ended.success() && !fleet.desk.path("edge-1/http.addr").exists());
    fleet.device("edge-1", "gone", |device| device["online"] == false);
    assert!(fleet.bridge.terminate().success());
}

fn every_command_tells(fleet: &Fleet, rollout: &Value) {
    let json = |line: &str| fleet.desk.json(&format!("petrel {line}"));
    assert_eq!(json(&format!("rollout watch {rollout}"))["state"], "completed");
    assert_eq!(json("rollout ls").as_array().unwrap().len(), 1);
    let status = json("status");
    assert_eq!((&status["devices"], &status["releases"], &status["rolling"]), (&json!(2), &json!(1), &json!(0)));
    assert_eq!(json("devices ls").as_array().unwrap().len(), 2);
    let stream = &json("devices show edge-2")["streams"][0];
    assert_eq!((&stream["active"], &stream["converged"]), (&json!(1_000_000), &json!(true)));
    fleet.device("edge-2", "online", |device| device["online"] == true);
    let told = |items: &Value| items["items"].as_array().is_some_and(|items| !items.is_empty());
    crate::programs::wait_for("telemetry", || Some(fleet.ask("/devices/edge-2/telemetry").1).filter(told));
    let telemetry = json("devices telemetry edge-2");
    let latest = telemetry.as_array().unwrap().last().unwrap();
    assert!(latest["memory_total_mb"].as_u64() > Some(0), "{latest}");
    for line in ["status", "devices ls", "devices show edge-2", "devices telemetry edge-2", "rollout ls"] {
        assert!(!fleet.desk.done(&format!("petrel {line}")).trim().is_empty(), "{line}");
    }
}

fn rest_describes_and_guards_itself(fleet: &Fleet) {
    let (status, document) = fleet.ask_as("", "/openapi.json");
    assert_eq!(status, 200);
    let paths = document["paths"].as_object().unwrap();
    assert!(document["openapi"].is_string() && paths.contains_key("/api/v1/devices/{id}/approve"), "{document}");
    for (path, token) in [("/status", ""), ("/status", "wrong"), ("/devices", "0"), ("/rollouts/1", "Bearer")] {
        let (status, problem) = fleet.ask_as(token, path);
        assert_eq!((status, &problem["code"]), (401, &json!("unauthorised")), "{path} {token}");
    }
    assert_eq!(fleet.ask("/nowhere").0, 404);
    assert_eq!(fleet.ask("/devices/No%20Name").0, 422);
}

fn every_device_answers(fleet: &Fleet) {
    let images = npy(&fleet.desk.path("models/digits/heldout_x.npy"));
    let expected = npy(&fleet.desk.path("models/digits/heldout_class.npy"));
    let labels = String::from_utf8(fleet.desk.read("models/digits/labels.txt")).unwrap();
    let labels: Vec<&str> = labels.lines().collect();
    for id in fleet.agents.keys() {
        let get = |path: &str| fleet.local(id, path, None);
        assert_eq!(get("/v2/health/live").1, json!({ "live": true }));
        assert_eq!(get("/v2/health/ready").1, json!({ "ready": true }));
        assert_eq!(get("/v2").1["name"], "petrel-agent");
        let model = get("/v2/models/digits").1;
        assert_eq!((&model["versions"], &model["inputs"][0]["datatype"]), (&json!(["1000000"]), &json!("FP32")));
        assert_eq!(get("/v2/models/digits/versions/1000000/ready"), (200, json!({ "name": "digits", "ready": true })));
        assert_eq!(get("/v2/models/digits/versions/7/ready").0, 404);
        assert_eq!(get("/v2/models/prime/ready").0, 404);

        let rows = expected.len();
        let answer = fleet.classes(id, rows, &images);
        assert_eq!((&answer["model_name"], &answer["model_version"]), (&json!("digits"), &json!("1000000")));
        let [class, label] = [0, 1].map(|at| answer["outputs"][at]["data"].as_array().unwrap());
        assert_eq!(class.len(), rows);
        for (at, (class, label)) in class.iter().zip(label).enumerate() {
            assert_eq!(class.as_f64(), Some(expected[at]), "{id}: row {at}");
            assert_eq!(label, labels[expected[at] as usize], "{id}: row {at}");
        }
        for body in [
            json!({}),
            json!({ "inputs": [] }),
            json!({ "inputs": [{ "name": "x", "shape": [1], "datatype": "FP32", "data": [1] }] }),
        ] {
            let (status, said) = fleet.local(id, "/v2/models/digits/infer", Some(&body));
            assert!(status == 400 && said["error"].is_string(), "{status} {said}");
        }
    }
}
