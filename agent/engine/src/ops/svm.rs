//! SVMClassifier and SVMRegressor.
//!
//! Decides how support vectors, or plain weights where there are none, become scores
//! and votes, and votes a class, as ONNX Runtime decides it. Does not know how rows
//! are compared, nor how pairs of probabilities are coupled.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::coupling::couple;
use super::kernel::{Built, Kernel, area, dot, float_rows, floats, numeric, only, operator, rows, tensor, values};
use super::labels::Labels;
use super::likeness::{Likeness, Support};
use super::linear::{largest, two_classes};
use super::post_transform::PostTransform;

/// A list of as many values as something else demands.
fn exactly(node: &NodeProto, name: &str, count: usize, why: &str) -> TractResult<Vec<f32>> {
    let values = floats(node, name)?;
    ensure!(values.len() == count, "{}: {name} has {} values, and {why} need {count}", node.op_type, values.len());
    Ok(values)
}

#[derive(Debug)]
struct Classifier {
    labels: Labels,
    machine: Machine,
    /// For each pair of classes, where there are any: slope and offset.
    sigmoids: Vec<(f32, f32)>,
    post_transform: PostTransform,
}

/// What makes the scores.
#[derive(Debug)]
enum Machine {
    /// One set of weights for each class.
    Weights { sets: Vec<f32>, features: usize, rho: f32, positive: bool },
    /// One machine for each pair of classes, out of the same support vectors.
    Pairs { support: Support, starts: Vec<usize>, coefficients: Vec<f32>, rho: Vec<f32> },
}

pub(super) fn classifier(_: &ParsingContext, node: &NodeProto) -> Built {
    let labels = Labels::read(node)?;
    let classes = labels.len();
    let pairs = classes.checked_mul(classes - 1).map(|twice| twice / 2);
    let pairs = pairs.context("SVMClassifier: too many classes")?;
    let machine = Machine::read(node, classes, pairs)?;
    let (a, b) = (floats(node, "prob_a")?, floats(node, "prob_b")?);
    ensure!(a.len() == b.len(), "SVMClassifier: prob_a has {} values, and prob_b {}", a.len(), b.len());
    let fits = a.is_empty() || a.len() == pairs;
    ensure!(fits, "SVMClassifier: prob_a has {} values, and {classes} classes need {pairs}", a.len());
    let sigmoids = a.into_iter().zip(b).collect();
    operator(node, Classifier { labels, machine, sigmoids, post_transform: PostTransform::read(node)? })
}

impl Machine {
    fn read(node: &NodeProto, classes: usize, pairs: usize) -> TractResult<Machine> {
        let per_class = node.get_attr_opt_vec::<usize>("vectors_per_class")?.unwrap_or_default();
        let mut starts = vec![0usize];
        for count in &per_class {
            let end = starts[starts.len() - 1].checked_add(*count);
            starts.push(end.context("SVMClassifier: vectors_per_class is too large")?);
        }
        let vectors = starts[starts.len() - 1];
        if vectors == 0 {
            let sets = floats(node, "coefficients")?;
            let even = !sets.is_empty() && sets.len().is_multiple_of(classes);
            ensure!(even, "SVMClassifier: {} coefficients cannot be shared by {classes} classes", sets.len());
            let rho = floats(node, "rho")?.first().copied().context("SVMClassifier: it has no rho")?;
            let positive = sets.iter().all(|weight| *weight >= 0.0);
            return Ok(Machine::Weights { features: sets.len() / classes, sets, rho, positive });
        }
        ensure!(classes > 1, "SVMClassifier: support vectors need two classes or more");
        let counts = per_class.len();
        ensure!(counts == classes, "SVMClassifier: vectors_per_class has {counts} values for {classes} classes");
        // First, because its length is that of the data and everything else must agree.
        let support = Support::read(node, vectors)?;
        let weights = vectors.checked_mul(classes - 1).context("SVMClassifier: too many coefficients")?;
        let coefficients = exactly(node, "coefficients", weights, "its support vectors and classes")?;
        let rho = exactly(node, "rho", pairs, "its pairs of classes")?;
        Ok(Machine::Pairs { support, starts, coefficients, rho })
    }

    fn features(&self) -> usize {
        match self {
            Machine::Weights { features, .. } => *features,
            Machine::Pairs { support, .. } => support.features,
        }
    }
}

/// Scores of each pair (i, j) of classes, i < j, above zero for i; and the votes.
/// `coefficients` has a row for each class but one: those of class i against j are in
/// row j - 1 where j > i, in row j where j < i.
fn duels(like: &[f32], starts: &[usize], coefficients: &[f32], rho: &[f32]) -> (Vec<f32>, Vec<usize>) {
    let (vectors, classes) = (like.len(), starts.len() - 1);
    let weighed = |class: usize, row: usize| -> f64 {
        let range = starts[class]..starts[class + 1];
        let weights = &coefficients[row * vectors..][range.clone()];
        weights.iter().zip(&like[range]).map(|(weight, like)| f64::from(weight * like)).sum()
    };
    let (mut scores, mut votes) = (Vec::with_capacity(rho.len()), vec![0; classes]);
    for i in 0..classes {
        for j in i + 1..classes {
            let score = weighed(i, j - 1) + weighed(j, i) + f64::from(rho[scores.len()]);
            scores.push(score as f32);
            votes[if score > 0.0 { i } else { j }] += 1;
        }
    }
    (scores, votes)
}

impl Classifier {
    /// How many scores a row has: those of the pairs where nothing makes them one for
    /// each class.
    fn width(&self) -> usize {
        match &self.machine {
            Machine::Pairs { rho, .. } if self.sigmoids.is_empty() => rho.len().max(2),
            _ => self.labels.len(),
        }
    }

    /// The class of a row; its scores go to the end of `all`.
    fn classify(&self, row: &[f32], all: &mut Vec<f32>) -> usize {
        let start = all.len();
        let (support, starts, coefficients, rho) = match &self.machine {
            Machine::Pairs { support, starts, coefficients, rho } => (support, starts, coefficients, rho),
            Machine::Weights { sets, features, rho, positive } => {
                all.extend(sets.chunks_exact(*features).map(|set| dot(row, set) + rho));
                let best = largest(&all[start..]);
                let enough = if *positive { all[start + best] >= 0.5 } else { all[start + best] > 0.0 };
                self.post_transform.apply(&mut all[start..]);
                // Of two classes, the second wins by any score that is enough.
                return if self.labels.len() == 2 && self.sigmoids.is_empty() && enough { 1 } else { best };
            }
        };
        let like: Vec<f32> = support.likenesses(row).collect();
        let (scores, votes) = duels(&like, starts, coefficients, rho);
        if !self.sigmoids.is_empty() {
            all.extend(couple(&scores, &self.sigmoids, votes.len()));
            self.post_transform.apply(&mut all[start..]);
        } else if let [score] = scores[..] {
            all.extend(two_classes(score, -score, self.post_transform));
        } else {
            all.extend(scores);
            self.post_transform.apply(&mut all[start..]);
        }
        largest(&votes)
    }
}

impl Kernel for Classifier {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        numeric(input.datum_type)?;
        let rows = rows(input, self.machine.features())?;
        let labels = self.labels.datum_type().fact([rows.clone()]);
        Ok(tvec!(labels, f32::fact([rows, self.width().to_dim()])))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let features = self.machine.features();
        let (rows, input) = float_rows(only(inputs)?, features)?;
        let mut all = Vec::with_capacity(area(rows, self.width())?);
        let input = values::<f32>(&input)?.chunks_exact(features);
        let best: Vec<usize> = input.map(|row| self.classify(row, &mut all)).collect();
        Ok(tvec!(self.labels.tensor(&best), tensor(&[rows, self.width()], all)?))
    }
}

/// One value for each row, or whether the row is like the others (1) or not (-1).
#[derive(Debug)]
struct Regressor {
    support: Support,
    coefficients: Vec<f32>,
    rho: f32,
    one_class: bool,
}

pub(super) fn regressor(_: &ParsingContext, node: &NodeProto) -> Built {
    let count = node.get_attr_opt::<usize>("n_supports")?.unwrap_or(0);
    let rho = floats(node, "rho")?.first().copied().context("SVMRegressor: it has no rho")?;
    // Read to refuse what is none; ONNX Runtime transforms no single value either.
    PostTransform::read(node)?;
    let (support, coefficients) = if count > 0 {
        let support = Support::read(node, count)?;
        (support, exactly(node, "coefficients", count, "its support vectors")?)
    } else {
        let weights = floats(node, "coefficients")?;
        ensure!(!weights.is_empty(), "SVMRegressor: it has neither support vectors nor coefficients");
        (Support { likeness: Likeness::Linear, features: weights.len(), vectors: weights }, vec![1.0])
    };
    let one_class = node.get_attr_opt::<i64>("one_class")?.unwrap_or(0) != 0;
    operator(node, Regressor { support, coefficients, rho, one_class })
}

impl Kernel for Regressor {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        numeric(input.datum_type)?;
        Ok(tvec!(f32::fact([rows(input, self.support.features)?, 1.to_dim()])))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let (rows, input) = float_rows(only(inputs)?, self.support.features)?;
        let input = values::<f32>(&input)?.chunks_exact(self.support.features);
        let value = |row| {
            let pairs = self.support.likenesses(row).zip(&self.coefficients);
            let value = pairs.map(|(like, weight)| like * weight).sum::<f32>() + self.rho;
            match self.one_class {
                true if value > 0.0 => 1.0,
                true => -1.0,
                false => value,
            }
        };
        Ok(tvec!(tensor(&[rows, 1], input.map(value).collect())?))
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::AttributeProto;

    use crate::ops::testing::{close, ints, refusal, row, run, texts};
    use crate::testing::{attribute, floats};

    /// Support vectors 1 for class 7 and -1 for class 9: the score is x - -x + 0.5.
    fn pair(more: Vec<AttributeProto>) -> Vec<AttributeProto> {
        let mut attributes = vec![
            attribute("support_vectors", vec![1f32, -1.0]),
            attribute("coefficients", vec![1f32, -1.0]),
            attribute("vectors_per_class", vec![1i64, 1]),
            attribute("rho", vec![0.5f32]),
            attribute("classlabels_ints", vec![7i64, 9]),
        ];
        attributes.extend(more);
        attributes
    }

    #[test]
    fn a_pair_of_classes_is_told_apart_by_one_score() {
        let rows = || floats(&[2, 1], &[2.0, -2.0]);
        let got = run("SVMClassifier", 2, rows(), pair(vec![]));
        assert_eq!(got[0], ints(&[2], &[7, 9]));
        close(&got[1], &[2, 2], &[-4.5, 4.5, 3.5, -3.5]);
        // 1 / (1 + e^-score) for the first class; two classes need no coupling but its tolerance.
        let platt = vec![attribute("prob_a", vec![-1f32]), attribute("prob_b", vec![0f32])];
        let got = run("SVMClassifier", 2, rows(), pair(platt));
        assert_eq!(got[0], ints(&[2], &[7, 9]));
        for (got, score) in got[1].as_f32().chunks(2).zip([4.5f32, -3.5]) {
            assert!((got[0] - 1.0 / (1.0 + (-score).exp())).abs() < 5e-3, "{got:?}");
        }
    }

    #[test]
    fn more_classes_are_chosen_by_votes() {
        // One support vector each, at 1, 2 and 3; every pair compares its two.
        let attributes = vec![
            attribute("support_vectors", vec![1f32, 2.0, 3.0]),
            attribute("coefficients", vec![1f32, -1.0, -1.0, 1.0, 1.0, -1.0]),
            attribute("vectors_per_class", vec![1i64, 1, 1]),
            attribute("rho", vec![0f32; 3]),
            attribute("classlabels_strings", vec!["a", "b", "c"]),
            attribute("kernel_type", "RBF"),
            attribute("kernel_params", vec![1f32, 0.0, 0.0]),
        ];
        let got = run("SVMClassifier", 2, floats(&[2, 1], &[1.0, 3.0]), attributes);
        assert_eq!(got[0], texts(&[2], &["a", "c"]));
        let (near, far) = ((-1f32).exp(), (-4f32).exp());
        close(&got[1], &[2, 3], &[1.0 - near, 1.0 - far, near - far, far - near, far - 1.0, near - 1.0]);
    }

    #[test]
    fn every_kernel_is_its_formula() {
        let value = |kernel: &str, degree: f32| {
            let attributes = vec![
                attribute("support_vectors", vec![1f32, 2.0]),
                attribute("coefficients", vec![2f32]),
                attribute("n_supports", 1i64),
                attribute("rho", vec![1f32]),
                attribute("kernel_type", kernel),
                attribute("kernel_params", vec![0.5f32, 1.0, degree]),
            ];
            run("SVMRegressor", 1, row(&[3.0, 1.0]), attributes).remove(0)
        };
        close(&value("LINEAR", 0.0), &[1, 1], &[2.0 * 5.0 + 1.0]);
        close(&value("POLY", 2.0), &[1, 1], &[2.0 * 3.5 * 3.5 + 1.0]);
        close(&value("POLY", 3.0), &[1, 1], &[2.0 * 3.5 * 3.5 * 3.5 + 1.0]);
        close(&value("RBF", 0.0), &[1, 1], &[2.0 * (-2.5f32).exp() + 1.0]);
        close(&value("SIGMOID", 0.0), &[1, 1], &[2.0 * 3.5f32.tanh() + 1.0]);
    }

    #[test]
    fn one_class_says_inside_or_outside() {
        let attributes =
            vec![attribute("coefficients", vec![1f32]), attribute("rho", vec![-1f32]), attribute("one_class", 1i64)];
        close(&run("SVMRegressor", 1, floats(&[3, 1], &[2.0, 1.0, 0.0]), attributes)[0], &[3, 1], &[1.0, -1.0, -1.0]);
    }

    #[test]
    fn weights_without_vectors_are_scores() {
        let attributes = vec![
            attribute("coefficients", vec![1f32, -1.0]),
            attribute("rho", vec![0.25f32]),
            attribute("classlabels_ints", vec![7i64, 9]),
        ];
        let got = run("SVMClassifier", 2, floats(&[2, 1], &[-1.0, -0.125]), attributes);
        close(&got[1], &[2, 2], &[-0.75, 1.25, 0.125, 0.375]);
        assert_eq!(got[0], ints(&[2], &[9, 9]));
    }

    #[test]
    fn attributes_that_cannot_be_meant_are_refused() {
        let replaced = |name: &str, value: AttributeProto| {
            let mut attributes = pair(vec![]);
            attributes.retain(|attribute| attribute.name != name);
            attributes.push(value);
            attributes
        };
        for (attributes, why) in [
            (replaced("rho", attribute("rho", vec![0f32; 2])), "rho has 2 values"),
            (replaced("coefficients", attribute("coefficients", vec![1f32])), "coefficients has 1 values"),
            (replaced("support_vectors", attribute("support_vectors", vec![1f32; 3])), "cannot be 2 support vectors"),
            (replaced("vectors_per_class", attribute("vectors_per_class", vec![i64::MAX; 3])), "too large"),
            (replaced("vectors_per_class", attribute("vectors_per_class", vec![i64::MAX, 1])), "support vectors"),
            (replaced("vectors_per_class", attribute("vectors_per_class", vec![2i64])), "1 values for 2 classes"),
            (replaced("vectors_per_class", attribute("vectors_per_class", vec![-1i64, 3])), "non-negative"),
            (replaced("x", attribute("prob_a", vec![1f32])), "prob_a has 1 values, and prob_b 0"),
            (replaced("x", attribute("kernel_type", "MAGIC")), "no kernel_type"),
            (replaced("x", attribute("kernel_params", vec![1f32])), "not 1 values"),
            (replaced("rho", attribute("rho", vec![f32::INFINITY])), "rho[0] is inf"),
        ] {
            let reason = refusal("SVMClassifier", row(&[0.0]), attributes);
            assert!(reason.contains(why), "{reason:?} does not say {why:?}");
        }
        let huge = vec![
            attribute("n_supports", i64::MAX),
            attribute("rho", vec![0f32]),
            attribute("coefficients", vec![1f32]),
        ];
        let reason = refusal("SVMRegressor", row(&[0.0]), huge);
        assert!(reason.contains("support vectors"), "{reason}");
    }
}
