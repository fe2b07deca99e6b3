//! Who may do what: every route that the bridge describes, with a token of every role.

use crate::fleet::Fleet;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What each role may ask for beyond reading, told once more: the bridge has its own table.
const MAY: [(&str, &[&str]); 5] = [
    ("viewer", &[]),
    ("publisher", &["PUT /api/v1/bundles/{digest}", "POST /api/v1/documents", "POST /api/v1/releases/gc"]),
    (
        "operator",
        &[
            "POST /api/v1/devices/{id}/approve",
            "POST /api/v1/devices/{id}/commands",
            "POST /api/v1/devices/{id}/labels",
            "POST /api/v1/devices/{id}/reject",
            "POST /api/v1/devices/{id}/retire",
            "POST /api/v1/devices/{id}/revoke",
            "POST /api/v1/drift-alarms/{id}/acknowledge",
            "POST /api/v1/fan-outs",
            "POST /api/v1/join-tokens",
            "POST /api/v1/join-tokens/{id}/revoke",
            "POST /api/v1/rollouts",
            "POST /api/v1/rollouts/{id}",
            "POST /api/v1/sample-requests",
            "POST /api/v1/sample-requests/{id}",
            "POST /api/v1/webhooks/{name}/retry",
            "POST /api/v1/webhooks/{name}/test",
        ],
    ),
    ("approver", &["POST /api/v1/rollouts/{id}", "POST /api/v1/sample-requests/{id}"]),
    ("admin", &["POST /api/v1/people", "POST /api/v1/people/{name}/revoke"]),
];
/// What only reads, whatever it is sent with.
const READS: [&str; 2] = ["POST /api/v1/rollouts/plan", "POST /api/v1/audit/checkpoint"];
/// What a viewer does not see.
const HIDDEN: [&str; 1] = ["GET /api/v1/sample-requests/{id}/samples"];
/// What devices ask, and prove by themselves.
const OPEN: [&str; 4] = ["/api/v1/enrol", "/api/v1/renew", "/api/v1/re-enrol", "/api/v1/content/{statement}/{file}"];

#[test]
fn each_role_may_do_what_it_is_for_and_nothing_else() {
    let fleet = Fleet::start();
    let (_, _, document) = fleet.fetch("/api/v1/openapi.json", &[]);
    let document: Value = serde_json::from_slice(&document).unwrap();
    let mut routes = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap().keys().filter(|_| !OPEN.contains(&path.as_str()));
        routes.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let told: BTreeSet<String> =
        MAY.iter().flat_map(|(_, may)| may.iter()).chain(&READS).map(ToString::to_string).collect();
    let changing: BTreeSet<String> = routes.iter().filter(|route| !route.starts_with("GET ")).cloned().collect();
    assert_eq!(changing, told, "this test and the bridge know the same routes");
    let tokens = MAY.map(|(role, _)| (role, fleet.token_of(&format!("a-{role}"), role)));
    let narrow = fleet.token_of("narrow", "operator --stream digits");
    for route in &routes {
        let (method, path) = route.split_once(' ').unwrap();
        let filled = ["{id}", "{digest}", "{name}", "{seq}", "{stream}"];
        let path = filled.iter().fold(path.to_owned(), |path, key| path.replace(key, "7"));
        for token in [None, Some("petrel_0000")] {
            assert_eq!(fleet.send(method, &path, token).0, 401, "{route} with {token:?}");
        }
        for (n, (role, token)) in tokens.iter().enumerate() {
            let hidden = *role == "viewer" && HIDDEN.contains(&route.as_str());
            let reads = (method == "GET" && !hidden) || READS.contains(&route.as_str());
            let may = reads || *role == "admin" || MAY[n].1.contains(&route.as_str());
            let (status, code) = fleet.send(method, &path, Some(token));
            assert_eq!(status == 403, !may, "{role}: {route} gave {status} {code}");
            assert!(status < 500 && (may || code == "forbidden"), "{role}: {route} gave {status} {code}");
        }
        // A narrow token changes what belongs to its stream. Of these the handler knows which that is.
        let of_streams = ["rollouts", "rollouts/{id}", "sample-requests", "sample-requests/{id}"];
        let of_streams = of_streams.iter().any(|path| *route == format!("POST /api/v1/{path}"));
        let may = method == "GET" || READS.contains(&route.as_str()) || of_streams;
        assert_eq!(fleet.send(method, &path, Some(&narrow)).0 == 403, !may, "narrow: {route}");
    }
    // A refusal stands in the log with the name of who was refused.
    let (_, lines) = fleet.ask("/audit?who=a-viewer&limit=1000");
    let refused = lines["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["text"].as_str().unwrap().contains(r#""outcome":"forbidden""#))
        .count();
    assert_eq!(refused, changing.len() - READS.len(), "{lines}");
}

#[test]
fn a_token_is_for_its_streams_and_ends_and_the_last_admin_stays() {
    let fleet = Fleet::start();
    let narrow = fleet.token_of("narrow", "operator --stream faces --stream voices --days 30");
    let start = json!({ "stream": "digits", "version": "1.0.0" });
    let (status, problem) = fleet.post_as(&narrow, "/rollouts", &start);
    assert_eq!((status, &problem["code"]), (403, &json!("forbidden")), "{problem}");
    assert_eq!(problem["detail"], "this token is for streams faces, voices, and not for `digits`");
    let start = json!({ "stream": "faces", "version": "1.0.0" });
    assert_eq!(fleet.post_as(&narrow, "/rollouts", &start).0, 404, "it may, and there is no such release");

    let people = fleet.desk.json("petrel people ls");
    let told = people.as_array().unwrap().iter().find(|person| person["name"] == "narrow").unwrap();
    assert_eq!((&told["role"], &told["streams"]), (&json!("operator"), &json!(["faces", "voices"])));
    let (made, until) = (told["created"].as_u64().unwrap(), told["until"].as_u64().unwrap());
    assert_eq!(until - made, 30 * 24 * 3_600_000);

    // An admin who ends one day does not keep the door open for ever; nor does one who may less.
    fleet.token_of("bert", "operator");
    fleet.token_of("anton", "admin --days 1");
    fleet.desk.refused("petrel people revoke admin", &["nobody could let anybody in any more without `admin`"], "");
    let carla = fleet.token_of("carla", "admin");
    fleet.desk.done("petrel people revoke admin");
    assert_eq!(fleet.ask("/people").0, 401, "it counts no more");
    assert_eq!(fleet.ask_as(&carla, "/people").0, 200);
    for (asked, why) in [
        (json!({ "name": "dora", "role": "admin", "streams": ["faces"] }), "an admin is let in for everything"),
        (json!({ "name": "dora", "role": "viewer", "days": 0 }), "a token lasts 1 to 3650 days"),
        (json!({ "name": "dora", "role": "king" }), "unknown variant `king`"),
        (json!({ "name": "judge", "role": "viewer" }), "is a name of the audit log's own"),
        (json!({ "name": "bert", "role": "viewer" }), "`bert` holds a token already"),
    ] {
        let (status, problem) = fleet.post_as(&carla, "/people", &asked);
        assert!(matches!(status, 409 | 422) && problem["detail"].as_str().unwrap().contains(why), "{status} {problem}");
    }
}
