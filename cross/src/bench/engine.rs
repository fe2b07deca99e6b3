//! The engine beside ONNX Runtime: the same models, the same inputs, one thread each, in turns.
//!
//! Decides what is a fair comparison and what the goals are. Each engine runs in a process of its own, which
//! says what it measured: `agent/engine/examples/measure.rs` and `tests/models/beside.py`.

use super::{Asked, Row};
use crate::build::{output, python, workspace};
use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What the page says of it.
pub(super) const ABOUT: &str = "Petrel's engine over ONNX Runtime 1.32 (Python), the same run, one thread each: below 1 is better. The models are \
`tests/models/zoo.py`'s (real topologies and sizes, random weights; small ones fitted by scikit-learn) and the examples; \
every answer is ONNX Runtime's to one part in 1,000, or there are no figures. Latency: the median of a round of calls, \
the best of seven rounds in turns. Load: from the file to the first answer, in a fresh process, the best of three. Memory: \
VmHWM of that process after ten more calls, the median of three; ONNX Runtime's process is Python with numpy and \
onnxruntime, as it is used. \"Net\" takes away what that process holds once these are imported and before any model, \
and nothing from ours.";

/// The program that measures our side.
pub(super) const EXAMPLE: (&str, &str) = ("petrel-engine", "measure");

const LOADS: usize = 3;
const ROUNDS: usize = 7;
/// Time that a round should take, in microseconds; and how many calls it has.
const ROUND_US: f64 = 60_000.0;
const CALLS: (f64, f64) = (3.0, 5_000.0);
/// Of the greatest value of an output.
const DIFFERENCE: f64 = 1e-3;

/// As `zoo.py` says it.
#[derive(Deserialize)]
struct Model {
    folder: String,
    name: String,
    family: String,
    classical: bool,
    batches: Vec<u32>,
    bytes: u64,
}

impl Model {
    /// How much slower it may be.
    fn latency_goal(&self) -> f64 {
        match self.family.as_str() {
            "dense" | "recurrent" | "transformer" | "linear" | "forest" => 1.5,
            _ => 2.5,
        }
    }

    fn memory_goal(&self) -> f64 {
        if self.bytes < 5_000_000 { 0.6 } else { 0.8 }
    }
}

pub(super) fn run(Asked { folder, .. }: Asked) -> anyhow::Result<Vec<Row>> {
    let python = python("bench/engine", "tests/models/zoo-requirements.txt")?;
    let scripts = workspace().join("tests/models");
    let zoo = workspace().join("target/bench/zoo");
    let listed = output(Command::new(&python).arg(scripts.join("zoo.py")).arg(&zoo))?;
    let models = listed.lines().map(serde_json::from_str).collect::<Result<Vec<Model>, _>>()?;
    let bench = Bench { ours: folder.join("examples/measure"), python, theirs: scripts.join("beside.py"), zoo };
    let bare = output(Command::new(&bench.python).arg(&bench.theirs).arg("bare"))?;
    let bare = number(&serde_json::from_str(&bare)?, "memory_kib")?;
    let mut rows = Vec::new();
    for model in &models {
        eprintln!("{}", model.name);
        rows.extend(bench.latencies(model)?);
        rows.extend(bench.starts(model, bare)?);
    }
    Ok(rows)
}

/// What is needed to start either side.
struct Bench {
    ours: PathBuf,
    python: PathBuf,
    theirs: PathBuf,
    zoo: PathBuf,
}

impl Bench {
    /// Both sides with this model, ready; ours first.
    fn both(&self, model: &Model, rows: u32) -> anyhow::Result<[Side; 2]> {
        let mut ours = Command::new(&self.ours);
        let mut theirs = Command::new(&self.python);
        theirs.arg(&self.theirs);
        let sides = [&mut ours, &mut theirs].map(|side| Side::start(side, &self.zoo.join(&model.folder), rows));
        let [ours, theirs] = sides;
        let both = [ours?, theirs?];
        let difference = number(&both[0].start, "difference")?;
        ensure!(
            difference <= DIFFERENCE,
            "{} of {rows} rows: the answer is not ONNX Runtime's: {difference:e} of its greatest value apart",
            model.name
        );
        Ok(both)
    }

    fn latencies(&self, model: &Model) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for batch in &model.batches {
            let mut both = self.both(model, *batch)?;
            let mut calls = [0.0; 2];
            for (side, calls) in both.iter_mut().zip(&mut calls) {
                *calls = (ROUND_US / side.call(1.0)?).clamp(CALLS.0, CALLS.1);
            }
            let mut best = [f64::INFINITY; 2];
            for _ in 0..ROUNDS {
                for (at, side) in both.iter_mut().enumerate() {
                    best[at] = best[at].min(side.call(calls[at])?);
                }
            }
            let name = format!("{}, latency, batch {batch}", model.name);
            rows.push(ratio(&name, best, "us").at_most(model.latency_goal()));
        }
        Ok(rows)
    }

    fn starts(&self, model: &Model, bare: f64) -> anyhow::Result<[Row; 3]> {
        let mut load = [f64::INFINITY; 2];
        let mut memory = [Vec::new(), Vec::new()];
        for _ in 0..LOADS {
            for (at, side) in self.both(model, 1)?.iter().enumerate() {
                load[at] = load[at].min(number(&side.start, "load_us")? / 1000.0);
                memory[at].push(number(&side.start, "memory_kib")? / 1024.0);
            }
        }
        let [ours, theirs] = memory.map(|mut all| {
            all.sort_by(f64::total_cmp);
            all[LOADS / 2]
        });
        let name = |what: &str| format!("{}, {what}", model.name);
        let load = ratio(&name("load"), load, "ms");
        let net = theirs - bare / 1024.0;
        Ok([
            if model.classical { load.at_most(1.0) } else { load },
            ratio(&name("memory"), [ours, theirs], "MiB").at_most(model.memory_goal()),
            ratio(&name("memory, theirs net of the import"), [ours, net], "MiB"),
        ])
    }
}

/// Ours over theirs.
fn ratio(name: &str, [ours, theirs]: [f64; 2], unit: &str) -> Row {
    Row::new(name, ours / theirs, "x").beside(&format!("{ours:.2} {unit} over {theirs:.2} {unit}"))
}

fn number(said: &Value, name: &str) -> anyhow::Result<f64> {
    said[name].as_f64().with_context(|| format!("no {name} in {said}"))
}

/// One engine with one model, in a process of its own; it ends with this value.
struct Side {
    child: Child,
    asked: ChildStdin,
    said: BufReader<ChildStdout>,
    /// What it said of its start.
    start: Value,
}

impl Side {
    fn start(command: &mut Command, model: &Path, rows: u32) -> anyhow::Result<Side> {
        command.arg(model).arg(rows.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let asked = child.stdin.take().context("no way in")?;
        let said = BufReader::new(child.stdout.take().context("no way out")?);
        let mut side = Side { child, asked, said, start: Value::Null };
        side.start = side.answer().with_context(|| format!("{command:?}"))?;
        Ok(side)
    }

    /// The median time of so many calls, in microseconds.
    fn call(&mut self, calls: f64) -> anyhow::Result<f64> {
        writeln!(self.asked, "{}", calls.round())?;
        number(&self.answer()?, "p50_us")
    }

    fn answer(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        ensure!(self.said.read_line(&mut line)? > 0, "it ended without an answer");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
