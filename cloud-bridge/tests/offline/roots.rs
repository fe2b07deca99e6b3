//! The ceremony: roots that several people make, change and sign in turn.

use crate::desk::{Desk, names};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Two root keys of two people, and a root that needs both.
fn two_people() -> Desk {
    let desk = Desk::new();
    for name in ["anna", "bert", "carl"] {
        desk.done(&format!("keys new --role root --name {name} --out people"));
    }
    let made = desk.json(
        "root init --fleet plant-3 --out fleet --holder root=people/anna.pub --holder root=people/bert.pub --threshold root=2",
    );
    assert_eq!(made["complete"], false);
    assert!(!names(&desk.path("fleet/keys")).contains(&"root.pem".to_owned()));
    desk
}

fn missing(told: &Value) -> Vec<(&str, u64, u64)> {
    let need = |n: &'static str, value: &Value| value[n].as_u64().unwrap();
    let rows = told["missing"].as_array().unwrap().iter();
    rows.map(|m| (m["of"].as_str().unwrap(), need("signed", m), need("threshold", m))).collect()
}

#[test]
fn a_first_root_is_good_when_both_have_signed() {
    let desk = two_people();
    let sign = |who: &str| desk.json(&format!("root sign fleet/root.json --key people/{who}.pem"));
    desk.pack("diabetes", "bundle");
    desk.done("sign bundle --key fleet/keys/publisher.pem");
    desk.refused("verify bundle --root fleet/root.json");
    let once = sign("anna");
    assert_eq!((once["complete"].clone(), missing(&once)), (false.into(), vec![("the new root", 1, 2)]));
    assert_eq!(desk.refused("verify bundle --root fleet/root.json")["code"], "E_THRESHOLD");
    assert_eq!(sign("anna")["complete"], false, "the same key counts once");
    assert_eq!(sign("bert")["complete"], true);
    let mode = fs::metadata(desk.path("fleet/root.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "the bridge reads it");
    desk.done("verify bundle --root fleet/root.json");
    let error = desk.refused("root sign fleet/root.json --key people/carl.pem");
    assert!(error["message"].as_str().unwrap().contains("does not hold the role root"), "{error}");
}

#[test]
fn the_next_root_needs_the_old_and_the_new_holders() {
    let desk = two_people();
    desk.done("root sign fleet/root.json --key people/anna.pem --key people/bert.pem");
    let place = "--root fleet/root.json --out root-2.json";
    let made = desk.json(&format!("root add-key --role root --holder people/carl.pub {place}"));
    assert_eq!((made["version"].clone(), made["new_epochs"].clone()), (2.into(), serde_json::json!(["root"])));
    let made =
        desk.json(&format!("root remove-key --role root --holder people/anna.pub {place} --key people/bert.pem"));
    assert_eq!(missing(&made), [("the old root", 1, 2), ("the new root", 1, 2)]);
    let sign = |who: &str| desk.json(&format!("root sign root-2.json --root fleet/root.json --key people/{who}.pem"));
    let alone = desk.refused("root sign root-2.json --key people/carl.pem");
    assert!(alone["remedy"].as_str().unwrap().contains("--root"), "{alone}");
    assert_eq!(missing(&sign("carl")), [("the old root", 1, 2)]);
    assert_eq!(sign("anna")["complete"], true);

    let shown = desk.json("root show fleet/root.json root-2.json");
    let epoch = |at: usize, role: &str| shown[at]["root"]["roles"][role]["role_epoch"].clone();
    assert_eq!((epoch(0, "root"), epoch(1, "root"), epoch(1, "director")), (1.into(), 2.into(), 1.into()));
    assert_eq!(shown[1]["root"]["keys"].as_object().unwrap().len(), 7);
    let people = desk.done("root show fleet/root.json root-2.json");
    assert!(people.contains("root 2 of fleet plant-3") && people.contains("2 of 2"), "{people}");

    // Whoever changes it after it was signed must have it signed again.
    let again = desk.json(&format!("root rotate {place} --director-may-rollback no --new-epoch beacon"));
    assert_eq!((again["complete"].clone(), again["signers"].clone()), (false.into(), serde_json::json!([])));
    desk.done("root sign root-2.json --root fleet/root.json --key people/anna.pem --key people/bert.pem --key people/carl.pem");
    let shown = desk.json("root show fleet/root.json root-2.json");
    assert_eq!(shown[1]["root"]["policy"]["director_may_rollback"], false);
    assert_eq!(shown[1]["root"]["roles"]["beacon"]["role_epoch"], 2);
    desk.done("root rotate --root root-2.json --out root-3.json --clock-reset");
    desk.done("root sign root-3.json --root root-2.json --key people/bert.pem --key people/carl.pem");
    assert_eq!(desk.json("root show fleet/root.json root-2.json root-3.json")[2]["root"]["clock_reset"], 1);
    assert_eq!(desk.refused("root show fleet/root.json root-3.json")["code"], "E_ROOT_GAP");
}

#[test]
fn a_root_that_would_be_refused_is_not_made() {
    let desk = Desk::with_fleet();
    desk.done("keys new --role publisher --name anna --out keys");
    let place = "--root fleet/root.json --out root-2.json";
    let error = desk.refused(&format!("root rotate {place} --threshold publisher=2"));
    assert_eq!(error["code"], "E_ROOT_SCHEMA");
    let error = desk.refused(&format!("root add-key --role publisher --holder keys/anna.pub {place}"));
    assert!(error["remedy"].as_str().unwrap().contains("--scope"), "{error}");
    let error = desk.refused(&format!("root remove-key --role director --holder keys/anna.pub {place}"));
    assert!(error["message"].as_str().unwrap().contains("does not hold"), "{error}");
    desk.refused(&format!("root rotate {place} --key keys/anna.pem"));
    assert!(!desk.path("root-2.json").exists());
    let outside = desk.run(&format!("root rotate {place} --threshold captain=1"));
    assert_eq!(outside.status.code(), Some(2));
}

#[test]
fn two_of_three_publishers_sign_within_their_scope() {
    let desk = Desk::with_fleet();
    let mut line =
        "root add-key --role publisher --holder keys/bert.pub --root fleet/root.json --out root-2.json".to_owned();
    for name in ["anna", "bert"] {
        desk.done(&format!("keys new --role publisher --name {name} --out keys"));
    }
    line.push_str(" --scope dia*=keys/bert.pub");
    desk.done(&line);
    desk.done(
        "root add-key --role publisher --holder keys/anna.pub --scope dia*,cancer=keys/anna.pub --threshold publisher=2 \
         --root fleet/root.json --out root-2.json --key fleet/keys/root.pem",
    );
    assert_eq!(desk.json("root show fleet/root.json root-2.json")[1]["complete"], true);
    for (model, signers, code) in [
        ("diabetes", ["anna", "bert"], None),
        ("cancer", ["anna", "publisher"], None),
        // One of the two may not sign for this stream, so one is left.
        ("cancer", ["bert", "publisher"], Some("E_THRESHOLD")),
    ] {
        let bundle = format!("{model}-{}", signers[0]);
        desk.pack(model, &bundle);
        for (at, who) in signers.iter().enumerate() {
            let signed = desk.json(&format!("sign {bundle} --key keys/{who}.pem"));
            assert_eq!(signed["signatures"], at + 1);
            if at == 0 {
                assert_eq!(desk.refused(&format!("verify {bundle} --root root-2.json"))["code"], "E_THRESHOLD");
            }
        }
        let verify = format!("verify {bundle} --root root-2.json");
        match code {
            None => assert_eq!(desk.json(&verify)["signers"].as_array().unwrap().len(), 2),
            Some(code) => assert_eq!(desk.refused(&verify)["code"], code),
        }
    }
    let draft = fs::read_to_string(desk.path("root-2.json")).unwrap();
    assert!(!draft.contains("PRIVATE"));
}
