//! Taking away, and every rule of an installation with what came of it.

use crate::desk::{Desk, text};
use serde_json::Value;

fn outcome<'a>(told: &'a Value, rule: &str) -> &'a Value {
    told["rules"].as_array().unwrap().iter().find(|r| r["rule"].as_str().unwrap().contains(rule)).unwrap()
}

/// What `verify --explain` says, and its exit code.
fn explained(desk: &Desk, more: &str) -> (Value, Option<i32>) {
    let output = desk.run(&format!("verify bundle --root fleet/root.json --explain --json {more}"));
    (serde_json::from_str(&text(&output.stdout)).unwrap(), output.status.code())
}

#[test]
fn every_rule_is_told_and_what_is_not_known_does_not_pass() {
    let desk = Desk::with_fleet();
    desk.bundle("diabetes", "bundle");
    let (told, code) = explained(&desk, "");
    assert_eq!((told["rules"].as_array().unwrap().len(), code), (16, Some(0)));
    for (rule, what) in [
        ("has not expired", "pass"),
        ("publishers signed", "pass"),
        ("this stream", "pass"),
        ("the signed files", "pass"),
        ("was assigned", "unknown"),
        ("fits the board", "unknown"),
        ("taken away", "unknown"),
        ("below the floor", "unknown"),
    ] {
        assert_eq!(outcome(&told, rule)["outcome"], what, "{rule}");
    }
    let (told, code) = explained(&desk, "--active 1002001");
    assert_eq!(
        (outcome(&told, "declared a rollback")["code"].clone(), code),
        ("E_UNDECLARED_ROLLBACK".into(), Some(1))
    );
    std::fs::write(desk.path("bundle/more"), "x").unwrap();
    let (told, code) = explained(&desk, "");
    assert_eq!((told["refused"].clone(), code), ("E_EXTRA".into(), Some(1)));
    let people = text(&desk.run("verify bundle --root fleet/root.json --explain").stdout);
    assert!(people.contains("E_EXTRA") && people.contains("not known here"), "{people}");
    std::fs::remove_file(desk.path("bundle/more")).unwrap();
    std::fs::remove_file(desk.path("bundle/bundle.dsse.json")).unwrap();
    let (told, code) = explained(&desk, "");
    assert_eq!((outcome(&told, "publishers signed")["outcome"].clone(), code), ("refused".into(), Some(1)));
}

#[test]
fn what_is_taken_away_stays_away() {
    let desk = Desk::with_fleet();
    desk.bundle("diabetes", "bundle");
    let first = "revoke --root fleet/root.json --out revocation-1.json --key fleet/keys/revocation.pem";
    let made = desk.json(&format!("{first} --floor diabetes=1002001 --take-device edge-9"));
    assert_eq!((made["complete"].clone(), made["version"].clone()), (true.into(), 1.into()));
    let (told, code) = explained(&desk, "--revocation revocation-1.json --device edge-9");
    assert_eq!(code, Some(1));
    assert_eq!(outcome(&told, "below the floor")["code"], "E_FLOOR");
    assert_eq!(outcome(&told, "part of the fleet")["code"], "E_REVOKED_DEVICE");
    assert_eq!(outcome(&told, "taken away")["outcome"], "pass");

    let second = "revoke --root fleet/root.json --after revocation-1.json --out revocation-2.json --key fleet/keys/revocation.pem";
    let made = desk.json(&format!(
        "{second} --take-key keys/publisher.pub --take-bundle diabetes:1-2000000 --severity no-new --reason labels"
    ));
    assert_eq!(
        (made["version"].clone(), made["revocation"]["floors"]["diabetes"].clone()),
        (2.into(), 1_002_001.into())
    );
    let (told, _) = explained(&desk, "--revocation revocation-2.json --device edge-1");
    assert_eq!(outcome(&told, "publishers signed")["code"], "E_REVOKED_KEY");
    assert_eq!(outcome(&told, "part of the fleet")["outcome"], "pass");
    // Nothing is given back, and nobody else may sign.
    assert_eq!(desk.refused(&format!("{second} --floor diabetes=1"))["code"], "E_ROLLBACK_REV");
    desk.refused("revoke --root fleet/root.json --out revocation-9.json --floor a=1 --key keys/publisher.pem");
    assert!(!desk.path("revocation-9.json").exists());
    desk.refused("revoke --root fleet/root.json --out revocation-9.json");
}

#[test]
fn a_stop_needs_two_and_a_new_epoch_begins_again() {
    let desk = Desk::with_fleet();
    desk.done("keys new --role revocation --name second --out keys");
    let statement = desk.pack("diabetes", "bundle")["statement_sha256"].as_str().unwrap().to_owned();
    let old = "revoke --root fleet/root.json --out revocation-1.json";
    desk.done(&format!("{old} --floor diabetes=5 --key fleet/keys/revocation.pem"));
    desk.done(
        "root add-key --role revocation --holder keys/second.pub --root fleet/root.json --out root-2.json --key fleet/keys/root.pem",
    );
    let next = "revoke --root root-2.json --after revocation-1.json --out revocation-2.json";
    let stop = format!("--take-bundle {statement} --severity stop --reason smoke");
    let error = desk.refused(&format!("{next} {stop}"));
    assert_eq!(error["code"], "E_REPLAY", "{error}");
    let next = format!("{next} --after-root fleet/root.json");
    let made = desk.json(&format!("{next} {stop} --key keys/second.pem"));
    assert_eq!((made["complete"].clone(), made["missing"][0]["threshold"].clone()), (false.into(), 2.into()));
    assert_eq!((made["version"].clone(), made["role_epoch"].clone()), (1.into(), 2.into()));
    assert_eq!(made["revocation"]["floors"]["diabetes"], 5);
    assert_eq!(desk.json(&format!("{next} --key fleet/keys/revocation.pem"))["complete"], true);
}
