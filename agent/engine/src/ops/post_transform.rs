//! What is done to scores at last: the `post_transform` of the classical operators.
//!
//! Decides the five transforms of one row of scores, in the arithmetic of ONNX
//! Runtime. Does not know which operator made the scores, nor how one score
//! becomes two classes: that is each operator's own matter.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// A transform of one row of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PostTransform {
    /// Scores stay as they are.
    None,
    /// Exponentials that sum to 1.
    Softmax,
    /// Each on its own between 0 and 1.
    Logistic,
    /// As softmax, but a score of zero stays zero.
    SoftmaxZero,
    /// The normal distribution's quantile of each.
    Probit,
}

impl PostTransform {
    /// The node's `post_transform`; none where it names none.
    ///
    /// # Errors
    /// When it names one that is not in the specification.
    pub(super) fn read(node: &NodeProto) -> TractResult<PostTransform> {
        Ok(match node.get_attr_opt::<&str>("post_transform")?.unwrap_or("NONE") {
            "NONE" => PostTransform::None,
            "SOFTMAX" => PostTransform::Softmax,
            "LOGISTIC" => PostTransform::Logistic,
            "SOFTMAX_ZERO" => PostTransform::SoftmaxZero,
            "PROBIT" => PostTransform::Probit,
            other => bail!("{}: {other:?} is no post_transform", node.op_type),
        })
    }

    /// Transforms one row of scores in place.
    pub(super) fn apply(self, row: &mut [f32]) {
        match self {
            PostTransform::None => {}
            PostTransform::Softmax => softmax(row, |_| true),
            PostTransform::SoftmaxZero => softmax(row, |score| score.abs() > 1e-7),
            PostTransform::Logistic => row.iter_mut().for_each(|score| *score = logistic(*score)),
            PostTransform::Probit => row.iter_mut().for_each(|score| *score = probit(*score)),
        }
    }
}

/// Softmax over the scores that take part; the others, all but zero, keep their size.
fn softmax(row: &mut [f32], takes_part: impl Fn(f32) -> bool) {
    let most = row.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in row.iter_mut() {
        if takes_part(*score) {
            *score = (*score - most).exp();
            sum += *score;
        } else {
            *score *= (-most).exp();
        }
    }
    row.iter_mut().for_each(|score| *score /= sum);
}

/// 1 / (1 + e^-x), never by the exponential of a large number.
fn logistic(score: f32) -> f32 {
    let positive = 1.0 / (1.0 + (-score.abs()).exp());
    if score < 0.0 { 1.0 - positive } else { positive }
}

/// The quantile by Winitzki's approximation of the inverse error function (a = 0.147),
/// which is the one that ONNX Runtime takes: the exact one would differ by some 0.002.
fn probit(score: f32) -> f32 {
    const A: f32 = 0.147;
    let x = 2.0 * score - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (std::f32::consts::PI * A) + 0.5 * log;
    let magnitude = (-half + (half * half - 1.0 / A * log).sqrt()).sqrt();
    std::f32::consts::SQRT_2 * if x < 0.0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(transform: PostTransform, row: &[f32]) -> Vec<f32> {
        let mut row = row.to_vec();
        transform.apply(&mut row);
        row
    }

    fn close(got: &[f32], expected: &[f32], within: f32) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() <= within, "{got} is not {expected}");
        }
    }

    #[test]
    fn scores_become_what_the_formulas_say() {
        let (ln3, zero) = (3f32.ln(), 0.0);
        close(&applied(PostTransform::None, &[-2.0, 7.0]), &[-2.0, 7.0], 0.0);
        close(&applied(PostTransform::Softmax, &[zero, ln3]), &[0.25, 0.75], 1e-6);
        close(&applied(PostTransform::Softmax, &[1000.0, -1000.0]), &[1.0, 0.0], 0.0);
        close(&applied(PostTransform::SoftmaxZero, &[zero, ln3, ln3]), &[0.0, 0.5, 0.5], 1e-6);
        close(&applied(PostTransform::Logistic, &[zero, ln3, -ln3, -1000.0]), &[0.5, 0.75, 0.25, 0.0], 1e-6);
        // The 97.5 % quantile is 1.95996; the approximation is known to be this good.
        close(&applied(PostTransform::Probit, &[0.5, 0.975, 0.025]), &[0.0, 1.95996, -1.95996], 5e-3);
        assert!(applied(PostTransform::Softmax, &[]).is_empty());
    }

    #[test]
    fn a_transform_that_nobody_specified_is_refused() {
        let mut node = crate::testing::node("LinearRegressor", &["x"], &["y"]);
        assert_eq!(PostTransform::read(&node).unwrap(), PostTransform::None);
        node.attribute = vec![crate::testing::attribute("post_transform", "SOFTMAX_ZERO")];
        assert_eq!(PostTransform::read(&node).unwrap(), PostTransform::SoftmaxZero);
        node.attribute = vec![crate::testing::attribute("post_transform", "SQUARE")];
        assert!(PostTransform::read(&node).unwrap_err().to_string().contains("SQUARE"));
    }
}
