//! Webhooks: a real bridge tells a real receiver, which is away, refuses and comes back.

use crate::fleet::Fleet;
use crate::programs::{Desk, wait_for};
use crate::receiver::Receiver;
use ring::hmac;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

const SECRET: &str = "what both sides know, and nobody else";

/// A program that takes events, or refuses them with another status.
struct Pager {
    door: Receiver,
    /// What nobody has asked for yet.
    heard: Vec<Value>,
}

impl Pager {
    fn start() -> Self {
        Self { door: Receiver::start(204), heard: Vec::new() }
    }

    /// The next event, if its signature is good.
    fn next(&self) -> Value {
        let came = wait_for("an event", || self.door.came());
        assert_eq!(came.headers["content-type"], "application/cloudevents+json");
        let signature = &came.headers["petrel-signature"];
        let (seconds, tag) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let own = hmac::sign(&key, &[seconds.as_bytes(), b".", &came.body].concat());
        assert_eq!(own.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>(), tag);
        let event: Value = serde_json::from_slice(&came.body).unwrap();
        assert_eq!((&event["specversion"], &event["source"]), (&json!("1.0"), &json!("/petrel/fleets/sea")));
        assert!(event["time"].as_str().unwrap().ends_with('Z'), "{event}");
        event
    }

    /// An event of this type, whatever came before it: they come in any order.
    fn of(&mut self, kind: &str) -> Value {
        loop {
            if let Some(at) = self.heard.iter().position(|event| event["type"] == kind) {
                return self.heard.remove(at);
            }
            let next = self.next();
            self.heard.push(next);
        }
    }
}

fn secret(desk: &Desk, text: &str) {
    desk.write("fleet/keys/pager.secret", format!("{text}\n"));
    fs::set_permissions(desk.path("fleet/keys/pager.secret"), Permissions::from_mode(0o600)).unwrap();
}

fn told(desk: &Desk, more: &str) {
    secret(desk, SECRET);
    let config = String::from_utf8(desk.read("fleet/bridge.toml")).unwrap();
    desk.write(
        "fleet/bridge.toml",
        format!("{config}\n[[webhook]]\nname = \"pager\"\nsecret = \"keys/pager.secret\"\n{more}"),
    );
}

#[test]
fn a_receiver_hears_every_stage_of_a_rollout_also_when_it_was_away() {
    let mut pager = Pager::start();
    let mut fleet = Fleet::start();
    let address = pager.door.address;
    fleet.cut_bridge_and(|desk| told(desk, &format!("url = \"http://{address}/in?key=hidden\"\n")));
    fleet.desk.done("petrel webhooks test pager");
    let test = pager.next();
    assert_eq!((&test["type"], &test["data"]), (&json!("petrel.test"), &json!({ "by": "admin" })));

    fleet.enlist("edge-1");
    fleet.desk.bundle("digits", "1.0.0", "digits-1");
    fleet.desk.json("petrel push digits-1");
    // It refuses; what waits is seen, survives the bridge, and comes once it takes it.
    pager.door.answer.store(500, Ordering::SeqCst);
    fleet.desk.json("petrel rollout start digits@1.0.0 --trial-window 1");
    let refused = pager.of("petrel.rollout.rolling");
    let seen = wait_for("the bridge to know that it was refused", || {
        let hooks = fleet.desk.json("petrel webhooks ls");
        hooks[0]["error"].is_string().then_some(hooks)
    });
    assert_eq!((&seen[0]["error"], &seen[0]["given_up"]), (&json!("it answered 500"), &json!(0)));
    assert_eq!(seen[0]["origin"], format!("http://{address}"), "no more of an address than where it is");
    let shown = fleet.desk.json("petrel webhooks show pager");
    assert!(shown.as_array().unwrap().iter().any(|notice| notice["event"] == refused), "{shown}");
    fleet.cut_bridge();
    pager.door.answer.store(200, Ordering::SeqCst);
    let again = pager.of("petrel.rollout.rolling");
    assert_eq!(again, refused, "the same event, with the same id");
    let done = pager.of("petrel.rollout.completed");
    assert_eq!(
        (&done["subject"], &done["data"]["stream"], &done["data"]["by"]),
        (&json!("rollout/1"), &json!("digits"), &json!("admin"))
    );
    wait_for("nothing to wait any more", || {
        let hooks = fleet.desk.json("petrel webhooks ls");
        (hooks[0]["waiting"] == 0).then_some(())
    });
    fleet.desk.refused("petrel webhooks test nobody", &["there is no webhook `nobody`"], "");
}

#[test]
fn a_webhook_that_makes_no_sense_keeps_the_bridge_from_starting() {
    for (more, why) in [
        ("url = \"ftp://x\"\n", "its `url` is no address"),
        ("url = \"https://x\"\nca = \"nowhere.pem\"\n", "cannot use the authority"),
        (
            "url = \"https://x\"\n[[webhook]]\nname = \"pager\"\nurl = \"https://y\"\nsecret = \"keys/pager.secret\"\n",
            "two webhooks have the same name",
        ),
        ("url = \"https://x\"\nfor = \"me\"\n", "unknown field `for`"),
    ] {
        let desk = Desk::with_fleet();
        told(&desk, more);
        desk.refused("petrel bridge --config fleet/bridge.toml", &[why], "");
    }
    let desk = Desk::with_fleet();
    told(&desk, "url = \"https://x\"\n");
    fs::set_permissions(desk.path("fleet/keys/pager.secret"), Permissions::from_mode(0o644)).unwrap();
    desk.refused("petrel bridge --config fleet/bridge.toml", &["can be read by others"], "chmod 600");
    secret(&desk, "short");
    desk.refused("petrel bridge --config fleet/bridge.toml", &["its secret has 5 bytes", "at least 16"], "");
}
