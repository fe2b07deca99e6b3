//! Why a model cannot be loaded, and why it gives no answer.
//!
//! Decides the words in which people are told. Knows nothing of how it came to it.

use std::io;
use std::path::PathBuf;

use crate::port::show;
use crate::tensor::{Dtype, TensorError};

/// Why a model, or the bundle folder around it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not in the ONNX format, or is cut short.
    #[error("this is no complete ONNX model: {reason}")]
    NotOnnx {
        /// What is wrong with it.
        reason: String,
    },
    /// A limit is exceeded.
    #[error("too large: {what}: {size}, and at most {limit} are allowed")]
    TooLarge {
        /// What is counted.
        what: String,
        /// How much there is.
        size: u64,
        /// How much there may be.
        limit: u64,
    },
    /// Weights are kept in another file, and not where they can be read.
    #[error("the weights of {tensor:?} are kept outside the model, in {location:?}: {reason}")]
    ExternalData {
        /// The tensor whose data are elsewhere.
        tensor: String,
        /// Where the model says that they are.
        location: String,
        /// Why they are not read from there.
        reason: String,
    },
    /// The engine has no implementation of these operators.
    #[error("the engine cannot run these operators: {}", operators.join(", "))]
    UnsupportedOperator {
        /// Every such operator, sorted; with its domain unless that is ONNX's own.
        operators: Vec<String>,
    },
    /// The model contradicts itself or uses a feature that cannot be run.
    #[error("the model cannot be run: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The declared processing cannot be done.
    #[error("{file}: {reason}")]
    Declaration {
        /// The file in the bundle.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RunError {
    /// Too few or too many inputs.
    #[error("the model takes {expected} inputs, not {got}")]
    InputCount {
        /// Inputs of the model.
        expected: usize,
        /// Inputs that were given.
        got: usize,
    },
    /// An input is missing under its name.
    #[error("input {name:?} is missing; given were {given:?}")]
    MissingInput {
        /// The model's input.
        name: String,
        /// The names that were given.
        given: Vec<String>,
    },
    /// A column of the table is missing.
    #[error("column {name:?} is missing; the table has {given:?}")]
    MissingColumn {
        /// The column that the bundle selects.
        name: String,
        /// The columns of the table.
        given: Vec<String>,
    },
    /// A cell that the model takes as a number is none.
    #[error("line {line}, column {column:?}: {value:?} is no number; leave the cell empty when it is missing")]
    Cell {
        /// Counted from 1, the header included; of a file whose cells hold no line breaks.
        line: usize,
        /// The column's name.
        column: String,
        /// What is there.
        value: String,
    },
    /// A cell that the model takes as a whole number is none, or one too large.
    #[error("row {}, column {column:?}: {value:?} cannot become {expected}; give a whole number within it", row + 1)]
    CellType {
        /// Index of the row, from 0.
        row: usize,
        /// The column's name.
        column: String,
        /// What is there.
        value: String,
        /// What the model takes.
        expected: Dtype,
    },
    /// The declared processing cannot be done to this input.
    #[error("{reason}")]
    Unfit {
        /// What is wrong.
        reason: String,
    },
    /// An input has the wrong shape.
    #[error("input {name:?} must have the shape {}, not {got:?}", show(expected))]
    Shape {
        /// The model's input.
        name: String,
        /// What it takes; `None` is free.
        expected: Vec<Option<usize>>,
        /// What was given.
        got: Vec<usize>,
    },
    /// An input has the wrong element type, or values that it cannot hold.
    #[error("input {name:?} takes {expected}, and these {got} values cannot become that")]
    Dtype {
        /// The model's input.
        name: String,
        /// What it takes.
        expected: Dtype,
        /// What was given.
        got: Dtype,
    },
    /// A tensor's shape and data disagree.
    #[error("input {name:?}: {source}")]
    Tensor {
        /// The model's input.
        name: String,
        /// What is wrong.
        source: TensorError,
    },
    /// An input is larger than the limit.
    #[error("an input of {elements} elements is too large; at most {limit} are allowed")]
    TooLarge {
        /// Elements given, of one input.
        elements: usize,
        /// Elements allowed.
        limit: usize,
    },
    /// The image cannot be read, or the bundle takes none.
    #[error("{reason}")]
    Image {
        /// What is wrong.
        reason: String,
    },
    /// The answer is no number, so it is no answer.
    #[error("output {output:?} is not a finite number in row {row}")]
    NonFinite {
        /// The model's output.
        output: String,
        /// Index on axis 0, from 0.
        row: usize,
    },
    /// The model failed while it ran.
    #[error("the model failed: {reason}")]
    Failed {
        /// What the inference library said.
        reason: String,
    },
}

pub(crate) fn invalid(reason: impl Into<String>) -> LoadError {
    LoadError::Invalid { reason: reason.into() }
}

pub(crate) fn too_large(what: &str, size: usize, limit: usize) -> LoadError {
    LoadError::TooLarge { what: what.to_owned(), size: size as u64, limit: limit as u64 }
}
