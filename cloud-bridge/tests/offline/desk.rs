//! A person's desk: a folder, the real binary, and what it printed.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder of its own for each test, with a fleet and its publisher's key.
pub(crate) struct Desk {
    pub(crate) dir: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn with_fleet() -> Self {
        let desk = Self::new();
        desk.done("keys new --role publisher --out keys");
        desk.done("root init --fleet plant-3 --out fleet --publisher keys/publisher.pub");
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_petrel"));
        command.current_dir(self.dir.path()).args(line.split_whitespace()).output().unwrap()
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub(crate) fn done(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "petrel {line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{line} --json"))).unwrap()
    }

    /// Runs a command that must be refused with exit code 1, and gives its JSON error.
    pub(crate) fn refused(&self, line: &str) -> Value {
        let output = self.run(&format!("{line} --json"));
        assert_eq!(output.status.code(), Some(1), "petrel {line}: {}", text(&output.stdout));
        assert_eq!(text(&output.stdout), "");
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        error["error"].clone()
    }

    pub(crate) fn pack(&self, model: &str, target: &str) -> Value {
        self.json(&format!("{} -o {target}", pack_line(model)))
    }

    /// A signed bundle of `model`.
    pub(crate) fn bundle(&self, model: &str, target: &str) {
        self.pack(model, target);
        self.done(&format!("sign {target} --key keys/publisher.pem"));
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").canonicalize().unwrap()
}

/// `petrel pack` with all that is known of an example model, but for the target.
pub(crate) fn pack_line(model: &str) -> String {
    let dir = models().join(model);
    let file = |name: &str| dir.join(name).display().to_string();
    let mut line = format!(
        "pack {} --stream {model} --version 1.2.0 --data {} --golden {} {} --pre {} --post {}",
        file("model.onnx"),
        file("train.csv"),
        file("golden_x.npy"),
        file("golden_y.npy"),
        file("pre.json"),
        file("post.json"),
    );
    if dir.join("labels.txt").is_file() {
        line.push_str(&format!(" --labels {}", file("labels.txt")));
    }
    line
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
