//! Evidence that a model runs here as it should: golden vectors, and the engine that must repeat them.
//!
//! Decides where golden vectors come from. What counts as agreement is decided by `engine`.

use super::{MODEL, reference};
use crate::fault::{Fault, told};
use engine::{
    Agreement, Golden, GoldenError, Input, Limits, LoadError, Model, Pipeline, Quantised, RunError, Tolerance,
};
use std::path::{Path, PathBuf};
use trust::{Code, Refusal};

/// Rows of the training data that serve where there is no reference.
const OWN_ROWS: usize = 16;

/// Where golden vectors come from.
#[derive(Debug)]
pub(crate) enum GoldenSource {
    /// Two files: inputs, and the reference's outputs.
    Files {
        /// Inputs.
        x: PathBuf,
        /// Outputs, before `post.json`.
        y: PathBuf,
        /// Whether the inputs pass `pre.json` first, or are what the model itself takes.
        raw: bool,
        /// The reference's classes, after `post.json` and `labels.txt`.
        answers: Option<PathBuf>,
    },
    /// An archive of arrays called `in:<input>` and `out:<output>`.
    Archive {
        /// The archive.
        path: PathBuf,
        /// The reference's classes, after `post.json` and `labels.txt`.
        answers: Option<PathBuf>,
    },
    /// The first training rows through the engine itself.
    Engine,
}

impl GoldenSource {
    /// Whether the final answers are compared, and with them the classes' names.
    pub(crate) fn checks_answers(&self) -> bool {
        matches!(self, Self::Files { answers: Some(_), .. } | Self::Archive { answers: Some(_), .. })
    }
}

/// A model that was loaded and run.
#[derive(Debug)]
pub(crate) struct Tested {
    /// The model with its processing.
    pub(crate) pipeline: Pipeline,
    /// What it was compared with.
    pub(crate) golden: Golden,
    /// How well it agreed.
    pub(crate) agreement: Agreement,
    /// Whether the expected values come from outside of the engine.
    pub(crate) from_reference: bool,
    /// How the model computes with small integers.
    pub(crate) quantised: Quantised,
}

/// Loads the model in `dir` with its processing and compares it with its golden vectors. People call the
/// model `called`.
///
/// # Errors
/// `E_MODEL` for what the engine cannot run, `E_GOLDEN` for what it answers otherwise, or a fault of
/// what was given.
pub(crate) fn test(
    dir: &Path,
    called: &Path,
    source: &GoldenSource,
    data: Option<(&Path, &Input)>,
    tolerance: Tolerance,
) -> anyhow::Result<Tested> {
    let pipeline = open(dir, called)?;
    if let Some((path, rows)) = data
        && let Err(error @ (RunError::Cell { .. } | RunError::MissingColumn { .. })) = pipeline.prepare(rows)
    {
        let fault = Fault::new(format!("the training data {} cannot be used", path.display())).because(error);
        return Err(fault
            .remedy("give --data the columns that the model takes, with numbers only where it takes numbers")
            .into());
    }
    let (golden, from_reference, answers) = match (source, data) {
        (GoldenSource::Files { x, y, raw, answers }, _) => {
            (reference::golden(&pipeline, x, y, *raw)?, true, answers.as_deref())
        }
        (GoldenSource::Archive { path, answers }, _) => {
            (Golden::read(path, &Limits::default()).map_err(|e| no_golden(path, e))?, true, answers.as_deref())
        }
        (GoldenSource::Engine, _) if pipeline.model().quantised() == Quantised::Operators => {
            return Err(unproven(called, pipeline.model()).into());
        }
        (GoldenSource::Engine, Some((_, rows))) => (from_engine(&pipeline, rows)?, false, None),
        (GoldenSource::Engine, None) => {
            let fault = Fault::new("there is nothing to test the model with");
            return Err(fault.remedy("give --golden X.npy Y.npy from a reference, or --data train.csv").into());
        }
    };
    let agreement = check(&golden, pipeline.model(), tolerance)?;
    if let Some(answers) = answers {
        reference::check_answers(&pipeline, &golden, answers)?;
    }
    let quantised = pipeline.model().quantised();
    Ok(Tested { pipeline, golden, agreement, from_reference, quantised })
}

/// Opens the model in `dir`, which people call `called`, with its processing.
///
/// # Errors
/// `E_MODEL`, or what the system said.
pub(crate) fn open(dir: &Path, called: &Path) -> anyhow::Result<Pipeline> {
    Pipeline::open(dir, &Limits::default()).map_err(|error| match error {
        LoadError::Io { .. } => error.into(),
        error => {
            let refusal = Refusal::new(Code::Model, told(&error));
            let what = format!("the engine cannot run {}", called.display());
            Fault::new(what).because(refusal).remedy(advice(dir, &error)).into()
        }
    })
}

/// What to do about a model that does not load.
fn advice(dir: &Path, error: &LoadError) -> String {
    match error {
        LoadError::UnsupportedOperator { operators } => {
            let mut remedies: Vec<String> =
                operators.iter().take(3).map(|name| format!("{name}: {}", engine::remedy(name))).collect();
            if operators.len() > remedies.len() {
                remedies.push("`petrel pack MODEL --explain` tells the others".to_owned());
            }
            remedies.join("; ")
        }
        LoadError::ExternalData { .. } => {
            "save the model again, its weights inside or in one file beside it".to_owned()
        }
        LoadError::Declaration { .. } => "correct the file and pack again".to_owned(),
        _ => match engine::explain(&dir.join(MODEL), &Limits::default()) {
            Ok(found) if found.quantised == Quantised::Operators => engine::remedy("QLinearConv").to_owned(),
            _ => "export the model again; `petrel pack MODEL --explain` tells what is in it".to_owned(),
        },
    }
}

/// Compares the model with golden vectors.
///
/// # Errors
/// `E_GOLDEN`, or what the system said.
pub(crate) fn check(golden: &Golden, model: &Model, tolerance: Tolerance) -> anyhow::Result<Agreement> {
    golden.check(model, tolerance).map_err(|error| match error {
        GoldenError::Read(_) | GoldenError::Write(_) => error.into(),
        error => {
            let refusal = Refusal::new(Code::Golden, told(&error));
            let remedy = golden.suspect(model, tolerance).unwrap_or_else(|| {
                "compare the export with the reference row by row; loosen the tolerance only if you know why".to_owned()
            });
            Fault::new("the model does not answer as its golden vectors say").because(refusal).remedy(remedy).into()
        }
    })
}

/// A model of quantised operators: some are right here, and only a reference tells which.
fn unproven(called: &Path, model: &Model) -> Fault {
    let quantised = model.operators().iter().filter(|name| engine::quantises(name)).cloned();
    let detail = format!("it computes by {}", quantised.collect::<Vec<_>>().join(", "));
    Fault::new(format!("{} is packed with a reference only", called.display()))
        .because(Refusal::new(Code::Model, detail))
        .remedy(format!("give --golden X Y from ONNX Runtime; or {}", engine::remedy("QLinearConv")))
}

fn no_golden(path: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(format!("cannot use the golden vectors {}", path.display()))
        .because(why)
        .remedy("give --golden X Y, or one .npz archive with arrays called `in:<input>` and `out:<output>`")
}

fn from_engine(pipeline: &Pipeline, rows: &Input) -> anyhow::Result<Golden> {
    let unfit = |error| {
        Fault::new("the model does not run on the training data")
            .because(error)
            .remedy("give --data with what the model takes, without the target")
    };
    let model = pipeline.model();
    let inputs = pipeline.prepare(&rows.rows(0..rows.row_count().min(OWN_ROWS))).map_err(unfit)?;
    let outputs = model.run_rows(&inputs).map_err(unfit)?;
    let named = |ports: &[engine::Port], tensors| ports.iter().map(|port| port.name.clone()).zip(tensors).collect();
    let golden = Golden { inputs: named(model.inputs(), inputs), outputs: named(model.outputs(), outputs) };
    if let Some((output, tensor)) = golden.outputs.iter().find(|(_, tensor)| tensor.first_non_finite().is_some()) {
        let row = tensor.first_non_finite().map_or(0, |at| at / (tensor.len() / tensor.row_count().max(1)).max(1));
        let detail = format!("output {output:?} is not a finite number in row {row} of the training data");
        let fault = Fault::new("the model does not answer with a number").because(Refusal::new(Code::Golden, detail));
        return Err(fault.remedy("look at that row's values; when they are right, the model is not").into());
    }
    Ok(golden)
}
