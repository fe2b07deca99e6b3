//! What people and the world get wrong: each mistake has one clear error, and nothing is left half-done.
//!
//! Decides, for every case, what the error must name and which remedy it must give.

use crate::answers::npy_bytes;
use crate::fleet::{Fleet, agent_config, bridge_config};
use crate::programs::{Desk, pack, wait_for};
use serde_json::json;
use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

/// Everything in the folder, to be compared before and after.
fn names(desk: &Desk) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(desk.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A file that is larger than anything that is taken, and takes no room.
fn huge(desk: &Desk, name: &str, start: &[u8]) {
    desk.write(name, start);
    File::options().write(true).open(desk.path(name)).unwrap().set_len(3 << 30).unwrap();
}

/// Models that are none: (file, what the error names).
fn broken_models(desk: &Desk) -> Vec<(&'static str, &'static str)> {
    let good = desk.read("models/digits/model.onnx");
    let mut odd = good.clone();
    for at in 0..good.len() - 7 {
        if &good[at..at + 7] == b"MaxPool" {
            odd[at..at + 7].copy_from_slice(b"MaxPoox");
        }
    }
    assert_ne!(odd, good);
    desk.write("odd.onnx", odd);
    desk.write("cut.onnx", &good[..good.len() / 2]);
    desk.write("damaged.onnx", [&good[..40], &[0xff; 200], &good[240..]].concat());
    desk.write("empty.onnx", "");
    desk.write("foreign.onnx", desk.read("models/digits/sample.png"));
    vec![
        ("odd.onnx", "MaxPoox"),
        ("cut.onnx", "no complete ONNX model"),
        ("damaged.onnx", "no complete ONNX model"),
        ("empty.onnx", "no complete ONNX model"),
        ("foreign.onnx", "no complete ONNX model"),
    ]
}

#[test]
fn a_model_that_cannot_be_run_is_named_by_both_programs() {
    let desk = Desk::new();
    let broken = broken_models(&desk);
    fs::create_dir(desk.path("lone")).unwrap();
    let before = names(&desk);
    for (file, why) in broken {
        let line = pack("digits", "1.0.0").replace("models/digits/model.onnx", file);
        desk.refused(&format!("{line} -o out"), &[file, "E_MODEL", why], "export");
        assert_eq!(names(&desk), before, "{file}: nothing is left behind");
        fs::copy(desk.path(file), desk.path("lone/model.onnx")).unwrap();
        let line = "petrel-agent infer lone --input models/digits/heldout_x.npy";
        desk.refused(line, &["lone", why], "give the folder");
    }
}

#[test]
fn what_cannot_be_packed_is_told_and_leaves_nothing() {
    let desk = Desk::with_fleet();
    desk.write("wrong_y.npy", npy_bytes(&[16, 10], &[0.5; 160]));
    desk.write("odd_x.npy", npy_bytes(&[16, 1, 7, 7], &[0.5; 784]));
    desk.write("cut.npy", &npy_bytes(&[16, 10], &[0.5; 160])[..300]);
    desk.write("text.csv", "a,b\n1,2\n1,pear\n");
    desk.write("narrow.csv", "mean radius,mean texture\n1,2\n3,4\n");
    desk.write("empty.csv", "");
    desk.write("pre.json", "{\"version\":1,\"kind\":\"tabular\",\"steps\":[{\"op\":\"pray\"}]}");
    huge(&desk, "huge.onnx", b"");
    huge(&desk, "huge.npy", b"");
    let before = names(&desk);
    let (digits, cancer) = (pack("digits", "1.0.0"), pack("cancer", "1.0.0"));
    let (golden_x, golden_y) = ("models/digits/golden_x.npy", "models/digits/golden_y.npy");
    let only_data =
        "petrel pack models/cancer/model.onnx --stream s --version 1.0.0 --pre models/cancer/pre.json --data";
    for (line, named, remedy) in [
        (digits.replace(golden_y, "wrong_y.npy"), vec!["E_GOLDEN", "logits", "row 1", "0.5"], "loosen the tolerance"),
        (digits.replace(golden_x, "odd_x.npy"), vec!["E_GOLDEN", "image", "[16, 1, 7, 7]"], "compare"),
        (digits.replace(golden_y, "cut.npy"), vec!["cut.npy"], "--golden"),
        (digits.replace(golden_y, "huge.npy"), vec!["huge.npy"], "--golden"),
        (digits.replace(golden_y, "nowhere.npy"), vec!["nowhere.npy"], "--golden"),
        (digits.replace("models/digits/model.onnx", "huge.onnx"), vec!["huge.onnx", "bytes"], "smaller"),
        (digits.replace("models/digits/model.onnx", "no.onnx"), vec!["no.onnx", "No such file"], "model.onnx"),
        (
            digits.replace("models/digits/labels.txt", "models/cancer/labels.txt"),
            vec!["labels.txt", "10"],
            "pack again",
        ),
        (cancer.replace("models/cancer/pre.json", "pre.json"), vec!["pre.json", "pray"], "pack again"),
        (cancer.replace("models/cancer/train.csv", "text.csv"), vec!["text.csv", "mean radius"], "numbers only"),
        (cancer.replace("models/cancer/train.csv", "empty.csv"), vec!["empty.csv", "line 1"], "numbers only"),
        (format!("{only_data} narrow.csv"), vec!["training data", "mean perimeter"], "--data"),
        (format!("{digits} -o keys/publisher.pub/out"), vec!["keys/publisher.pub/out"], "folder"),
    ] {
        let line = if line.contains(" -o ") { line } else { format!("{line} -o out") };
        desk.refused(&line, &named, remedy);
        assert_eq!(names(&desk), before, "{line}: nothing is left behind");
    }
}

#[test]
fn a_wrong_input_is_told_with_its_place() {
    let desk = Desk::with_fleet();
    desk.bundle("digits", "1.0.0", "digits");
    desk.bundle("cancer", "1.0.0", "cancer");
    let csv = String::from_utf8(desk.read("models/cancer/heldout.csv")).unwrap();
    let without: Vec<&str> = csv.lines().take(3).map(|line| line.split_once(',').unwrap().1).collect();
    desk.write("column.csv", without.join("\n"));
    let (head, row) = (csv.lines().next().unwrap(), csv.lines().nth(1).unwrap());
    desk.write("text.csv", format!("{head}\n{row}\nten,{}\n", row.split_once(',').unwrap().1));
    desk.write("short.csv", format!("{head}\n1,2,3\n"));
    desk.write("empty.csv", "");
    desk.write("shape.npy", npy_bytes(&[2, 1, 7, 7], &[0.0; 98]));
    desk.write("liar.npy", npy_bytes(&[4_000_000_000, 64], &[0.0]));
    desk.write("garbage.png", [b"\x89PNG\r\n\x1a\n".as_slice(), &[0x07; 500]].concat());
    desk.write("cut.png", &desk.read("models/digits/sample.png")[..120]);
    huge(&desk, "huge.png", b"\x89PNG\r\n\x1a\n");
    huge(&desk, "huge.npy", &npy_bytes(&[1 << 20, 1, 8, 8], &[]));
    for (bundle, input, named, remedy) in [
        ("cancer", "column.csv", vec!["mean radius", "missing"], "give what the model takes"),
        ("cancer", "text.csv", vec!["line 3", "mean radius", "ten"], "give a .csv"),
        ("cancer", "short.csv", vec!["line 2"], "give a .csv"),
        ("cancer", "empty.csv", vec!["line 1"], "give a .csv"),
        ("digits", "shape.npy", vec!["[2, 1, 7, 7]", "8, 8"], "give what the model takes"),
        ("digits", "liar.npy", vec!["too large"], "give a .csv"),
        ("digits", "garbage.png", vec!["garbage.png", "image"], "give what the model takes"),
        ("digits", "cut.png", vec!["cut.png", "image"], "give what the model takes"),
        ("digits", "huge.npy", vec!["huge.npy", "allowed"], "give a .csv"),
        ("digits", "huge.png", vec!["huge.png", "allowed"], "give a .csv"),
        ("digits", "nowhere.png", vec!["nowhere.png"], "give a .csv"),
        ("nowhere", "shape.npy", vec!["nowhere"], "give the folder"),
    ] {
        desk.refused(&format!("petrel-agent infer {bundle} --input {input}"), &named, remedy);
    }
    for line in
        ["petrel-agent infer digits", "petrel-agent", "petrel-agent sail", "petrel sign", "petrel rollout start"]
    {
        let said = desk.run(line);
        assert!(said.code == Some(2) && said.err.contains("Usage"), "{line}: {}", said.err);
    }
}

#[test]
fn keys_and_folders_are_guarded() {
    let desk = Desk::with_fleet();
    desk.bundle("diabetes", "1.0.0", "bundle");
    desk.write("garbage.tar", [0xab; 2_000]);
    for (line, named, remedy) in [
        ("petrel sign bundle --key keys/nobody.pem", vec!["keys/nobody.pem"], "petrel keys new"),
        ("petrel sign nowhere --key keys/publisher.pem", vec!["nowhere"], "petrel pack"),
        ("petrel sign bundle --key keys/publisher.pem --tar keys/publisher.pub/b.tar", vec!["b.tar"], "folder"),
        ("petrel keys new --role publisher --out keys", vec!["is there already"], "another folder"),
        ("petrel keys new --role publisher --out keys/publisher.pub", vec!["keys/publisher.pub"], "folder"),
        ("petrel root init --fleet sea --out keys/publisher.pub/x", vec!["keys/publisher.pub/x"], "folder"),
        ("petrel inspect garbage.tar", vec!["garbage.tar", "no tar"], "petrel pack"),
        ("petrel inspect keys", vec!["keys is no bundle"], "petrel pack"),
        ("petrel verify bundle --root keys/publisher.pub", vec!["keys/publisher.pub", "E_PARSE"], "root.json"),
        ("petrel push bundle", vec!["not logged in"], "petrel login"),
    ] {
        desk.refused(line, &named, remedy);
    }
    fs::set_permissions(desk.path("keys/publisher.pem"), Permissions::from_mode(0o640)).unwrap();
    desk.refused("petrel sign bundle --key keys/publisher.pem", &["keys/publisher.pem", "0640"], "chmod 600");
    fs::set_permissions(desk.path("fleet/keys/director.pem"), Permissions::from_mode(0o604)).unwrap();
    desk.refused("petrel bridge --config fleet/bridge.toml", &["director.pem", "0604"], "chmod 600");
    assert!(!desk.path("bundle/b.tar").exists() && desk.path("keys/publisher.pub").is_file());
}

#[test]
fn a_bridge_and_an_agent_that_cannot_start_say_why() {
    let desk = Desk::with_fleet();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let bridge = |config: String, named: &[&str], remedy: &str| {
        desk.write("fleet/other.toml", config);
        desk.refused("petrel bridge --config fleet/other.toml", named, remedy);
    };
    let free = "127.0.0.1:0";
    bridge(bridge_config(&desk, &taken, free), &["REST", &taken], "free port");
    bridge(bridge_config(&desk, free, &taken), &["MQTT", &taken], "another address");
    bridge(bridge_config(&desk, free, free) + "colour = 1\n", &["other.toml", "colour"], "operations");
    let under_a_file = bridge_config(&desk, free, free).replace("data = \"data\"", "data = \"root.json/data\"");
    bridge(under_a_file, &["root.json/data"], "may write");
    desk.refused("petrel bridge --config nowhere.toml", &["nowhere.toml"], "petrel root init");

    let agent = |config: String, named: &[&str], remedy: &str| {
        desk.write("agent.toml", config);
        desk.refused("petrel-agent run --config agent.toml --log error", named, remedy);
    };
    let good = || agent_config("edge", "mqtts://127.0.0.1:1", free);
    agent(agent_config("edge", "mqtts://127.0.0.1:1", &taken), &[&taken], "`listen`");
    agent(good() + "colour = 1\n", &["agent.toml", "colour"], "--help");
    agent(agent_config("edge", "mqtt://192.0.2.1:1", free), &["`broker`", "TLS"], "mqtts://");
    agent(good().replace("state = \"edge\"", "state = \"fleet/root.json/x\""), &["fleet/root.json/x"], "`state`");
    agent(good().replace("fleet/root.json", "fleet/no.json"), &["fleet/no.json"], "root.json");
    agent(good().replace("fleet/tls/ca.pem", "fleet/root.json"), &["fleet/root.json"], "ca");
    agent(good().replace("\"sea\"", "\"lake\""), &["root.json", "E_"], "root.json of this fleet");
    desk.refused("petrel-agent status --config agent.toml", &["edge", "does not run"], "petrel-agent run");
    desk.refused("petrel-agent run --config nowhere.toml", &["nowhere.toml"], "--config");
}

#[test]
fn land_refuses_what_it_does_not_know() {
    let fleet = Fleet::start();
    let desk = &fleet.desk;
    desk.done(&format!("{} -o unsigned", pack("diabetes", "1.0.0")));
    desk.done("petrel root init --fleet other --out other");
    desk.write("token", "0123456789");
    let login = |ca: &str, token: &str| format!("petrel login {} --ca {ca} --token-file {token}", fleet.api);
    let token = "fleet/data/admin.token";
    for (line, named, remedy) in [
        (login("other/tls/ca.pem", token), vec!["does not answer", &fleet.api], "certificate authority"),
        (login("fleet/root.json", token), vec!["certificate authority"], "ca.pem"),
        (login("fleet/no.pem", token), vec!["fleet/no.pem"], "--ca"),
        (login("fleet/tls/ca.pem", "nowhere"), vec!["nowhere"], "--token-file"),
        (login("fleet/tls/ca.pem", "token"), vec!["token is not known", "401"], "petrel login"),
        ("petrel push unsigned".into(), vec!["unsigned", "not signed"], "petrel sign"),
        ("petrel rollout start digits@9.9.9".into(), vec!["digits@9.9.9", "404"], "petrel push"),
        ("petrel rollout start digits".into(), vec!["`digits`"], "stream@version"),
        ("petrel rollout watch 7".into(), vec!["rollout 7", "404"], "petrel rollout ls"),
        ("petrel devices show nobody".into(), vec!["`nobody`", "404"], "petrel devices ls"),
        ("petrel devices approve nobody".into(), vec!["`nobody`", "404"], "petrel devices ls"),
    ] {
        desk.refused(&line, &named, remedy);
    }
    desk.done("petrel keys new --role publisher --out stranger");
    desk.done("petrel sign unsigned --key stranger/publisher.pem");
    desk.refused("petrel push unsigned", &["E_THRESHOLD", "422"], "petrel");
    assert_eq!(desk.json("petrel status")["releases"], 0);
}

#[test]
fn a_device_without_land_serves_what_it_has() {
    let mut fleet = Fleet::start();
    fleet.enlist("edge-1");
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    fleet.desk.done("petrel rollout start digits@1.0.0 --trial-window 1 --watch");
    fleet.bridge.kill();
    fleet.start_agent("edge-1");
    wait_for("the model", || (fleet.local("edge-1", "/v2/models/digits/ready", None).0 == 200).then_some(()));
    let answer = fleet.classes("edge-1", 1, &[0.0; 64]);
    assert_eq!(answer["model_version"], json!("1000000"));
    let told = || fleet.desk.done("petrel-agent status --config edge-1.toml");
    let status = wait_for("a status of the stream", || Some(told()).filter(|status| status.contains("digits")));
    assert!(status.contains("NOT connected to 127.0.0.1:"), "{status}");
    assert_eq!(fleet.desk.json("petrel-agent status --config edge-1.toml")["connected"], false);
    fleet.desk.refused("petrel status", &["does not answer", &fleet.api], "is it running");
    fleet.agents.get_mut("edge-1").unwrap().runs();
}
