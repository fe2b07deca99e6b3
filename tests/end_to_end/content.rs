//! A bundle over HTTPS: a device that should run it gets its files and ranges of them, and nobody else gets anything.
//! And what the bridge counts of it all.

use crate::fleet::Fleet;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::{CONTENT_PATH, FETCH_SCHEME, Fetch, Kind, SignedFrame, encode_cbor};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::Value;
use trust::Digest;

/// What device `id` would send to fetch `statement`, signed by the key of `signer` as a message of `kind`.
fn leave(fleet: &Fleet, id: &str, statement: Digest, signer: &str, kind: Kind) -> String {
    let random = SystemRandom::new();
    let key = fleet.desk.read(&format!("{signer}/identity/a.key"));
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random).unwrap();
    let body = encode_cbor(&Fetch { device: id.parse().unwrap(), statement: statement.0 });
    let signature = pair.sign(&random, &SignedFrame::signed_bytes(kind, &body)).unwrap();
    let frame = SignedFrame::join(signature.as_ref().try_into().unwrap(), &body);
    format!("{FETCH_SCHEME} {}", URL_SAFE_NO_PAD.encode(frame))
}

#[test]
fn a_device_fetches_what_it_should_run_over_https() {
    let mut fleet = Fleet::start();
    fleet.enlist("a");
    let packed = fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    let statement: Digest = packed["statement_sha256"].as_str().unwrap().parse().unwrap();
    let own = leave(&fleet, "a", statement, "a", Kind::Fetch);
    let at = |name: &str| format!("{CONTENT_PATH}/{statement}/{name}");
    let code = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["code"].as_str().unwrap().to_owned();
    let refused = |path: &str, leave: &str| {
        let (status, _, body) = fleet.fetch(path, &[("authorization", leave)]);
        (status, code(&body))
    };
    assert_eq!(refused(&at("model.onnx"), &own), (403, "not_assigned".into()));

    let id = fleet.desk.json("petrel rollout start digits@1.0.0 --waves 100% --trial-window 1")["id"].clone();
    let ended = fleet.rollout(&id, "the end of the rollout", |rollout| rollout["ended"].is_u64());
    assert_eq!(ended["state"], "completed", "{ended}");
    let model = fleet.desk.read("digits/model.onnx");
    let etag = format!("\"{}\"", Digest::of(&model));
    let get =
        |more: &[(&str, &str)]| fleet.fetch(&at("model.onnx"), &[&[("authorization", own.as_str())], more].concat());
    let (status, headers, body) = get(&[]);
    assert!(status == 200 && body == model && headers["etag"] == *etag, "{status} {headers:?}");
    let (status, headers, body) = get(&[("range", "bytes=10-19"), ("if-range", &etag)]);
    assert!(status == 206 && body == model[10..20], "{status}");
    assert_eq!(headers["content-range"], *format!("bytes 10-19/{}", model.len()));
    let (status, _, body) = get(&[("range", "bytes=10-19"), ("if-range", "\"of another file\"")]);
    assert!(status == 200 && body == model, "{status}");
    let (status, headers, body) = get(&[("range", &format!("bytes={}-", model.len()))]);
    assert_eq!((status, code(&body)), (416, "range".into()));
    assert_eq!(headers["content-range"], *format!("bytes */{}", model.len()));

    let (status, _, body) = fleet.fetch(&at("bundle.dsse.json"), &[("authorization", own.as_str())]);
    assert!(status == 200 && body == fleet.desk.read("digits/bundle.dsse.json"), "{status}");
    for name in ["model.sig", "nothing.bin", "%2e%2e/bridge.db", "..%2f..%2fbridge.db", "%2fetc%2fpasswd"] {
        assert_eq!(refused(&at(name), &own), (404, "not_found".into()), "{name}");
    }
    let other = Digest::of(b"another bundle");
    let foreign = format!("{CONTENT_PATH}/{other}/model.onnx");
    assert_eq!(refused(&foreign, &leave(&fleet, "a", other, "a", Kind::Fetch)), (403, "not_assigned".into()));
    assert_eq!(refused(&foreign, &own), (401, "authorization".into()));
    fleet.enrol("b", "");
    for (id, signer, kind) in [("a", "b", Kind::Fetch), ("c", "b", Kind::Fetch), ("a", "a", Kind::Need)] {
        let forged = leave(&fleet, id, statement, signer, kind);
        assert_eq!(refused(&at("model.onnx"), &forged), (401, "signature".into()), "{id} by {signer}");
    }
    assert_eq!(refused(&at("model.onnx"), &leave(&fleet, "b", statement, "b", Kind::Fetch)).0, 403, "not its own");
    fleet.desk.done("petrel devices revoke a");
    assert_eq!(refused(&at("model.onnx"), &own).0, 403, "thrown out");

    assert_eq!(fleet.fetch("/metrics", &[]).0, 401);
    let token = format!("Bearer {}", String::from_utf8(fleet.desk.read("fleet/data/admin.token")).unwrap());
    let (status, _, page) = fleet.fetch("/metrics", &[("authorization", &token)]);
    let page = String::from_utf8(page).unwrap();
    let value = |series: &str| {
        let line =
            page.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{series}: {page}"));
        line.trim().parse::<u64>().unwrap()
    };
    assert_eq!(status, 200);
    assert!(value("petrel_published_bytes_total{what=\"chunk\"}") >= model.len() as u64);
    assert_eq!(
        value("petrel_devices{status=\"revoked\",online=\"false\"}")
            + value("petrel_devices{status=\"revoked\",online=\"true\"}"),
        1
    );
    assert_eq!(value("petrel_broker_connected"), 1);
    let waits = (0..30).any(|_| fleet.fetch(&at("model.onnx"), &[]).0 == 429);
    assert!(waits, "a stranger may guess without end");
}

#[test]
fn what_nothing_needs_is_removed_and_can_come_back() {
    let fleet = Fleet::start();
    let folders = ["1.0.0", "1.1.0", "1.2.0"].map(|version| {
        let name = format!("digits-{version}");
        let packed = fleet.desk.bundle("digits", version, &name);
        fleet.desk.json(&format!("petrel push {name}"));
        fleet.desk.path("fleet/data/bundles").join(packed["statement_sha256"].as_str().unwrap())
    });
    let listed = fleet.desk.json("petrel streams gc --dry-run");
    let may_go: Vec<&Value> = listed.as_array().unwrap().iter().filter(|release| release["stays"].is_null()).collect();
    assert!(may_go.len() == 1 && may_go[0]["version"] == "1.0.0" && folders[0].exists(), "{listed}");
    let said = fleet.desk.done("petrel streams gc --dry-run");
    assert!(said.contains("stays: one of the newest 2") && said.contains("1 may go"), "{said}");
    assert_eq!(fleet.desk.json("petrel streams gc").as_array().unwrap().len(), 1);
    assert!(!folders[0].exists() && folders[1].exists() && folders[2].exists());
    assert!(fleet.desk.done("petrel streams gc").contains("nothing may go"));
    assert_eq!(fleet.desk.json("petrel status")["releases"], 2);
    let told = fleet.desk.json("petrel audit ls").to_string();
    assert!(told.contains("release.gc") && told.contains("digits@1.0.0"), "{told}");
    fleet.desk.json("petrel push digits-1.0.0");
    assert!(folders[0].exists());
}
