//! An agent under strace: what it writes, call by call, and a call that fails or that is its last.
//!
//! Decides which calls change a disk and how strace's lines are read. What is made of them is decided by the sweep
//! and by the explorer.

use crate::fleet::Fleet;
use crate::programs::{Process, program, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every call with which a program of this kind changes a disk, or makes a change durable.
const WRITES: &str = "openat,creat,write,pwrite64,writev,pwritev,fsync,fdatasync,rename,renameat,renameat2,unlink,\
                      unlinkat,mkdir,mkdirat,rmdir,ftruncate,fallocate,link,linkat,symlink,chmod,fchmod,fchmodat,\
                      copy_file_range,sync_file_range";

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The process ends before it.
    Kill,
    /// It fails with this error.
    Error(&'static str),
}

/// All that is tried at each call.
pub(super) const MODES: [Mode; 4] = [Mode::Kill, Mode::Error("ENOSPC"), Mode::Error("EIO"), Mode::Error("EROFS")];

/// One call of a run: the `nth` of its kind on this path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) call: String,
    /// Within the state folder; empty for the folder itself.
    pub(super) path: String,
    pub(super) nth: usize,
}

/// A call as strace wrote it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    thread: u32,
    pub(super) name: String,
    /// What stands between the parentheses.
    pub(super) arguments: String,
    /// Whether it did what it was asked for.
    pub(super) done: bool,
}

/// An agent that runs under strace, and where strace writes.
pub(super) struct Traced {
    pub(super) process: Process,
    pub(super) lines: PathBuf,
}

/// Where strace is installed, if it is.
pub(super) fn strace() -> Option<&'static str> {
    let installed = ["/usr/bin/strace", "/usr/local/bin/strace"];
    let found = installed.into_iter().find(|path| Path::new(path).exists());
    assert!(found.is_some() || std::env::var_os("PETREL_TESTS_NEED_STRACE").is_none(), "strace is not installed");
    found
}

/// Starts an agent of which every write is recorded, with what it wrote.
pub(super) fn record(fleet: &Fleet, id: &str) -> Traced {
    start(fleet, id, &format!("--seccomp-bpf -s 300000 -e trace={WRITES}"))
}

/// Starts an agent that meets a fault.
pub(super) fn inject(fleet: &Fleet, id: &str, point: &Point, mode: Mode) -> Traced {
    let path = fleet.desk.path(id).join(&point.path);
    let path = path.to_str().unwrap().trim_end_matches('/');
    let (filter, what) = match mode {
        // A signal cannot be given where a filter stops the call: it must be stopped as every call is.
        Mode::Kill => ("", "signal=KILL".to_owned()),
        Mode::Error(error) => ("--seccomp-bpf", format!("error={error}")),
    };
    let Point { call, nth, .. } = point;
    start(fleet, id, &format!("{filter} -s 0 -P {path} -e trace={call} -e inject={call}:{what}:when={nth}"))
}

fn start(fleet: &Fleet, id: &str, options: &str) -> Traced {
    let lines = fleet.desk.path(&format!("{id}.strace"));
    let _ = fs::remove_file(&lines);
    let strace = strace().expect("strace is installed");
    let (agent, told) = (program("petrel-agent"), lines.display());
    // With -D the agent is this test's own child, and strace is not.
    let line =
        format!("{strace} -D -f -q -y -e signal=KILL -o {told} {options} {} run --config {id}.toml", agent.display());
    Traced { process: fleet.desk.start(&line, &format!("{id}.log")), lines }
}

impl Traced {
    /// Whether a call failed that was to fail.
    pub(super) fn failed(&self) -> bool {
        fs::read_to_string(&self.lines).is_ok_and(|said| said.contains("(INJECTED)"))
    }

    /// Ends the agent as a power cut would; gives what was recorded, in the order in which the calls began.
    pub(super) fn end(mut self) -> Vec<Call> {
        self.process.kill();
        let last = |said: &str| said.lines().last().is_some_and(|line| line.contains("+++"));
        wait_for("the last line of strace", || {
            fs::read_to_string(&self.lines).is_ok_and(|said| last(&said)).then_some(())
        });
        let said = String::from_utf8_lossy(&fs::read(&self.lines).unwrap()).into_owned();
        let mut calls: Vec<Call> = Vec::new();
        let mut open: BTreeMap<u32, usize> = BTreeMap::new();
        for line in said.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let (Ok(thread), rest) = (thread.parse(), rest.trim_start()) else { continue };
            if let Some(resumed) = rest.strip_prefix("<... ") {
                let (Some(at), Some((_, tail))) = (open.remove(&thread), resumed.split_once(" resumed>")) else {
                    continue;
                };
                let (arguments, done) = ended(tail);
                calls[at].arguments.push_str(arguments);
                calls[at].done = done;
                continue;
            }
            let Some((name, tail)) = rest.split_once('(') else { continue };
            let name = name.to_owned();
            if let Some(arguments) = tail.strip_suffix(" <unfinished ...>") {
                open.insert(thread, calls.len());
                calls.push(Call { thread, name, arguments: arguments.to_owned(), done: false });
            } else {
                let (arguments, done) = ended(tail);
                calls.push(Call { thread, name, arguments: arguments.to_owned(), done });
            }
        }
        calls
    }
}

/// The arguments before the result, and whether the result is none of an error.
fn ended(tail: &str) -> (&str, bool) {
    let Some(at) = tail.rfind(") ") else { return (tail, false) };
    let result = tail[at + 1..].trim_start().trim_start_matches("= ");
    (&tail[..at], result.starts_with(|c: char| c.is_ascii_digit()))
}

impl Call {
    /// The path by which strace knows it: of a file in an open folder, that is the folder.
    fn known_by(&self) -> Option<String> {
        let (before, after) = self.arguments.split_once('<').filter(|(before, _)| !before.contains('"')).unzip();
        let folder = after.filter(|_| before != Some("AT_FDCWD")).and_then(|after| after.split_once('>'));
        folder.map(|(folder, _)| folder.to_owned()).or_else(|| self.paths().into_iter().next())
    }

    /// Every path that it names; one that is told by a folder and a name is joined.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut rest = self.arguments.as_str();
        let mut paths = Vec::new();
        let mut folder: Option<String> = None;
        loop {
            if let Some(text) = rest.strip_prefix('"') {
                let Some((name, after)) = quoted(text) else { break };
                let name = String::from_utf8_lossy(&name).into_owned();
                match folder.take() {
                    Some(folder) if !name.starts_with('/') => paths.push(format!("{folder}/{name}")),
                    _ => paths.push(name),
                }
                rest = after;
            } else if let Some((_, text)) = rest.split_once('<').filter(|(before, _)| !before.contains([',', '"'])) {
                let Some((path, after)) = text.split_once('>') else { break };
                folder = Some(path.to_owned());
                rest = after;
            } else {
                break;
            }
            rest = rest.trim_start_matches(", ");
            if self.is_about_content() {
                break;
            }
        }
        if paths.is_empty() { folder.into_iter().collect() } else { paths }
    }

    fn is_about_content(&self) -> bool {
        matches!(self.name.as_str(), "write" | "pwrite64" | "writev" | "pwritev")
    }

    /// Whether it may change what is on the disk, or makes it durable.
    pub(super) fn writes(&self) -> bool {
        self.name != "openat" || ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|f| self.arguments.contains(f))
    }

    /// What it writes, and where: of a `pwrite64`.
    pub(super) fn content(&self) -> Option<(u64, Vec<u8>)> {
        let (_, text) = self.arguments.split_once(", \"")?;
        let (bytes, after) = quoted(text)?;
        assert!(!after.starts_with("..."), "strace cut a content short");
        let at = after.rsplit_once(", ").and_then(|(_, at)| at.parse().ok());
        Some((at?, bytes))
    }
}

/// Reads a string of C up to its closing quote; gives it, and what follows.
fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let bytes = text.as_bytes();
    let (mut read, mut at) = (Vec::new(), 0);
    loop {
        match *bytes.get(at)? {
            b'"' => return Some((read, &text[at + 1..])),
            b'\\' => {
                at += 1;
                let digits = bytes[at..].iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                if digits > 0 {
                    read.push(u8::try_from(u16::from_str_radix(&text[at..at + digits], 8).ok()?).ok()?);
                    at += digits;
                    continue;
                }
                read.push(match bytes[at] {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'v' => 11,
                    b'f' => 12,
                    other => other,
                });
            }
            other => read.push(other),
        }
        at += 1;
    }
}

/// Every call of a run that writes in `state`, each once.
pub(super) fn points(calls: &[Call], state: &Path) -> BTreeSet<Point> {
    let mut counted: BTreeMap<(u32, &str, String), usize> = BTreeMap::new();
    let mut points = BTreeSet::new();
    for call in calls {
        let Some(path) = call.known_by() else { continue };
        let Ok(within) = Path::new(&path).strip_prefix(state) else { continue };
        let nth = counted.entry((call.thread, &call.name, path.clone())).or_default();
        *nth += 1;
        if call.writes() {
            points.insert(Point { call: call.name.clone(), path: within.to_str().unwrap().to_owned(), nth: *nth });
        }
    }
    points
}
