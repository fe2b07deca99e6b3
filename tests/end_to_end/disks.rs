//! Disks that take no more, or nothing at all: models answer, the status says what is wrong, and the device goes on by
//! itself when the disk does.

use crate::answers::npy;
use crate::fleet::Fleet;
use crate::programs::wait_for;
use std::path::Path;
use std::process::Command;

const FULL: &str = "64M";

/// A disk in memory of so many bytes; nothing where this user may not mount one.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(at: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={FULL}"), "none"]).arg(at).output();
        mount.is_ok_and(|done| done.status.success()).then_some(Self(at))
    }

    fn again(&self, how: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.0).status().unwrap();
        assert!(done.success(), "remount,{how}");
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn on_a_disk_that_is_full_or_read_only_models_answer_and_the_status_says_why() {
    let mut fleet = Fleet::start();
    let state = fleet.desk.path("edge-1");
    let Some(disk) = Mounted::new(&state) else {
        assert!(std::env::var_os("PETREL_TESTS_NEED_MOUNT").is_none(), "no disk can be mounted");
        return println!("not run: this user may not mount a disk");
    };
    fleet.enlist("edge-1");
    // The address stays the same, and with it the file that tells it, which cannot be written anew.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = String::from_utf8(fleet.desk.read("edge-1.toml")).unwrap();
    fleet.desk.write("edge-1.toml", config.replace("127.0.0.1:0", &format!("127.0.0.1:{port}")));
    fleet.start_agent("edge-1");
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        fleet.desk.bundle("digits", version, version);
        fleet.desk.json(&format!("petrel push {version}"));
    }
    roll_out(&fleet, "1.0.0");

    // Full: not a byte is left.
    let full = |fleet: &Fleet| {
        let fill = Command::new("sh").args(["-c", "cat /dev/zero > filler"]).current_dir(&state).output().unwrap();
        assert!(!fill.status.success());
        answers(fleet);
    };
    full(&fleet);
    let id = fleet.desk.json("petrel rollout start digits@2.0.0 --trial-answers 0")["id"].clone();
    let trouble =
        wait_for("the trouble", || fleet.local("edge-1", "/status", None).1["trouble"].as_str().map(str::to_owned));
    assert!(trouble.contains("ledger") && trouble.contains("No space left"), "{trouble}");
    let told = fleet.desk.done("petrel-agent status --config edge-1.toml");
    assert!(told.contains("ONLY MODELS ANSWER") && told.contains("No space left"), "{told}");
    answers(&fleet);
    // Also after a start on such a disk, which cannot even be counted.
    restart(&mut fleet, port);
    wait_for("the model", || (fleet.local("edge-1", "/v2/models/digits/ready", None).0 == 200).then_some(()));
    answers(&fleet);
    assert!(fleet.local("edge-1", "/status", None).1["trouble"].is_string());
    std::fs::remove_file(state.join("filler")).unwrap();
    assert_eq!(fleet.rollout(&id, "the end of the rollout", |r| r["ended"].is_u64())["state"], "completed");

    // Read-only: what is decided cannot be remembered, so nothing is.
    disk.again("ro");
    let id = fleet.desk.json("petrel rollout start digits@3.0.0 --trial-answers 0")["id"].clone();
    let trouble =
        wait_for("the trouble", || fleet.local("edge-1", "/status", None).1["trouble"].as_str().map(str::to_owned));
    assert!(trouble.contains("Read-only"), "{trouble}");
    answers(&fleet);
    restart(&mut fleet, port);
    wait_for("the model", || (fleet.local("edge-1", "/v2/models/digits/ready", None).0 == 200).then_some(()));
    disk.again("rw");
    assert_eq!(fleet.rollout(&id, "the end of the rollout", |r| r["ended"].is_u64())["state"], "completed");
    assert!(fleet.local("edge-1", "/status", None).1["trouble"].is_null());
    answers(&fleet);
    fleet.agents.clear();
    drop(disk);
}

fn restart(fleet: &mut Fleet, port: u16) {
    fleet.agents.remove("edge-1");
    let told = String::from_utf8(fleet.desk.read("edge-1/http.addr")).unwrap();
    assert_eq!(told.trim(), format!("127.0.0.1:{port}"));
    let process = fleet.desk.start("petrel-agent run --config edge-1.toml", "edge-1.log");
    fleet.agents.insert("edge-1".into(), process);
}

fn roll_out(fleet: &Fleet, version: &str) {
    let id = fleet.desk.json(&format!("petrel rollout start digits@{version} --trial-answers 0"))["id"].clone();
    assert_eq!(fleet.rollout(&id, "the end of the rollout", |r| r["ended"].is_u64())["state"], "completed");
}

fn answers(fleet: &Fleet) {
    let images = npy(&fleet.desk.path("models/digits/heldout_x.npy"));
    let expected = npy(&fleet.desk.path("models/digits/heldout_class.npy"));
    let answer = fleet.classes("edge-1", 1, &images[..64]);
    assert_eq!(answer["outputs"][0]["data"][0].as_f64(), Some(expected[0]), "{answer}");
}
