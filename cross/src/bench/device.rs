//! What it costs to run models on a device: the real agent, and a usual Python server beside it.
//!
//! Decides what each figure should be. How it is made is decided by the program that measures, `tests/src/measure`.

use super::said::{numbers, test};
use super::{Asked, Row, boards};
use crate::build::{output, python as python_of};
use anyhow::Context;
use serde_json::Value;
use std::process::Command;

/// What the page says of it.
pub(super) const ABOUT: &str = "The agent as boards get it (cargo's profile `board`), built for the machine that measures, with Debian's Mosquitto on loopback; the digits model (50 KB), one row a request, one connection \
that stays open. Its file is not in the cache when it starts, as after a boot. Idle: as the bench `arm` has it. Start: from the start of the program to the first answer, the bundle on its disk, every byte \
checked again; the best of five. The API: the middle of 2,000 requests, the best of five rounds in turns with `/v2/health/live`, which is a handler that does nothing; \
the engine's own time is that of `petrel-agent infer --profile`. The other servers are of PyPI: FastAPI and uvicorn over ONNX Runtime, one process, and MLServer as it comes, with the few lines for ONNX Runtime that it asks for; two clients, the \
same JSON, in turns. Memory is that of all processes of each, where what they share counts twice. Hostile models: seven files and three processes that end, sleep or leak. The swap: four clients that ask without a pause while a release comes, is \
verified, probed, tried and confirmed.";

const MB: f64 = 1e6;
const FIGURES: [&str; 4] = ["start", "api", "server", "swap"];

pub(super) fn run(asked: Asked) -> anyhow::Result<Vec<Row>> {
    let programs = boards::programs(asked.folder)?;
    let python = python_of("oracles/python", "tests/oracles/requirements.txt")?;
    let mlserver = python_of("oracles/mlserver", "tests/oracles/mlserver/requirements.txt")?;
    let mut measure = Command::new(asked.folder.join("measure"));
    measure.arg(&programs).arg("device").args(FIGURES).env("MEASURE_PYTHON", python).env("MEASURE_MLSERVER", mlserver);
    let said = output(&mut measure)?;
    let seen: Value = serde_json::from_str(&said).context("the program that measures did not say what it saw")?;
    let number = |name: &str| seen.pointer(name).and_then(Value::as_f64).with_context(|| format!("no {name} was seen"));
    let (empty, engine) = (number("/api/empty/p50_us")?, number("/api/engine_us")?);
    let added = |kind: &str| anyhow::Ok(number(&format!("/api/{kind}/p50_us"))? - engine);
    let beside = format!("an empty handler {empty:.0} us, the engine {engine:.0} us");
    let (before, longest) = (number("/swap/before/p99_us")?, number("/swap/during/longest_us")?);
    let calm = number("/swap/before/longest_us")? / before;
    let swap = format!(
        "p99 before {before:.0} us, and the longest wait {calm:.1} of that; {} requests, none failed",
        number("/swap/during/requests")?
    );
    let hostile = test(&["--workspace", "--bin", "petrel-agent", "worker::tests::hostile"], &[])?;
    let hostile = numbers(&hostile, "hostile models:")?;
    let [ended, grown] = hostile[..] else { anyhow::bail!("the hostile models told {hostile:?}") };
    let mut rows = vec![
        boards::idle(asked, &programs)?,
        Row::new("cold start to the first answer", number("/start/seconds")?, "s").at_most(0.5),
        Row::new("the API adds to the engine, bytes, over an empty handler", added("bytes")? / empty, "x")
            .at_most(3.0)
            .beside(&beside),
        Row::new("the API adds to the engine, bytes", added("bytes")?, "us").at_most(150.0).beside(&beside),
        Row::new("the API adds to the engine, JSON", added("json")?, "us").beside(&beside),
        Row::new("longest wait during a swap over the p99 before", longest / before, "x").at_most(2.0).beside(&swap),
        Row::new("p99 during the swap over the p99 before", number("/swap/during/p99_us")? / before, "x").beside(&swap),
        Row::new("what hostile models cost the agent's own memory", grown / 1_024.0, "MiB")
            .at_most(2.0)
            .beside(&format!("{ended} models, each ended; the one before answered")),
    ];
    for (name, title) in [("mlserver", "MLServer"), ("fastapi", "FastAPI and ONNX Runtime")] {
        let of = |what: &str| number(&format!("/server/{name}/{what}"));
        let (ours, theirs) = (of("agent/per_second")?, of("server/per_second")?);
        let (own, other) = (of("agent/rss")?, of("server/rss")?);
        rows.push(
            Row::new(&format!("answers a second over {title}"), ours / theirs, "x")
                .at_least(10.0)
                .beside(&format!("{ours:.0} over {theirs:.0} answers a second")),
        );
        rows.push(Row::new(&format!("memory (RSS) over {title}"), own / other, "x").at_most(0.1).beside(&format!(
            "{:.1} over {:.1} MB",
            own / MB,
            other / MB
        )));
    }
    Ok(rows)
}
