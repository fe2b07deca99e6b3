//! Keys with a passphrase, both envelopes, and a threshold of publishers.

use crate::desk::{Desk, names, text};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

const PASSPHRASE: &str = "albatross-over-the-fjord";

fn secret_file(desk: &Desk, name: &str, content: &str) {
    fs::write(desk.path(name), content).unwrap();
    fs::set_permissions(desk.path(name), Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn an_encrypted_key_signs_with_its_passphrase_only() {
    let desk = Desk::new();
    secret_file(&desk, "pass", &format!("{PASSPHRASE}\n"));
    secret_file(&desk, "wrong", "cormorant\n");
    desk.done("keys new --role publisher --out keys --encrypt --passphrase-file pass");
    assert_eq!(names(&desk.path("keys")).len(), 4);
    for name in ["publisher.pem", "publisher-p256.pem"] {
        let path = desk.path("keys").join(name);
        assert!(fs::read_to_string(&path).unwrap().starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    desk.done("root init --fleet plant-3 --out fleet --publisher keys/publisher.pub");
    desk.pack("diabetes", "bundle");
    let error = desk.refused("sign bundle --key keys/publisher.pem --passphrase-file wrong");
    assert!(error["message"].as_str().unwrap().starts_with("the passphrase does not open keys/publisher.pem"));
    assert!(error["remedy"].is_string() && !error.to_string().contains("cormorant"), "{error}");
    fs::set_permissions(desk.path("wrong"), Permissions::from_mode(0o644)).unwrap();
    let error = desk.refused("sign bundle --key keys/publisher.pem --passphrase-file wrong");
    assert!(error["message"].as_str().unwrap().contains("can be read by others"), "{error}");
    assert!(!desk.path("bundle/bundle.dsse.json").exists() && !desk.path("bundle/model.sig").exists());

    let signed = desk.run("sign bundle --key keys/publisher.pem --passphrase-file pass --json");
    let shown = format!("{}{}", text(&signed.stdout), text(&signed.stderr));
    assert!(signed.status.success() && !shown.contains(PASSPHRASE), "{shown}");
    desk.done("verify bundle --root fleet/root.json --p256-public keys/publisher-p256.pub");
}

#[test]
fn a_passphrase_and_a_key_are_shown_nowhere() {
    let desk = Desk::new();
    secret_file(&desk, "pass", PASSPHRASE);
    desk.done("keys new --role publisher --out plain");
    let secret = fs::read_to_string(desk.path("plain/publisher.pem")).unwrap();
    let body = secret.lines().nth(1).unwrap().to_owned();
    let mut shown = String::new();
    for line in [
        "keys new --role root --out keys --encrypt --passphrase-file pass",
        "keys new --role root --out keys --encrypt --passphrase-file pass",
        "sign nowhere --key keys/root.pem --passphrase-file pass",
        "sign nowhere --key plain/publisher.pem",
        "sign nowhere --key plain/publisher-p256.pem",
        "sign nowhere --key plain/publisher.pem --p256-key plain/publisher.pem",
        "root init --fleet plant-3 --out fleet --publisher plain/publisher.pem",
        "root init --fleet plant-3 --out fleet --publisher plain/publisher.pub",
        "verify nowhere --root plain/publisher.pem",
        "verify nowhere --root fleet/root.json --p256-public plain/publisher.pem",
        "root rotate --root fleet/root.json --out next.json --key keys/root.pem --passphrase-file pass",
        "revoke --root fleet/root.json --out next.json --floor a=1 --key plain/publisher.pem",
    ] {
        for form in ["", " --json"] {
            let output = desk.run(&format!("{line}{form}"));
            shown.push_str(&format!("{}{}", text(&output.stdout), text(&output.stderr)));
        }
    }
    assert!(shown.contains("is no Ed25519 key") && shown.contains("no public P-256 key"), "{shown}");
    assert!(!shown.contains(PASSPHRASE) && !shown.contains(&body), "{shown}");
    let help = desk.done("keys new --help");
    assert!(!help.contains("[env:"), "{help}");
}

#[test]
fn model_sig_is_over_the_very_statement() {
    let desk = Desk::with_fleet();
    desk.bundle("diabetes", "bundle");
    let verify = "verify bundle --root fleet/root.json";
    let checked = format!("{verify} --p256-public keys/publisher-p256.pub");
    assert_eq!(desk.json(verify)["model_sig"], "unchecked");
    assert_eq!(desk.json(&checked)["model_sig"], "holds");
    desk.done("keys new --role publisher --out others");
    let others = format!("{verify} --p256-public others/publisher-p256.pub");
    assert_eq!(desk.refused(&others)["code"], "E_KEYID");
    let path = desk.path("bundle/model.sig");
    let good = fs::read_to_string(&path).unwrap();
    let at = good.find("\"sig\":\"").unwrap() + 40;
    let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
    fs::write(&path, format!("{}{other}{}", &good[..at], &good[at + 1..])).unwrap();
    assert_eq!(desk.refused(&checked)["code"], "E_SIG");
    fs::remove_file(&path).unwrap();
    assert_eq!(desk.refused(&checked)["code"], "E_MISSING");
    assert_eq!(desk.json(verify)["model_sig"], "absent");

    // Another bundle's model.sig is refused by whoever signs without a P-256 key, and replaced with one.
    desk.bundle("cancer", "other");
    fs::copy(desk.path("other/model.sig"), &path).unwrap();
    assert_eq!(desk.refused(&checked)["code"], "E_MISMATCH");
    fs::create_dir(desk.path("alone")).unwrap();
    fs::copy(desk.path("keys/publisher.pem"), desk.path("alone/publisher.pem")).unwrap();
    let error = desk.refused("sign bundle --key alone/publisher.pem");
    assert!(error["message"].as_str().unwrap().contains("other files"), "{error}");
    desk.done("sign bundle --key alone/publisher.pem --p256-key keys/publisher-p256.pem");
    assert_eq!(desk.json(&checked)["model_sig"], "holds");
}
