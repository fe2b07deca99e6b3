//! From sums to scores and classes.
//!
//! Decides base values, averages, the classes of a classifier and the scores beside
//! them. Two classes are a matter of their own: where only one of them has weights, its
//! score becomes two. In all of this the specification is silent, and what counts is
//! what ONNX Runtime 1.32 answers. Does not know trees.

use tract_onnx::tract_hir::internal::*;

use super::super::labels::Labels;
use super::super::post_transform::PostTransform;
use super::layout::{Aggregate, Drawn, Number};
use super::walk::Sums;

/// What is done with the sums of a row.
#[derive(Debug, Clone)]
pub(super) struct Finish {
    /// Added to each target: none, or one for each; or one, for two classes.
    pub(super) base: Vec<f64>,
    pub(super) transform: PostTransform,
    /// Of a classifier.
    pub(super) classes: Option<Classes>,
}

#[derive(Debug, Clone)]
pub(super) struct Classes {
    pub(super) labels: Labels,
    /// There are two, and all weights are for one of them.
    one_sided: bool,
    /// No weight is negative, so that a score is taken for a probability.
    positive: bool,
}

impl Classes {
    /// Of a classifier with these weights.
    ///
    /// For two classes that both have weights, and for a single class, ONNX Runtime
    /// answers with 0 and 1 whatever numbers the classes have; so it is here.
    pub(super) fn new(labels: Labels, drawn: &Drawn) -> Classes {
        let first = drawn.weights.first().map(|weight| weight.target);
        let one = drawn.weights.iter().all(|weight| Some(weight.target) == first);
        let one_sided = labels.len() == 2 && one;
        let positive = drawn.weights.iter().all(|weight| weight.value >= 0.0);
        let labels = match labels {
            Labels::Ints(labels) if labels.len() == 1 || labels.len() == 2 && !one_sided => Labels::Ints(vec![0, 1]),
            labels => labels,
        };
        Classes { labels, one_sided, positive }
    }
}

/// How one score becomes two: what stands beside it.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    /// 1 - score
    Rest,
    /// -score
    Opposite,
    /// Nothing does; ONNX Runtime leaves the place as it was in memory, here it is 0.
    Zero,
}

impl Finish {
    /// Finishes all rows in place, and gives the index of each row's class, if there are classes.
    pub(super) fn rows<T: Number>(
        &self,
        sums: &mut Sums<T>,
        targets: usize,
        how: Aggregate,
        trees: usize,
    ) -> Vec<usize> {
        let base: Vec<T> = self.base.iter().map(|base| T::from_f64(*base)).collect();
        let rows = sums.values.chunks_mut(targets).zip(sums.seen.chunks(targets));
        let mut chosen = Vec::new();
        for (values, seen) in rows {
            if how == Aggregate::Average {
                values.iter_mut().for_each(|value| *value = value.over(trees.max(1)));
            }
            match &self.classes {
                None => self.numbers(values, seen, &base),
                Some(classes) if targets <= 2 => chosen.push(self.two(classes, values, seen, &base)),
                Some(_) => {
                    values.iter_mut().zip(&base).for_each(|(value, base)| *value += *base);
                    chosen.push(best(values, seen, !base.is_empty()));
                    self.transform(values);
                }
            }
        }
        chosen
    }

    /// A regressor's row. A target of which no leaf spoke gets no base value, unless it
    /// is the only one; and the only one is transformed by PROBIT alone.
    fn numbers<T: Number>(&self, values: &mut [T], seen: &[bool], base: &[T]) {
        let only = values.len() == 1;
        for ((value, base), seen) in values.iter_mut().zip(base).zip(seen) {
            if *seen || only {
                *value += *base;
            }
        }
        if !only || self.transform == PostTransform::Probit {
            self.transform(values);
        }
    }

    /// The class among one or two.
    fn two<T: Number>(&self, classes: &Classes, values: &mut [T], seen: &[bool], base: &[T]) -> usize {
        if values.len() == 1 {
            values.iter_mut().zip(base).for_each(|(value, base)| *value += *base);
            let class = usize::from(values[0] > T::default());
            if self.transform == PostTransform::Probit {
                self.transform(values);
            }
            return class.min(classes.labels.len() - 1);
        }
        match *base {
            [_, second] if seen[1] => {
                values[0] += second;
                (values[0], values[1]) = (-values[0], values[0]);
            }
            [first, second] => {
                values[0] += first;
                values[1] += second;
            }
            [only] => values[0] += only,
            _ => {}
        }
        // A class of which no leaf spoke scores nothing, whatever was added to it.
        values.iter_mut().zip(seen).filter(|(_, seen)| !**seen).for_each(|(value, _)| *value = T::default());
        let score = if seen[1] { values[1] } else { values[0] };
        let enough = if classes.one_sided && classes.positive { T::from_f64(0.5) } else { T::default() };
        let class = usize::from(score > enough);
        if seen[1] || base.len() == 2 {
            self.transform(values);
        } else {
            let beside = match (classes.one_sided, base) {
                _ if self.transform == PostTransform::Probit => Beside::Zero,
                (true, _) if classes.positive => Beside::Rest,
                (true, _) | (false, []) => Beside::Opposite,
                (false, _) => Beside::Zero,
            };
            self.beside(beside, score, values);
        }
        class
    }

    fn beside<T: Number>(&self, beside: Beside, score: T, values: &mut [T]) {
        let pair = match beside {
            Beside::Zero => [score, T::default()],
            _ if self.transform == PostTransform::Logistic => [-score, score],
            Beside::Opposite => [-score, score],
            Beside::Rest => [T::from_f64(1.0) - score, score],
        };
        values.copy_from_slice(&pair);
        match self.transform {
            PostTransform::Logistic if beside != Beside::Zero => self.transform(values),
            PostTransform::Probit => self.transform(&mut values[..1]),
            _ => {}
        }
    }

    fn transform<T: Number>(&self, values: &mut [T]) {
        if self.transform != PostTransform::None {
            let mut row: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
            self.transform.apply(&mut row);
            values.iter_mut().zip(row).for_each(|(value, score)| *value = T::from_f64(f64::from(score)));
        }
    }
}

/// The first of the highest scores among the targets of which a leaf spoke; every one
/// counts where there are base values.
fn best<T: Number>(values: &[T], seen: &[bool], all: bool) -> usize {
    let mut best = None;
    for (index, value) in values.iter().enumerate().filter(|(index, _)| all || seen[*index]) {
        if best.is_none_or(|best: usize| *value > values[best]) {
            best = Some(index);
        }
    }
    best.unwrap_or(0)
}

/// Refuses base values that nobody could add.
pub(super) fn check_base(base: &[f64], targets: usize, classifier: bool) -> TractResult<()> {
    let fits = [0, targets].contains(&base.len()) || classifier && targets == 2 && base.len() == 1;
    ensure!(fits, "base_values: there are {} for {targets} targets or classes", base.len());
    ensure!(!base.iter().any(|value| value.is_nan()), "base_values: one is not a number");
    Ok(())
}
