//! Golden vectors: inputs and the outputs that a reference gave for them.
//!
//! Decides whether a model on this machine still answers as the reference did.
//! Where the reference comes from is not known here; it must not be this engine,
//! or the test sees only differences between machines.

use std::path::Path;

use crate::Limits;
use crate::error::RunError;
use crate::input::InputError;
use crate::model::Model;
use crate::npy;
use crate::port::Port;
use crate::tensor::{Data, Dtype, Tensor, each};

/// Inputs of a model and what it must answer, row by row, by the model's names (the
/// empty name will do where there is only one).
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// What to put in, as the model takes it: after pre-processing.
    pub inputs: Vec<(String, Tensor)>,
    /// What must come out, before post-processing.
    pub outputs: Vec<(String, Tensor)>,
}

/// How far an answer may be from the reference: the greater of the two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// In the output's own unit.
    pub abs: f64,
    /// As a share of the reference's magnitude.
    pub rel: f64,
}

/// How well model and reference agreed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Rows that were compared.
    pub rows: usize,
    /// Largest error.
    pub worst_abs: f64,
    /// Largest error as a share of the reference's magnitude, among the values whose
    /// error is above the absolute tolerance (below it a share says nothing).
    pub worst_rel: f64,
}

/// Why a golden test did not pass.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The archive cannot be read.
    #[error("the golden vectors cannot be read")]
    Read(#[from] InputError),
    /// The archive cannot be written.
    #[error("the golden vectors cannot be written")]
    Write(#[from] std::io::Error),
    /// The archive holds something else.
    #[error("{name:?} is no golden vector; their names begin with \"in:\" or \"out:\"")]
    Foreign {
        /// The array's name.
        name: String,
    },
    /// There is nothing to compare, so nothing would be tested.
    #[error("there are no golden rows to compare")]
    Empty,
    /// The model has no such output.
    #[error("the model has no output {name:?}; it has {known:?}")]
    UnknownOutput {
        /// The reference's name.
        name: String,
        /// The model's names.
        known: Vec<String>,
    },
    /// An output of the model that nothing was said of would not be tested.
    #[error("the reference says nothing of the model's output {name:?}")]
    MissingOutput {
        /// The model's name.
        name: String,
    },
    /// The model cannot run on the golden inputs.
    #[error("the model does not run on the golden rows")]
    Run(#[from] RunError),
    /// The answer has another shape than the reference.
    #[error("output {output:?} has the shape {got:?}; the reference has {expected:?}")]
    Shape {
        /// The output.
        output: String,
        /// The reference's shape.
        expected: Vec<usize>,
        /// The model's shape.
        got: Vec<usize>,
    },
    /// The answer is text or a truth value where the reference is not, or the other way
    /// round. (How wide a number is does not matter: a reference is often FP64.)
    #[error("output {output:?} is {got}; the reference is {expected}")]
    Dtype {
        /// The output.
        output: String,
        /// The reference's type.
        expected: Dtype,
        /// The model's type.
        got: Dtype,
    },
    /// Text, a whole number or a truth value is another than the reference's.
    #[error("output {output:?}, row {row}: {got:?} where the reference says {expected:?}")]
    Unequal {
        /// The output.
        output: String,
        /// Index on axis 0, from 0.
        row: usize,
        /// The reference's value.
        expected: String,
        /// The model's value.
        got: String,
    },
    /// The model disagrees with the reference; the worst value is told.
    #[error("output {output:?}, row {row}: {got} where the reference says {expected} (off by {error:.1e})")]
    Mismatch {
        /// The output.
        output: String,
        /// Index on axis 0, from 0.
        row: usize,
        /// The reference's value.
        expected: f64,
        /// The model's value.
        got: f64,
        /// Their distance; infinite where one of them is no finite number.
        error: f64,
    },
}

impl Golden {
    /// Reads an archive that `write` wrote.
    ///
    /// # Errors
    /// `Read` and `Foreign`.
    pub fn read(path: &Path, limits: &Limits) -> Result<Golden, GoldenError> {
        let mut golden = Golden { inputs: Vec::new(), outputs: Vec::new() };
        for (name, tensor) in npy::read_archive(path, limits)? {
            if let Some(input) = name.strip_prefix("in:") {
                golden.inputs.push((input.to_owned(), tensor));
            } else if let Some(output) = name.strip_prefix("out:") {
                golden.outputs.push((output.to_owned(), tensor));
            } else {
                return Err(GoldenError::Foreign { name });
            }
        }
        Ok(golden)
    }

    /// Writes an `.npz` archive; the same vectors always give the same bytes.
    ///
    /// # Errors
    /// `Write`.
    pub fn write(&self, path: &Path) -> Result<(), GoldenError> {
        let inputs = self.inputs.iter().map(|(name, tensor)| (format!("in:{name}"), tensor));
        let outputs = self.outputs.iter().map(|(name, tensor)| (format!("out:{name}"), tensor));
        Ok(npy::write_archive(path, inputs.chain(outputs))?)
    }

    /// Runs the model on the golden inputs and compares.
    ///
    /// A value that is no finite number agrees only with the same one; text, whole
    /// numbers and truth values must be equal.
    ///
    /// # Errors
    /// `Unequal` for the first of these that is not, `Mismatch` for the value that is
    /// furthest off, and the others where there is
    /// nothing that could be compared.
    pub fn check(&self, model: &Model, tolerance: Tolerance) -> Result<Agreement, GoldenError> {
        if self.outputs.is_empty() {
            return Err(GoldenError::Empty);
        }
        let ports = model.outputs();
        let names = |name: &str, port: &Port| port.name == name || (name.is_empty() && ports.len() == 1);
        let answers = model.run_rows(&model.arrange(&self.inputs)?)?;
        let mut agreement = Agreement { rows: 0, worst_abs: 0.0, worst_rel: 0.0 };
        let mut worst: Option<Difference> = None;
        for (name, reference) in &self.outputs {
            let Some(index) = ports.iter().position(|port| names(name, port)) else {
                let known = ports.iter().map(|port| port.name.clone()).collect();
                return Err(GoldenError::UnknownOutput { name: name.clone(), known });
            };
            let output = &ports[index].name;
            let differences = differences(output, reference, &answers[index])?;
            agreement.rows = agreement.rows.max(reference.row_count());
            if same_words(output, reference, &answers[index])? {
                continue;
            }
            let tolerance = match ports[index].dtype.is_float() {
                true => tolerance,
                false => Tolerance { abs: 0.0, rel: 0.0 },
            };
            for difference in differences {
                agreement.see(&difference, tolerance);
                let worse = worst.as_ref().is_none_or(|worst| difference.error > worst.error);
                if worse && !difference.within(tolerance) {
                    worst = Some(difference);
                }
            }
        }
        match worst {
            Some(Difference { output, row, expected, got, error }) => {
                Err(GoldenError::Mismatch { output: output.to_owned(), row, expected, got, error })
            }
            None if self.outputs.iter().all(|(_, tensor)| tensor.is_empty()) => Err(GoldenError::Empty),
            None => match ports.iter().find(|port| !self.outputs.iter().any(|(name, _)| names(name, port))) {
                Some(port) => Err(GoldenError::MissingOutput { name: port.name.clone() }),
                None => Ok(agreement),
            },
        }
    }
}

struct Difference<'a> {
    output: &'a str,
    row: usize,
    expected: f64,
    got: f64,
    error: f64,
}

impl Difference<'_> {
    fn within(&self, tolerance: Tolerance) -> bool {
        self.error <= tolerance.abs.max(tolerance.rel * self.expected.abs()) && self.error.is_finite()
    }
}

impl Agreement {
    fn see(&mut self, difference: &Difference, tolerance: Tolerance) {
        self.worst_abs = self.worst_abs.max(difference.error);
        if difference.error > tolerance.abs {
            self.worst_rel = self.worst_rel.max(difference.error / difference.expected.abs());
        }
    }
}

fn differences<'a>(
    output: &'a str,
    reference: &Tensor,
    answer: &Tensor,
) -> Result<impl Iterator<Item = Difference<'a>>, GoldenError> {
    if reference.shape != answer.shape || reference.check().is_err() {
        return Err(GoldenError::Shape {
            output: output.to_owned(),
            expected: reference.shape.clone(),
            got: answer.shape.clone(),
        });
    }
    let width = (reference.len() / reference.row_count().max(1)).max(1);
    let pairs = reference.to_f64().into_iter().zip(answer.to_f64());
    Ok(pairs.enumerate().map(move |(index, (expected, got))| {
        let same = expected == got || (expected.is_nan() && got.is_nan());
        let error = match (expected - got).abs() {
            _ if same => 0.0,
            error if error.is_finite() => error,
            _ => f64::INFINITY,
        };
        Difference { output, row: index / width, expected, got, error }
    }))
}

/// Whether answer and reference were compared as what must be equal, and were: as
/// words, because FP64 holds neither text nor every whole number.
fn same_words(output: &str, reference: &Tensor, answer: &Tensor) -> Result<bool, GoldenError> {
    let output = || output.to_owned();
    let (expected, got) = (reference.dtype(), answer.dtype());
    if [Dtype::Text, Dtype::Bool].iter().any(|kind| (expected == *kind) != (got == *kind)) {
        return Err(GoldenError::Dtype { output: output(), expected, got });
    }
    let (Some(expected), Some(got)) = (words(&reference.data), words(&answer.data)) else { return Ok(false) };
    match expected.iter().zip(&got).position(|(expected, got)| expected != got) {
        None => Ok(true),
        Some(index) => Err(GoldenError::Unequal {
            output: output(),
            row: reference.row_of(index),
            expected: expected[index].clone(),
            got: got[index].clone(),
        }),
    }
}

/// Every element in words, unless they are floats.
fn words(data: &Data) -> Option<Vec<String>> {
    match data {
        Data::F32(_) | Data::F64(_) => None,
        _ => Some(each!(data, values => values.iter().map(ToString::to_string).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Load, floats};
    use tract_onnx::pb::tensor_proto::DataType;

    const TOLERANCE: Tolerance = Tolerance { abs: 1e-5, rel: 1e-4 };

    fn golden(inputs: &[f32], outputs: &[f32]) -> Golden {
        Golden {
            inputs: vec![("x".to_owned(), floats(&[inputs.len() / 2, 2], inputs))],
            outputs: vec![("y".to_owned(), floats(&[outputs.len() / 2, 2], outputs))],
        }
    }

    #[test]
    fn vectors_survive_the_archive_and_two_writes_are_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a.npz"), dir.path().join("b.npz"));
        let mut golden = golden(&[1.0, 2.0], &[f32::INFINITY, -0.0]);
        for data in [
            Data::F64(vec![1.0 / 3.0]),
            Data::I32(vec![-7]),
            Data::I64(vec![i64::MAX]),
            Data::U8(vec![200]),
            Data::Bool(vec![true]),
            Data::Text(vec!["grün".to_owned()]),
        ] {
            golden.outputs.push((data.dtype().to_string(), Tensor::new(vec![1, 1], data).unwrap()));
        }
        golden.write(&first).unwrap();
        golden.write(&second).unwrap();
        assert_eq!(Golden::read(&first, &Limits::default()).unwrap(), golden);
        assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
        // Not only within one second: the archive holds no time but the format's zero.
        let bytes = std::fs::read(&first).unwrap();
        assert_eq!(bytes[10..14], [0, 0, 0x21, 0]);
    }

    #[test]
    fn an_archive_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("golden.npz");
        std::fs::write(&path, b"PK\x03\x04 and nothing more").unwrap();
        let error = Golden::read(&path, &Limits::default()).unwrap_err();
        assert!(matches!(error, GoldenError::Read(InputError::Array { .. })), "{error:?}");
        let tensor = floats(&[1], &[1.0]);
        npy::write_archive(&path, [("x".to_owned(), &tensor)].into_iter()).unwrap();
        let error = Golden::read(&path, &Limits::default()).unwrap_err();
        assert!(matches!(error, GoldenError::Foreign { name } if name == "x"));
    }

    /// `y = x + [1, 10]`.
    #[test]
    fn agreement_is_measured_and_the_worst_value_is_told() {
        let model = testing::adder().load().unwrap();
        let good = golden(&[1.0, 2.0, 3.0, 4.0], &[2.0, 12.0, 4.0, 14.0001]);
        let agreement = good.check(&model, TOLERANCE).unwrap();
        assert_eq!(agreement.rows, 2);
        assert!((agreement.worst_abs - 1e-4).abs() < 1e-6, "{agreement:?}");
        assert!((agreement.worst_rel - 1e-4 / 14.0).abs() < 1e-7, "{agreement:?}");

        let bad = golden(&[1.0, 2.0, 3.0, 4.0], &[2.1, 12.0, 5.0, 14.0]);
        match bad.check(&model, TOLERANCE).unwrap_err() {
            GoldenError::Mismatch { output, row, expected, got, error } => {
                assert_eq!((&*output, row, expected, got, error), ("y", 1, 5.0, 4.0, 1.0));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn text_and_whole_numbers_must_be_equal() {
        let model = |kind: DataType| {
            let mut proto = testing::identity(&[None]);
            proto.graph.as_mut().unwrap().input[0] = testing::port("x", kind, &[None]);
            proto.load().unwrap()
        };
        let golden = |given: Data, expected: Data| {
            let named = |name: &str, data: Data| vec![(name.to_owned(), Tensor::new(vec![2], data).unwrap())];
            Golden { inputs: named("x", given), outputs: named("y", expected) }
        };
        let text = |second: &str| Data::Text(vec!["a".to_owned(), second.to_owned()]);
        let texts = model(DataType::String);
        assert_eq!(golden(text("b"), text("b")).check(&texts, TOLERANCE).unwrap().rows, 2);
        let error = golden(text("b"), text("c")).check(&texts, TOLERANCE).unwrap_err();
        assert_eq!(error.to_string(), "output \"y\", row 1: \"b\" where the reference says \"c\"");
        let error = golden(text("b"), Data::I64(vec![1, 2])).check(&texts, TOLERANCE).unwrap_err();
        assert!(matches!(error, GoldenError::Dtype { got: Dtype::Text, .. }), "{error:?}");
        // These two are the same in FP64.
        let whole = |last: i64| Data::I64(vec![0, last]);
        let error = golden(whole(i64::MAX), whole(i64::MAX - 1)).check(&model(DataType::Int64), TOLERANCE).unwrap_err();
        assert!(matches!(error, GoldenError::Unequal { row: 1, .. }), "{error:?}");
    }

    #[test]
    fn a_truth_value_is_no_number_but_a_wider_number_is_the_same() {
        let tensor = |data: Data| Tensor::new(vec![1], data).unwrap();
        let compare = |expected: Data, got: Data| same_words("y", &tensor(expected), &tensor(got));
        let truth = Data::Bool(vec![true]);
        for other in [Data::I64(vec![1]), Data::F32(vec![1.0]), Data::Text(vec!["true".to_owned()])] {
            for (expected, got) in [(truth.clone(), other.clone()), (other, truth.clone())] {
                let error = compare(expected, got).unwrap_err();
                assert!(matches!(error, GoldenError::Dtype { .. }), "{error:?}");
            }
        }
        assert!(compare(truth.clone(), truth.clone()).unwrap());
        assert!(matches!(compare(truth, Data::Bool(vec![false])), Err(GoldenError::Unequal { .. })));
        assert!(compare(Data::I64(vec![-1]), Data::I8(vec![-1])).unwrap());
        assert!(matches!(compare(Data::I64(vec![-1]), Data::U8(vec![255])), Err(GoldenError::Unequal { .. })));
        // Floats are left to the tolerance, of whatever width.
        assert!(!compare(Data::F64(vec![0.5]), Data::F32(vec![0.5])).unwrap());
        assert!(!compare(Data::I64(vec![2]), Data::F32(vec![2.0])).unwrap());
    }

    #[test]
    fn an_output_without_a_reference_is_not_passed_over() {
        let mut proto = testing::adder();
        let graph = proto.graph.as_mut().unwrap();
        graph.node.push(testing::node("Neg", &["y"], &["z"]));
        graph.output.push(testing::port("z", DataType::Float, &[None, Some(2)]));
        let model = proto.load().unwrap();
        let mut golden = golden(&[1.0, 2.0], &[2.0, 12.0]);
        let error = golden.check(&model, TOLERANCE).unwrap_err();
        assert!(matches!(error, GoldenError::MissingOutput { name } if name == "z"));
        golden.outputs.push(("z".to_owned(), floats(&[1, 2], &[-2.0, -12.0])));
        assert!(golden.check(&model, TOLERANCE).is_ok());
    }

    #[test]
    fn what_is_no_number_agrees_only_with_itself() {
        let model = testing::adder().load().unwrap();
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        assert!(golden(&[nan, inf], &[nan, inf]).check(&model, TOLERANCE).is_ok());
        for (inputs, outputs) in [([nan, 0.0], [1.0, 10.0]), ([0.0, 0.0], [nan, 10.0]), ([inf, 0.0], [-inf, 10.0])] {
            let error = golden(&inputs, &outputs).check(&model, TOLERANCE).unwrap_err();
            let worst = matches!(error, GoldenError::Mismatch { error: f64::INFINITY, .. });
            assert!(worst, "{inputs:?} {outputs:?} {error:?}");
        }
    }

    #[test]
    fn a_test_that_would_test_nothing_is_refused() {
        let model = testing::adder().load().unwrap();
        let mut golden = golden(&[1.0, 2.0], &[2.0, 12.0]);
        golden.outputs[0].0 = "z".to_owned();
        let error = golden.check(&model, TOLERANCE).unwrap_err();
        assert!(matches!(error, GoldenError::UnknownOutput { .. }), "{error:?}");
        golden.outputs[0].0 = String::new();
        assert!(golden.check(&model, TOLERANCE).is_ok());
        golden.outputs[0].1 = floats(&[2], &[2.0, 12.0]);
        let error = golden.check(&model, TOLERANCE).unwrap_err();
        assert!(matches!(error, GoldenError::Shape { .. }), "{error:?}");
        golden.outputs.clear();
        let error = golden.check(&model, TOLERANCE).unwrap_err();
        assert!(matches!(error, GoldenError::Empty), "{error:?}");
    }

    #[test]
    fn a_model_of_one_row_is_checked_on_many() {
        let model = testing::adder_of_rows(Some(1)).load().unwrap();
        let good = golden(&[1.0, 2.0, 3.0, 4.0], &[2.0, 12.0, 4.0, 14.0]);
        assert_eq!(good.check(&model, TOLERANCE).unwrap().rows, 2);
    }
}
