//! REST as scripts use it: what is asked again is not done again, and what has not changed is not told again.

use crate::fleet::Fleet;
use serde_json::{Value, json};

/// `POST` with a key; the status and the body.
fn post(fleet: &Fleet, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let token = String::from_utf8(fleet.desk.read("fleet/data/admin.token")).unwrap();
    let headers = [("authorization", format!("Bearer {}", token.trim())), ("idempotency-key", key.to_owned())];
    fleet.post_with(&headers, path, body)
}

#[test]
fn what_is_asked_again_with_its_key_is_not_done_again() {
    let mut fleet = Fleet::start();
    fleet.enlist("edge-1");
    let report = json!({ "request": { "what": "report" } });
    let path = "/devices/edge-1/commands";
    let commands = |fleet: &Fleet| fleet.ask(path).1["items"].as_array().unwrap().len();

    let (status, first) = post(&fleet, path, "a-key", &report);
    assert_eq!((status, &first["seq"]), (201, &json!(1)), "{first}");
    assert_eq!(post(&fleet, path, "a-key", &report).1["seq"], 1);
    // Whoever heard no answer since the bridge was gone asks the next one.
    fleet.cut_bridge();
    assert_eq!(post(&fleet, path, "a-key", &report).1["seq"], 1);
    assert_eq!(commands(&fleet), 1);

    let other = json!({ "request": { "what": "diagnostics" } });
    let (status, refused) = post(&fleet, path, "a-key", &other);
    assert_eq!((status, &refused["code"]), (422, &json!("invalid")));
    assert!(refused["detail"].as_str().unwrap().contains("another request"), "{refused}");
    assert_eq!(post(&fleet, path, "another-key", &report).1["seq"], 2);
    // A key is its owner's: somebody else's is another one.
    let operator = fleet.token_of("ann", "operator");
    let headers = [("authorization", format!("Bearer {operator}")), ("idempotency-key", "a-key".to_owned())];
    assert_eq!(fleet.post_with(&headers, path, &report).1["seq"], 3);
    assert_eq!(commands(&fleet), 3);

    // One for many is done once as well, and told as it stands.
    let all = json!({ "to": "online", "request": { "what": "report" } });
    let (status, first) = post(&fleet, "/fan-outs", "all", &all);
    assert_eq!((status, &first["id"], &first["given"]), (201, &json!(1), &json!(1)), "{first}");
    fleet.cut_bridge();
    let (status, again) = post(&fleet, "/fan-outs", "all", &all);
    assert_eq!((status, &again["id"], &again["at"]), (201, &json!(1), &first["at"]), "{again}");
    assert_eq!(commands(&fleet), 4);

    // What was refused began nothing: the key is free.
    assert_eq!(post(&fleet, "/devices/edge-9/commands", "third", &report).0, 404);
    assert_eq!(post(&fleet, path, "third", &report).1["seq"], 5);
    for (path, key) in [(path, "two words"), (path, ""), (path, &"k".repeat(129)), ("/devices/edge-1/retire", "a-key")]
    {
        let (status, refused) = post(&fleet, path, key, &report);
        assert_eq!((status, &refused["code"]), (422, &json!("invalid")), "{path} {key}");
    }
    assert_eq!(fleet.device("edge-1", "it to be there", |_| true)["status"], "approved");
}

#[test]
fn what_has_not_changed_is_not_told_again() {
    let fleet = Fleet::start();
    let token = format!("Bearer {}", String::from_utf8(fleet.desk.read("fleet/data/admin.token")).unwrap().trim());
    let ask = |tag: &str| {
        let (status, headers, body) =
            fleet.fetch("/api/v1/devices", &[("authorization", &token), ("if-none-match", tag)]);
        (status, headers["etag"].to_str().unwrap().to_owned(), body.len())
    };
    let (status, tag, length) = ask("\"none\"");
    assert!(status == 200 && length > 0);
    assert_eq!(ask(&tag), (304, tag.clone(), 0));
    fleet.enrol("edge-1", "");
    let (status, other, _) = ask(&tag);
    assert!(status == 200 && other != tag);
}
