//! `petrel-agent infer`: a bundle's folder and a file in, answers out. No network, no daemon.
//!
//! Decides how answers look to people and to machines. Without `--root` the folder is taken as it is:
//! whoever points to it trusts it.

use crate::fault::{Fault, told};
use crate::profile;
use crate::store;
use crate::values::Values;
use comfy_table::{Table, presets};
use engine::{Anomaly, Answer, Class, Limits, Pipeline, RunError, Tensor, read_input};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use trust::{Code, Envelope, MAX_ROOT_BYTES, Manifest, PayloadKind, Refusal, Root, Verified};

/// Runs over which times are averaged.
const PROFILE_RUNS: usize = 20;

const MAX_MANIFEST_BYTES: u64 = 256 * 1024;

/// Answer from a bundle's folder, without a network
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  petrel-agent infer digits-1.2.0/ --input x.csv
  petrel-agent infer digits-1.2.0/ --input photo.png --root root.json --top 3
  petrel-agent infer digits-1.2.0/ --input x.csv --profile")]
pub(crate) struct Args {
    /// The bundle's folder
    dir: PathBuf,
    /// A .csv, .txt, .npy, .png or .jpg file
    #[arg(long)]
    input: PathBuf,
    /// Print one JSON object, for machines
    #[arg(long)]
    json: bool,
    /// Show so many of the likeliest classes of each row
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    top: u16,
    /// Show in place of the answers where their time goes, by the operators of the plan
    #[arg(long, conflicts_with = "top")]
    profile: bool,
    /// Believe the folder only as far as this root of trust does
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

impl Args {
    /// Whether a machine reads.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }
}

/// All answers.
#[derive(Debug, Serialize)]
struct Answers {
    stream: Option<String>,
    version: Option<String>,
    release: Option<u64>,
    rows: Vec<Row>,
}

/// The answer to one row of the input.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    outputs: BTreeMap<String, Values>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<Candidate>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    anomaly: Option<Unlike>,
}

/// How unlike the known a row is.
#[derive(Debug, Serialize)]
struct Unlike {
    anomaly: bool,
    anomaly_score: f64,
}

/// A class that a row may be of.
#[derive(Debug, Clone, Serialize)]
struct Candidate {
    class: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    score: f32,
}

/// Runs the command; what it returns is to be printed.
///
/// # Errors
/// A fault or a refusal.
pub(crate) fn run(args: &Args) -> anyhow::Result<String> {
    let manifest = match &args.root {
        Some(root) => Some(believed(root, &args.dir)?),
        None => found_manifest(&args.dir)?,
    };
    let limits = Limits::default();
    let pipeline = Pipeline::open(&args.dir, &limits).map_err(|why| {
        Fault::new(format!("cannot use the bundle {}", args.dir.display()))
            .because(why)
            .remedy("give the folder that `petrel pack` made, with model.onnx in it")
    })?;
    let input = read_input(&args.input, &limits).map_err(|why| {
        Fault::new(format!("cannot use the input {}", args.input.display()))
            .because(why)
            .remedy("give a .csv with the bundle's columns, a .npy array, a .txt of lines, or a picture")
    })?;
    if args.profile {
        let profiled = pipeline.prepare(&input).and_then(|rows| pipeline.model().profile(&rows, PROFILE_RUNS));
        let profile = profiled.map_err(|why| no_answer(args, &why))?;
        return profile::told(&profile, pipeline.model().plan_facts(), args.json);
    }
    let answer = pipeline.infer(&input).map_err(|why| no_answer(args, &why))?;
    let answers = Answers {
        stream: manifest.as_ref().map(|m| m.stream.clone()),
        version: manifest.as_ref().map(|m| m.version.clone()),
        release: manifest.as_ref().map(|m| m.release.get()),
        rows: rows(answer, pipeline.labels(), args.top.into()),
    };
    Ok(if args.json { serde_json::to_string(&answers)? } else { answers.to_string() })
}

/// Rows are counted as a person counts them in the file.
fn no_answer(args: &Args, why: &RunError) -> Fault {
    let fault = Fault::new(format!("there is no answer for {}", args.input.display()));
    match why {
        RunError::NonFinite { output, row } => fault
            .because(format!("row {}: output `{output}` is not a finite number", row + 1))
            .remedy("look at that row's values; when they are right, the model is not"),
        cell @ RunError::Cell { .. } => {
            fault.because(told(cell)).remedy("give a .csv with numbers where the model takes numbers")
        }
        other => fault.because(told(other)).remedy("give what the model takes; `petrel inspect` shows it"),
    }
}

fn believed(root: &Path, dir: &Path) -> anyhow::Result<Manifest> {
    let root = read_root(root)?;
    let refused = |why: store::Fault| {
        Fault::new(format!("the bundle {} is not believed", dir.display()))
            .because(why)
            .remedy("get the bundle again from its publisher, or the root of the fleet that it is for")
    };
    Ok((*store::bundle(&*store::host(), &root, dir).map_err(refused)?).clone())
}

/// The root that a person points to, for the fleet that it names itself.
fn read_root(path: &Path) -> anyhow::Result<Verified<Root>> {
    #[derive(serde::Deserialize)]
    struct Named {
        fleet: String,
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(MAX_ROOT_BYTES as u64 + 1).read_to_end(&mut bytes)).map_err(|why| {
        Fault::new(format!("cannot read the root {}", path.display()))
            .because(why)
            .remedy("give a root.json with --root")
    })?;
    let verified = Envelope::parse(PayloadKind::Root, &bytes, MAX_ROOT_BYTES).and_then(|envelope| {
        let named: Named = serde_json::from_slice(&envelope.payload)
            .map_err(|e| Refusal::new(Code::Parse, format!("the root names no fleet: {e}")))?;
        trust::verify_root(&named.fleet, &bytes)
    });
    Ok(verified.map_err(|why| {
        Fault::new(format!("the root {} is refused", path.display()))
            .because(why)
            .remedy("give the fleet's root.json, from a source that you trust")
    })?)
}

/// What the folder says of itself, where it says anything.
fn found_manifest(dir: &Path) -> anyhow::Result<Option<Manifest>> {
    let path = dir.join("manifest.json");
    match fs::metadata(&path) {
        Ok(found) if found.len() <= MAX_MANIFEST_BYTES => {}
        _ => return Ok(None),
    }
    let wrong = |why: Box<dyn std::error::Error + Send + Sync>| {
        Fault::new(format!("cannot use {}", path.display()))
            .because(why)
            .remedy("give the folder that `petrel pack` made")
    };
    let bytes = fs::read(&path).map_err(|why| wrong(why.into()))?;
    Ok(Some(serde_json::from_slice(&bytes).map_err(|why| wrong(why.into()))?))
}

/// One row of every output, and its class. An output that has not as many rows as most is told with the first.
pub(crate) fn rows(answer: Answer, labels: Option<&[String]>, top: usize) -> Vec<Row> {
    let count = answer.outputs.iter().map(|(_, tensor)| tensor.row_count()).max().unwrap_or(0);
    let classes = answer.classes.as_deref().filter(|classes| classes.len() == count);
    let declared = answer.top.as_deref().filter(|top| top.len() == count);
    let anomalies = answer.anomalies.as_deref().filter(|rows| rows.len() == count);
    let row = |at: usize| {
        let of_row = |(name, tensor): &(String, Tensor)| {
            let of_rows = tensor.row_count() == count;
            let own = (of_rows || at == 0).then(|| match of_rows {
                true => tensor.rows(at..at + 1).unwrap_or_else(|_| tensor.clone()),
                false => tensor.clone(),
            });
            own.map(|own| (name.clone(), own.data.into()))
        };
        let class = classes.and_then(|classes| classes.get(at));
        let ranked = match (class, declared.and_then(|rows| rows.get(at)), answer.outputs.first()) {
            (Some(_), Some(declared), _) => declared.iter().map(Candidate::from).collect(),
            (Some(_), None, Some((_, scores))) if top > 1 => ranked(scores, at, labels, top),
            _ => Vec::new(),
        };
        Row {
            outputs: answer.outputs.iter().filter_map(of_row).collect(),
            class: class.map(|c| c.index),
            label: class.and_then(|c: &Class| c.label.clone()),
            score: class.map(|c| c.score),
            top: ranked,
            anomaly: anomalies.and_then(|rows| rows.get(at)).map(Unlike::from),
        }
    };
    (0..count).map(row).collect()
}

/// The likeliest classes of a row, the first of equals first.
fn ranked(scores: &Tensor, row: usize, labels: Option<&[String]>, top: usize) -> Vec<Candidate> {
    let Ok(scores) = scores.rows(row..row + 1) else { return Vec::new() };
    let candidate = |(class, score): (usize, &f32)| {
        let label = labels.and_then(|labels| labels.get(class)).cloned();
        Candidate { class, label, score: *score }
    };
    let mut all: Vec<Candidate> = scores.as_f32().iter().enumerate().map(candidate).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all.truncate(top);
    all
}

impl From<&Class> for Candidate {
    fn from(class: &Class) -> Self {
        Self { class: class.index, label: class.label.clone(), score: class.score }
    }
}

impl From<&Anomaly> for Unlike {
    fn from(row: &Anomaly) -> Self {
        Self { anomaly: row.anomaly, anomaly_score: row.score }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.label {
            Some(label) => write!(f, "{label} {:.4}", self.score),
            None => write!(f, "{} {:.4}", self.class, self.score),
        }
    }
}

impl Row {
    fn told(&self) -> String {
        if let Some(Unlike { anomaly, anomaly_score }) = &self.anomaly {
            return format!("{} {anomaly_score:.4}", if *anomaly { "anomaly" } else { "normal" });
        }
        if !self.top.is_empty() {
            return self.top.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        }
        if let (Some(class), Some(score)) = (self.class, self.score) {
            return Candidate { class, label: self.label.clone(), score }.to_string();
        }
        self.outputs.iter().map(|(name, values)| format!("{name} {values}")).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(stream), Some(version), Some(release)) = (&self.stream, &self.version, self.release) {
            writeln!(f, "{stream} {version} (release {release})")?;
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["ROW", "ANSWER"]);
        table.add_rows(self.rows.iter().enumerate().map(|(at, row)| [(at + 1).to_string(), row.told()]));
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, models, root_bytes};

    fn args(dir: &Path, input: &str) -> Args {
        let input = models().join("digits").join(input);
        Args { dir: dir.to_owned(), input, json: true, top: 1, profile: false, root: None }
    }

    fn answers(args: &Args) -> serde_json::Value {
        serde_json::from_str(&run(args).unwrap()).unwrap()
    }

    #[test]
    fn every_row_is_answered_as_the_reference_did() {
        let fixture = Fixture::digits(3);
        let answers = answers(&args(fixture.dir(), "heldout_x.npy"));
        let expected = engine::read_npy(&models().join("digits/heldout_class.npy"), &Limits::default()).unwrap();
        let got: Vec<f64> = answers["rows"].as_array().unwrap().iter().map(|r| r["class"].as_f64().unwrap()).collect();
        assert_eq!(got, expected.to_f64());
        assert_eq!((&answers["stream"], &answers["release"]), (&"digits".into(), &3.into()));
        assert_eq!(answers["rows"][0]["outputs"]["logits"].as_array().unwrap().len(), 10);
    }

    #[test]
    fn the_likeliest_classes_are_told_in_order() {
        let fixture = Fixture::digits(1);
        let asked = Args { top: 3, ..args(fixture.dir(), "sample.png") };
        let row = &answers(&asked)["rows"][0];
        let scores: Vec<f64> = row["top"].as_array().unwrap().iter().map(|c| c["score"].as_f64().unwrap()).collect();
        assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b));
        assert_eq!(row["top"][0]["class"], row["class"]);
        let text = run(&Args { json: false, ..asked }).unwrap();
        assert!(text.contains("digits 0.0.1 (release 1)") && text.contains("ANSWER"), "{text}");
    }

    #[test]
    fn an_answer_that_is_no_number_is_an_error_with_its_row() {
        let fixture = Fixture::digits_bad(1);
        let error = run(&args(fixture.dir(), "heldout_x.npy")).unwrap_err();
        let fault = error.downcast_ref::<Fault>().unwrap();
        assert!(told(fault).contains("row ") && fault.advice().is_some(), "{}", told(fault));
    }

    #[test]
    fn with_a_root_the_folder_must_be_what_was_signed() {
        let fixture = Fixture::digits(1);
        let elsewhere = tempfile::tempdir().unwrap();
        let root = elsewhere.path().join("root.json");
        fs::write(&root, root_bytes()).unwrap();
        let asked = Args { root: Some(root), ..args(fixture.dir(), "sample.png") };
        run(&asked).unwrap();
        fs::write(fixture.dir().join("labels.txt"), "a\nb\n").unwrap();
        let error = run(&asked).unwrap_err();
        assert!(told(error.as_ref()).contains("E_SIZE"), "{}", told(error.as_ref()));
    }

    #[test]
    fn the_time_of_an_answer_is_told_by_operator() {
        let asked = Args { profile: true, ..args(&models().join("digits"), "heldout_x.npy") };
        let told = answers(&asked);
        let operators = told["operators"].as_array().unwrap();
        let times: Vec<f64> = operators.iter().map(|share| share["us"].as_f64().unwrap()).collect();
        let sum: f64 = times.iter().sum();
        assert!(times.len() > 3 && times.is_sorted_by(|a, b| a >= b), "{told}");
        assert!((told["total_us"].as_f64().unwrap() - sum).abs() < 1e-6 * sum, "{told}");
        assert_eq!((&told["rows"], &told["plan"]["optimised"]), (&500.into(), &true.into()));
        assert!(told["peak_rss_bytes"].as_u64().is_none_or(|peak| peak > 1 << 20), "{told}");
        let text = run(&Args { json: false, ..asked }).unwrap();
        assert!(text.contains("OPERATOR") && text.contains('%') && text.contains("optimised plan"), "{text}");
    }

    #[test]
    fn weights_beside_the_model_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let planted = models().join("planted");
        for (from, to) in [("external.onnx", "model.onnx"), ("external.data", "external.data")] {
            fs::copy(planted.join(from), dir.path().join(to)).unwrap();
        }
        let asked = Args { input: planted.join("external_x.npy"), ..args(dir.path(), "") };
        let expected = engine::read_npy(&planted.join("external_y.npy"), &Limits::default()).unwrap();
        let told = answers(&asked);
        let got = told["rows"].as_array().unwrap().iter().flat_map(|row| row["outputs"]["y"].as_array().unwrap());
        for (got, expected) in got.zip(expected.to_f64()) {
            assert!((got.as_f64().unwrap() - expected).abs() < 1e-4, "{got} is not {expected}");
        }
        fs::remove_file(dir.path().join("external.data")).unwrap();
        let error = run(&asked).unwrap_err();
        assert!(super::told(error.as_ref()).contains("external.data"), "{error:?}");
    }

    #[test]
    fn a_folder_of_a_model_alone_will_do() {
        let answers = answers(&args(&models().join("digits"), "sample.png"));
        assert!(answers["stream"].is_null());
        assert_eq!(answers["rows"].as_array().unwrap().len(), 1);
    }
}
