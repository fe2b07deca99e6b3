//! ONNX's conformance cases against the inference library alone and against our engine.
//!
//! `conform CASES RESULTS OPERATORS [--write]`: CASES is what `tests/oracles/onnx_nodes.py` wrote. Writes the verdicts on each
//! case to RESULTS, prints the totals as one JSON line, and fails when a promise of `report.rs` is broken, or when OPERATORS
//! (which of them pass) is not what was seen. `--write` writes OPERATORS anew.

mod bound;
mod case;
mod report;
mod sides;

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::bound::{Bounded, CHILD};
use crate::case::Case;
use crate::report::{Report, Row};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (cases, results, operators, write) = match words[..] {
        [CHILD] => return child(),
        [cases, results, operators] => (cases, results, operators, false),
        [cases, results, operators, "--write"] => (cases, results, operators, true),
        _ => return Err("usage: conform CASES RESULTS OPERATORS [--write]".into()),
    };
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(cases)? {
        folders.push(entry?.path());
    }
    folders.sort();
    let report = Report { rows: run(&folders)? };
    std::fs::write(results, report.lines()?)?;
    println!("{}", report.totals()?);
    let mut broken = report.broken();
    let seen = report.operators();
    if write {
        std::fs::write(operators, seen)?;
    } else if std::fs::read_to_string(operators)? != seen {
        broken.push(format!("{operators} is not what was seen: look at the change, then write it with --write"));
    }
    for promise in &broken {
        eprintln!("{promise}");
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Takes orders until there are no more.
fn child() -> Result<ExitCode, Box<dyn Error>> {
    std::panic::set_hook(Box::new(|_| {}));
    for order in stdin().lock().lines() {
        let order = order?;
        let mut words = order.splitn(3, '\t');
        let (Some(side), Some(model), Some(folder)) = (words.next(), words.next(), words.next()) else {
            return Err("an order is a side, a model and a folder".into());
        };
        let verdict = sides::run(side, &Case::read(Path::new(folder))?, model);
        println!("{}", serde_json::to_string(&verdict)?);
        stdout().flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every case on both sides, as it is and with its parameters as weights, on all cores.
fn run(folders: &[PathBuf]) -> Result<Vec<Row>, Box<dyn Error>> {
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Result<(), String> {
        let mut child = Bounded::default();
        while let Some(folder) = folders.get(next.fetch_add(1, Ordering::Relaxed)) {
            let row = row(folder, &mut child).map_err(|error| format!("{}: {error}", folder.display()))?;
            rows.lock().map_err(|error| error.to_string())?.push(row);
        }
        Ok(())
    };
    let cores = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked".to_owned())?)
    })?;
    let mut rows = rows.into_inner()?;
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

fn row(folder: &Path, child: &mut Bounded) -> Result<Row, Box<dyn Error>> {
    let case = Case::read(folder)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut both = |side: &str| -> Result<_, Box<dyn Error>> {
        let strict = child.run(side, folder, "model.onnx")?;
        let folded = match folder.join("folded.onnx").exists() {
            true => child.run(side, folder, "folded.onnx")?,
            false => strict.clone(),
        };
        Ok([strict, folded])
    };
    let (tract, petrel) = (both("tract")?, both("petrel")?);
    Ok(Row { name, kind: case.kind, operators: case.operators, tract, petrel })
}
