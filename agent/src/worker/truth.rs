//! What came true: answers are remembered for a while, by the id of their request, until somebody says what was right.
//!
//! Decides when an answer was right, and what is counted of it. Answers are forgotten when there are too many; nothing of
//! them is written down, and nothing but the counts leaves the device.

use engine::{Answer, Class, Data};
use protocol::{CALIBRATION_BINS, Calibrated, Performance};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use trust::Labelled;

/// Answers of a release that are remembered, the latest.
const MOST_ANSWERS: usize = 4096;
/// The longest id, in bytes.
const MAX_ID_BYTES: usize = 128;

/// What was right, as somebody says later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Truth {
    /// The id of the request; of the row N of several, counted from 1, `ID#N`.
    pub(crate) id: String,
    /// A class by its name or its number, or a value.
    pub(crate) label: Label,
}

/// A class or a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Label {
    /// A value, or the number of a class.
    Number(f64),
    /// The name of a class.
    Name(String),
}

impl From<Labelled> for Truth {
    fn from(Labelled { id, label }: Labelled) -> Self {
        Self { id, label: Label::Name(label) }
    }
}

/// What is remembered of one answer.
#[derive(Debug)]
enum Remembered {
    Class { index: usize, label: Option<String>, score: f32 },
    Value(f64),
}

/// The latest answers of a release, and what is known of how right they were.
#[derive(Debug, Default)]
pub(super) struct Answers {
    by_id: BTreeMap<String, Remembered>,
    order: VecDeque<String>,
    performance: Performance,
}

impl Answers {
    /// Remembers an answer, row by row. What is no class and no single value is not remembered.
    pub(super) fn note(&mut self, id: &str, answer: &Answer) {
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return;
        }
        let rows: Vec<Remembered> = match (&answer.classes, answer.outputs.first()) {
            (Some(classes), _) => classes.iter().map(Remembered::of).collect(),
            (None, Some((_, tensor)))
                if !matches!(tensor.data, Data::Text(_)) && tensor.len() == tensor.row_count() =>
            {
                tensor.to_f64().into_iter().map(Remembered::Value).collect()
            }
            (None, _) => return,
        };
        let several = rows.len() > 1;
        for (row, remembered) in rows.into_iter().enumerate().take(MOST_ANSWERS) {
            let id = if several { format!("{id}#{}", row + 1) } else { id.to_owned() };
            if self.by_id.insert(id.clone(), remembered).is_none() {
                self.order.push_back(id);
            }
        }
        while self.order.len() > MOST_ANSWERS {
            self.order.pop_front().map(|id| self.by_id.remove(&id));
        }
    }

    /// Holds an answer against what was right, once; whether it is remembered.
    pub(super) fn judge(&mut self, truth: &Truth) -> bool {
        let right = match (self.by_id.get(&truth.id), &truth.label) {
            (Some(Remembered::Class { index, label, score }), said) => {
                let bin = (score * CALIBRATION_BINS as f32) as usize;
                let Calibrated { count, right, score: sum } =
                    &mut self.performance.calibration[bin.min(CALIBRATION_BINS - 1)];
                *count += 1;
                *right += u64::from(is(*index, label.as_deref(), said));
                *sum += (f64::from(score.clamp(0.0, 1.0)) * 1e6) as u64;
                true
            }
            (Some(Remembered::Value(value)), said) => {
                let Some(error) = said.number().map(|said| (value - said).abs()).filter(|e| e.is_finite()) else {
                    return false;
                };
                let error =
                    Performance { values: 1, absolute: error, squared: error * error, ..Performance::default() };
                self.performance.add(&error);
                true
            }
            (None, _) => false,
        };
        if right {
            self.by_id.remove(&truth.id);
            self.order.retain(|id| *id != truth.id);
        }
        right
    }

    /// Counts truths that found no answer anywhere.
    pub(super) fn miss(&mut self, unknown: u64) {
        self.performance.unknown = self.performance.unknown.saturating_add(unknown);
    }

    /// What became known since the last call.
    pub(super) fn take(&mut self) -> Option<Performance> {
        Some(std::mem::take(&mut self.performance)).filter(|performance| !performance.is_empty())
    }
}

impl Label {
    fn number(&self) -> Option<f64> {
        match self {
            Label::Number(number) => Some(*number),
            Label::Name(text) => text.trim().parse().ok(),
        }
    }
}

impl Remembered {
    fn of(class: &Class) -> Self {
        Remembered::Class { index: class.index, label: class.label.clone(), score: class.score }
    }
}

/// Whether a class is the one that was said: by its name where it has one, else by its number.
fn is(index: usize, label: Option<&str>, said: &Label) -> bool {
    match (said, label) {
        (Label::Name(name), Some(label)) => name == label,
        (Label::Name(name), None) => name.parse() == Ok(index),
        (Label::Number(number), Some(label)) => label.parse() == Ok(*number) || *number == index as f64,
        (Label::Number(number), None) => *number == index as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Tensor;

    fn classes(classes: &[(usize, f32)]) -> Answer {
        let class =
            |(index, score): &(usize, f32)| Class { index: *index, label: Some(format!("c{index}")), score: *score };
        let outputs = vec![("y".into(), Tensor::new(vec![1, 1], Data::F32(vec![0.0])).unwrap())];
        Answer { outputs, classes: Some(classes.iter().map(class).collect()), top: None, anomalies: None }
    }

    fn values(values: &[f64]) -> Answer {
        let outputs = vec![("y".into(), Tensor::new(vec![values.len(), 1], Data::F64(values.to_vec())).unwrap())];
        Answer { outputs, classes: None, top: None, anomalies: None }
    }

    fn name(id: &str, label: &str) -> Truth {
        Truth { id: id.into(), label: Label::Name(label.into()) }
    }

    fn number(id: &str, label: f64) -> Truth {
        Truth { id: id.into(), label: Label::Number(label) }
    }

    #[test]
    fn classes_are_right_or_wrong_and_counted_by_confidence() {
        let mut answers = Answers::default();
        answers.note("one", &classes(&[(3, 0.95)]));
        answers.note("two", &classes(&[(1, 0.95), (2, 1.0)]));
        assert!(
            answers.judge(&name("one", "c3"))
                && answers.judge(&name("two#1", "c9"))
                && answers.judge(&number("two#2", 2.0))
        );
        assert!(!answers.judge(&name("one", "c3")), "each once");
        assert!(!answers.judge(&name("two", "c1")), "of several rows each has its own id");
        let told = answers.take().unwrap();
        assert_eq!(told.classes(), (3, 2));
        assert_eq!((told.calibration[9].count, told.calibration[9].score / 1_000), (3, 2_899));
        assert_eq!(answers.take(), None);
    }

    #[test]
    fn values_have_errors() {
        let mut answers = Answers::default();
        answers.note("a", &values(&[10.0]));
        answers.note("b", &values(&[1.0]));
        assert!(answers.judge(&number("a", 7.0)) && answers.judge(&number("b", 2.0)));
        answers.note("c", &values(&[1.0]));
        assert!(!answers.judge(&name("c", "high")) && !answers.judge(&number("c", f64::NAN)));
        let told = answers.take().unwrap();
        assert_eq!((told.values, told.absolute, told.squared), (2, 4.0, 10.0));
    }

    #[test]
    fn the_oldest_answers_are_forgotten() {
        let mut answers = Answers::default();
        (0..=MOST_ANSWERS).for_each(|n| answers.note(&n.to_string(), &values(&[0.0])));
        assert!(!answers.judge(&number("0", 0.0)) && answers.judge(&number("1", 0.0)));
        assert!(answers.by_id.len() == answers.order.len() && answers.by_id.len() < MOST_ANSWERS);
        answers.note(&"x".repeat(MAX_ID_BYTES + 1), &values(&[0.0]));
        assert!(answers.by_id.len() < MOST_ANSWERS);
    }
}
