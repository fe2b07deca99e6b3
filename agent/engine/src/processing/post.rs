//! Answers: from a model's outputs to classes, scores and anomalies.
//!
//! Decides what each step after the model does, and on which output. Knows no input
//! but as what an anomaly is measured against.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{DECLARATION, declaration, fields, in_order, versioned, wrong};
use crate::error::{LoadError, RunError};
use crate::port::Port;
use crate::tensor::{Data, Dtype, Tensor};

const POST: &str = "post.json";
const LABELS: &str = "labels.txt";
/// Classes of which the likeliest may be asked for.
const TOP: usize = 1000;
/// The least and the greatest temperature.
const TEMPERATURE: [f64; 2] = [1e-3, 1e3];

const ORDER: &str = "output; temperature or platt; softmax; argmax or threshold; topk; labels; anomaly";

/// What the model says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Every output by name; the one that the steps act on after calibration and softmax.
    pub outputs: Vec<(String, Tensor)>,
    /// The class of each row, where argmax, threshold or topk is declared.
    pub classes: Option<Vec<Class>>,
    /// The likeliest classes of each row, the likeliest first, where topk is declared.
    pub top: Option<Vec<Vec<Class>>>,
    /// How unlike the known each row is, where anomaly is declared.
    pub anomalies: Option<Vec<Anomaly>>,
}

/// A class that a row is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Counted from 0; the first of equals.
    pub index: usize,
    /// Its name, where labels are declared.
    pub label: Option<String>,
    /// The output's value for it, a probability after softmax; under a threshold the
    /// value that was compared.
    pub score: f32,
}

/// How a row compares with what the model knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// The error of the row's reconstruction.
    pub score: f64,
    /// Whether the score reaches the declared threshold.
    pub anomaly: bool,
}

/// What is done after the model.
#[derive(Debug, Default)]
pub(crate) struct Post {
    /// Which output the steps act on.
    output: usize,
    calibration: Option<Calibration>,
    softmax: bool,
    decision: Option<Decision>,
    top: Option<usize>,
    labelled: bool,
    anomaly: Option<Reconstruction>,
    labels: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy)]
enum Calibration {
    Temperature(f64),
    Platt { a: f64, b: f64 },
}

#[derive(Debug, Clone, Copy)]
enum Decision {
    Argmax,
    Threshold(f64),
}

#[derive(Debug, Clone, Copy)]
struct Reconstruction {
    error: ErrorOf,
    threshold: f64,
}

/// What is averaged over a row.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ErrorOf {
    Squared,
    Absolute,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    Output { name: String },
    Temperature { value: f64 },
    Platt { a: f64, b: f64 },
    Softmax {},
    Argmax {},
    Threshold { value: f64 },
    Topk { k: usize },
    Labels {},
    Anomaly { error: ErrorOf, threshold: f64 },
}

impl Step {
    fn rank(&self) -> (u8, &'static str) {
        match self {
            Step::Output { .. } => (0, "output"),
            Step::Temperature { .. } | Step::Platt { .. } => (1, "calibration"),
            Step::Softmax {} => (2, "softmax"),
            Step::Argmax {} | Step::Threshold { .. } => (3, "decision"),
            Step::Topk { .. } => (4, "topk"),
            Step::Labels {} => (5, "labels"),
            Step::Anomaly { .. } => (6, "anomaly"),
        }
    }
}

impl Post {
    /// Reads what the folder declares, and refuses what does not suit the model.
    pub(crate) fn open(dir: &Path, inputs: &[Port], outputs: &[Port]) -> Result<Post, LoadError> {
        let mut post = match declaration(dir, POST, DECLARATION)? {
            Some(bytes) => Post::read(fields(POST, versioned(POST, &bytes)?)?, outputs)?,
            None => Post::default(),
        };
        post.labels = declaration(dir, LABELS, DECLARATION)?.map(|bytes| parse_labels(&bytes)).transpose()?;
        if let Some(output) = outputs.get(post.output) {
            post.check(inputs, output)?;
        }
        Ok(post)
    }

    fn read(Fields { steps }: Fields, outputs: &[Port]) -> Result<Post, LoadError> {
        let ranks: Vec<_> = steps.iter().map(Step::rank).collect();
        in_order(POST, &ranks, ORDER)?;
        let mut post = Post { output: unnamed(outputs), ..Post::default() };
        for step in steps {
            match step {
                Step::Output { name } => {
                    let found = outputs.iter().position(|output| output.name == name);
                    post.output = found.ok_or_else(|| wrong(POST, format!("the model has no output {name:?}")))?;
                }
                Step::Temperature { value } if !(TEMPERATURE[0]..=TEMPERATURE[1]).contains(&value) => {
                    let [least, most] = TEMPERATURE;
                    return Err(wrong(POST, format!("temperature: {value} is not from {least} to {most}")));
                }
                Step::Temperature { value } => post.calibration = Some(Calibration::Temperature(value)),
                Step::Platt { a, b } => post.calibration = Some(Calibration::Platt { a, b }),
                Step::Softmax {} => post.softmax = true,
                Step::Argmax {} => post.decision = Some(Decision::Argmax),
                Step::Threshold { value } => post.decision = Some(Decision::Threshold(value)),
                Step::Topk { k } if !(1..=TOP).contains(&k) => {
                    return Err(wrong(POST, format!("topk: k is {k}; it may be 1 to {TOP}")));
                }
                Step::Topk { k } => {
                    post.top = Some(k);
                    post.decision = post.decision.or(Some(Decision::Argmax));
                }
                Step::Labels {} => post.labelled = true,
                Step::Anomaly { error, threshold } => post.anomaly = Some(Reconstruction { error, threshold }),
            }
        }
        match post {
            Post { labelled: true, decision: None, .. } => {
                Err(wrong(POST, "labels needs argmax, threshold or topk before it"))
            }
            Post { top: Some(_), decision: Some(Decision::Threshold(_)), .. } => {
                Err(wrong(POST, "topk and threshold are two ways to decide; declare one"))
            }
            Post { anomaly: Some(_), ref calibration, softmax, ref decision, .. }
                if calibration.is_some() || softmax || decision.is_some() =>
            {
                Err(wrong(POST, "anomaly acts on the output as it is; only output may come before it"))
            }
            post => Ok(post),
        }
    }

    /// Whether the steps can be done to this output, as far as its shape is known.
    fn check(&self, inputs: &[Port], output: &Port) -> Result<(), LoadError> {
        let name = &output.name;
        let calculates = self.softmax || self.calibration.is_some() || self.anomaly.is_some();
        // The numbers of a classifier's labels are names: their largest is no decision.
        if (calculates || self.decision.is_some()) && !output.dtype.is_float() {
            let remedy = r#"name the one with the scores first: {"op":"output","name":"probabilities"}"#;
            return Err(wrong(POST, format!("output {name:?} is {}, no scores; {remedy}", output.dtype)));
        }
        let width = declared_width(&output.shape);
        let of_classes = self.softmax || matches!(self.decision, Some(Decision::Argmax));
        if of_classes && (output.shape.is_empty() || width == Some(0)) {
            return Err(wrong(POST, format!("output {name:?} has no axis of classes")));
        }
        if let Some(width) = width {
            self.check_width(name, width).map_err(|reason| wrong(POST, reason))?;
        }
        if self.anomaly.is_some() && (inputs.len() != 1 || !agree(&inputs[0].shape, &output.shape)) {
            return Err(wrong(
                POST,
                format!("anomaly: output {name:?} is no reconstruction of the model's only input"),
            ));
        }
        let classes = match self.decision {
            Some(Decision::Threshold(_)) => Some(2),
            _ => width,
        };
        match (&self.labels, classes) {
            (None, _) if self.labelled => Err(wrong(POST, "labels: there is no labels.txt")),
            (Some(labels), Some(classes)) if self.labelled && labels.len() != classes => {
                Err(wrong(LABELS, format!("it names {} classes, and the model has {classes}", labels.len())))
            }
            _ => Ok(()),
        }
    }

    /// Whether rows of so many values can be decided on.
    fn check_width(&self, name: &str, width: usize) -> Result<(), String> {
        let (what, most) = match (self.calibration, self.decision, self.top) {
            (Some(Calibration::Platt { .. }), _, _) if width != 1 => ("platt", "1 value"),
            (_, Some(Decision::Argmax), _) if width == 1 => ("argmax and topk", "2 values or more"),
            (_, Some(Decision::Threshold(_)), _) if !(1..=2).contains(&width) => ("threshold", "1 or 2 values"),
            (_, _, Some(k)) if k > width => return Err(format!("topk: output {name:?} has {width} classes, not {k}")),
            _ => return Ok(()),
        };
        Err(format!("{what}: output {name:?} must have {most} a row, and has {width}"))
    }

    pub(crate) fn labels(&self) -> Option<&[String]> {
        self.labels.as_deref()
    }

    /// From the model's outputs, all of them finite, to an answer.
    pub(crate) fn answer(&self, prepared: &[Tensor], mut outputs: Vec<(String, Tensor)>) -> Result<Answer, RunError> {
        let (mut classes, mut top, mut anomalies) = (None, None, None);
        if let Some((name, tensor)) = outputs.get_mut(self.output) {
            let width = row_width(&tensor.shape);
            self.check_width(name, width).map_err(|reason| RunError::Failed { reason })?;
            self.calibrate(tensor, width);
            if let (Some(decision), true) = (self.decision, width > 0) {
                let scores = tensor.as_f32();
                let rows = scores.chunks_exact(width);
                classes = Some(rows.clone().map(|row| self.decide(decision, row)).collect());
                top = self.top.map(|k| rows.map(|row| self.likeliest(row, k)).collect());
            }
            if let (Some(anomaly), Some(input)) = (self.anomaly, prepared.first()) {
                anomalies = Some(anomaly.of(name, input, tensor)?);
            }
        }
        Ok(Answer { outputs, classes, top, anomalies })
    }

    fn calibrate(&self, tensor: &mut Tensor, width: usize) {
        if self.calibration.is_none() && !self.softmax {
            return;
        }
        let mut values = tensor.to_f64();
        match self.calibration {
            Some(Calibration::Temperature(temperature)) => values.iter_mut().for_each(|x| *x /= temperature),
            Some(Calibration::Platt { a, b }) => values.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (a * *x + b).exp())),
            None => {}
        }
        if self.softmax {
            softmax(&mut values, width);
        }
        tensor.data = match tensor.dtype() {
            Dtype::F32 => Data::F32(values.into_iter().map(|x| x as f32).collect()),
            _ => Data::F64(values),
        };
    }

    fn decide(&self, decision: Decision, row: &[f32]) -> Class {
        match decision {
            Decision::Argmax => {
                let pairs = row.iter().copied().enumerate();
                let first = (0, row[0]);
                let (index, score) = pairs.fold(first, |best, next| if next.1 > best.1 { next } else { best });
                self.class(index, score)
            }
            // Of one value a row, or of two of which the second is that of class 1.
            Decision::Threshold(threshold) => {
                let score = row[row.len() - 1];
                self.class(usize::from(f64::from(score) >= threshold), score)
            }
        }
    }

    fn likeliest(&self, row: &[f32], k: usize) -> Vec<Class> {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        order.into_iter().take(k).map(|index| self.class(index, row[index])).collect()
    }

    fn class(&self, index: usize, score: f32) -> Class {
        let labels = self.labels.as_deref().filter(|_| self.labelled);
        Class { index, label: labels.and_then(|labels| labels.get(index)).cloned(), score }
    }
}

impl Reconstruction {
    /// Row by row, the mean over all of the row's values.
    fn of(self, name: &str, input: &Tensor, output: &Tensor) -> Result<Vec<Anomaly>, RunError> {
        if input.shape != output.shape {
            let (got, expected) = (&output.shape, &input.shape);
            let reason = format!("output {name:?} is {got:?}, no reconstruction of an input of {expected:?}");
            return Err(RunError::Failed { reason });
        }
        let rows = input.row_count();
        let width = input.len().checked_div(rows).unwrap_or(0).max(1);
        let (given, made) = (input.to_f64(), output.to_f64());
        let error = |apart: f64| match self.error {
            ErrorOf::Squared => apart * apart,
            ErrorOf::Absolute => apart.abs(),
        };
        let row = |(given, made): (&[f64], &[f64])| {
            let sum: f64 = given.iter().zip(made).map(|(given, made)| error(given - made)).sum();
            let score = sum / width as f64;
            Anomaly { score, anomaly: score >= self.threshold }
        };
        Ok(given.chunks_exact(width).zip(made.chunks_exact(width)).map(row).collect())
    }
}

/// The output that the steps act on where none is named: the first, or the only one of
/// floats where the first is none, as classifiers give their labels before the scores.
fn unnamed(outputs: &[Port]) -> usize {
    let mut floats = outputs.iter().enumerate().filter(|(_, output)| output.dtype.is_float());
    match (floats.next(), floats.next()) {
        (Some((only, _)), None) => only,
        _ => 0,
    }
}

/// Values of a row: the last axis, but a tensor of one axis has one a row.
fn row_width(shape: &[usize]) -> usize {
    if shape.len() > 1 { shape[shape.len() - 1] } else { 1 }
}

fn declared_width(shape: &[Option<usize>]) -> Option<usize> {
    if shape.len() > 1 { shape[shape.len() - 1] } else { Some(1) }
}

fn agree(input: &[Option<usize>], output: &[Option<usize>]) -> bool {
    let axis = |(a, b): (&Option<usize>, &Option<usize>)| a.is_none() || b.is_none() || a == b;
    input.len() == output.len() && input.iter().zip(output).all(axis)
}

/// Softmax over rows of this width, in place; of finite values it is finite.
fn softmax(values: &mut [f64], width: usize) {
    for row in values.chunks_exact_mut(width.max(1)) {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.iter_mut().for_each(|x| *x = (*x - most).exp());
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|x| *x /= sum);
    }
}

/// The classes' names, one a line.
fn parse_labels(bytes: &[u8]) -> Result<Vec<String>, LoadError> {
    let text = std::str::from_utf8(bytes).map_err(|error| wrong(LABELS, error))?;
    let labels: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if let Some(at) = labels.iter().position(String::is_empty) {
        return Err(wrong(LABELS, format!("line {} is empty", at + 1)));
    }
    let mut seen = BTreeSet::new();
    match labels.iter().position(|label| !seen.insert(label.as_str())) {
        Some(at) => Err(wrong(LABELS, format!("line {} names {:?} again", at + 1, labels[at]))),
        None => Ok(labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;

    fn port(shape: &[Option<usize>]) -> Port {
        Port { name: "y".to_owned(), dtype: Dtype::F32, shape: shape.to_vec() }
    }

    fn read(steps: &str, labels: Option<&str>, outputs: &[Port]) -> Result<Post, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(POST), format!(r#"{{"version":1,"steps":{steps}}}"#)).unwrap();
        if let Some(labels) = labels {
            std::fs::write(dir.path().join(LABELS), labels).unwrap();
        }
        let input = Port { name: "x".to_owned(), ..port(&[None, Some(2)]) };
        Post::open(dir.path(), &[input], outputs).map_err(|error| error.to_string())
    }

    fn answer(steps: &str, labels: Option<&str>, shape: &[usize], values: &[f32]) -> Answer {
        let declared: Vec<Option<usize>> = [None].into_iter().chain(shape[1..].iter().map(|n| Some(*n))).collect();
        let post = read(steps, labels, &[port(&declared)]).unwrap();
        let input = floats(&[shape[0], 2], &vec![1.0; shape[0] * 2]);
        post.answer(&[input], vec![("y".to_owned(), floats(shape, values))]).unwrap()
    }

    fn told(classes: &[Class]) -> Vec<(usize, Option<&str>, f32)> {
        classes.iter().map(|class| (class.index, class.label.as_deref(), class.score)).collect()
    }

    #[test]
    fn a_threshold_decides_on_one_score_or_on_that_of_class_1() {
        let steps = r#"[{"op":"threshold","value":0.5},{"op":"labels"}]"#;
        let labels = Some("no\nyes\n");
        let expected = [(0, Some("no"), 0.25), (1, Some("yes"), 0.5)];
        assert_eq!(told(&answer(steps, labels, &[2], &[0.25, 0.5]).classes.unwrap()), expected);
        assert_eq!(told(&answer(steps, labels, &[2, 1], &[0.25, 0.5]).classes.unwrap()), expected);
        assert_eq!(told(&answer(steps, labels, &[2, 2], &[0.75, 0.25, 0.5, 0.5]).classes.unwrap()), expected);
    }

    #[test]
    fn the_likeliest_classes_come_in_order_the_first_of_equals_first() {
        let made = answer(r#"[{"op":"topk","k":2}]"#, None, &[2, 3], &[1.0, 3.0, 2.0, 5.0, 5.0, 6.0]);
        assert_eq!(told(&made.classes.unwrap()), [(1, None, 3.0), (2, None, 6.0)]);
        let top = made.top.unwrap();
        assert_eq!(told(&top[0]), [(1, None, 3.0), (2, None, 2.0)]);
        assert_eq!(told(&top[1]), [(2, None, 6.0), (0, None, 5.0)]);
    }

    #[test]
    fn scores_are_calibrated() {
        let logits = [0.0, 2.0 * 3f32.ln()];
        let made = answer(r#"[{"op":"temperature","value":2},{"op":"softmax"}]"#, None, &[1, 2], &logits);
        for (got, expected) in made.outputs[0].1.to_f64().iter().zip([0.25, 0.75]) {
            assert!((got - expected).abs() < 1e-6, "{got}");
        }
        let made = answer(r#"[{"op":"platt","a":-2,"b":1}]"#, None, &[3], &[0.5, -1e30, 1e30]);
        assert_eq!(made.outputs[0].1.to_f64(), [0.5, 0.0, 1.0]);
    }

    #[test]
    fn an_anomaly_is_a_row_that_is_badly_reconstructed() {
        let anomalies = |error: &str| {
            let steps = format!(r#"[{{"op":"anomaly","error":"{error}","threshold":2}}]"#);
            let made = answer(&steps, None, &[2, 2], &[1.0, 4.0, 1.0, 3.0]).anomalies.unwrap();
            made.iter().map(|row| (row.score, row.anomaly)).collect::<Vec<_>>()
        };
        assert_eq!(anomalies("squared"), [(4.5, true), (2.0, true)]);
        assert_eq!(anomalies("absolute"), [(1.5, false), (1.0, false)]);
    }

    #[test]
    fn steps_act_on_the_chosen_output() {
        let label = Port { name: "label".to_owned(), dtype: Dtype::I64, shape: vec![None] };
        let outputs = [label, port(&[None, Some(2)])];
        let post = read(r#"[{"op":"output","name":"y"},{"op":"argmax"}]"#, None, &outputs).unwrap();
        let whole = Tensor::new(vec![1], Data::I64(vec![7])).unwrap();
        let made = || vec![("label".to_owned(), whole.clone()), ("y".to_owned(), floats(&[1, 2], &[0.0, 1.0]))];
        assert_eq!(told(&post.answer(&[], made()).unwrap().classes.unwrap()), [(1, None, 1.0)]);
        // The only output of scores needs no name; of two, one must be named, and labels are none.
        let post = read(r#"[{"op":"argmax"}]"#, None, &outputs).unwrap();
        assert_eq!(told(&post.answer(&[], made()).unwrap().classes.unwrap()), [(1, None, 1.0)]);
        let [label, scores] = outputs;
        let three = [label, scores.clone(), Port { name: "z".to_owned(), ..scores }];
        for steps in [
            r#"[{"op":"softmax"}]"#,
            r#"[{"op":"argmax"}]"#,
            r#"[{"op":"threshold","value":1}]"#,
            r#"[{"op":"output","name":"label"},{"op":"topk","k":1}]"#,
        ] {
            let error = read(steps, None, &three).unwrap_err();
            assert!(error.contains("output \"label\" is INT64, no scores; name the one"), "{steps}: {error}");
        }
    }

    #[test]
    fn one_score_a_row_is_no_choice_of_classes() {
        for shape in [vec![None], vec![None, Some(1)]] {
            for steps in [r#"[{"op":"argmax"}]"#, r#"[{"op":"topk","k":1}]"#] {
                let error = read(steps, None, &[port(&shape)]).unwrap_err();
                assert!(error.contains("must have 2 values or more a row, and has 1"), "{error}");
            }
        }
    }

    #[test]
    fn an_output_whose_shape_shows_late_is_refused_then() {
        let post = read(r#"[{"op":"threshold","value":0.5}]"#, None, &[port(&[None, None])]).unwrap();
        let error = post.answer(&[], vec![("y".to_owned(), floats(&[1, 3], &[0.0; 3]))]).unwrap_err();
        assert!(error.to_string().contains("1 or 2 values a row, and has 3"), "{error}");
    }

    #[test]
    fn steps_that_do_not_suit_are_refused() {
        for (steps, labels, expected) in [
            (r#"[{"op":"loudest"}]"#, None, "unknown variant `loudest`"),
            (r#"[{"op":"argmax"},{"op":"softmax"}]"#, None, "order"),
            (r#"[{"op":"argmax"},{"op":"threshold","value":1}]"#, None, "order"),
            (r#"[{"op":"labels"}]"#, None, "needs argmax"),
            (r#"[{"op":"argmax"},{"op":"labels"}]"#, None, "there is no labels.txt"),
            (r#"[{"op":"argmax"},{"op":"labels"}]"#, Some("a\nb\n"), "names 2 classes, and the model has 3"),
            (r#"[{"op":"argmax"},{"op":"labels"}]"#, Some("a\nb\na\n"), "line 3 names \"a\" again"),
            (r#"[{"op":"threshold","value":1}]"#, None, "1 or 2 values a row, and has 3"),
            (r#"[{"op":"platt","a":1,"b":1}]"#, None, "1 value a row, and has 3"),
            (r#"[{"op":"topk","k":4}]"#, None, "3 classes, not 4"),
            (r#"[{"op":"topk","k":0}]"#, None, "may be 1 to 1000"),
            (r#"[{"op":"temperature","value":0}]"#, None, "from 0.001 to 1000"),
            (r#"[{"op":"output","name":"z"}]"#, None, "no output \"z\""),
            (r#"[{"op":"anomaly","error":"squared","threshold":1}]"#, None, "no reconstruction"),
            (r#"[{"op":"softmax"},{"op":"anomaly","error":"squared","threshold":1}]"#, None, "as it is"),
        ] {
            let error = read(steps, labels, &[port(&[None, Some(3)])]).unwrap_err();
            assert!(error.contains(expected), "{steps}: {error}");
        }
    }

    #[test]
    fn softmax_of_large_values_stays_finite() {
        let mut values = [1e300, -1e300, 0.0, 0.0];
        softmax(&mut values, 2);
        assert_eq!(values, [1.0, 0.0, 0.5, 0.5]);
    }
}
