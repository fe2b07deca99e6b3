//! How alike a row and a support vector are.
//!
//! Decides the four kernels and how many features a support vector has. Knows no
//! classes and no weights.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{dot, floats};

/// How alike two rows are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Likeness {
    Linear,
    Poly { gamma: f32, coef0: f32, degree: f32 },
    Rbf { gamma: f32 },
    Sigmoid { gamma: f32, coef0: f32 },
}

impl Likeness {
    fn read(node: &NodeProto) -> TractResult<Likeness> {
        let kind = node.get_attr_opt::<&str>("kernel_type")?.unwrap_or("LINEAR");
        let given = floats(node, "kernel_params")?;
        let (gamma, coef0, degree) = match given[..] {
            [] => (0.0, 0.0, 0.0),
            [gamma, coef0, degree] => (gamma, coef0, degree),
            _ => bail!("{}: kernel_params must be gamma, coef0 and degree, not {} values", node.op_type, given.len()),
        };
        Ok(match kind {
            "LINEAR" => Likeness::Linear,
            "POLY" => Likeness::Poly { gamma, coef0, degree },
            "RBF" => Likeness::Rbf { gamma },
            "SIGMOID" => Likeness::Sigmoid { gamma, coef0 },
            other => bail!("{}: {other:?} is no kernel_type; LINEAR, POLY, RBF and SIGMOID are", node.op_type),
        })
    }

    fn of(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Likeness::Linear => dot(a, b),
            Likeness::Poly { gamma, coef0, degree } => power(gamma * dot(a, b) + coef0, degree),
            Likeness::Rbf { gamma } => (-gamma * distance(a, b)).exp(),
            Likeness::Sigmoid { gamma, coef0 } => (gamma * dot(a, b) + coef0).tanh(),
        }
    }
}

/// The usual degrees by multiplication: a power is not exact.
fn power(base: f32, degree: f32) -> f32 {
    if degree == 2.0 {
        base * base
    } else if degree == 3.0 {
        base * base * base
    } else {
        base.powf(degree)
    }
}

/// The squared distance.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The rows that an input is compared with.
#[derive(Debug)]
pub(super) struct Support {
    pub(super) likeness: Likeness,
    pub(super) vectors: Vec<f32>,
    pub(super) features: usize,
}

impl Support {
    pub(super) fn read(node: &NodeProto, count: usize) -> TractResult<Support> {
        let vectors = floats(node, "support_vectors")?;
        let features = vectors.len().checked_div(count).unwrap_or(0);
        let even = features > 0 && features.checked_mul(count) == Some(vectors.len());
        ensure!(even, "{}: {} values cannot be {count} support vectors", node.op_type, vectors.len());
        Ok(Support { likeness: Likeness::read(node)?, vectors, features })
    }

    pub(super) fn likenesses<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        self.vectors.chunks_exact(self.features).map(|vector| self.likeness.of(row, vector))
    }
}
