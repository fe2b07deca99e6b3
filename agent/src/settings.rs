//! Where each value of the configuration comes from: a profile, the file, the environment, a flag; the later wins.
//!
//! Decides their order and how each is read. What a value means, and whether it will do, is decided by `config`.

use crate::fault::{Fault, told};
use board::Profile;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// What a variable of the environment begins with, before the key in capitals.
const VARIABLE: &str = "PETREL_AGENT_";
/// The key of the board's firmware profile, which stands behind the file that names it.
const PROFILE: &str = "profile";
const MAX_BYTES: u64 = 64 * 1024;

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nowhere.
    Default,
    /// In a profile.
    Profile(PathBuf),
    /// In the configuration.
    File(PathBuf),
    /// In a variable.
    Environment(String),
    /// On the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Profile(path) => write!(f, "profile {}", path.display()),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag => f.write_str("--set"),
        }
    }
}

/// Everything that was said, and where.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Settings {
    /// The keys and values.
    pub(crate) table: Table,
    /// What the board must be.
    pub(crate) profile: Option<Profile>,
    origins: BTreeMap<String, Origin>,
}

impl Settings {
    /// Puts the layers over each other: the profiles that the file names, the file, the variables, and `KEY=VALUE`s.
    ///
    /// # Errors
    /// A [`Fault`] that names what cannot be read.
    pub(crate) fn gather(
        path: &Path,
        text: &str,
        variables: impl Iterator<Item = (OsString, OsString)>,
        set: &[String],
    ) -> Result<Self, Fault> {
        let mut file = read(path, text)?;
        let mut settings = Self::default();
        settings.inherit(path, file.remove(PROFILE))?;
        settings.put(file, &Origin::File(path.to_owned()));
        for (name, value) in variables {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
            if let Some(key) = name.strip_prefix(VARIABLE) {
                let said = Table::from_iter([(key.to_ascii_lowercase(), of_text(value))]);
                settings.put(said, &Origin::Environment(name.to_owned()));
            }
        }
        for said in set {
            let (key, value) = said.split_once('=').ok_or_else(|| {
                Fault::new(format!("`--set {said}` sets nothing")).remedy("write --set KEY=VALUE, as --set window=8")
            })?;
            settings.put(Table::from_iter([(key.trim().to_owned(), of_text(value))]), &Origin::Flag);
        }
        Ok(settings)
    }

    /// The agent's keys in the profile that `named` names lie under what is put later.
    fn inherit(&mut self, from: &Path, named: Option<Value>) -> Result<(), Fault> {
        let Some(named) = named else { return Ok(()) };
        let wrong = |why: String| {
            Fault::new(format!("{}: the profile is wrong", from.display()))
                .because(why)
                .remedy("name a board's firmware profile, as /usr/share/petrel/profiles/rpi4.toml")
        };
        let name = named.as_str().ok_or_else(|| wrong("it is named by a text".into()))?;
        let path = from.parent().unwrap_or(Path::new("")).join(name);
        let read = |path: &Path| text(path).map_err(|fault| told(&fault));
        let (profile, layers) = board::gather(&path, read).map_err(|why| wrong(why.to_string()))?;
        self.put(Table::from_iter([("board".into(), profile.board.clone().into())]), &Origin::Profile(path));
        for layer in layers {
            self.put(layer.agent, &Origin::Profile(layer.path));
        }
        self.profile = Some(profile);
        Ok(())
    }

    fn put(&mut self, said: Table, origin: &Origin) {
        self.origins.extend(said.keys().map(|key| (key.clone(), origin.clone())));
        self.table.extend(said);
    }

    /// Whether everything was said in one file.
    pub(crate) fn is_one_file(&self) -> bool {
        self.origins.values().all(|origin| matches!(origin, Origin::File(_)))
    }

    /// Where a key was said.
    pub(crate) fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }
}

/// A configuration's or a profile's text.
///
/// # Errors
/// A [`Fault`] that names the file.
pub(crate) fn text(path: &Path) -> Result<String, Fault> {
    let unreadable = |why: std::io::Error| {
        Fault::new(format!("cannot read the configuration {}", path.display()))
            .because(why)
            .remedy("give another file with --config, or write this one")
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_BYTES {
        let what = format!("{} has {size} bytes: at most {MAX_BYTES} are allowed", path.display());
        return Err(Fault::new(what).remedy("give a configuration file with --config"));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn read(path: &Path, text: &str) -> Result<Table, Fault> {
    text.parse().map_err(|why: toml::de::Error| {
        Fault::new(format!("the configuration {} is wrong", path.display()))
            .because(why.to_string().trim_end().to_owned())
            .remedy("correct what is named; `petrel-agent run --help` shows a whole file")
    })
}

/// A number, a list, true or false as TOML has them; anything else is a text.
fn of_text(text: &str) -> Value {
    let read = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    read.unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_later_wins_and_each_is_known_by_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware-profiles");
        let base = fs::read_to_string(shipped.join("generic-aarch64.toml")).unwrap();
        let base = base.replace("base.toml", shipped.join("base.toml").to_str().unwrap());
        fs::write(dir.path().join("base.toml"), base + "[agent]\nwindow = 1\nload_s = 1\n").unwrap();
        let rpi4 = "inherit = \"base.toml\"\nboard = \"rpi4\"\n[agent]\nwindow = 2\n";
        fs::write(dir.path().join("rpi4.toml"), rpi4).unwrap();
        let text = "profile = \"rpi4.toml\"\nwindow = 3\ndevice = \"a\"\n";
        let variables = [("PETREL_AGENT_WINDOW", "4"), ("PETREL_AGENT_LOG", "json"), ("HOME", "/root")];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let gather = |set: &[String]| Settings::gather(&path, text, variables.clone().into_iter(), set).unwrap();
        let all = gather(&["window=5".into(), "sources=[\"https\"]".into()]);
        let profile = |name: &str| Origin::Profile(dir.path().join(name));
        let cases = [
            ("window", "5", Origin::Flag),
            ("sources", "[\"https\"]", Origin::Flag),
            ("log", "\"json\"", Origin::Environment("PETREL_AGENT_LOG".into())),
            ("device", "\"a\"", Origin::File(path.clone())),
            ("board", "\"rpi4\"", profile("rpi4.toml")),
            ("load_s", "1", profile("base.toml")),
        ];
        for (key, value, origin) in cases {
            assert_eq!((all.table[key].to_string().as_str(), all.origin(key)), (value, origin), "{key}");
        }
        assert_eq!(all.origin("state"), Origin::Default);
        assert_eq!(gather(&[]).table["window"], Value::Integer(4));
        assert!(!all.is_one_file());
        assert_eq!(all.profile.map(|profile| profile.board).as_deref(), Some("rpi4"));
    }

    #[test]
    fn what_cannot_be_put_together_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        fs::write(dir.path().join("self.toml"), "inherit = \"self.toml\"\n").unwrap();
        for (text, set, told) in [
            ("profile = \"self.toml\"\n", "", "the profile is wrong"),
            ("profile = \"nowhere.toml\"\n", "", "nowhere.toml"),
            ("profile = 7\n", "", "the profile is wrong"),
            ("window = \n", "", "is wrong"),
            ("", "window", "sets nothing"),
        ] {
            let set: Vec<String> = (!set.is_empty()).then(|| set.to_owned()).into_iter().collect();
            let fault = crate::fault::told(&Settings::gather(&path, text, std::iter::empty(), &set).unwrap_err());
            assert!(fault.contains(told), "{text}: {fault}");
        }
    }
}
