//! A reference as people have it: files of inputs, of what a framework answered to them, and of what became
//! of its answers.
//!
//! Decides how such files become golden vectors. What counts as agreement is decided by `engine`.

use crate::fault::Fault;
use engine::{Answer, Data, Golden, Input, Limits, Pipeline, Port, Tensor};
use std::fs;
use std::path::{Path, PathBuf};
use trust::{Code, Refusal};

/// The most pictures of a folder.
const MAX_PICTURES: usize = 1024;
/// The most bytes of a file of final answers.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// Golden vectors of two files: inputs and the reference's outputs. Raw inputs pass the bundle's `pre.json`
/// first; others are what the model itself takes.
///
/// # Errors
/// When a file cannot be used, or the inputs do not fit the model.
pub(crate) fn golden(pipeline: &Pipeline, x: &Path, y: &Path, raw: bool) -> anyhow::Result<Golden> {
    let model = pipeline.model();
    let inputs = match raw {
        false => arrays(x, model.inputs(), "in")?,
        true => prepared(pipeline, x)?,
    };
    Ok(Golden { inputs, outputs: arrays(y, model.outputs(), "out")? })
}

/// Compares the bundle's final answers to the golden inputs with those of the reference: a class for each
/// row, by name or by number.
///
/// # Errors
/// `E_GOLDEN` for the first row that is answered otherwise, or a fault of what was given.
pub(crate) fn check_answers(pipeline: &Pipeline, golden: &Golden, path: &Path) -> anyhow::Result<()> {
    let expected = lines(path)?;
    let unfit = |why: String| {
        Fault::new(format!("cannot use the final answers {}", path.display()))
            .because(why)
            .remedy("give one class a line, by its name or its number, for each row of the golden inputs")
    };
    let answer = pipeline.model().arrange(&golden.inputs).and_then(|inputs| pipeline.answer(&inputs));
    let Answer { classes, .. } = answer.map_err(|e| unfit(e.to_string()))?;
    let Some(classes) = classes else {
        return Err(unfit("post.json declares no argmax, so there are no classes".to_owned()).into());
    };
    if classes.len() != expected.len() {
        return Err(unfit(format!("there are {} of them for {} rows", expected.len(), classes.len())).into());
    }
    let named = |name: &str| pipeline.labels().is_some_and(|labels| labels.iter().any(|label| label == name));
    let got = |class: &engine::Class, expected: &str| match &class.label {
        Some(label) if named(expected) || expected.parse::<usize>().is_err() => label.clone(),
        _ => class.index.to_string(),
    };
    let wrong: Vec<(usize, String, &String)> = (classes.iter().zip(&expected).enumerate())
        .map(|(row, (class, expected))| (row, got(class, expected), expected))
        .filter(|(_, got, expected)| got != *expected)
        .collect();
    let Some((row, got, expected)) = wrong.first() else { return Ok(()) };
    let detail = format!(
        "row {row}: the bundle answers {got:?} where the reference says {expected:?}; {} of {} rows differ",
        wrong.len(),
        classes.len()
    );
    let fault = Fault::new("the bundle's classes are not those of the reference")
        .because(Refusal::new(Code::Golden, detail))
        .remedy("the model's numbers agree, so look at labels.txt: it names the classes in the order of the output");
    Err(fault.into())
}

fn arrays(path: &Path, ports: &[Port], what: &str) -> anyhow::Result<Vec<(String, Tensor)>> {
    let read = engine::read_reference(path, ports, &Limits::default()).map_err(|e| unusable(path, e))?;
    if let ([(name, _)], 2..) = (&read[..], ports.len())
        && name.is_empty()
    {
        let fault = Fault::new("one array is not enough for this model")
            .because(format!("it has {} {what}puts", ports.len()))
            .remedy(format!("give an .npz archive with one array for each, or one archive of `{what}:NAME` arrays"));
        return Err(fault.into());
    }
    let prefix = format!("{what}:");
    let bare = |name: String| name.strip_prefix(&prefix).map_or(name.clone(), str::to_owned);
    Ok(read.into_iter().map(|(name, tensor)| (bare(name), tensor)).collect())
}

/// Raw inputs after `pre.json`, by the model's names; each picture of a folder is a row.
fn prepared(pipeline: &Pipeline, x: &Path) -> anyhow::Result<Vec<(String, Tensor)>> {
    let limits = Limits::default();
    let named = |tensors: Vec<Tensor>| {
        pipeline.model().inputs().iter().map(|port| port.name.clone()).zip(tensors).collect::<Vec<_>>()
    };
    let prepare = |path: &Path, input: &Input| pipeline.prepare(input).map_err(|e| unusable(path, e));
    let read = |path: &Path| engine::read_input(path, &limits).map_err(|e| unusable(path, e));
    if !x.is_dir() {
        let input = match x.extension().is_some_and(|end| end == "npz") {
            true => Input::Tensors(arrays(x, pipeline.model().inputs(), "in")?),
            false => read(x)?,
        };
        return Ok(named(prepare(x, &input)?));
    }
    let mut rows = Vec::new();
    for path in pictures(x)? {
        rows.push(prepare(&path, &read(&path)?)?);
    }
    let inputs = pipeline.model().inputs().len();
    let column = |at: usize| Tensor::stack(rows.iter().filter_map(|row| row.get(at).cloned()).collect());
    let stacked: Option<Vec<Tensor>> = (0..inputs).map(column).collect();
    Ok(named(stacked.ok_or_else(|| unusable(x, "its pictures do not become rows of one size"))?))
}

/// The files of a folder, by name.
fn pictures(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let found = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut found: Vec<PathBuf> = found.map_err(|e| unusable(dir, e))?;
    if found.is_empty() || found.len() > MAX_PICTURES {
        return Err(unusable(dir, format!("it holds {} files; 1 to {MAX_PICTURES} may be", found.len())).into());
    }
    found.sort();
    Ok(found)
}

/// One answer a line; an array's elements are its lines.
fn lines(path: &Path) -> anyhow::Result<Vec<String>> {
    if path.extension().is_some_and(|end| end == "npy") {
        let array = engine::read_npy(path, &Limits::default()).map_err(|e| unusable(path, e))?;
        return Ok(match &array.data {
            Data::Text(words) => words.clone(),
            _ => array.to_f64().iter().map(ToString::to_string).collect(),
        });
    }
    let bytes = super::read_bounded(path, MAX_ANSWER_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|e| unusable(path, e))?;
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

fn unusable(path: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(format!("cannot use {} as a reference", path.display()))
        .because(why)
        .remedy("give --golden X Y as .npy, .npz or .csv; the raw inputs of --golden-raw may also be pictures")
}
