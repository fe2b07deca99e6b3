//! The processing that a bundle declares in `pre.json`, `post.json` and `labels.txt`.
//!
//! Decides which declarations are understood and what each step does to tables,
//! pictures and tensors. Knows no model; whether the steps suit one is decided
//! by the pipeline.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::LoadError;

/// The only version of the declarations so far.
const VERSION: u64 = 1;
/// Pixels on a side of a picture to be made.
const SIDE: usize = 8192;

/// Bytes of `pre.json`, `post.json` and `labels.txt`, each.
const DECLARATION: u64 = 1 << 20;

/// What is done before the model.
#[derive(Debug, Default)]
pub(crate) enum Pre {
    /// Inputs pass as they are.
    #[default]
    Nothing,
    Image(ImagePre),
    Tabular(TabularPre),
}

/// From an image file to a tensor.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ImagePre {
    pub(crate) grey: bool,
    /// Width and height.
    pub(crate) resize: Option<(usize, usize)>,
    pub(crate) factor: Option<f64>,
}

/// From raw features to those that the model takes; one value for each.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct TabularPre {
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) impute: Option<Vec<f64>>,
    /// Mean and standard deviation.
    pub(crate) standardise: Option<(Vec<f64>, Vec<f64>)>,
}

/// What is done after the model.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Post {
    pub(crate) softmax: bool,
    pub(crate) argmax: bool,
    pub(crate) labels: bool,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum PreFile {
    Image { steps: Vec<ImageStep> },
    Tabular { steps: Vec<TabularStep> },
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum ImageStep {
    Grey {},
    Resize { width: usize, height: usize },
    Scale { factor: f64 },
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum TabularStep {
    Select { columns: Vec<String> },
    Impute { values: Vec<f64> },
    Standardise { mean: Vec<f64>, std: Vec<f64> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PostFile {
    steps: Vec<PostStep>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum PostStep {
    Softmax {},
    Argmax {},
    Labels {},
}

impl Pre {
    pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Pre, LoadError> {
        match versioned(file, bytes)? {
            PreFile::Image { steps } => image(file, steps).map(Pre::Image),
            PreFile::Tabular { steps } => tabular(file, steps).map(Pre::Tabular),
        }
    }
}

fn image(file: &str, steps: Vec<ImageStep>) -> Result<ImagePre, LoadError> {
    let rank = |step: &ImageStep| match step {
        ImageStep::Grey {} => 0,
        ImageStep::Resize { .. } => 1,
        ImageStep::Scale { .. } => 2,
    };
    in_order(file, steps.iter().map(rank), "grey, resize, scale")?;
    let mut pre = ImagePre::default();
    for step in steps {
        match step {
            ImageStep::Grey {} => pre.grey = true,
            ImageStep::Resize { width, height } => {
                if !(1..=SIDE).contains(&width) || !(1..=SIDE).contains(&height) {
                    return Err(wrong(file, format!("resize: a side has 1 to {SIDE} pixels")));
                }
                pre.resize = Some((width, height));
            }
            ImageStep::Scale { factor } => pre.factor = Some(factor),
        }
    }
    Ok(pre)
}

fn tabular(file: &str, steps: Vec<TabularStep>) -> Result<TabularPre, LoadError> {
    let rank = |step: &TabularStep| match step {
        TabularStep::Select { .. } => 0,
        TabularStep::Impute { .. } => 1,
        TabularStep::Standardise { .. } => 2,
    };
    in_order(file, steps.iter().map(rank), "select, impute, standardise")?;
    let mut pre = TabularPre::default();
    for step in steps {
        match step {
            TabularStep::Select { columns } => pre.columns = Some(columns),
            TabularStep::Impute { values } => pre.impute = Some(values),
            TabularStep::Standardise { mean, std } => {
                if let Some(at) = std.iter().position(|std| *std <= 0.0) {
                    let reason = format!("standardise: std {at} is {}, not above 0", std[at]);
                    return Err(wrong(file, reason));
                }
                pre.standardise = Some((mean, std));
            }
        }
    }
    Ok(pre)
}

impl TabularPre {
    /// The length of each list of values and the step that it belongs to.
    pub(crate) fn lengths(&self) -> Vec<(&'static str, usize)> {
        let mut lengths = Vec::new();
        lengths.extend(self.columns.as_ref().map(|columns| ("select: columns", columns.len())));
        lengths.extend(self.impute.as_ref().map(|values| ("impute: values", values.len())));
        if let Some((mean, std)) = &self.standardise {
            lengths.extend([("standardise: mean", mean.len()), ("standardise: std", std.len())]);
        }
        lengths
    }

    /// Does the numeric steps to rows of features, in place.
    pub(crate) fn apply(&self, features: &mut [f64], width: usize) {
        for row in features.chunks_exact_mut(width.max(1)) {
            if let Some(values) = &self.impute {
                for (x, value) in row.iter_mut().zip(values).filter(|(x, _)| x.is_nan()) {
                    *x = *value;
                }
            }
            if let Some((mean, std)) = &self.standardise {
                for ((x, mean), std) in row.iter_mut().zip(mean).zip(std) {
                    *x = (*x - mean) / std;
                }
            }
        }
    }
}

impl Post {
    pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Post, LoadError> {
        let PostFile { steps } = versioned(file, bytes)?;
        let rank = |step: &PostStep| match step {
            PostStep::Softmax {} => 0,
            PostStep::Argmax {} => 1,
            PostStep::Labels {} => 2,
        };
        in_order(file, steps.iter().map(rank), "softmax, argmax, labels")?;
        let mut post = Post::default();
        for step in steps {
            match step {
                PostStep::Softmax {} => post.softmax = true,
                PostStep::Argmax {} => post.argmax = true,
                PostStep::Labels {} => post.labels = true,
            }
        }
        match post {
            Post { labels: true, argmax: false, .. } => Err(wrong(file, "labels needs argmax before it")),
            _ => Ok(post),
        }
    }
}

/// Softmax over rows of this width, in place; of finite values it is finite.
pub(crate) fn softmax(values: &mut [f64], width: usize) {
    for row in values.chunks_exact_mut(width.max(1)) {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.iter_mut().for_each(|x| *x = (*x - most).exp());
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|x| *x /= sum);
    }
}

/// The version is looked at first: another one may well have other fields.
fn versioned<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T, LoadError> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(|error| wrong(file, error))?;
    let version = value.as_object_mut().and_then(|fields| fields.remove("version"));
    match version.as_ref().and_then(Value::as_u64) {
        Some(VERSION) => serde_json::from_value(value).map_err(|error| wrong(file, error)),
        Some(other) => Err(wrong(file, format!("version {other} is not known; this engine reads {VERSION}"))),
        None => Err(wrong(file, format!("it must say \"version\": {VERSION}"))),
    }
}

fn in_order(file: &str, ranks: impl Iterator<Item = u8>, order: &str) -> Result<(), LoadError> {
    match ranks.is_sorted_by(|a, b| a < b) {
        true => Ok(()),
        false => Err(wrong(file, format!("steps come in the order {order}, each at most once"))),
    }
}

/// A small file of the bundle; `None` when the bundle has none.
pub(crate) fn declaration(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, LoadError> {
    let path = dir.join(name);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(DECLARATION + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > DECLARATION => Err(wrong(name, format!("it is larger than {DECLARATION} bytes"))),
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoadError::Io { path, source }),
    }
}

/// The classes' names, one a line.
pub(crate) fn parse_labels(bytes: &[u8]) -> Result<Vec<String>, LoadError> {
    let text = std::str::from_utf8(bytes).map_err(|error| wrong("labels.txt", error))?;
    let labels: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    match labels.iter().position(String::is_empty) {
        Some(at) => Err(wrong("labels.txt", format!("line {} is empty", at + 1))),
        None => Ok(labels),
    }
}

pub(crate) fn wrong(file: &str, reason: impl ToString) -> LoadError {
    LoadError::Declaration { file: file.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_read() {
        let text = br#"{"version":1, "kind":"image", "steps":[{"op":"grey"},
            {"op":"resize","width":8,"height":4},{"op":"scale","factor":0.5}]}"#;
        let Pre::Image(pre) = Pre::parse("pre.json", text).unwrap() else { panic!() };
        assert_eq!(pre, ImagePre { grey: true, resize: Some((8, 4)), factor: Some(0.5) });
        let text = br#"{"version":1, "steps":[{"op":"softmax"},{"op":"argmax"}]}"#;
        let post = Post::parse("post.json", text).unwrap();
        assert_eq!(post, Post { softmax: true, argmax: true, labels: false });
        let nothing = Post::parse("post.json", br#"{"version":1,"steps":[]}"#).unwrap();
        assert_eq!(nothing, Post::default());
    }

    #[test]
    fn what_is_not_understood_is_refused_in_words() {
        for (text, expected) in [
            (r#"{"version":2, "model":"x"}"#, "version 2 is not known"),
            (r#"{"steps":[]}"#, "must say \"version\": 1"),
            ("[]", "must say"),
            ("{", "EOF"),
            (r#"{"version":1, "kind":"audio", "steps":[]}"#, "unknown variant `audio`"),
            (r#"{"version":1, "kind":"image", "steps":[{"op":"blur"}]}"#, "unknown variant `blur`"),
            (r#"{"version":1, "kind":"image", "steps":[{"op":"grey","x":1}]}"#, "unknown field `x`"),
            (r#"{"version":1, "kind":"image", "steps":[], "x":1}"#, "unknown field `x`"),
            (r#"{"version":1, "kind":"image", "steps":[{"op":"grey"},{"op":"grey"}]}"#, "order"),
            (r#"{"version":1, "kind":"image", "steps":[{"op":"resize","width":0,"height":1}]}"#, "1 to 8192"),
            (r#"{"version":1, "kind":"tabular", "steps":[{"op":"standardise","mean":[0],"std":[0]}]}"#, "not above 0"),
        ] {
            let error = Pre::parse("pre.json", text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("pre.json: ") && error.contains(expected), "{error}");
        }
        for (text, expected) in [
            (r#"{"version":1,"steps":[{"op":"topk"}]}"#, "unknown variant `topk`"),
            (r#"{"version":1,"steps":[{"op":"argmax"},{"op":"softmax"}]}"#, "order"),
            (r#"{"version":1,"steps":[{"op":"labels"}]}"#, "needs argmax"),
        ] {
            let error = Post::parse("post.json", text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("post.json: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn missing_features_are_imputed_before_they_are_standardised() {
        let pre = TabularPre {
            columns: None,
            impute: Some(vec![1.0, 20.0]),
            standardise: Some((vec![1.0, 10.0], vec![2.0, 5.0])),
        };
        let mut features = [f64::NAN, f64::NAN, 5.0, 0.0];
        pre.apply(&mut features, 2);
        assert_eq!(features, [0.0, 2.0, 2.0, -2.0]);
    }

    #[test]
    fn softmax_of_large_values_stays_finite() {
        let mut values = [1e300, -1e300, 0.0, 0.0];
        softmax(&mut values, 2);
        assert_eq!(values, [1.0, 0.0, 0.5, 0.5]);
    }
}
