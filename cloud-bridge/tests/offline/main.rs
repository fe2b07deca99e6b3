//! The offline commands, as a person runs them: the real binary, from keys to a bundle that is believed.
//!
//! Decides what a user was promised of them: results, exit codes, and errors that name the cause.

mod desk;
mod keys;
mod revoking;
mod roots;

use desk::{Desk, models, names, pack_line, text};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};

#[test]
fn every_example_goes_from_keys_to_a_bundle_that_is_believed() {
    let desk = Desk::with_fleet();
    for (model, features, labels) in [("digits", 7, true), ("diabetes", 11, false), ("cancer", 32, true)] {
        let packed = desk.pack(model, model);
        assert_eq!(packed["manifest"]["release"], 1_002_000);
        assert_eq!(packed["manifest"]["golden"]["from_reference"], true);
        assert_eq!(packed["golden"]["rows"], 16);
        assert_eq!(packed["baseline"]["features"], features);
        let ram = packed["manifest"]["resources_budget"]["ram_mb"].as_u64().unwrap();
        assert!(ram >= 4 && ram.is_multiple_of(4), "{ram}");

        let signed = desk.json(&format!("sign {model} --key keys/publisher.pem --tar {model}.tar"));
        let inspected = desk.json(&format!("inspect {model}"));
        let mut files = names(&desk.path(model));
        files.retain(|name| name != "bundle.dsse.json" && name != "model.sig");
        assert_eq!(files.contains(&"labels.txt".to_owned()), labels);
        let listed: Vec<&str> =
            inspected["files"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
        assert_eq!(listed, files);
        let disk: u64 = files.iter().map(|name| desk.path(model).join(name).metadata().unwrap().len()).sum();
        let manifest = desk.path(model).join("manifest.json").metadata().unwrap().len();
        assert_eq!(packed["manifest"]["resources_budget"]["disk_bytes"], disk - manifest);
        for bundle in [model.to_owned(), format!("{model}.tar")] {
            let verified = desk.json(&format!("verify {bundle} --root fleet/root.json"));
            for seen in [&packed, &signed, &inspected] {
                assert_eq!(seen["statement_sha256"], verified["statement_sha256"], "{bundle}");
            }
            assert_eq!(verified["signers"][0], signed["key_id"]);
            assert_eq!(verified["files"], files.len());
        }
    }
}

#[test]
fn a_text_model_takes_its_tokenizer_along() {
    let desk = Desk::with_fleet();
    let file = |name: &str| models().join("notes").join(name).display().to_string();
    let line = format!(
        "pack {} --stream notes --version 1.0.0 --golden {} --pre {} --post {} --labels {}",
        file("model.onnx"),
        file("golden.npz"),
        file("pre.json"),
        file("post.json"),
        file("labels.txt")
    );
    let error = desk.refused(&format!("{line} -o out"));
    assert!(error.to_string().contains("--tokenizer"), "{error}");
    let packed = desk.json(&format!("{line} --tokenizer {} -o notes", file("tokenizer.json")));
    let role = |listed: &Value| listed["name"] == "tokenizer.json" && listed["role"] == "tokenizer";
    assert!(packed["manifest"]["files"].as_array().unwrap().iter().any(role), "{packed}");
    desk.done("sign notes --key keys/publisher.pem");
    desk.done("verify notes --root fleet/root.json");
}

#[test]
fn people_read_what_was_done_and_what_to_do_next() {
    let desk = Desk::with_fleet();
    let output = desk.run(&format!("{} -o digits", pack_line("digits")));
    let packed = text(&output.stdout);
    for part in
        ["image FP32 [?, 1, 8, 8]", "logits FP32 [?, 10]", "Conv", "opset 17", "16 rows agree with the reference"]
    {
        assert!(packed.contains(part), "{part}: {packed}");
    }
    assert!(packed.ends_with("Next: petrel sign digits --key keys/publisher.pem\n"), "{packed}");
    assert!(text(&output.stderr).contains("note: the baseline has 1297 rows"));
    let inspected = desk.done("inspect digits");
    let signatures = inspected.lines().find(|line| line.trim_start().starts_with("signatures")).unwrap();
    assert!(signatures.ends_with(" none"), "{inspected}");
    desk.done("sign digits --key keys/publisher.pem");
    let verified = desk.done("verify digits --root fleet/root.json");
    assert_eq!(verified.lines().filter(|line| line.starts_with("ok  ")).count(), 5, "{verified}");
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let desk = Desk::new();
    for model in ["digits", "diabetes", "cancer"] {
        let (first, second) = (format!("{model}-1"), format!("elsewhere/{model}-2"));
        let digests = [&first, &second].map(|target| desk.pack(model, target)["statement_sha256"].clone());
        assert_eq!(digests[0], digests[1]);
        for name in names(&desk.path(&first)) {
            let read = |dir: &str| fs::read(desk.path(dir).join(&name)).unwrap();
            assert!(read(&first) == read(&second), "{model}/{name}");
        }
    }
}

#[test]
fn a_bundle_that_was_changed_is_refused_by_name() {
    let desk = Desk::with_fleet();
    desk.bundle("cancer", "bundle");
    let verify = || desk.refused("verify bundle --root fleet/root.json");
    let path = |name: &str| desk.path("bundle").join(name);

    for name in ["manifest.json", "model.onnx", "labels.txt", "golden.npz", "chunks.bin"] {
        let good = fs::read(path(name)).unwrap();
        let mut bad = good.clone();
        bad[0] ^= 1;
        fs::write(path(name), &bad).unwrap();
        let error = verify();
        assert_eq!(error["code"], "E_DIGEST", "{name}");
        assert!(error["message"].as_str().unwrap().contains(name), "{error}");
        fs::write(path(name), [&good[..], b" "].concat()).unwrap();
        assert_eq!(verify()["code"], "E_SIZE", "{name}");
        fs::remove_file(path(name)).unwrap();
        assert_eq!(verify()["code"], "E_MISSING", "{name}");
        fs::write(path(name), &good).unwrap();
    }
    fs::write(path("more.txt"), "x").unwrap();
    assert_eq!(verify()["code"], "E_EXTRA");
    fs::remove_file(path("more.txt")).unwrap();
    std::os::unix::fs::symlink("model.onnx", path("link")).unwrap();
    assert_eq!(verify()["code"], "E_PATH");
    fs::remove_file(path("link")).unwrap();
    desk.done("verify bundle --root fleet/root.json");

    fs::remove_file(path("bundle.dsse.json")).unwrap();
    assert_eq!(verify()["code"], "E_THRESHOLD");
}

#[test]
fn only_the_keys_of_the_fleet_are_believed() {
    let desk = Desk::with_fleet();
    desk.done("keys new --role publisher --out stranger");
    desk.pack("diabetes", "bundle");
    let verify = || desk.refused("verify bundle --root fleet/root.json");
    desk.done("sign bundle --key stranger/publisher.pem");
    assert_eq!(verify()["code"], "E_THRESHOLD");
    fs::remove_file(desk.path("bundle/bundle.dsse.json")).unwrap();
    desk.done("sign bundle --key fleet/keys/director.pem");
    assert_eq!(verify()["code"], "E_ROLE");
    // The right key beside the others is enough, and signing again changes nothing.
    for signatures in [2, 2] {
        assert_eq!(desk.json("sign bundle --key keys/publisher.pem")["signatures"], signatures);
        desk.done("verify bundle --root fleet/root.json");
    }
    desk.done("root init --fleet plant-4 --out other");
    assert_eq!(desk.refused("verify bundle --root other/root.json")["code"], "E_THRESHOLD");
}

#[test]
fn signatures_are_never_carried_over_to_other_files() {
    let desk = Desk::with_fleet();
    desk.bundle("cancer", "bundle");
    let labels = desk.path("bundle/labels.txt");
    let good = fs::read(&labels).unwrap();
    fs::write(&labels, "one\ntwo\n").unwrap();
    let error = desk.refused("sign bundle --key keys/publisher.pem");
    assert!(error["message"].as_str().unwrap().contains("chunks.bin"), "{error}");
    fs::write(&labels, good).unwrap();
    fs::write(desk.path("bundle/more.txt"), "x").unwrap();
    let error = desk.refused("sign bundle --key keys/publisher.pem");
    assert!(error["message"].as_str().unwrap().contains("more.txt"), "{error}");
    fs::remove_file(desk.path("bundle/more.txt")).unwrap();

    desk.pack("diabetes", "other");
    fs::copy(desk.path("bundle/bundle.dsse.json"), desk.path("other/bundle.dsse.json")).unwrap();
    let error = desk.refused("sign other --key keys/publisher.pem");
    assert!(error["message"].as_str().unwrap().contains("other files"), "{error}");
}

#[test]
fn an_operator_that_cannot_be_run_is_named() {
    let desk = Desk::new();
    let mut model = fs::read(models().join("digits/model.onnx")).unwrap();
    let relu: Vec<usize> = (0..model.len() - 4).filter(|at| &model[*at..*at + 4] == b"Relu").collect();
    assert!(!relu.is_empty());
    for at in relu {
        model[at..at + 4].copy_from_slice(b"Sail");
    }
    fs::write(desk.path("odd.onnx"), model).unwrap();
    let data = models().join("digits/train.csv");
    let line = format!("pack odd.onnx --stream odd --version 1.0.0 --data {} -o bundle", data.display());
    let error = desk.refused(&line);
    assert_eq!(error["code"], "E_MODEL");
    assert!(error["message"].as_str().unwrap().contains("Sail"), "{error}");
    assert_eq!(names(desk.dir.path()), ["odd.onnx"], "nothing is left behind");

    let people = desk.run(&line);
    let shown = text(&people.stderr);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3, "{shown}");
    assert!(lines[0].starts_with("error: ") && lines[1].starts_with("  E_MODEL") && lines[2].starts_with("  Sail: "));
}

#[test]
fn a_wrong_reference_is_refused_with_its_row() {
    let desk = Desk::new();
    let mut expected = fs::read(models().join("diabetes/golden_y.npy")).unwrap();
    let values = expected.len() - 16 * 4;
    expected[values + 5 * 4..values + 6 * 4].copy_from_slice(&1234.5f32.to_le_bytes());
    fs::write(desk.path("y.npy"), expected).unwrap();
    let line = pack_line("diabetes");
    let (before, after) = line.split_once("golden_y.npy").unwrap();
    let start = before.rfind(' ').unwrap();
    let error = desk.refused(&format!("{} y.npy{after} -o bundle", &before[..start]));
    assert_eq!(error["code"], "E_GOLDEN");
    let message = error["message"].as_str().unwrap();
    for part in ["progression", "row 5", "1234.5", "off by"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!desk.path("bundle").exists());
}

#[test]
fn without_a_reference_the_bundle_says_so() {
    let desk = Desk::with_fleet();
    let dir = models().join("cancer");
    let [model, data, pre] = ["model.onnx", "train.csv", "pre.json"].map(|name| dir.join(name).display().to_string());
    let line = format!("pack {model} --stream cancer --version 2.0.1 --data {data} --pre {pre} -o bundle");
    let output = desk.run(&line);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("only differences between machines are seen"));
    let manifest: Value = serde_json::from_slice(&fs::read(desk.path("bundle/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["golden"]["from_reference"], false);
    desk.done("sign bundle --key keys/publisher.pem");
    assert_eq!(desk.json("verify bundle --root fleet/root.json")["golden"]["rows"], 16);
}

#[test]
fn what_was_asked_for_stands_in_the_manifest() {
    let desk = Desk::new();
    let line = format!(
        "{} -o bundle --release 7 --security-floor 5 --hardware aarch64:512 --hardware x86_64:1024 \
         --min-agent 0.3.0 --unit logits=logit --tolerance-abs 0.01 --tolerance-rel 0",
        pack_line("digits")
    );
    let manifest = desk.json(&line)["manifest"].clone();
    assert_eq!((&manifest["release"], &manifest["security_floor"]), (&7.into(), &5.into()));
    assert_eq!(manifest["hardware"][1], serde_json::json!({ "arch": "x86_64", "min_ram_mb": 1024 }));
    assert_eq!(manifest["min_agent"], "0.3.0");
    assert_eq!(manifest["runtime"]["outputs"][0]["unit"], "logit");
    assert_eq!(manifest["runtime"]["inputs"][0]["shape"], serde_json::json!([-1, 1, 8, 8]));
    assert_eq!(manifest["golden"]["tolerance_abs"], 0.01);
}

#[test]
fn what_cannot_be_packed_is_refused_and_leaves_nothing() {
    let desk = Desk::new();
    let good = pack_line("digits");
    let cases = [
        (good.replace("train.csv", "nowhere.csv"), "nowhere.csv"),
        (good.replace("digits/model.onnx", "digits/missing.onnx"), "missing.onnx"),
        (good.replace("digits/model.onnx", "digits/train.csv"), "ONNX"),
        (good.replace("digits/pre.json", "cancer/pre.json"), "pre.json"),
        (good.replace("digits/labels.txt", "cancer/labels.txt"), "labels.txt"),
        (good.replace("1.2.0", "1.2.0-rc.1"), "release"),
        (good.replace("1.2.0", "1.1000.0"), "release"),
        (format!("{good} --security-floor 1002001"), "floor"),
        (format!("{good} --unit nothing=m"), "nothing"),
    ];
    for (line, cause) in cases {
        let error = desk.refused(&format!("{line} -o bundle"));
        assert!(error["message"].as_str().unwrap().contains(cause), "{cause}: {error}");
        assert_eq!(names(desk.dir.path()), [""; 0], "{cause}");
    }
    fs::create_dir(desk.path("bundle")).unwrap();
    fs::write(desk.path("bundle/mine"), "1").unwrap();
    let error = desk.refused(&format!("{good} -o bundle"));
    assert!(error["message"].as_str().unwrap().contains("there already"), "{error}");
    assert_eq!(names(&desk.path("bundle")), ["mine"]);
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let desk = Desk::new();
    let no_evidence = "pack model.onnx --stream s --version 1.0.0 -o bundle";
    for line in [
        no_evidence,
        "",
        "sail",
        "keys new --role captain --out keys",
        "root init --fleet ../x --out fleet",
        "pack m.onnx --stream s --version one --data d.csv -o b",
        "pack m.onnx --stream s --version 1.0.0 --data d.csv -o b --hardware aarch64",
        "pack m.onnx --stream s --version 1.0.0 --data d.csv -o b --tolerance-abs -1",
    ] {
        assert_eq!(desk.run(line).status.code(), Some(2), "petrel {line}");
    }
    let help = text(&desk.run(no_evidence).stderr);
    assert!(help.contains("--data") && help.contains("--golden"), "{help}");
    assert_eq!(names(desk.dir.path()), [""; 0]);
}

#[test]
fn every_command_shows_an_example() {
    let desk = Desk::new();
    for command in [
        "keys new",
        "root init",
        "root rotate",
        "root add-key",
        "root remove-key",
        "root sign",
        "root show",
        "revoke",
        "pack",
        "sign",
        "verify",
        "inspect",
    ] {
        let help = desk.done(&format!("{command} --help"));
        assert!(help.contains(&format!("  petrel {command} ")), "{help}");
    }
}

#[test]
fn a_reader_who_leaves_early_breaks_nothing() {
    let desk = Desk::new();
    desk.pack("diabetes", "bundle");
    let mut command = Command::new(env!("CARGO_BIN_EXE_petrel"));
    let command = command.args(["inspect", "bundle"]).current_dir(desk.dir.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}
