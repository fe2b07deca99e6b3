//! How profiles lie over each other: what one says counts over what it inherits.

use crate::profile::Profile;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The most that a profile may have.
pub const MAX_PROFILE_BYTES: usize = 64 * 1024;
/// Profiles behind profiles.
const MAX_LAYERS: usize = 8;
/// The key that names the profile behind one, relative to it.
const INHERIT: &str = "inherit";

/// One file of those that a profile is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Where it lies.
    pub path: PathBuf,
    /// The agent's keys that it says.
    pub agent: Table,
}

/// What is wrong with a profile, and in which file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the profile {}: {why}", path.display())]
pub struct ProfileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong there.
    pub why: String,
}

/// Reads a profile and those that it inherits from by `read`; gives the whole, and the files, the most general first.
///
/// # Errors
/// The file and what is wrong with it.
pub fn gather(
    path: &Path,
    mut read: impl FnMut(&Path) -> Result<String, String>,
) -> Result<(Profile, Vec<Layer>), ProfileError> {
    let mut tables = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let wrong = |why: String| ProfileError { path: path.clone(), why };
        if tables.len() == MAX_LAYERS {
            return Err(wrong(format!("more than {MAX_LAYERS} inherit from each other, or one from itself")));
        }
        let text = read(&path).map_err(wrong)?;
        if text.len() > MAX_PROFILE_BYTES {
            return Err(wrong(format!("it has {} bytes, and at most {MAX_PROFILE_BYTES} are allowed", text.len())));
        }
        let mut table: Table = text.parse().map_err(|why: toml::de::Error| wrong(told(&why)))?;
        next = match table.remove(INHERIT) {
            None => None,
            Some(Value::String(name)) => Some(path.parent().unwrap_or(Path::new("")).join(name)),
            Some(_) => return Err(wrong(format!("`{INHERIT}` names a file, as \"base.toml\""))),
        };
        tables.push((path, table));
    }
    tables.reverse();
    let mut whole = Table::new();
    let mut layers = Vec::new();
    for (path, table) in tables {
        let agent = table.get("agent").and_then(Value::as_table).cloned().unwrap_or_default();
        lay(&mut whole, table);
        layers.push(Layer { path, agent });
    }
    let wrong = |why: String| ProfileError { path: path.to_owned(), why };
    let profile: Profile = whole.try_into().map_err(|why: toml::de::Error| wrong(told(&why)))?;
    profile.check().map_err(wrong)?;
    Ok((profile, layers))
}

/// A group's keys count one by one.
fn lay(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => below.extend(above),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

fn told(why: &toml::de::Error) -> String {
    why.to_string().trim_end().to_owned()
}
