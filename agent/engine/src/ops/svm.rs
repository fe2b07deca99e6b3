//! SVMClassifier and SVMRegressor.
//!
//! Decides how support vectors, or plain weights where there are none, become scores
//! and votes, and votes a class, as ONNX Runtime decides it. Does not know how
//! pairs of probabilities are coupled.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::coupling::couple;
use super::kernel::{Built, Kernel, dot, float_rows, floats, numeric, only, operator, rows, tensor, values};
use super::labels::Labels;
use super::linear::{largest, two_classes};
use super::post_transform::PostTransform;

/// How alike two rows are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Likeness {
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
struct Support {
    likeness: Likeness,
    vectors: Vec<f32>,
    features: usize,
}

impl Support {
    fn read(node: &NodeProto, count: usize) -> TractResult<Support> {
        let vectors = floats(node, "support_vectors")?;
        let features = vectors.len().checked_div(count).unwrap_or(0);
        let even = features > 0 && features.checked_mul(count) == Some(vectors.len());
        ensure!(even, "{}: {} values cannot be {count} support vectors", node.op_type, vectors.len());
        Ok(Support { likeness: Likeness::read(node)?, vectors, features })
    }

    fn likenesses<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        self.vectors.chunks_exact(self.features).map(|vector| self.likeness.of(row, vector))
    }
}

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
        let mut all = Vec::with_capacity(rows * self.width());
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
