//! The processing that a bundle declares in `pre.json`, `post.json` and `labels.txt`.
//!
//! Decides which declarations are understood, and which room does what one
//! declares: tables, images, text, series, answers. Knows a model's ports, and no
//! model. `docs/processing.md` defines every step.

#[cfg(feature = "image")]
mod image;
mod post;
mod series;
mod tabular;
#[cfg(feature = "text")]
mod text;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Limits;
use crate::error::{LoadError, RunError};
use crate::input::Input;
use crate::port::Port;
use crate::table::Column;
use crate::tensor::Tensor;

pub(crate) use post::Post;
pub use post::{Anomaly, Answer, Class};

/// The only version of the declarations so far.
const VERSION: u64 = 1;
/// Bytes of `pre.json`, `post.json` and `labels.txt`, each.
const DECLARATION: u64 = 1 << 20;
/// Steps of one list.
const STEPS: usize = 64;

const PRE: &str = "pre.json";

/// What is done before the model.
#[derive(Debug)]
pub(crate) enum Pre {
    /// Tables by their columns, and tensors as they are, but for declared steps.
    Tabular(tabular::Tabular),
    #[cfg(feature = "image")]
    Image(image::ImageSteps),
    #[cfg(feature = "text")]
    Text(Box<text::Tokenisation>),
    Series(series::SeriesSteps),
}

impl Pre {
    /// Reads what the folder declares, and refuses what does not make the model's inputs.
    pub(crate) fn open(dir: &Path, inputs: &[Port]) -> Result<Pre, LoadError> {
        let Some(bytes) = declaration(dir, PRE, DECLARATION)? else {
            return Ok(Pre::Tabular(tabular::Tabular::default()));
        };
        let mut value = versioned(PRE, &bytes)?;
        let kind = value.as_object_mut().and_then(|fields| fields.remove("kind"));
        match kind.as_ref().and_then(Value::as_str) {
            Some("tabular") => tabular::Tabular::read(fields(PRE, value)?, inputs).map(Pre::Tabular),
            Some("series") => series::SeriesSteps::read(fields(PRE, value)?, lone(inputs)?).map(Pre::Series),
            #[cfg(feature = "image")]
            Some("image") => image::ImageSteps::read(fields(PRE, value)?, lone(inputs)?).map(Pre::Image),
            #[cfg(feature = "text")]
            Some("text") => {
                text::Tokenisation::read(fields(PRE, value)?, dir, inputs).map(|text| Pre::Text(text.into()))
            }
            #[cfg(not(feature = "image"))]
            Some("image") => Err(without("image")),
            #[cfg(not(feature = "text"))]
            Some("text") => Err(without("text")),
            Some(other) => {
                Err(wrong(PRE, format!("the kind {other:?} is not known; there are tabular, image, text and series")))
            }
            None => Err(wrong(PRE, "it must say its \"kind\": tabular, image, text or series")),
        }
    }

    /// Named tensors for the model's inputs.
    pub(crate) fn prepare(
        &self,
        input: &Input,
        ports: &[Port],
        limits: &Limits,
    ) -> Result<Vec<(String, Tensor)>, RunError> {
        match (self, input) {
            (Pre::Tabular(steps), Input::Tensors(named)) => steps.tensors(named, ports, limits),
            (Pre::Tabular(steps), Input::Table(table)) => steps.table(table, ports, limits),
            #[cfg(feature = "image")]
            (Pre::Image(steps), Input::Image(bytes)) => steps.picture(bytes, limits),
            #[cfg(feature = "image")]
            (Pre::Image(_), Input::Tensors(named)) => Ok(named.clone()),
            #[cfg(feature = "image")]
            (Pre::Image(_), Input::Table(table)) => tabular::Tabular::default().table(table, ports, limits),
            #[cfg(feature = "text")]
            (Pre::Text(steps), Input::Tensors(named)) => steps.tensors(named, ports, limits),
            #[cfg(feature = "text")]
            (Pre::Text(steps), Input::Table(table)) => steps.table(table, ports, limits),
            (Pre::Series(steps), Input::Tensors(named)) => steps.tensors(named, limits),
            (Pre::Series(steps), Input::Table(table)) => steps.table(table, limits),
            (_, Input::Image(_)) => Err(RunError::Image {
                reason: "this bundle takes no images: its pre.json does not declare how".to_owned(),
            }),
        }
    }
    /// Whether an answer is of a row of the input, and of no other.
    pub(crate) fn takes_rows(&self) -> bool {
        !matches!(self, Pre::Series(_))
    }

    /// What is measured of an input for drift: a table's columns, of pictures, texts and windows a few figures of each.
    /// Nothing where that would be too much, or it cannot be measured.
    #[cfg_attr(
        not(feature = "image"),
        expect(unused_variables, reason = "only pictures are measured as they were prepared")
    )]
    pub(crate) fn observe(&self, input: &Input, prepared: &[Tensor], ports: &[Port], limits: &Limits) -> Vec<Column> {
        let measured = match (self, input) {
            (Pre::Tabular(steps), input) => steps.observe(input, ports, limits),
            #[cfg(feature = "image")]
            (Pre::Image(steps), _) => Ok(prepared.first().map(|tensor| steps.observe(tensor)).unwrap_or_default()),
            #[cfg(feature = "text")]
            (Pre::Text(steps), input) => steps.observe(input),
            (Pre::Series(steps), input) => steps.observe(input, limits),
        };
        measured.unwrap_or_default()
    }
}

/// A build for small devices leaves out what it does not need.
#[cfg(not(all(feature = "image", feature = "text")))]
fn without(feature: &str) -> LoadError {
    let reason =
        format!("this engine was built without {feature} processing; use a build with the feature {feature:?}");
    wrong(PRE, reason)
}

/// The only input of a model, for processing that makes one tensor.
fn lone(inputs: &[Port]) -> Result<&Port, LoadError> {
    match inputs {
        [port] => Ok(port),
        ports => Err(wrong(PRE, format!("it is for one input, and the model has {}", ports.len()))),
    }
}

/// The version is looked at first: another one may well have other fields.
fn versioned(file: &str, bytes: &[u8]) -> Result<Value, LoadError> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(|error| wrong(file, error))?;
    let version = value.as_object_mut().and_then(|fields| fields.remove("version"));
    match version.as_ref().and_then(Value::as_u64) {
        Some(VERSION) => Ok(value),
        Some(other) => Err(wrong(file, format!("version {other} is not known; this engine reads {VERSION}"))),
        None => Err(wrong(file, format!("it must say \"version\": {VERSION}"))),
    }
}

fn fields<T: DeserializeOwned>(file: &str, value: Value) -> Result<T, LoadError> {
    serde_json::from_value(value).map_err(|error| wrong(file, error))
}

/// Steps by their ranks: never one of a lower rank behind one of a higher, none of `once` twice.
fn in_order(file: &str, steps: &[(u8, &'static str)], order: &str) -> Result<(), LoadError> {
    let mut seen = BTreeSet::new();
    let once = steps.iter().all(|(_, name)| seen.insert(name));
    match once && steps.is_sorted_by_key(|(rank, _)| *rank) {
        true => Ok(()),
        false => Err(wrong(file, format!("steps come in the order {order}, each at most once"))),
    }
}

/// A small file of the bundle; `None` when the bundle has none.
pub(crate) fn declaration(dir: &Path, name: &str, limit: u64) -> Result<Option<Vec<u8>>, LoadError> {
    let path = dir.join(name);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > limit => Err(wrong(name, format!("it is larger than {limit} bytes"))),
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoadError::Io { path, source }),
    }
}

fn wrong(file: &str, reason: impl ToString) -> LoadError {
    LoadError::Declaration { file: file.to_owned(), reason: reason.to_string() }
}

fn unfit(reason: impl Into<String>) -> RunError {
    RunError::Unfit { reason: reason.into() }
}

/// The product of these lengths, when it is within the limit.
fn within(lengths: &[usize], limits: &Limits) -> Result<usize, RunError> {
    let elements = lengths.iter().try_fold(1usize, |product, length| product.checked_mul(*length));
    match elements.unwrap_or(usize::MAX) {
        elements if elements <= limits.input_elements => Ok(elements),
        elements => Err(RunError::TooLarge { elements, limit: limits.input_elements }),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Load, identity};

    #[test]
    fn what_is_not_understood_is_refused_in_words() {
        for (text, expected) in [
            (r#"{"version":2, "model":"x"}"#, "version 2 is not known"),
            (r#"{"steps":[]}"#, "must say \"version\": 1"),
            ("[]", "must say"),
            ("{", "EOF"),
            (r#"{"version":1, "steps":[]}"#, "must say its \"kind\""),
            (r#"{"version":1, "kind":"audio", "steps":[]}"#, "the kind \"audio\" is not known"),
            (r#"{"version":1, "kind":"tabular", "steps":[{"op":"blur"}]}"#, "unknown variant `blur`"),
            (r#"{"version":1, "kind":"tabular", "steps":[], "x":1}"#, "unknown field `x`"),
            (r#"{"version":1, "kind":"tabular"}"#, "either \"steps\" or \"inputs\""),
        ] {
            let error = identity(&[None, Some(2)]).open(&[("pre.json", text)]).unwrap_err().to_string();
            assert!(error.starts_with("pre.json: ") && error.contains(expected), "{error}");
        }
    }

    #[cfg(not(feature = "text"))]
    #[test]
    fn a_build_without_text_says_so() {
        let pre = r#"{"version":1,"kind":"text","inputs":{}}"#;
        let error = identity(&[None, Some(2)]).open(&[("pre.json", pre)]).unwrap_err().to_string();
        assert!(error.contains("use a build with the feature \"text\""), "{error}");
    }
}
