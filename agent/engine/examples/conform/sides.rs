//! The two sides of a comparison: the library by itself, and our engine as packing uses it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use petrel_engine::{Data, Golden, GoldenError, Limits, Model, Tensor as Values, Tolerance};
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
    /// What packing accepted and should not have.
    pub(crate) fault: Option<String>,
}

impl Verdict {
    pub(crate) fn not(outcome: Outcome, reason: impl ToString) -> Verdict {
        Verdict { outcome, reason: reason.to_string(), accepted: false, fault: None }
    }
}

fn refused(reason: impl ToString) -> Verdict {
    Verdict::not(Outcome::Refused, reason)
}

fn failed(reason: impl ToString) -> Verdict {
    Verdict::not(Outcome::Failed, reason)
}

/// Runs one case on one side; a panic that comes so far is an outcome too.
pub(crate) fn run(side: &str, case: &Case, model: &str) -> Verdict {
    let path = case.folder.join(model);
    let work = || if side == "tract" { alone(case, &path) } else { engine(case, &path) };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(verdict) | Err(verdict)) => verdict,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            Verdict::not(Outcome::Panic, said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default())
        }
    }
}

/// The library as its plain API loads a model.
fn alone(case: &Case, path: &Path) -> Result<Verdict, Verdict> {
    let told = |error: TractError| format!("{error:#}");
    let library = tract_onnx::onnx();
    let load = || -> TractResult<_> {
        let model = library.model_for_path(path)?;
        let name = |outlet: &OutletId| model.node(outlet.node).name.clone();
        let names: Vec<String> = model.input_outlets()?.iter().map(name).collect();
        Ok((model.into_optimized()?.into_runnable()?, names))
    };
    let (plan, names) = load().map_err(|error| refused(told(error)))?;
    let inputs = case.inputs(&names).map_err(refused)?;
    let inputs = inputs.into_iter().map(|(_, tensor)| tensor.into_tvalue()).collect();
    let answers = plan.run(inputs).map_err(|error| failed(told(error)))?;
    let answers = answers.iter().map(|answer| plain(answer)).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let wrong = differs(case, &answers, case.tolerance()).map_err(refused)?;
    Ok(wrong.map_or(Verdict::not(Outcome::Pass, ""), |why| Verdict::not(Outcome::Wrong, why)))
}

/// What is wrong with the answers to a case; none when they are right.
fn differs(case: &Case, answers: &[Plain], tolerance: (f64, f64)) -> Result<Option<String>, String> {
    let expected = case.outputs()?;
    if expected.len() != answers.len() {
        return Ok(Some(format!("{} outputs for {}", answers.len(), expected.len())));
    }
    for ((name, expected), answer) in expected.iter().zip(answers) {
        if let Some(why) = plain(expected)?.differs(answer, tolerance) {
            return Ok(Some(format!("{name}: {why}")));
        }
    }
    Ok(None)
}

/// Our engine: loaded, run, and compared with the case as a reference, as packing does.
fn engine(case: &Case, path: &Path) -> Result<Verdict, Verdict> {
    let model = Model::load(path, &Limits::default()).map_err(refused)?;
    let names: Vec<String> = model.inputs().iter().map(|port| port.name.clone()).collect();
    let ours = |(name, tensor): &(String, Tensor)| Ok((name.clone(), ours(tensor)?));
    let named = |tensors: Vec<(String, Tensor)>| tensors.iter().map(ours).collect::<Result<Vec<_>, String>>();
    let inputs = case.inputs(&names).and_then(named).map_err(refused)?;
    let outputs = case.outputs().and_then(named).map_err(refused)?;
    let tensors: Vec<_> = inputs.iter().map(|(_, tensor)| tensor.clone()).collect();
    let answers = model.run(&tensors).map_err(failed)?;
    let answers: Vec<Plain> = answers.iter().map(Plain::from).collect();
    let golden = Golden { inputs, outputs };
    let accepted = packed(&golden, &model).is_ok();
    let fault = match accepted {
        true => {
            differs(case, &answers, (TOLERANCE.rel, TOLERANCE.abs)).map_err(refused)?.or_else(|| blind(golden, &model))
        }
        false => None,
    };
    let wrong = differs(case, &answers, case.tolerance()).map_err(refused)?;
    let outcome = if wrong.is_some() { Outcome::Wrong } else { Outcome::Pass };
    Ok(Verdict { outcome, reason: wrong.unwrap_or_default(), accepted, fault })
}

/// The vectors by way of their archive.
fn packed(golden: &Golden, model: &Model) -> Result<(), GoldenError> {
    let file = tempfile::NamedTempFile::new()?;
    golden.write(file.path())?;
    Golden::read(file.path(), &Limits::default())?.check(model, TOLERANCE)?;
    Ok(())
}

/// A distortion of a true reference that goes unnoticed.
fn blind(mut golden: Golden, model: &Model) -> Option<String> {
    for index in 0..golden.outputs.len() {
        let (name, right) = golden.outputs[index].clone();
        let longer = |shape: &[usize]| [&[1], shape].concat();
        let others = [
            ("another value", first_changed(&right)),
            ("another shape", Values::new(longer(&right.shape), right.data.clone()).ok()),
            ("another kind", Values::new(right.shape.clone(), other_kind(&right)).ok()),
        ];
        for (what, other) in others {
            golden.outputs[index].1 = other?;
            let passes = golden.check(model, TOLERANCE).is_ok();
            if passes && !right.is_empty() {
                return Some(format!("{name}: {what} in the reference is not seen"));
            }
        }
        golden.outputs.remove(index);
        let passes = golden.check(model, TOLERANCE).is_ok();
        if passes {
            return Some(format!("{name}: that the reference lacks it is not seen"));
        }
        golden.outputs.insert(index, (name, right));
    }
    None
}

/// The tensor with its first element changed by more than any tolerance.
fn first_changed(tensor: &Values) -> Option<Values> {
    let mut data = tensor.data.clone();
    macro_rules! change {
        ($values:ident, $change:expr) => {
            $values.first_mut().into_iter().for_each($change)
        };
    }
    match &mut data {
        Data::F32(v) => change!(v, |x| *x = if x.is_finite() { x.abs() * 2.0 + 1.0 } else { 0.0 }),
        Data::F64(v) => change!(v, |x| *x = if x.is_finite() { x.abs() * 2.0 + 1.0 } else { 0.0 }),
        Data::I8(v) => change!(v, |x| *x ^= 1),
        Data::I16(v) => change!(v, |x| *x ^= 1),
        Data::I32(v) => change!(v, |x| *x ^= 1),
        Data::I64(v) => change!(v, |x| *x ^= 1),
        Data::U8(v) => change!(v, |x| *x ^= 1),
        Data::U16(v) => change!(v, |x| *x ^= 1),
        Data::U32(v) => change!(v, |x| *x ^= 1),
        Data::U64(v) => change!(v, |x| *x ^= 1),
        Data::Bool(v) => change!(v, |x| *x = !*x),
        Data::Text(v) => change!(v, |x| x.push('.')),
    }
    Values::new(tensor.shape.clone(), data).ok()
}

/// The same values as something that no cast would give.
fn other_kind(tensor: &Values) -> Data {
    match &tensor.data {
        Data::Text(words) => Data::F32(vec![f32::NAN; words.len()]),
        Data::Bool(truths) => Data::U8(truths.iter().map(|truth| u8::from(*truth)).collect()),
        _ => Data::Bool(tensor.to_f64().iter().map(|x| *x != 0.0).collect()),
    }
}
