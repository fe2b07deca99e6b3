//! Explaining a model file: what is in it, whether it runs, and what loading it takes.
//!
//! Decides nothing: what a model is made of is known by `engine`, what memory it took by the allocator.

use super::measure;
use crate::fault::Fault;
use engine::{Explanation, Limits, LoadError};
use std::path::Path;
use trust::{Code, Refusal};

/// Explains a model and tells the most bytes that were in use meanwhile.
///
/// # Errors
/// `E_MODEL` for what is no model, or what the system said.
pub(crate) fn explain(model: &Path) -> anyhow::Result<(Explanation, usize)> {
    let (explained, peak) = measure::peak(|| engine::explain(model, &Limits::default()));
    let explained = explained.map_err(|error| match error {
        LoadError::Io { .. } => anyhow::Error::from(error),
        error => Fault::new(format!("{} cannot be explained", model.display()))
            .because(Refusal::new(Code::Model, error.to_string()))
            .remedy("give an ONNX file, as the framework's exporter writes it")
            .into(),
    })?;
    Ok((explained, peak))
}
