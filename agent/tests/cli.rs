//! The command line as a person meets it: exit codes, and errors that say what, why and what to do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn petrel_agent(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_petrel-agent")).args(args).output().unwrap()
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Exit code and what was said on standard error.
fn failure(args: &[&str]) -> (i32, String) {
    let output = petrel_agent(args);
    assert!(output.stdout.is_empty(), "{args:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn wrong_usage_is_two_and_a_failure_is_one_with_its_reason_and_a_remedy() {
    assert_eq!(failure(&["fly"]).0, 2);
    assert_eq!(failure(&["run", "--log", "a=b=c"]).0, 2);
    assert_eq!(failure(&["infer", "here", "--input", "x.csv", "--top", "0"]).0, 2);

    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    for (content, word) in [(None, "cannot read"), (Some("fleet = 1"), "is wrong"), (Some(""), "missing field")] {
        if let Some(content) = content {
            std::fs::write(&config, content).unwrap();
        }
        for command in ["run", "status"] {
            let (code, told) = failure(&[command, "--config", text(&config)]);
            assert_eq!(code, 1, "{told}");
            assert!(told.starts_with("error: ") && told.contains(word), "{told}");
            assert!(told.contains("why: ") && told.contains("what to do: "), "{told}");
        }
    }
}

#[test]
fn the_agent_starts_only_with_a_root_and_an_authority_that_it_can_believe() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    let content = "fleet = \"f\"\ndevice = \"d\"\nbroker = \"mqtts://127.0.0.1:1\"\nca = \"ca.pem\"\nroot = \"root.json\"\nstate = \"state\"\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&config, content).unwrap();
    let (code, told) = failure(&["run", "--config", text(&config)]);
    assert!(code == 1 && told.contains("root.json"), "{told}");
    std::fs::write(dir.path().join("root.json"), "{}").unwrap();
    let (code, told) = failure(&["run", "--config", text(&config)]);
    assert!(code == 1 && told.contains("E_PARSE"), "{told}");
    let (code, told) = failure(&["status", "--config", text(&config)]);
    assert!(code == 1 && told.contains("does not run"), "{told}");
}

#[test]
fn infer_answers_for_people_and_for_machines() {
    let (folder, input) = (models().join("digits"), models().join("digits/sample.png"));
    let people = petrel_agent(&["infer", text(&folder), "--input", text(&input)]);
    assert!(people.status.success());
    let machines = petrel_agent(&["infer", text(&folder), "--input", text(&input), "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&machines.stdout).unwrap();
    let label = answer["rows"][0]["label"].as_str().unwrap();
    assert!(String::from_utf8(people.stdout).unwrap().contains(label));

    let (code, told) = failure(&["infer", text(&folder), "--input", text(&folder.join("model.onnx"))]);
    assert!(code == 1 && told.contains("no known input"), "{told}");
}

#[test]
fn machines_are_told_what_failed_in_json() {
    let (folder, config) = (models().join("digits"), models().join("no-agent.toml"));
    let unknown = folder.join("model.onnx");
    for args in [
        &["infer", text(&folder), "--input", text(&unknown), "--json"][..],
        &["status", "--config", text(&config), "--json"],
    ] {
        let (code, told) = failure(args);
        let error: serde_json::Value = serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}"));
        assert!(code == 1 && error["error"]["message"].is_string() && error["error"]["remedy"].is_string(), "{told}");
    }
}
