//! A model's process, from the inside: it shuts itself in, loads one bundle, and answers until nobody asks any more.
//!
//! Decides nothing. It knows no stream, no ledger and no network; whatever it does, the worst is that it ends, and the
//! agent sees that.

use super::tap::Tap;
use super::wire::{self, Given, MAX_REQUEST_BYTES, NoAnswer, Order, Purpose, Reply, Word};
use super::{let_answers_pass, sandbox, watcher};
use crate::fault::{Fault, told};
use engine::{Golden, GoldenError, Input, Limits, Pipeline, RunError, Tolerance};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

/// The whole life of the process. Its orders come over the socket that is its standard input.
///
/// # Errors
/// When that is no such socket, or the agent is gone.
pub(crate) fn run() -> anyhow::Result<()> {
    let fault = |why: io::Error| {
        Fault::new("a model's process cannot go on").because(why).remedy("only `petrel-agent run` starts one")
    };
    live().map_err(|why| fault(why).into())
}

fn live() -> io::Result<()> {
    let mut control = UnixStream::from(rustix::stdio::stdin().try_clone_to_owned()?);
    let lanes = wire::take_lanes(&control)?;
    let order: Order = wire::hear(&mut control, MAX_REQUEST_BYTES)?;
    let entered = sandbox::enter(&order.dir, order.memory);
    let pipeline = Arc::new(OnceLock::new());
    for (n, lane) in lanes.into_iter().enumerate() {
        let pipeline = pipeline.clone();
        thread::Builder::new().name(format!("model-{n}")).spawn(move || answer(lane, &pipeline))?;
    }
    // Those that answer were made before this and stay as they are.
    let_answers_pass();
    let sandbox = sandbox::made(entered, sandbox::lock());
    let word = guarded(|| load(&order), Word::Unfit).and_then(|loaded| match &order.purpose {
        Purpose::Probe { golden, tolerance } => {
            guarded(|| Ok(probe(&order, &loaded, golden.as_deref(), *tolerance)), Word::Unfit)
        }
        Purpose::Serve { baseline } => {
            let model = loaded.model();
            let (inputs, outputs) = (model.inputs().to_vec(), model.outputs().to_vec());
            // The agent has read the same bytes, and says so where they are no baseline.
            let baseline = baseline.as_ref().and_then(|file| watcher::read_baseline(&order.dir.join(file)).ok());
            let _ = pipeline.set((loaded, baseline.map(Tap::new)));
            Ok(Word::Ready { inputs, outputs, sandbox })
        }
    });
    wire::say(&mut control, &word.unwrap_or_else(|unfit| unfit))?;
    // The agent says no more; when it closes its end, or is gone, so is the work.
    control.read_exact(&mut [0]).or(Ok(()))
}

fn load(order: &Order) -> Result<Pipeline, Word> {
    let pipeline = Pipeline::open(&order.dir, &Limits::default()).map_err(|error| Word::Unfit(told(&error)))?;
    Ok(pipeline.with_rows_at_once(order.rows_at_once))
}

fn probe(order: &Order, pipeline: &Pipeline, golden: Option<&str>, (abs, rel): (f64, f64)) -> Word {
    let Some(golden) = golden else { return Word::Agreed { rows: 0, worst: 0.0, row_us: 0 } };
    let began = Instant::now();
    let agreed = Golden::read(&order.dir.join(golden), &Limits::default())
        .and_then(|golden| golden.check(pipeline.model(), Tolerance { abs, rel }));
    match agreed {
        Ok(agreement) => {
            let row = began.elapsed().as_micros() / agreement.rows.max(1) as u128;
            let row_us = u64::try_from(row).unwrap_or(u64::MAX);
            Word::Agreed { rows: agreement.rows, worst: agreement.worst_abs, row_us }
        }
        Err(error @ GoldenError::Run(_)) => Word::Unfit(told(&error)),
        Err(error) => Word::Disagreed(told(&error)),
    }
}

/// Answers what comes over one socket, until it closes.
fn answer(mut lane: UnixStream, loaded: &OnceLock<(Pipeline, Option<Tap>)>) {
    while let Ok(input) = wire::hear::<Input>(&mut lane, MAX_REQUEST_BYTES) {
        let reply = match loaded.get() {
            Some((pipeline, tap)) => infer(pipeline, tap.as_ref(), &input),
            None => Err(NoAnswer::Model("it is not loaded".into())),
        };
        if wire::say(&mut lane, &reply).is_err() {
            return;
        }
    }
}

fn infer(pipeline: &Pipeline, tap: Option<&Tap>, input: &Input) -> Reply {
    let answer = || match tap {
        None => pipeline.infer(input).map(|answer| Given { answer, measured: Vec::new() }),
        Some(tap) => pipeline.observe(input).map(|(answer, seen)| Given { answer, measured: tap.rows(&seen) }),
    };
    guarded(|| answer().map_err(|error| no_answer(&error)), NoAnswer::Model)
}

fn no_answer(error: &RunError) -> NoAnswer {
    match error {
        RunError::NonFinite { .. } | RunError::Failed { .. } => NoAnswer::Model(error.to_string()),
        RunError::InputCount { .. }
        | RunError::MissingInput { .. }
        | RunError::MissingColumn { .. }
        | RunError::Cell { .. }
        | RunError::CellType { .. }
        | RunError::Unfit { .. }
        | RunError::Shape { .. }
        | RunError::Dtype { .. }
        | RunError::Tensor { .. }
        | RunError::TooLarge { .. }
        | RunError::Image { .. } => NoAnswer::Request(error.to_string()),
    }
}

/// A panic of the engine is an outcome like any other.
fn guarded<T, E>(work: impl FnOnce() -> Result<T, E>, panicked: impl FnOnce(String) -> E) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked("the engine panicked on it".into())))
}
