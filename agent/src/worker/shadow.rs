//! The shadow: a release that is asked what another has answered. Nobody hears it.
//!
//! Decides when it is asked (one question at a time; while it is busy the others pass) and what makes two answers others.
//! What follows is decided by the core.

use super::{Loaded, Question};
use engine::{Answer, Class, Data, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, Semaphore};

/// Numbers are alike that differ by less than this share of the larger …
const SHARE: f64 = 0.05;
/// … or by less than this.
const LEAST: f64 = 1e-6;

/// A release in memory that is compared.
#[derive(Debug)]
pub(crate) struct Shadow {
    /// The release.
    pub(super) loaded: Arc<Loaded>,
    turn: Arc<Semaphore>,
    compared: AtomicU64,
    disagreed: AtomicU64,
}

impl Shadow {
    pub(super) fn new(loaded: Arc<Loaded>) -> Self {
        let (compared, disagreed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { loaded, turn: Arc::new(Semaphore::new(1)), compared, disagreed }
    }

    /// Asks it what was answered, unless it is still at an earlier question. Whoever asked waits for nothing of this.
    pub(super) fn follow(self: &Arc<Self>, question: Question, answer: &Answer, stirred: Arc<Notify>) {
        let Ok(turn) = self.turn.clone().try_acquire_owned() else { return };
        let (shadow, answer) = (self.clone(), answer.clone());
        tokio::spawn(async move {
            // No answer is another one. What is asked here is not what the release is counted by on trial.
            let rows = rows_of(&answer);
            let others = match shadow.loaded.process.ask(&question, shadow.loaded.row_us).await {
                Ok(own) => differing(&answer, &own.answer),
                Err(silence) => {
                    tracing::debug!(release = shadow.loaded.release, ?silence, "no answer in the shadow");
                    rows
                }
            };
            shadow.compared.fetch_add(rows as u64, Ordering::Relaxed);
            shadow.disagreed.fetch_add(others as u64, Ordering::Relaxed);
            drop(turn);
            stirred.notify_one();
        });
    }

    /// Rows that were compared since the last call, and those that were others.
    pub(super) fn take(&self) -> (u64, u64) {
        // Others first: what is added in between is compared with the next.
        let disagreed = self.disagreed.swap(0, Ordering::Relaxed);
        (self.compared.swap(0, Ordering::Relaxed), disagreed)
    }
}

fn rows_of(answer: &Answer) -> usize {
    answer.outputs.iter().map(|(_, tensor)| tensor.row_count()).max().unwrap_or(0).max(1)
}

/// The rows whose answers are others: of another class, where there are classes, or else with a number that is not alike.
fn differing(one: &Answer, other: &Answer) -> usize {
    let rows = rows_of(one);
    if let (Some(classes), Some(others)) = (&one.classes, &other.classes)
        && classes.len() == others.len()
    {
        return classes.iter().zip(others).filter(|(class, other)| !same(class, other)).count();
    }
    let mut differs = vec![false; rows];
    for (name, tensor) in &one.outputs {
        match other.outputs.iter().find(|(known, _)| known == name) {
            Some((_, other)) if other.shape == tensor.shape => mark(&mut differs, tensor, other),
            // Nothing to be compared with.
            Some(_) | None => return rows,
        }
    }
    differs.iter().filter(|differs| **differs).count()
}

/// By name where both have one: a newer release may have its classes in another order.
fn same(one: &Class, other: &Class) -> bool {
    match (&one.label, &other.label) {
        (Some(label), Some(other)) => label == other,
        (None, _) | (_, None) => one.index == other.index,
    }
}

/// Marks the rows in which two tensors of one shape differ; one that has not as many rows counts for the first.
fn mark(differs: &mut [bool], one: &Tensor, other: &Tensor) {
    let width = if one.row_count() == differs.len() { one.len() / differs.len() } else { one.len() };
    let mut note = |at: usize| {
        if let Some(row) = differs.get_mut(at / width.max(1)) {
            *row = true;
        }
    };
    match (&one.data, &other.data) {
        (Data::Text(one), Data::Text(other)) => {
            one.iter().zip(other).enumerate().filter(|(_, (a, b))| a != b).for_each(|(at, _)| note(at));
        }
        _ => {
            let pairs = one.to_f64().into_iter().zip(other.to_f64());
            pairs.enumerate().filter(|(_, (a, b))| !alike(*a, *b)).for_each(|(at, _)| note(at));
        }
    }
}

fn alike(a: f64, b: f64) -> bool {
    (a - b).abs() <= LEAST.max(SHARE * a.abs().max(b.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(shape: &[usize], values: &[f32], classes: Option<&[(usize, Option<&str>)]>) -> Answer {
        let tensor = Tensor::new(shape.to_vec(), Data::F32(values.to_vec())).unwrap();
        let class = |(index, label): &(usize, Option<&str>)| Class {
            index: *index,
            label: label.map(str::to_owned),
            score: 0.5,
        };
        let classes = classes.map(|classes| classes.iter().map(class).collect());
        Answer { outputs: vec![("y".into(), tensor)], classes, top: None, anomalies: None }
    }

    #[test]
    fn answers_are_compared_row_by_row() {
        let one = answer(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 0.0, 0.0], None);
        let cases: [(&[f32], usize); 5] = [
            (&[1.0, 2.0, 3.0, 4.0, 0.0, 0.0], 0),
            (&[1.04, 1.91, 3.0, 4.0, 0.0, 1e-7], 0),
            (&[1.06, 1.0, 3.0, 4.0, 0.0, 0.0], 1),
            (&[1.0, 2.0, -3.0, 4.0, 0.0, 0.1], 2),
            (&[9.0, 9.0, 9.0, 9.0, 9.0, 9.0], 3),
        ];
        for (values, others) in cases {
            assert_eq!(differing(&one, &answer(&[3, 2], values, None)), others, "{values:?}");
        }
        assert_eq!(differing(&one, &answer(&[2, 3], &[1.0; 6], None)), 3, "another shape");
        assert_eq!(differing(&answer(&[1], &[f32::NAN], None), &answer(&[1], &[f32::NAN], None)), 1, "no number");
    }

    #[test]
    fn classes_decide_where_there_are_classes_by_their_names() {
        let of = |classes: &[(usize, Option<&str>)]| answer(&[2, 1], &[0.1, 0.9], Some(classes));
        let one = of(&[(0, Some("cat")), (1, Some("dog"))]);
        assert_eq!(differing(&one, &of(&[(1, Some("cat")), (0, Some("dog"))])), 0, "another order");
        assert_eq!(differing(&one, &of(&[(0, Some("dog")), (1, Some("dog"))])), 1);
        assert_eq!(differing(&one, &of(&[(1, None), (1, None)])), 1, "numbers where one has no names");
        assert_eq!(differing(&one, &answer(&[2, 1], &[0.1, 0.9], None)), 0, "numbers where one has no classes");
    }
}
