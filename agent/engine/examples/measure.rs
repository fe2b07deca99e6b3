//! One model, measured in a process of its own: `measure FOLDER ROWS`, the folder as `tests/models/zoo.py`
//! writes it. Says how long it took from the file to the first answer, how far that is from the
//! reference's, and the largest memory; then, for each line `CALLS` on its input, what a call takes.
//! Several rows go through as a bundle that is packed with `--batch auto` has them.
//!
//! Decides nothing about goals: the bench does.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use petrel_engine::{Data, Golden, Limits, Model, Tensor, measure_batch};

/// Calls that are made before the memory is read, and before time counts.
const WARM: usize = 10;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, rows] = &args[..] else { return Err("usage: measure FOLDER ROWS".into()) };
    let folder = PathBuf::from(folder);
    let limits = Limits::default();
    let golden = Golden::read(&folder.join(format!("rows{rows}.npz")), &limits)?;

    let begin = Instant::now();
    let model = Model::load(&folder.join("model.onnx"), &limits)?;
    let loaded = begin.elapsed();
    let inputs = model.arrange(&golden.inputs)?;
    let begin = Instant::now();
    let answer = model.run_rows(&inputs)?;
    let ready = loaded + begin.elapsed();
    for _ in 0..WARM {
        model.run_rows(&inputs)?;
    }
    let memory = largest_memory()?;
    let at_once = if rows == "1" { None } else { measure_batch(&model, &inputs)? };
    let model = model.with_rows_at_once(at_once);
    let difference = difference(&model, &answer, &golden)?;
    let load = ready.as_secs_f64() * 1e6;
    say(&serde_json::json!({ "load_us": load, "memory_kib": memory, "difference": difference }))?;

    for line in std::io::stdin().lock().lines() {
        let calls: usize = line?.trim().parse()?;
        let mut times = Vec::with_capacity(calls);
        for _ in 0..calls.max(1) {
            let begin = Instant::now();
            let answer = model.run_rows(&inputs)?;
            times.push(begin.elapsed().as_secs_f64() * 1e6);
            drop(answer);
        }
        times.sort_by(f64::total_cmp);
        say(&serde_json::json!({ "p50_us": times[times.len() / 2] }))?;
    }
    Ok(())
}

fn say(what: &serde_json::Value) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")?;
    Ok(out.flush()?)
}

/// VmHWM in KiB: the largest resident memory of this process so far.
fn largest_memory() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("the system tells no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// The greatest difference from the reference, over the reference's greatest value. What is no float is the
/// reference's, or as far away as can be.
fn difference(model: &Model, answer: &[Tensor], golden: &Golden) -> Result<f64, Failure> {
    let mut worst = 0.0f64;
    for (port, got) in model.outputs().iter().zip(answer) {
        let reference = golden.outputs.iter().find(|(name, _)| *name == port.name).map(|(_, tensor)| tensor);
        let reference = reference.ok_or_else(|| format!("the reference says nothing of output {:?}", port.name))?;
        if reference.shape != got.shape {
            let (name, got, wanted) = (&port.name, &got.shape, &reference.shape);
            return Err(format!("output {name:?} has the shape {got:?}, not {wanted:?}").into());
        }
        if !matches!(got.data, Data::F32(_) | Data::F64(_)) {
            worst = if got.data == reference.data { worst } else { f64::INFINITY };
            continue;
        }
        let (got, reference) = (got.to_f64(), reference.to_f64());
        let scale = reference.iter().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
        let apart = got.iter().zip(&reference).map(|(got, reference)| (got - reference).abs());
        // An answer that is no number is as far away as can be.
        let apart = apart.map(|d| if d.is_nan() { f64::INFINITY } else { d }).fold(0.0, f64::max);
        worst = worst.max(apart / scale);
    }
    Ok(worst)
}
