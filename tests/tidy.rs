//! The rules of the house as a test: who may use whom, how files open, what is absent.
//!
//! Each failure names the rule, its reason and the place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use toml::Table;

/// Who may use which room of the house; no other arrow exists.
const ARROWS: [(&str, &[&str]); 11] = [
    ("contract/protocol", &[]),
    ("contract/trust", &[]),
    ("contract/drift", &[]),
    ("contract/board", &[]),
    ("agent/core", &["drift", "protocol", "trust"]),
    ("agent/engine", &[]),
    ("agent", &["agent-core", "board", "engine", "drift", "protocol", "trust"]),
    ("cloud-bridge/core", &["drift", "protocol", "trust"]),
    ("cloud-bridge", &["bridge-core", "engine", "drift", "protocol", "trust"]),
    ("cross", &["board"]),
    ("tests", &["agent-core", "bridge-core", "drift", "protocol", "trust"]),
];
/// The names by which rooms use each other.
const ROOMS: [&str; 7] = ["agent-core", "board", "bridge-core", "drift", "engine", "protocol", "trust"];
/// Rooms that decide and touch nothing.
const PURE: [&str; 6] =
    ["contract/protocol", "contract/trust", "contract/drift", "contract/board", "agent/core", "cloud-bridge/core"];
/// What a pure room cannot use, because it would be able to touch the world.
const HANDS: [&str; 12] = [
    "axum",
    "getrandom",
    "image",
    "reqwest",
    "rmqtt",
    "rumqttc",
    "rustls",
    "sqlx",
    "sysinfo",
    "tokio",
    "tract-onnx",
    "ureq",
];
/// A file that is longer is two rooms.
const MAX_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn manifest(room: &str) -> Table {
    let path = root().join(room).join("Cargo.toml");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).parse().unwrap()
}

fn dependencies(room: &str) -> BTreeSet<String> {
    let table = manifest(room);
    let names = |key: &str| table.get(key).and_then(toml::Value::as_table).map(|t| t.keys().cloned().collect());
    names("dependencies").unwrap_or_default()
}

/// Every Rust file of the workspace with its path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> = ARROWS.iter().map(|(room, _)| root().join(room)).collect();
    let mut seen = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        if !seen.insert(folder.clone()) {
            continue;
        }
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(found.len() > 60, "the sources were not found");
    found
}

fn hold(rule: &str, reason: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}, because {reason}. Broken by:\n  {}", broken.join("\n  "));
}

#[test]
fn the_arrows_are_those_of_the_house() {
    let workspace = manifest("");
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let members: BTreeSet<&str> = members.iter().map(|m| m.as_str().unwrap()).collect();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).collect();
    assert_eq!(members, known, "a new room needs its arrows here and its row in docs/architecture.md");
    let mut broken = Vec::new();
    for (room, allowed) in ARROWS {
        let used = dependencies(room).into_iter().filter(|name| ROOMS.contains(&name.as_str()));
        broken.extend(used.filter(|u| !allowed.contains(&u.as_str())).map(|u| format!("{room} uses {u}")));
    }
    hold("no other arrow than those of the house", "decisions must not know the hands, nor one side the other", broken);
}

#[test]
fn pure_rooms_cannot_touch_the_world() {
    let uses = |room: &&str| dependencies(room).into_iter().filter(|d| HANDS.contains(&d.as_str())).collect::<Vec<_>>();
    let broken = PURE.iter().flat_map(|room| uses(room).into_iter().map(move |d| format!("{room} uses {d}")));
    hold("a pure room has no hands", "only a Cargo.toml can forbid them", broken.collect());
    let missing = PURE.iter().filter(|room| !root().join(room).join("clippy.toml").is_file());
    hold("a pure room has its bans", "clippy reads the nearest file", missing.map(ToString::to_string).collect());
}

#[test]
fn only_the_engine_names_tract() {
    let users = ARROWS.iter().filter(|(room, _)| *room != "agent/engine");
    let broken = users.filter(|(room, _)| dependencies(room).iter().any(|d| d.starts_with("tract")));
    hold(
        "only agent/engine depends on tract",
        "it must stay replaceable",
        broken.map(|(r, _)| r.to_string()).collect(),
    );
    let names = |(path, text): &(&String, &String)| {
        // A name may hold the letters all the same.
        let text = text.replace("abstract_", "");
        !path.starts_with("agent/engine/") && *path != "tests/tidy.rs" && text.contains("tract_")
    };
    let broken = sources().iter().filter(names).map(|(path, _)| path.clone()).collect();
    hold("only agent/engine names tract", "it must stay replaceable", broken);
}

#[test]
fn topics_are_known_in_one_place() {
    let code = |(path, text): &(&String, &String)| {
        !path.starts_with("contract/protocol/") && *path != "tests/tidy.rs" && text.contains("petrel/v1")
    };
    let broken = sources().iter().filter(code).map(|(path, _)| path.clone()).collect();
    hold("topics are built in contract/protocol", "a second place would say them differently one day", broken);
}

#[test]
fn files_open_with_what_they_are_and_stay_small() {
    let sources = sources();
    let opens = |text: &String| text.starts_with("//!");
    let broken = sources.iter().filter(|(_, text)| !opens(text)).map(|(path, _)| path.clone()).collect();
    hold("a file opens with //!", "a reader must know what the room decides, and what it does not", broken);
    let long = |text: &String| text.lines().count() > MAX_LINES;
    let broken = sources.iter().filter(|(_, text)| long(text)).map(|(path, _)| path.clone()).collect();
    hold("a file has 600 lines at most", "a longer one is two rooms", broken);
}

#[test]
fn nothing_is_left_half_done() {
    // Put together here, so that this file does not break its own rule.
    let marks = [
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
        ["#[", "ignore"].concat(),
        ["unsafe", " {"].concat(),
    ];
    let mut broken = Vec::new();
    for (path, text) in sources() {
        broken.extend(marks.iter().filter(|m| text.contains(m.as_str())).map(|m| format!("{path}: {m}")));
        let sleeps = text.contains("thread::sleep") || text.contains("time::sleep(");
        let test = path.contains("/tests/") || path.starts_with("tests/") || path.ends_with("tests.rs");
        if test && sleeps && path != "tests/tidy.rs" {
            broken.push(format!("{path}: a test waits for an event, never for a time"));
        }
    }
    hold("nothing is left half done", "what is committed is the product", broken);
    let lints = manifest("")["workspace"]["lints"]["rust"]["unsafe_code"].as_str().map(str::to_owned);
    assert_eq!(lints.as_deref(), Some("forbid"), "unsafe code is forbidden in the whole house");
    let outside = ARROWS.iter().filter(|(room, _)| manifest(room)["lints"]["workspace"].as_bool() != Some(true));
    hold(
        "every room keeps the house's lints",
        "or they hold for nobody",
        outside.map(|(r, _)| r.to_string()).collect(),
    );
}

#[test]
fn the_architecture_page_shows_the_house_as_it_stands() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows: BTreeMap<&str, BTreeSet<&str>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let uses = cells.get(3)?.split(',').map(str::trim).filter(|u| !u.is_empty()).collect();
            Some((cells[0].trim_end_matches('`'), uses))
        })
        .collect();
    let house: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(room, uses)| (*room, uses.iter().copied().collect())).collect();
    assert_eq!(rows, house, "the table of rooms in docs/architecture.md is not the house");
}

#[test]
fn planted_faults_are_of_the_code_as_it_is() {
    let patches = fs::read_dir(root().join("tests/planted")).unwrap().map(|entry| entry.unwrap().path());
    for patch in patches {
        let applies =
            std::process::Command::new("git").args(["apply", "--check"]).arg(&patch).current_dir(root()).output();
        let said = applies.expect("git, which brought this folder here");
        assert!(said.status.success(), "{} does not apply: {}", patch.display(), String::from_utf8_lossy(&said.stderr));
    }
}
