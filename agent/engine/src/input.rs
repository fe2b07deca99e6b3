//! What people hand to a model: arrays, tables, lines of text and images.
//!
//! Decides what a file is by its content. Knows no model: whether the input fits
//! one is decided where it meets it.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Limits;
use crate::npy::read_array;
use crate::table::Table;
use crate::tensor::Tensor;

/// Something to run a model on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// Tensors by the name of the model's input; the name may be empty where the
    /// model has one. Processing of tables, text and series is done to them, that of
    /// images is not: a tensor for an image model is already engineered.
    Tensors(Vec<(String, Tensor)>),
    /// Rows of named columns; lines of text are the one column `text`.
    Table(Table),
    /// The bytes of a PNG or JPEG file.
    Image(Vec<u8>),
}

/// Why a file is no input.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is none of the known kinds.
    #[error("{} is no known input; give a .csv, .txt, .npy, .png or .jpg file", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// It exceeds a limit.
    #[error("too large: {size} {what}, and at most {limit} are allowed")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How much there is.
        size: u64,
        /// How much there may be.
        limit: u64,
    },
    /// An array or archive is damaged or of a kind that cannot be used.
    #[error("the array cannot be read: {reason}")]
    Array {
        /// What is wrong.
        reason: String,
    },
    /// A line of the table is wrong.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1, the header included.
        line: u64,
        /// What is wrong.
        reason: String,
    },
}

impl InputError {
    pub(crate) fn array(reason: impl Display) -> InputError {
        InputError::Array { reason: reason.to_string() }
    }
}

impl Input {
    /// How many rows there are; of an image none.
    pub fn row_count(&self) -> usize {
        match self {
            Input::Table(table) => table.row_count(),
            Input::Tensors(tensors) => tensors.first().map_or(0, |(_, tensor)| tensor.row_count()),
            Input::Image(_) => 0,
        }
    }

    /// Some of the rows; what has no rows is as it is.
    pub fn rows(&self, range: Range<usize>) -> Input {
        match self {
            Input::Table(table) => Input::Table(table.rows(range)),
            Input::Tensors(tensors) => {
                let part = |tensor: &Tensor| tensor.rows(range.clone()).unwrap_or_else(|_| tensor.clone());
                Input::Tensors(tensors.iter().map(|(name, tensor)| (name.clone(), part(tensor))).collect())
            }
            Input::Image(bytes) => Input::Image(bytes.clone()),
        }
    }
}

/// Reads a `.npy` array of any shape.
///
/// # Errors
/// `InputError` when it cannot be read, is no such array, or is too large.
pub fn read_npy(path: &Path, limits: &Limits) -> Result<Tensor, InputError> {
    let file = File::open(path);
    let file = file.map_err(|source| InputError::Io { path: path.to_owned(), source })?;
    read_array(BufReader::new(file), limits)
}

/// Reads an input: an array or image by its content, a table by the name `.csv`, lines
/// of text by `.txt`.
/// An array becomes one tensor without a name.
///
/// # Errors
/// `InputError` when it cannot be read, is none of these, or is too large.
pub fn read_input(path: &Path, limits: &Limits) -> Result<Input, InputError> {
    let unreadable = |source| InputError::Io { path: path.to_owned(), source };
    let mut start = Vec::new();
    File::open(path).and_then(|file| file.take(6).read_to_end(&mut start)).map_err(unreadable)?;
    let named = |what: &str| path.extension().is_some_and(|end| end.eq_ignore_ascii_case(what));
    if start == b"\x93NUMPY" {
        Ok(Input::Tensors(vec![(String::new(), read_npy(path, limits)?)]))
    } else if start.starts_with(b"\x89PNG") || start.starts_with(b"\xff\xd8\xff") {
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        let limit = (limits.input_elements as u64).saturating_mul(8);
        if size > limit {
            return Err(InputError::TooLarge { what: "bytes", size, limit });
        }
        Ok(Input::Image(std::fs::read(path).map_err(unreadable)?))
    } else if named("csv") {
        Ok(Input::Table(Table::read(path, limits)?))
    } else if named("txt") {
        Ok(Input::Table(Table::parse_lines(File::open(path).map_err(unreadable)?, limits)?))
    } else {
        Err(InputError::Unknown { path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            read_input(&path, &Limits::default())
        };
        assert!(matches!(read("a.csv", b"x\n1\n"), Ok(Input::Table(_))));
        assert!(matches!(read("a.dat", b"\x89PNG\r\n"), Ok(Input::Image(_))));
        assert!(matches!(read("a.npy", b"\x93NUMPY"), Err(InputError::Array { .. })));
        assert!(matches!(read("a.txt", b"x\n1\n"), Ok(Input::Table(_))));
        assert!(matches!(read("a.tex", b"x\n1\n"), Err(InputError::Unknown { .. })));
        assert!(matches!(read("empty", b""), Err(InputError::Unknown { .. })));
        let missing = read_input(&dir.path().join("missing.csv"), &Limits::default());
        assert!(matches!(missing, Err(InputError::Io { .. })));
    }
}
