//! The agent as a service of systemd: what its manager hears, and the unit file that it is started with.
//!
//! Decides what a service manager may rely on. The manager is a socket of the test's own; systemd itself is asked what
//! it makes of the unit file, where it is installed.

use crate::answers::npy;
use crate::fleet::Fleet;
use crate::programs::{PATIENCE, program};
use serde_json::json;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The watchdog time that the agent is given; it pings at half of it.
const WATCHDOG: Duration = Duration::from_millis(400);
/// So long without a ping is an end of the pings.
const SILENCE: Duration = Duration::from_secs(3);
/// The worst that `systemd-analyze security` may find, in tenths.
const EXPOSURE: u32 = 15;
/// Set where the tests must not do without systemd's tools.
const DEMANDED: &str = "PETREL_TESTS_NEED_SYSTEMD";

/// A service manager: it hears what it is told, and reads the log.
struct Manager {
    ears: UnixDatagram,
    log: UnixStream,
    /// The agent's own end of the log.
    pen: UnixStream,
    read: Vec<u8>,
}

impl Manager {
    /// The next words, or none within `patience`; the log is read meanwhile.
    fn hears(&mut self, patience: Duration) -> Option<String> {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            self.read_log();
            let mut bytes = [0; 4_096];
            match self.ears.recv(&mut bytes) {
                Ok(n) => return Some(String::from_utf8(bytes[..n].to_vec()).unwrap()),
                Err(why) => assert!(matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{why}"),
            }
        }
        None
    }

    /// Waits for words that begin so, and gives all that came with them.
    fn waits_for(&mut self, word: &str) -> String {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(said) = self.hears(PATIENCE).filter(|said| said.starts_with(word)) {
                return said;
            }
        }
        panic!("{word} was not heard; the log: {}", String::from_utf8_lossy(&self.read));
    }

    fn read_log(&mut self) {
        let mut bytes = [0; 64 << 10];
        while let Ok(n @ 1..) = self.log.read(&mut bytes) {
            self.read.extend(&bytes[..n]);
        }
    }

    /// Reads the log no more, and leaves no room in it: who writes a line waits until it is read again.
    fn stops_reading(&self) {
        self.pen.set_nonblocking(true).unwrap();
        for piece in [vec![b'.'; 4_096], vec![b'.']] {
            while (&self.pen).write(&piece).is_ok() {}
        }
        self.pen.set_nonblocking(false).unwrap();
    }

    /// Whether a time without pings comes, while nobody reads the log.
    fn hears_no_more(&self) -> bool {
        self.ears.set_read_timeout(Some(SILENCE)).unwrap();
        let end = Instant::now() + PATIENCE;
        let mut bytes = [0; 4_096];
        while self.ears.recv(&mut bytes).is_ok() {
            if Instant::now() > end {
                return false;
            }
        }
        self.ears.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        true
    }
}

fn start(fleet: &mut Fleet) -> Manager {
    let name = fleet.desk.path("notify");
    let ears = UnixDatagram::bind(&name).unwrap();
    ears.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (log, pen) = UnixStream::pair().unwrap();
    log.set_nonblocking(true).unwrap();
    let theirs = OwnedFd::from(pen.try_clone().unwrap());
    let line = "petrel-agent run --config a.toml --log info,petrel_agent=debug";
    let agent = fleet.desk.start_with(line, "a.log", |command| {
        command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        command.stderr(theirs);
    });
    fleet.agents.insert("a".into(), agent);
    Manager { ears, log, pen, read: Vec::new() }
}

/// A request for one digit over a connection of its own: its head, and its body.
fn request(fleet: &Fleet) -> (TcpStream, String, String) {
    let image = &npy(&fleet.desk.path("models/digits/heldout_x.npy"))[..64];
    let input = json!({ "name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": image });
    let body = json!({ "inputs": [input] }).to_string();
    let address = String::from_utf8(fleet.desk.read("a/http.addr")).unwrap();
    let head = format!(
        "POST /v2/models/digits/infer HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let stream = TcpStream::connect(address.trim()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (stream, head, body)
}

fn read_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

#[test]
fn a_service_manager_hears_that_the_agent_is_ready_goes_on_and_stops() {
    let mut fleet = Fleet::start();
    fleet.enlist("a");
    fleet.desk.bundle("digits", "1.0.0", "digits");
    fleet.desk.json("petrel push digits");
    let id = fleet.desk.json("petrel rollout start digits@1.0.0 --waves 100% --trial-window 1")["id"].clone();
    fleet.rollout(&id, "the end of the rollout", |rollout| rollout["state"] == "completed");
    assert!(fleet.agents.get_mut("a").unwrap().terminate().success());

    let mut manager = start(&mut fleet);
    let ready = manager.waits_for("READY=1");
    assert!(ready.contains("STATUS=") && ready.contains("digits 1000000"), "{ready}");
    // What served before serves again, at once.
    assert_eq!(fleet.local("a", "/v2/models/digits/ready", None).0, 200);
    let status = fleet.local("a", "/status", None).1;
    assert_eq!(status["streams"][0]["serving"], 1_000_000, "{status}");
    for _ in 0..3 {
        manager.waits_for("WATCHDOG=1");
    }

    // The loop of the agent waits for somebody who reads its log, and does nothing else meanwhile.
    let (mut stream, head, body) = request(&fleet);
    manager.stops_reading();
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    assert!(manager.hears_no_more(), "the agent is stuck and goes on pinging");
    manager.waits_for("WATCHDOG=1");
    assert!(read_line(&mut stream).contains("200 OK") || read_line(&mut stream).contains("200 OK"));

    // What is asked when it is told to stop is answered.
    let (mut stream, head, body) = request(&fleet);
    stream.write_all(head.as_bytes()).unwrap();
    assert!(read_line(&mut stream).starts_with("HTTP/1.1 100"), "the request is under way");
    fleet.agents["a"].ask_to_end();
    manager.waits_for("STOPPING=1");
    stream.write_all(body.as_bytes()).unwrap();
    assert!(read_line(&mut stream).starts_with("HTTP/1.1 200"));
    let ended = fleet.agents.get_mut("a").unwrap().ended();
    manager.read_log();
    let said = String::from_utf8_lossy(&manager.read);
    assert!(ended.success() && !said.contains("panicked"), "{said}");
}

#[test]
fn systemd_takes_the_unit_file_and_finds_it_tight() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        assert!(std::env::var_os(DEMANDED).is_none(), "systemd-analyze is not installed, and {DEMANDED} is set");
        return eprintln!("not run: systemd-analyze is not installed; set {DEMANDED} to demand it");
    }
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("cross/systemd");
    let unit = fs::read_to_string(units.join("petrel-agent.service")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("petrel-agent.service");
    let agent = program("petrel-agent");
    fs::write(&copy, unit.replace("/usr/bin/petrel-agent", agent.to_str().unwrap())).unwrap();
    check(&copy, "petrel-agent", "");

    // With each thing that it may be given besides, and with all of them.
    let beside = dir.path().join("petrel-agent.service.d");
    let all = fs::read_dir(units.join("petrel-agent.service.d")).unwrap().map(|entry| entry.unwrap());
    let all: Vec<_> = all.map(|entry| (entry.file_name(), entry.path())).collect();
    assert!(all.len() >= 3, "{all:?}");
    for (name, path) in &all {
        fs::create_dir_all(&beside).unwrap();
        fs::copy(path, beside.join(name)).unwrap();
        check(&copy, "petrel-agent", name.to_str().unwrap());
        fs::remove_dir_all(&beside).unwrap();
    }
    fs::create_dir_all(&beside).unwrap();
    for (name, path) in &all {
        fs::copy(path, beside.join(name)).unwrap();
    }
    check(&copy, "petrel-agent", "all");
    // And the check itself sees a mistake: it answers 0 then, too.
    fs::write(beside.join("wrong.conf"), "[Service]\nColour=blue\n").unwrap();
    assert!(verify(&copy).contains("Colour"));
}

#[test]
fn systemd_takes_the_unit_file_of_the_bridge_and_finds_it_tight() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        assert!(std::env::var_os(DEMANDED).is_none(), "systemd-analyze is not installed, and {DEMANDED} is set");
        return eprintln!("not run: systemd-analyze is not installed; set {DEMANDED} to demand it");
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("cross/systemd/petrel-bridge.service");
    let unit = fs::read_to_string(unit).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("petrel-bridge.service");
    fs::write(&copy, unit.replace("/usr/bin/petrel ", &format!("{} ", program("petrel").to_str().unwrap()))).unwrap();
    check(&copy, "petrel-bridge", "");
}

fn verify(unit: &Path) -> String {
    let verified = Command::new("systemd-analyze").arg("verify").arg(unit).output().unwrap();
    String::from_utf8(verified.stderr).unwrap()
}

fn check(unit: &Path, name: &str, with: &str) {
    // What it says of other units of this machine is not ours.
    let said = verify(unit);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains(name)).collect();
    assert!(ours.is_empty(), "with `{with}`: {ours:?}");
    let threshold = format!("--threshold={EXPOSURE}");
    let judged =
        Command::new("systemd-analyze").args(["security", "--offline=true", &threshold]).arg(unit).output().unwrap();
    let told = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(judged.status.success(), "with `{with}`: {told}{}", String::from_utf8_lossy(&judged.stderr));
}
