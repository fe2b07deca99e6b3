//! LinearClassifier and LinearRegressor.
//!
//! Decides how many scores a row has and how a single score becomes two classes, as
//! ONNX Runtime decides it. Knows nothing of kernels and support vectors.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, area, dot, float_rows, floats, numeric, only, operator, rows, tensor, values};
use super::labels::Labels;
use super::post_transform::PostTransform;

/// Scores of a row: one inner product each, and an intercept.
#[derive(Debug)]
struct Weights {
    features: usize,
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
}

impl Weights {
    /// Without intercepts there are `scores` of them, and each is 0.
    fn read(node: &NodeProto, scores: usize) -> TractResult<Weights> {
        let coefficients = floats(node, "coefficients")?;
        let mut intercepts = floats(node, "intercepts")?;
        if intercepts.is_empty() && scores <= coefficients.len() {
            intercepts = vec![0.0; scores];
        }
        let (count, scores) = (coefficients.len(), intercepts.len());
        let even = scores > 0 && count > 0 && count.is_multiple_of(scores);
        ensure!(even, "{}: {count} coefficients cannot be shared by {scores} scores", node.op_type);
        Ok(Weights { features: count / scores, coefficients, intercepts })
    }

    fn scores<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let sets = self.coefficients.chunks_exact(self.features).zip(&self.intercepts);
        sets.map(|(set, intercept)| dot(row, set) + intercept)
    }
}

#[derive(Debug)]
struct Classifier {
    weights: Weights,
    labels: Labels,
    post_transform: PostTransform,
}

pub(super) fn classifier(_: &ParsingContext, node: &NodeProto) -> Built {
    let labels = Labels::read(node)?;
    let weights = Weights::read(node, labels.len())?;
    let (scores, classes) = (weights.intercepts.len(), labels.len());
    let fits = scores == classes || (scores == 1 && classes == 2);
    ensure!(fits, "LinearClassifier: {scores} scores cannot tell {classes} classes apart");
    operator(node, Classifier { weights, labels, post_transform: PostTransform::read(node)? })
}

impl Kernel for Classifier {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        numeric(input.datum_type)?;
        let rows = rows(input, self.weights.features)?;
        let labels = self.labels.datum_type().fact([rows.clone()]);
        Ok(tvec!(labels, f32::fact([rows, self.labels.len().to_dim()])))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let (rows, input) = float_rows(only(inputs)?, self.weights.features)?;
        let (mut best, mut all) = (Vec::with_capacity(rows), Vec::with_capacity(area(rows, self.labels.len())?));
        for row in values::<f32>(&input)?.chunks_exact(self.weights.features) {
            let start = all.len();
            all.extend(self.weights.scores(row));
            if let [score] = all[start..] {
                best.push(usize::from(score > 0.0));
                all.truncate(start);
                all.extend(two_classes(score, 1.0 - score, self.post_transform));
            } else {
                best.push(largest(&all[start..]));
                self.post_transform.apply(&mut all[start..]);
            }
        }
        Ok(tvec!(self.labels.tensor(&best), tensor(&[rows, self.labels.len()], all)?))
    }
}

/// The scores of two classes, from the second's and what the first has where nothing
/// is asked for. Softmax of a single score says nothing, and is not done.
pub(super) fn two_classes(score: f32, other: f32, transform: PostTransform) -> [f32; 2] {
    let mut pair = match transform {
        PostTransform::None => return [other, score],
        PostTransform::Softmax | PostTransform::SoftmaxZero => return [1.0 - score, score],
        PostTransform::Logistic => [-score, score],
        PostTransform::Probit => [1.0 - score, score],
    };
    transform.apply(&mut pair);
    pair
}

/// The index of the largest, the first of equals.
pub(super) fn largest<T: PartialOrd + Copy>(scores: &[T]) -> usize {
    let better = |best: usize, index: usize| if scores[index] > scores[best] { index } else { best };
    (0..scores.len()).fold(0, better)
}

#[derive(Debug)]
struct Regressor {
    weights: Weights,
    post_transform: PostTransform,
}

pub(super) fn regressor(_: &ParsingContext, node: &NodeProto) -> Built {
    let targets = node.get_attr_opt::<usize>("targets")?.unwrap_or(1);
    let weights = Weights::read(node, targets)?;
    let scores = weights.intercepts.len();
    ensure!(scores == targets, "LinearRegressor: {scores} intercepts for {targets} targets");
    operator(node, Regressor { weights, post_transform: PostTransform::read(node)? })
}

impl Kernel for Regressor {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        numeric(input.datum_type)?;
        let rows = rows(input, self.weights.features)?;
        Ok(tvec!(f32::fact([rows, self.weights.intercepts.len().to_dim()])))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let (rows, input) = float_rows(only(inputs)?, self.weights.features)?;
        let targets = self.weights.intercepts.len();
        area(rows, targets)?;
        let input = values::<f32>(&input)?.chunks_exact(self.weights.features);
        let mut all: Vec<f32> = input.flat_map(|row| self.weights.scores(row)).collect();
        // ONNX Runtime leaves a single target alone, but for the probit.
        if targets > 1 || self.post_transform == PostTransform::Probit {
            all.chunks_exact_mut(targets).for_each(|row| self.post_transform.apply(row));
        }
        Ok(tvec!(tensor(&[rows, targets], all)?))
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{close, ints, refusal, row, run, texts};
    use crate::testing::{attribute, floats};

    #[test]
    fn the_class_of_the_largest_score_wins() {
        let attributes = vec![
            attribute("coefficients", vec![1f32, 0.0, 0.0, 1.0, -1.0, -1.0]),
            attribute("intercepts", vec![0f32, 0.5, 0.0]),
            attribute("classlabels_strings", vec!["a", "b", "c"]),
        ];
        let got = run("LinearClassifier", 2, floats(&[3, 2], &[2.0, 1.0, 0.0, 1.0, -1.0, -1.0]), attributes);
        assert_eq!(got[0], texts(&[3], &["a", "b", "c"]));
        close(&got[1], &[3, 3], &[2.0, 1.5, -3.0, 0.0, 1.5, -1.0, -1.0, -0.5, 2.0]);
    }

    #[test]
    fn one_score_is_shared_by_two_classes() {
        let scored = |transform: &str| {
            let attributes = vec![
                attribute("coefficients", vec![1f32]),
                attribute("intercepts", vec![0f32]),
                attribute("classlabels_ints", vec![7i64, 9]),
                attribute("post_transform", transform),
            ];
            run("LinearClassifier", 2, floats(&[2, 1], &[3f32.ln(), -3f32.ln()]), attributes)
        };
        let got = scored("LOGISTIC");
        assert_eq!(got[0], ints(&[2], &[9, 7]));
        close(&got[1], &[2, 2], &[0.25, 0.75, 0.75, 0.25]);
        let ln3 = 3f32.ln();
        close(&scored("NONE")[1], &[2, 2], &[1.0 - ln3, ln3, 1.0 + ln3, -ln3]);
    }

    #[test]
    fn a_list_of_features_is_one_row() {
        let attributes = vec![attribute("coefficients", vec![1f32, 2.0]), attribute("intercepts", vec![3f32])];
        close(&run("LinearRegressor", 1, floats(&[2], &[10.0, 100.0]), attributes)[0], &[1, 1], &[213.0]);
    }

    #[test]
    fn several_targets_are_transformed_together() {
        let attributes = vec![
            attribute("coefficients", vec![1f32, 0.0]),
            attribute("targets", 2i64),
            attribute("post_transform", "SOFTMAX"),
        ];
        close(&run("LinearRegressor", 1, row(&[3f32.ln()]), attributes)[0], &[1, 2], &[0.75, 0.25]);
    }

    #[test]
    fn attributes_that_cannot_be_meant_are_refused() {
        let labels = || attribute("classlabels_ints", vec![1i64, 2, 3]);
        let weights = |count| attribute("coefficients", vec![1f32; count]);
        for (name, attributes, why) in [
            ("LinearClassifier", vec![weights(6)], "does not name its classes"),
            ("LinearClassifier", vec![labels()], "0 coefficients"),
            ("LinearClassifier", vec![labels(), weights(5)], "5 coefficients cannot be shared by 3"),
            ("LinearClassifier", vec![labels(), weights(4), attribute("intercepts", vec![0f32; 2])], "2 scores cannot"),
            ("LinearClassifier", vec![labels(), weights(9)], "made for 3 features, and the input has 2"),
            (
                "LinearClassifier",
                vec![labels(), attribute("coefficients", vec![f32::NAN; 6])],
                "coefficients[0] is NaN",
            ),
            ("LinearRegressor", vec![weights(2), attribute("targets", i64::MAX)], "2 coefficients"),
            ("LinearRegressor", vec![weights(2), attribute("targets", -1i64)], "non-negative"),
            ("LinearRegressor", vec![weights(2), attribute("targets", 0i64)], "2 coefficients"),
        ] {
            let reason = refusal(name, row(&[0.0, 0.0]), attributes);
            assert!(reason.contains(why), "{reason:?} does not say {why:?}");
        }
    }
}
