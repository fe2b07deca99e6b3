//! The two sides of a comparison: the library by itself, and our engine as packing uses it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use petrel_engine::{Golden, GoldenError, Limits, Model, Tolerance};
use serde::{Deserialize, Serialize};
use tract_onnx::prelude::*;

use crate::case::{Case, Plain, ours, plain};

/// What `petrel pack` allows unless it is told otherwise.
const TOLERANCE: Tolerance = Tolerance { abs: 1e-4, rel: 1e-4 };

/// How a case went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Pass,
    Wrong,
    Refused,
    Failed,
    Panic,
    Abort,
    Timeout,
}

/// How a case went, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) reason: String,
    /// Whether packing accepts the model with the case as its reference.
    pub(crate) accepted: bool,
}

impl Verdict {
    pub(crate) fn not(outcome: Outcome, reason: impl ToString) -> Verdict {
        Verdict { outcome, reason: reason.to_string(), accepted: false }
    }
}

fn refused(reason: impl ToString) -> Verdict {
    Verdict::not(Outcome::Refused, reason)
}

fn failed(reason: impl ToString) -> Verdict {
    Verdict::not(Outcome::Failed, reason)
}

fn wrong(reason: impl ToString) -> Verdict {
    Verdict::not(Outcome::Wrong, reason)
}

/// Runs one case on one side; a panic that comes so far is an outcome too.
pub(crate) fn run(side: &str, case: &Case, model: &str) -> Verdict {
    let path = case.folder.join(model);
    let work = || if side == "tract" { alone(case, &path).map(|()| true) } else { engine(case, &path) };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(accepted)) => Verdict { outcome: Outcome::Pass, reason: String::new(), accepted },
        Ok(Err(verdict)) => verdict,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            Verdict::not(Outcome::Panic, said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default())
        }
    }
}

/// The library as its plain API loads a model.
fn alone(case: &Case, path: &Path) -> Result<(), Verdict> {
    let told = |error: TractError| format!("{error:#}");
    let library = tract_onnx::onnx();
    let load = || -> TractResult<_> {
        let model = library.model_for_path(path)?;
        let names = model.input_outlets()?.iter().map(|outlet| model.node(outlet.node).name.clone()).collect::<Vec<_>>();
        Ok((model.into_optimized()?.into_runnable()?, names))
    };
    let (plan, names) = load().map_err(|error| refused(told(error)))?;
    let inputs = case.inputs(&names).map_err(refused)?;
    let inputs = inputs.into_iter().map(|(_, tensor)| tensor.into_tvalue()).collect();
    let answers = plan.run(inputs).map_err(|error| failed(told(error)))?;
    let answers = answers.iter().map(|answer| plain(answer)).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    compare(case, &answers)
}

fn compare(case: &Case, answers: &[Plain]) -> Result<(), Verdict> {
    let expected = case.outputs().map_err(refused)?;
    if expected.len() != answers.len() {
        return Err(wrong(format!("{} outputs for {}", answers.len(), expected.len())));
    }
    for ((name, expected), answer) in expected.iter().zip(answers) {
        if let Some(why) = case.differs(&plain(expected).map_err(refused)?, answer) {
            return Err(wrong(format!("{name}: {why}")));
        }
    }
    Ok(())
}

/// Our engine: loaded, run, and compared with the case as a reference, as packing does. Gives whether packing accepts it.
/// An answer that packing accepts and ONNX's own runner does not is wrong, and marked as accepted.
fn engine(case: &Case, path: &Path) -> Result<bool, Verdict> {
    let model = Model::load(path, &Limits::default()).map_err(refused)?;
    let names: Vec<String> = model.inputs().iter().map(|port| port.name.clone()).collect();
    let ours = |(name, tensor): &(String, Tensor)| Ok((name.clone(), ours(tensor)?));
    let named = |tensors: Vec<(String, Tensor)>| tensors.iter().map(ours).collect::<Result<Vec<_>, String>>();
    let inputs = case.inputs(&names).and_then(named).map_err(refused)?;
    let outputs = case.outputs().and_then(named).map_err(refused)?;
    let tensors: Vec<_> = inputs.iter().map(|(_, tensor)| tensor.clone()).collect();
    let answers = model.run(&tensors).map_err(failed)?;
    let answers: Vec<Plain> = answers.iter().map(Plain::from).collect();
    let accepted = packed(&Golden { inputs, outputs }, &model).is_ok();
    compare(case, &answers).map_err(|verdict| Verdict { accepted, ..verdict })?;
    Ok(accepted)
}

/// The vectors by way of their archive.
fn packed(golden: &Golden, model: &Model) -> Result<(), GoldenError> {
    let file = tempfile::NamedTempFile::new()?;
    golden.write(file.path())?;
    Golden::read(file.path(), &Limits::default())?.check(model, TOLERANCE)?;
    Ok(())
}
