//! Ports: the inputs and outputs of a model, and which tensors fit them.
//!
//! Decides nothing about a tensor's values. Knows no model.

use serde::{Deserialize, Serialize};

use crate::tensor::Dtype;

/// An input or output of a model: what must be given, or what comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The tensor's name in the model.
    pub name: String,
    /// Its element type; FP32 where the model has half precision, which it rounds to inside.
    pub dtype: Dtype,
    /// Its axes; `None` is chosen by the caller (axis 0: the batch).
    pub shape: Vec<Option<usize>>,
}

impl Port {
    /// Whether a tensor of this shape may enter.
    pub(crate) fn fits(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(axis_fits)
    }

    /// Whether it may enter when its rows are cut to pieces.
    pub(crate) fn fits_rows(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).skip(1).all(axis_fits)
    }
}

fn axis_fits((want, got): (&Option<usize>, &usize)) -> bool {
    want.map_or(*got > 0, |want| want == *got)
}

/// Writes a port's shape for people: `[?, 1, 8, 8]`.
pub(crate) fn show(shape: &[Option<usize>]) -> String {
    let axis = |axis: &Option<usize>| axis.map_or("?".to_owned(), |n| n.to_string());
    format!("[{}]", shape.iter().map(axis).collect::<Vec<_>>().join(", "))
}
