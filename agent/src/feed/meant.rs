//! `[[feed]]` in the configuration: what was said becomes what is meant.
//!
//! Decides which keys there are, their defaults and their limits.

use crate::config::Broker;
use protocol::StreamName;
use rumqttc::v5::mqttbytes::{matches, valid_filter, valid_topic};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// More than a small board has use for; each takes memory.
const MOST: usize = 8;
const OUT_BYTES: u64 = 16 << 20;
const LEAST_OUT_BYTES: u64 = 64 << 10;
const MOST_OUT_BYTES: u64 = 1 << 30;
const KEEP: usize = 1_000;
const MOST_KEPT: usize = 100_000;
const MAX_TOPIC_BYTES: usize = 512;

/// A feed as the file says it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Raw {
    /// Files that appear in a folder.
    Folder {
        /// The stream that answers.
        model: String,
        /// The folder.
        path: PathBuf,
        /// The file of the answers.
        out: PathBuf,
        /// What becomes of a file that was answered.
        #[serde(default)]
        done: Done,
        /// So many files stay in `done`, and in `failed`.
        #[serde(default = "keep")]
        keep: usize,
        /// When the file of the answers has so many bytes, another begins.
        #[serde(default = "out_bytes")]
        out_bytes: u64,
    },
    /// Messages of a broker on this device.
    Mqtt {
        /// The stream that answers.
        model: String,
        /// The broker.
        broker: String,
        /// The topics that are listened to.
        r#in: String,
        /// The topic of the answers.
        out: String,
    },
}

fn keep() -> usize {
    KEEP
}

fn out_bytes() -> u64 {
    OUT_BYTES
}

/// What becomes of a file that was answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Done {
    /// It goes to the subfolder `done`.
    #[default]
    Move,
    /// It goes.
    Remove,
}

/// A feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meant {
    /// Of a folder.
    Folder(Folder),
    /// Of a broker.
    Mqtt(Mqtt),
}

/// A folder that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder {
    /// The stream that answers.
    pub(super) model: StreamName,
    /// The folder.
    pub(super) path: PathBuf,
    /// The file of the answers.
    pub(super) out: PathBuf,
    /// What becomes of a file that was answered.
    pub(super) done: Done,
    /// So many files stay in each subfolder.
    pub(super) keep: usize,
    /// The most that is in the file of the answers.
    pub(super) out_bytes: u64,
}

/// Topics that are listened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mqtt {
    /// The stream that answers.
    pub(super) model: StreamName,
    /// The broker.
    pub(super) broker: Broker,
    /// A filter of topics.
    pub(super) from: String,
    /// The topic of the answers.
    pub(super) to: String,
}

impl Meant {
    /// All feeds; relative paths are relative to `folder`, and what lies in `state` itself is the agent's own.
    ///
    /// # Errors
    /// What is wrong with which of them, and what to do.
    pub(crate) fn all(raw: Vec<Raw>, folder: &Path, state: &Path) -> Result<Vec<Self>, (String, &'static str)> {
        if raw.len() > MOST {
            return Err((format!("there are {}", raw.len()), "name at most 8 feeds"));
        }
        let number = |n: usize, (why, remedy)| (format!("feed {}: {why}", n + 1), remedy);
        let one = |(n, raw): (usize, Raw)| Self::of(raw, folder).map_err(|wrong| number(n, wrong));
        let meant = raw.into_iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
        apart(&meant)?;
        let own = |meant: &&Meant| match meant {
            Meant::Folder(feed) => [&feed.path, &feed.out].iter().any(|path| plain(path).starts_with(plain(state))),
            Meant::Mqtt(_) => false,
        };
        match meant.iter().find(own) {
            Some(feed) => {
                let why =
                    format!("the feed of {} is among what the agent itself keeps in {}", feed.from(), state.display());
                Err((why, "choose a folder of its own"))
            }
            None => Ok(meant),
        }
    }

    fn of(raw: Raw, folder: &Path) -> Result<Self, (String, &'static str)> {
        let stream = |model: String| {
            let named = model.parse::<StreamName>();
            named.map_err(|why| (format!("`model`: {why}"), "name the stream of the model, as `digits`"))
        };
        match raw {
            Raw::Folder { model, path, out, done, keep, out_bytes } => {
                let (path, out) = (folder.join(path), folder.join(out));
                if plain(&out).parent() == Some(&plain(&path)) || out.file_name().is_none() {
                    let why = format!("`out`: {} is no file beside the folder", out.display());
                    return Err((why, "choose a file outside of `path`, which only brings files"));
                }
                if !(LEAST_OUT_BYTES..=MOST_OUT_BYTES).contains(&out_bytes) {
                    let why = format!("`out_bytes`: {out_bytes} is not from {LEAST_OUT_BYTES} to {MOST_OUT_BYTES}");
                    return Err((why, "choose a number in that range"));
                }
                if keep > MOST_KEPT {
                    return Err((format!("`keep`: {keep} is more than {MOST_KEPT}"), "choose a smaller number"));
                }
                Ok(Meant::Folder(Folder { model: stream(model)?, path, out, done, keep, out_bytes }))
            }
            Raw::Mqtt { model, broker, r#in: from, out: to } => {
                let local = "write mqtt://localhost:1883: a feed listens to a broker on this device";
                let broker = Broker::parse(&broker).map_err(|why| (format!("`broker`: {why}"), local))?;
                if broker.tls {
                    return Err(("`broker`: it is spoken to without TLS".into(), local));
                }
                if !valid_filter(&from) || from.len() > MAX_TOPIC_BYTES {
                    return Err((format!("`in`: `{from}` is no filter of topics"), "write one as sensors/+/digits"));
                }
                if !valid_topic(&to) || to.is_empty() || to.len() > MAX_TOPIC_BYTES {
                    return Err((format!("`out`: `{to}` is no topic"), "write one as answers/digits, without + and #"));
                }
                Ok(Meant::Mqtt(Mqtt { model: stream(model)?, broker, from, to }))
            }
        }
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Meant::Folder(_) => "folder",
            Meant::Mqtt(_) => "mqtt",
        }
    }

    /// What it listens to.
    pub(crate) fn from(&self) -> String {
        match self {
            Meant::Folder(folder) => folder.path.display().to_string(),
            Meant::Mqtt(mqtt) => mqtt.from.clone(),
        }
    }

    /// The stream that answers.
    pub(crate) fn model(&self) -> &StreamName {
        match self {
            Meant::Folder(folder) => &folder.model,
            Meant::Mqtt(mqtt) => &mqtt.model,
        }
    }
}

/// A path without `.` and `..`, as the names say, to be compared and never opened: where links lead is known to the disk
/// alone.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if plain.file_name().is_some() => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

impl Mqtt {
    /// What it listens to, without the name of the group with which it shares that.
    fn topics(&self) -> &str {
        let shared = self.from.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
        shared.map_or(&self.from, |(_, topics)| topics)
    }
}

/// No feed answers what a feed said, and no two take the same files or write the same one.
fn apart(meant: &[Meant]) -> Result<(), (String, &'static str)> {
    let folders: Vec<&Folder> =
        meant.iter().filter_map(|m| if let Meant::Folder(f) = m { Some(f) } else { None }).collect();
    let topics: Vec<&Mqtt> = meant.iter().filter_map(|m| if let Meant::Mqtt(m) = m { Some(m) } else { None }).collect();
    for (n, one) in folders.iter().enumerate() {
        if folders[..n]
            .iter()
            .any(|other| plain(&other.path) == plain(&one.path) || plain(&other.out) == plain(&one.out))
        {
            let why = format!("two feeds share {} or {}", one.path.display(), one.out.display());
            return Err((why, "give each a folder and a file of its own"));
        }
    }
    for one in &folders {
        if let Some(other) = folders.iter().find(|other| plain(&one.out).starts_with(plain(&other.path))) {
            let why =
                format!("`out`: {} is in {}, and would be answered for ever", one.out.display(), other.path.display());
            return Err((why, "choose a file outside of every feed's folder"));
        }
    }
    for said in &topics {
        if let Some(heard) = topics.iter().find(|heard| matches(&said.to, heard.topics())) {
            let why =
                format!("what is said on `{}` is heard on `{}`, and would be answered for ever", said.to, heard.from);
            return Err((why, "choose topics for answers that no feed listens to"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        feed: Vec<Raw>,
    }

    fn read(text: &str) -> Result<Vec<Meant>, String> {
        let file: File = toml::from_str(text).map_err(|why| why.to_string())?;
        Meant::all(file.feed, Path::new("/etc/petrel"), Path::new("/var/lib/petrel"))
            .map_err(|(why, remedy)| format!("{why}; {remedy}"))
    }

    const FOLDER: &str = "[[feed]]\nkind = \"folder\"\nmodel = \"digits\"\npath = \"in\"\nout = \"/var/out.jsonl\"\n";
    const MQTT: &str = "[[feed]]\nkind = \"mqtt\"\nmodel = \"digits\"\nbroker = \"mqtt://localhost:1883\"\nin = \"sensors/+/digits\"\nout = \"answers/digits\"\n";

    #[test]
    fn feeds_have_defaults_and_paths_beside_the_file() {
        let meant = read(&format!("{FOLDER}{MQTT}")).unwrap();
        let folder = Folder {
            model: "digits".parse().unwrap(),
            path: "/etc/petrel/in".into(),
            out: "/var/out.jsonl".into(),
            done: Done::Move,
            keep: 1_000,
            out_bytes: 16 << 20,
        };
        assert_eq!(meant[0], Meant::Folder(folder));
        assert_eq!((meant[1].kind(), meant[1].from()), ("mqtt", "sensors/+/digits".into()));
    }

    #[test]
    fn paths_are_compared_as_names_and_opened_as_they_were_said() {
        let above = FOLDER.replace("\"in\"", "\"../in\"");
        let Meant::Folder(folder) = &read(&above).unwrap()[0] else { panic!("no folder") };
        assert_eq!(folder.path, Path::new("/etc/petrel/../in"));
        for (said, names) in [("../a/./b", "../a/b"), ("a/../../b", "../b"), ("../../a", "../../a"), ("/a/b/..", "/a")]
        {
            assert_eq!(plain(Path::new(said)), Path::new(names), "{said}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_the_feed_and_the_key() {
        let cases = [
            (FOLDER.replace("\"digits\"", "\"No Name\""), "`model`"),
            (FOLDER.replace("/var/out.jsonl", "in/out.jsonl"), "`out`"),
            (format!("{FOLDER}out_bytes = 1\n"), "`out_bytes`"),
            (format!("{FOLDER}keep = 1000000\n"), "`keep`"),
            (format!("{FOLDER}done = \"burn\"\n"), "burn"),
            (format!("{FOLDER}colour = 1\n"), "colour"),
            (format!("{FOLDER}{FOLDER}"), "two feeds share"),
            (FOLDER.replace("\"in\"", "\"/var/lib/petrel\""), "itself keeps"),
            (FOLDER.replace("/var/out.jsonl", "/var/lib/petrel/ledger.a"), "itself keeps"),
            (FOLDER.replace("folder", "pigeon"), "pigeon"),
            (MQTT.replace("mqtt://localhost:1883", "mqtt://other:1883"), "`broker`"),
            (MQTT.replace("mqtt://localhost:1883", "mqtts://localhost"), "`broker`"),
            (MQTT.replace("sensors/+/digits", "sensors/#/digits"), "`in`"),
            (MQTT.replace("answers/digits", "answers/+"), "`out`"),
            (MQTT.replace("answers/digits", "sensors/1/digits"), "for ever"),
            (MQTT.replace("sensors/+/digits", "$share/group/answers/#"), "for ever"),
            (FOLDER.replace("/var/out.jsonl", "/var/lib/petrel/bundles/out.jsonl"), "itself keeps"),
            (FOLDER.replace("/var/out.jsonl", "/var/../etc/petrel/in/out.jsonl"), "`out`"),
            (
                format!(
                    "{}{}",
                    FOLDER.replace("/var/out.jsonl", "other/x.csv"),
                    FOLDER.replace("\"in\"", "\"other\"").replace("/var/", "/var/x/")
                ),
                "for ever",
            ),
            (MQTT.repeat(9), "9"),
        ];
        for (text, expected) in cases {
            let fault = read(&text).unwrap_err();
            assert!(fault.contains(expected), "{text}: {fault}");
        }
    }
}
