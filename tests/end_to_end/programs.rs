//! The programs and how they are run: built once, each test in a folder of its own, every process ended.
//!
//! Decides what holds for every run: a process never outlives its test, no person ever sees a panic, and an
//! error names the thing and the remedy.

use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Generous: a busy machine is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Where the agent is, when another than that of this workspace is tried: one for ARM, under qemu.
const OTHER_AGENT: &str = "PETREL_TESTS_AGENT";

/// One of the programs of this workspace, built for the profile of this test.
pub(crate) fn program(name: &str) -> PathBuf {
    if name.starts_with('/') {
        return name.into();
    }
    if let Some(agent) = std::env::var_os(OTHER_AGENT).filter(|_| name == "petrel-agent") {
        return agent.into();
    }
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.ancestors().nth(2).unwrap().to_owned();
        let profile = folder.file_name().unwrap().to_str().unwrap();
        let profile = if profile == "debug" { "dev" } else { profile };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--workspace", "--bins", "--profile", profile, "--target-dir"]);
        build.arg(folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells this test of its own package would make some crates build again.
        let of_this_test = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.starts_with(start));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_test)) {
            build.env_remove(name);
        }
        assert!(build.status().unwrap().success(), "the programs cannot be built");
        folder
    });
    folder.join(name)
}

/// Looks again and again until there is something.
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    seen_in_time(look).unwrap_or_else(|| panic!("{what} did not happen within {PATIENCE:?}"))
}

/// The same; nothing when patience is at its end.
pub(crate) fn seen_in_time<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// A folder in which commands run; `models` in it are the example models.
pub(crate) struct Desk {
    dir: TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        std::os::unix::fs::symlink(models, dir.path().join("models")).unwrap();
        Self { dir }
    }

    /// With a fleet called `fleet`, its root of trust and its publisher's key.
    pub(crate) fn with_fleet() -> Self {
        let desk = Self::new();
        desk.done("petrel keys new --role publisher --out keys");
        desk.done("petrel root init --fleet sea --publisher keys/publisher.pub --out fleet");
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = Command::new(program(words.next().unwrap()));
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("PETREL_CONTEXT", self.path("context.toml")).env_remove("PETREL_LOG");
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, line: &str) -> Said {
        let output = self.command(line).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        assert!(!said.err.contains("panicked"), "{line}: {}", said.err);
        said
    }

    /// Runs a command that must succeed; gives what it printed.
    pub(crate) fn done(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!(said.code, Some(0), "{line}: {}", said.err);
        said.out
    }

    /// The JSON of a command that must succeed.
    pub(crate) fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{line} --json"))).unwrap()
    }

    /// Runs a command that must fail with exit code 1 and one error: it names all of `named`, and ends with the
    /// remedy. No result is printed, and nothing that would control a terminal.
    pub(crate) fn refused(&self, line: &str, named: &[&str], remedy: &str) -> String {
        let Said { code, out, err } = self.run(line);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{line}: {err}");
        let errors = err.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{line}: {err}");
        assert!(named.iter().all(|name| err.contains(name)), "{line}: not all of {named:?} are in: {err}");
        assert!(err.lines().last().unwrap().contains(remedy), "{line}: `{remedy}` is not the remedy of: {err}");
        assert!(!err.contains(|c: char| c.is_control() && c != '\n'), "{line}: {err:?}");
        err
    }

    /// Packs an example model as `target`, and signs it.
    pub(crate) fn bundle(&self, model: &str, version: &str, target: &str) -> Value {
        let packed = self.json(&format!("{} -o {target}", pack(model, version)));
        self.done(&format!("petrel sign {target} --key keys/publisher.pem"));
        packed
    }

    /// Starts a program that runs until it is ended; what it says goes to the file `log`.
    pub(crate) fn start(&self, line: &str, log: &str) -> Process {
        self.start_with(line, log, |_| {})
    }

    /// The same, as a service manager would: with an environment, or with a log that goes elsewhere.
    pub(crate) fn start_with(&self, line: &str, log: &str, shape: impl FnOnce(&mut Command)) -> Process {
        let log = self.path(log);
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = self.command(line);
        shape(command.stdout(file.try_clone().unwrap()).stderr(file));
        Process { child: command.spawn().unwrap(), log }
    }
}

/// `petrel pack` of an example model, but for its target. Other digits share the declarations of the good ones.
pub(crate) fn pack(model: &str, version: &str) -> String {
    let stream = model.trim_end_matches("-bad").trim_end_matches("-eights");
    let labels = if stream == "diabetes" { String::new() } else { format!(" --labels models/{stream}/labels.txt") };
    format!(
        "petrel pack models/{model}/model.onnx --stream {stream} --version {version} --data models/{stream}/train.csv \
         --golden models/{model}/golden_x.npy models/{model}/golden_y.npy --pre models/{stream}/pre.json \
         --post models/{stream}/post.json{labels}"
    )
}

/// A running program; it ends with this value.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// As a power cut ends it; it may have ended already.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As a service manager ends it.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.ended()
    }

    /// Tells it to end, and does not wait.
    pub(crate) fn ask_to_end(&self) {
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait_for("the end of a process", || self.child.try_wait().unwrap())
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails when it has ended.
    pub(crate) fn runs(&mut self) {
        assert!(!self.has_ended(), "{} ended early: {}", self.log.display(), self.said());
    }

    /// Everything that it said, and those before it with the same log.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        if std::thread::panicking() {
            let lines: Vec<&str> = said.lines().collect();
            eprintln!("--- {}\n{}", self.log.display(), lines[lines.len().saturating_sub(15)..].join("\n"));
        } else {
            assert!(!said.contains("panicked"), "{said}");
        }
    }
}
