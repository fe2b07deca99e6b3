//! `measure DIR GROUP [FIGURE...]`: what the programs in DIR cost, seen from outside, with a real Mosquitto; one JSON object
//! with what was seen.
//!
//! Decides how each figure is made. What a figure should be is said in `cargo xtask bench`; what must hold (the right bytes
//! arrive, the answers are good) is checked here, and without it there are no figures.

mod cargo;
mod delivery;
mod device;
mod fleet;
mod land;
mod programs;
mod tap;

use anyhow::Context;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How a figure is made, with the programs of a folder.
type Figure = fn(&Path) -> anyhow::Result<Value>;

/// How the figures of a group are made.
#[derive(Clone, Copy)]
enum Figures {
    /// Each for itself.
    Apart(&'static [(&'static str, Figure)]),
    /// One after the other with the same devices, which are too many to be let in for each.
    Together(&'static [(&'static str, land::Figure)]),
}

const GROUPS: [(&str, Figures); 3] = [
    ("delivery", Figures::Apart(delivery::FIGURES)),
    ("device", Figures::Apart(device::FIGURES)),
    ("land", Figures::Together(land::FIGURES)),
];

impl Figures {
    fn names(self) -> Vec<&'static str> {
        match self {
            Self::Apart(figures) => figures.iter().map(|(name, _)| *name).collect(),
            Self::Together(figures) => figures.iter().map(|(name, _)| *name).collect(),
        }
    }
}

/// The Python that other people's servers run with.
fn python(variable: &str) -> anyhow::Result<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    named.with_context(|| format!("name a Python in {variable}, with what `cargo xtask bench` installs"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let group = |name: &String| GROUPS.iter().find(|(known, _)| known == name).map(|(_, figures)| *figures);
    let asked = match &args[..] {
        [programs, name, figures @ ..] => group(name).map(|known| (programs, known, figures)),
        _ => None,
    };
    let known = |all: &Figures, name: &String| all.names().contains(&name.as_str());
    let Some((programs, figures, names)) = asked.filter(|(_, all, names)| names.iter().all(|name| known(all, name)))
    else {
        eprintln!("usage: measure DIR GROUP [FIGURE...]\n  DIR holds petrel and petrel-agent");
        for (name, figures) in GROUPS {
            eprintln!("  figures of {name}: {}", figures.names().join(", "));
        }
        return ExitCode::from(2);
    };
    // Only a provider that is there already makes this fail, and that would do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match measure(Path::new(programs), figures, names) {
        Ok(seen) => {
            println!("{seen}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(programs: &Path, figures: Figures, names: &[String]) -> anyhow::Result<Value> {
    let mut seen = Map::new();
    let mut make = |name: &str, figure: &mut dyn FnMut() -> anyhow::Result<Value>| {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            eprintln!("{name}");
            let figure = figure().map_err(|error| error.context(format!("there is no figure of `{name}`")))?;
            seen.insert(name.to_owned(), figure);
        }
        anyhow::Ok(())
    };
    match figures {
        Figures::Apart(figures) => {
            figures.iter().try_for_each(|(name, figure)| make(name, &mut || figure(programs)))?
        }
        Figures::Together(figures) => {
            let mut crowd = land::Crowd::gather(programs)?;
            figures.iter().try_for_each(|(name, figure)| make(name, &mut || figure(&mut crowd)))?;
        }
    }
    Ok(seen.into())
}
