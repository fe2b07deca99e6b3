//! `cargo xtask bench`: the one door to every figure that this project claims.
//!
//! A bench gives rows; here they become a table, a line of JSON for machines, and a page of the docs
//! that nobody edits by hand.

mod arm;
mod boards;
mod choices;
mod crash;
mod delivery;
mod device;
mod drift;
mod engine;
mod instructions;
mod land;
mod rollout;
mod said;
mod the_loop;
mod trust;

use crate::build::{self, Profile, folder, output, workspace};
use anyhow::bail;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: String,
    /// What it should be, in words, where something was promised.
    pub(crate) goal: Option<String>,
    /// Whether it is.
    pub(crate) met: Option<bool>,
    /// What it is compared with, or where the goal comes from.
    pub(crate) anchor: Option<String>,
}

impl Row {
    /// A figure without a goal.
    pub(crate) fn new(name: &str, value: f64, unit: &str) -> Self {
        Self { name: name.into(), value, unit: unit.into(), goal: None, met: None, anchor: None }
    }

    /// It should be at most `limit`.
    pub(crate) fn at_most(mut self, limit: f64) -> Self {
        self.goal = Some(format!("at most {limit} {}", self.unit));
        self.met = Some(self.value <= limit);
        self
    }

    /// It should be at least `limit`.
    pub(crate) fn at_least(mut self, limit: f64) -> Self {
        self.goal = Some(format!("at least {limit} {}", self.unit));
        self.met = Some(self.value >= limit);
        self
    }

    /// What it stands beside.
    pub(crate) fn beside(mut self, anchor: &str) -> Self {
        self.anchor = Some(anchor.into());
        self
    }
}

/// The outcome of a bench.
#[derive(Debug, Serialize)]
struct Outcome {
    bench: &'static str,
    machine: String,
    date: String,
    rows: Vec<Row>,
}

struct Bench {
    name: &'static str,
    about: &'static str,
    needs: Needs,
    run: fn(Asked<'_>) -> anyhow::Result<Vec<Row>>,
}

/// What a bench works with.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    /// Where the programs of the release profile are.
    folder: &'a Path,
    /// As long as a published method has it, where a shorter time says nearly as much.
    full: bool,
}

/// What has to be built first, for release.
#[derive(Clone, Copy)]
enum Needs {
    /// What it runs builds itself.
    Nothing,
    Programs,
    /// A package's example.
    Example((&'static str, &'static str)),
}

const BENCHES: [Bench; 11] = [
    Bench { name: "loop", about: the_loop::ABOUT, needs: Needs::Programs, run: the_loop::run },
    Bench { name: "engine", about: engine::ABOUT, needs: Needs::Example(engine::EXAMPLE), run: engine::run },
    Bench { name: "trust", about: trust::ABOUT, needs: Needs::Example(trust::EXAMPLE), run: trust::run },
    Bench { name: "delivery", about: delivery::ABOUT, needs: Needs::Programs, run: delivery::run },
    Bench { name: "device", about: device::ABOUT, needs: Needs::Programs, run: device::run },
    Bench { name: "drift", about: drift::ABOUT, needs: Needs::Example(drift::EXAMPLE), run: drift::run },
    Bench { name: "rollout", about: rollout::ABOUT, needs: Needs::Example(rollout::EXAMPLE), run: rollout::run },
    Bench { name: "land", about: land::ABOUT, needs: Needs::Programs, run: land::run },
    Bench { name: "arm", about: arm::ABOUT, needs: Needs::Programs, run: arm::run },
    Bench { name: "choices", about: choices::ABOUT, needs: Needs::Nothing, run: choices::run },
    Bench { name: "crash", about: crash::ABOUT, needs: Needs::Nothing, run: crash::run },
];

/// `cargo xtask bench NAME|--all [--full] [--json] [--write] [--no-build]`; `--write` makes the sections of docs/benchmarks.md anew.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let names: Vec<&String> = args.iter().filter(|a| !a.starts_with("--")).collect();
    let unknown = args
        .iter()
        .find(|a| a.starts_with("--") && !["--all", "--full", "--json", "--write", "--no-build"].contains(&a.as_str()));
    if let Some(flag) = unknown {
        bail!("there is no flag {flag}");
    }
    let chosen: Vec<&Bench> = BENCHES.iter().filter(|b| has("--all") || names.iter().any(|n| *n == b.name)).collect();
    if chosen.is_empty() || chosen.len() < names.len() {
        let known: Vec<&str> = BENCHES.iter().map(|b| b.name).collect();
        bail!("name a bench, or --all: known are {}", known.join(", "));
    }
    let binaries = folder(Profile::Release);
    if !has("--no-build") {
        if chosen.iter().any(|bench| matches!(bench.needs, Needs::Programs)) {
            build::binaries(Profile::Release)?;
        }
        for bench in &chosen {
            if let Needs::Example((package, name)) = bench.needs {
                build::example(package, name)?;
            }
        }
    }
    let page = workspace().join("docs/benchmarks.md");
    let asked = Asked { folder: &binaries, full: has("--full") };
    for bench in chosen {
        let outcome = Outcome { bench: bench.name, machine: machine(), date: date()?, rows: (bench.run)(asked)? };
        println!("{}", table(&outcome));
        if has("--json") {
            println!("{}", serde_json::to_string(&outcome)?);
        }
        if has("--write") {
            let text = written(&std::fs::read_to_string(&page)?, bench, &markdown(&outcome));
            std::fs::write(&page, text)?;
        }
    }
    Ok(())
}

const HEAD: &str = "# Benchmarks\n\nMade by `cargo xtask bench NAME --write`; edited by nobody. An absolute figure is the best of five runs on the machine\n\
     named; machines differ, so compare ratios.\n";

/// The page with the section of one bench made anew; the sections are in the order of the benches.
fn written(page: &str, made: &Bench, figures: &str) -> String {
    let section = |bench: &Bench| {
        if bench.name == made.name {
            return Some(format!("{}\n\n{figures}", bench.about));
        }
        let (_, old) = page.split_once(&format!("\n## {}\n\n", bench.name))?;
        Some(old.split("\n## ").next().unwrap_or(old).to_owned())
    };
    let sections = BENCHES.iter().filter_map(|bench| Some(format!("\n## {}\n\n{}", bench.name, section(bench)?)));
    HEAD.to_owned() + &sections.collect::<String>()
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).map(|l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores, {}", model.unwrap_or("unknown processor"), std::env::consts::ARCH)
}

fn date() -> anyhow::Result<String> {
    Ok(output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?.trim().to_owned())
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn met(row: &Row) -> &'static str {
    match row.met {
        Some(true) => "met",
        Some(false) => "NOT MET",
        None => "",
    }
}

fn table(outcome: &Outcome) -> String {
    let width = outcome.rows.iter().map(|r| r.name.len()).max().unwrap_or(0);
    let mut text = format!("{} ({}, {})\n", outcome.bench, outcome.machine, outcome.date);
    for row in &outcome.rows {
        let goal = row.goal.as_deref().unwrap_or("");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:width$}  {:>10} {:<8} {goal} {}", row.name, number(row.value), row.unit, met(row));
    }
    text
}

fn markdown(outcome: &Outcome) -> String {
    let mut text =
        format!("{}, {}\n\n| what | value | goal | | beside |\n|---|---|---|---|---|\n", outcome.machine, outcome.date);
    for row in &outcome.rows {
        let goal = row.goal.as_deref().unwrap_or("");
        let anchor = row.anchor.as_deref().unwrap_or("");
        let _ =
            writeln!(text, "| {} | {} {} | {goal} | {} | {anchor} |", row.name, number(row.value), row.unit, met(row));
    }
    text
}
