//! `delivery DIR [FIGURE...]`: what it costs to bring bundles to devices, measured with the programs in DIR and a real
//! Mosquitto; one JSON object with what was seen.
//!
//! Decides how each figure is made. What a figure should be is said in `cargo xtask bench delivery`; what must hold (the
//! right bytes arrive) is checked here, and without it there are no figures.

mod cargo;
mod crowd;
mod fleet;
mod memory;
mod programs;
mod rough;
mod speed;
mod tap;
mod web;

use serde_json::{Map, Value};
use std::path::Path;
use std::process::ExitCode;

/// How a figure is made, with the programs of a folder.
type Figure = fn(&Path) -> anyhow::Result<Value>;

const FIGURES: [(&str, Figure); 6] = [
    ("speed", speed::measure),
    ("memory", memory::measure),
    ("crowd", crowd::measure),
    ("kills", rough::kills),
    ("update", rough::update),
    ("forgotten", rough::forgotten),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (programs, names): (_, Vec<String>) = (args.next(), args.collect());
    let known = FIGURES.map(|(name, _)| name);
    let Some(programs) = programs.filter(|_| names.iter().all(|name| known.contains(&name.as_str()))) else {
        eprintln!(
            "usage: delivery DIR [FIGURE...]\n  DIR holds petrel and petrel-agent; figures are {}",
            known.join(", ")
        );
        return ExitCode::from(2);
    };
    // Only a provider that is there already makes this fail, and that would do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match measure(Path::new(&programs), &names) {
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

fn measure(programs: &Path, names: &[String]) -> anyhow::Result<Value> {
    let mut seen = Map::new();
    for (name, figure) in FIGURES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            eprintln!("{name}");
            let figure = figure(programs).map_err(|error| error.context(format!("there is no figure of `{name}`")))?;
            seen.insert(name.to_owned(), figure);
        }
    }
    Ok(seen.into())
}
