//! A bundle's folder as something that answers: pre-processing, model,
//! post-processing.
//!
//! Decides in which order they meet, and that an answer which is no number is an
//! error. What a step does is decided by `processing`. Knows no manifest and no
//! signature: the folder's files have been believed before it is opened.

use std::path::Path;

use crate::Limits;
use crate::error::{LoadError, RunError};
use crate::input::Input;
use crate::model::Model;
use crate::observed::Observed;
use crate::processing::{Answer, Post, Pre};
use crate::table::Column;
use crate::tensor::Tensor;

/// A model with the processing that its bundle declares; may be shared between threads.
#[derive(Debug)]
pub struct Pipeline {
    model: Model,
    pre: Pre,
    post: Post,
    limits: Limits,
}

impl Pipeline {
    /// Opens a folder with `model.onnx` and, where used, `pre.json`, `post.json`,
    /// `labels.txt` and `tokenizer.json`.
    ///
    /// # Errors
    /// `LoadError` when a file cannot be read or understood, or the declared steps do
    /// not suit the model.
    pub fn open(dir: &Path, limits: &Limits) -> Result<Pipeline, LoadError> {
        let model = Model::load(&dir.join("model.onnx"), limits)?;
        let pre = Pre::open(dir, model.inputs())?;
        let post = Post::open(dir, model.inputs(), model.outputs())?;
        Ok(Pipeline { model, pre, post, limits: limits.clone() })
    }

    /// As `Model::with_rows_at_once`.
    pub fn with_rows_at_once(self, rows: Option<usize>) -> Pipeline {
        Pipeline { model: self.model.with_rows_at_once(rows), ..self }
    }

    /// The model inside.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The classes' names, in the order of the model's output.
    pub fn labels(&self) -> Option<&[String]> {
        self.post.labels()
    }

    /// From an input to an answer: `prepare` and `answer` in one.
    ///
    /// # Errors
    /// `RunError`.
    pub fn infer(&self, input: &Input) -> Result<Answer, RunError> {
        self.answer(&self.prepare(input)?)
    }

    /// Pre-processes: one tensor for each of the model's inputs, in its order, shape
    /// and type.
    ///
    /// # Errors
    /// `RunError` when the input does not fit the model.
    pub fn prepare(&self, input: &Input) -> Result<Vec<Tensor>, RunError> {
        self.model.arrange(&self.pre.prepare(input, self.model.inputs(), &self.limits)?)
    }

    /// Runs the model on prepared tensors and post-processes.
    ///
    /// # Errors
    /// `RunError`; `NonFinite` when any output value is NaN or infinite.
    pub fn answer(&self, prepared: &[Tensor]) -> Result<Answer, RunError> {
        self.check_missing(prepared)?;
        let names = self.model.outputs().iter().map(|port| port.name.clone());
        let outputs: Vec<(String, Tensor)> = names.zip(self.model.run_rows(prepared)?).collect();
        for (name, tensor) in &outputs {
            if let Some(element) = tensor.first_non_finite() {
                let (output, row) = (name.clone(), tensor.row_of(element));
                return Err(RunError::NonFinite { output, row });
            }
        }
        self.post.answer(prepared, outputs)
    }

    /// As `infer`, and what is measured of it for drift.
    ///
    /// # Errors
    /// `RunError`.
    pub fn observe(&self, input: &Input) -> Result<(Answer, Observed), RunError> {
        let prepared = self.prepare(input)?;
        let answer = self.answer(&prepared)?;
        let measured = self.pre.observe(input, &prepared, self.model.inputs(), &self.limits);
        let observed = Observed::new(measured, &answer);
        Ok((answer, observed))
    }

    /// What is measured of many rows, a few at a time: of a baseline nobody wants the answers.
    ///
    /// # Errors
    /// `RunError` of the first that cannot be answered.
    pub fn observe_rows(&self, rows: &Input) -> Result<Observed, RunError> {
        // Windows overlap: they are cut from the whole.
        let count = if self.pre.takes_rows() { rows.row_count() } else { 0 };
        if count <= ROWS {
            return Ok(self.observe(rows)?.1);
        }
        let mut all = Observed::default();
        for first in (0..count).step_by(ROWS) {
            all.append(self.observe(&rows.rows(first..count.min(first + ROWS)))?.1);
        }
        Ok(all)
    }

    /// What is measured of an input alone, whether or not the model can answer it.
    ///
    /// # Errors
    /// `RunError` when the input does not fit the model.
    pub fn observe_inputs(&self, rows: &Input) -> Result<Vec<Column>, RunError> {
        let prepared = self.prepare(rows)?;
        Ok(self.pre.observe(rows, &prepared, self.model.inputs(), &self.limits))
    }

    /// Refuses what is no number before a model that has no operator for it: comparisons, as in Relu, would
    /// make a confident answer of it.
    fn check_missing(&self, prepared: &[Tensor]) -> Result<(), RunError> {
        let knows = |operator: &String| operator.starts_with(TREES) || MISSING.contains(&operator.as_str());
        if self.model.operators().iter().any(knows) {
            return Ok(());
        }
        for (port, tensor) in self.model.inputs().iter().zip(prepared) {
            if let Some(element) = tensor.first_non_finite() {
                let (name, row) = (&port.name, tensor.row_of(element) + 1);
                let reason =
                    format!("input {name:?}, row {row}: a value is missing or infinite, and the model takes none");
                return Err(RunError::Unfit { reason });
            }
        }
        Ok(())
    }
}

/// Rows that are measured at a time.
const ROWS: usize = 256;

/// Operators that know what a missing value is; the trees are told apart by their beginning.
const MISSING: [&str; 3] = ["ai.onnx.ml.Imputer", "IsNaN", "IsInf"];
const TREES: &str = "ai.onnx.ml.TreeEnsemble";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;
    use crate::testing::{self, Load, floats, graph, node};

    const CLASSIFY: &str = r#"{"version":1,"steps":[{"op":"softmax"},{"op":"argmax"},{"op":"labels"}]}"#;
    const STANDARDISE: &str = r#"{"version":1,"kind":"tabular","steps":[
        {"op":"select","columns":["b","a"]},{"op":"impute","values":[5,6]},
        {"op":"standardise","mean":[1,2],"std":[2,4]}]}"#;

    fn table(text: &str) -> Input {
        Input::Table(Table::parse(text.as_bytes(), &Limits::default()).unwrap())
    }

    #[test]
    fn rows_become_classes_with_names_and_scores() {
        let files = [("post.json", CLASSIFY), ("labels.txt", "cat\ndog\n")];
        let pipeline = testing::identity(&[None, Some(2)]).open(&files).unwrap();
        let input = floats(&[3, 2], &[0.0, 3f32.ln(), 1.0, 1.0, 900.0, -900.0]);
        let answer = pipeline.infer(&Input::Tensors(vec![(String::new(), input)])).unwrap();
        let class = |index, label: &str| (index, Some(label.to_owned()));
        let classes = answer.classes.unwrap();
        let named: Vec<_> = classes.iter().map(|c| (c.index, c.label.clone())).collect();
        assert_eq!(named, [class(1, "dog"), class(0, "cat"), class(0, "cat")]);
        for (class, score) in classes.iter().zip([0.75, 0.5, 1.0]) {
            assert!((class.score - score).abs() < 1e-6, "{class:?}");
        }
        assert_eq!(answer.outputs[0].1.len(), 6);
    }

    #[test]
    fn features_are_selected_imputed_and_standardised() {
        let pipeline = testing::identity(&[None, Some(2)]).open(&[("pre.json", STANDARDISE)]).unwrap();
        let prepared = pipeline.prepare(&table("a,b,c\n10,3,0\n,,0\n")).unwrap();
        assert_eq!(prepared, [floats(&[2, 2], &[1.0, 2.0, 2.0, 1.0])]);
        let tensor = floats(&[1, 2], &[f32::NAN, 10.0]);
        let prepared = pipeline.prepare(&Input::Tensors(vec![("x".to_owned(), tensor)])).unwrap();
        assert_eq!(prepared, [floats(&[1, 2], &[2.0, 2.0])]);

        let error = pipeline.prepare(&table("a,c\n1,2\n")).unwrap_err();
        assert_eq!(error.to_string(), "column \"b\" is missing; the table has [\"a\", \"c\"]");
        let wide = floats(&[1, 3], &[0.0; 3]);
        let error = pipeline.infer(&Input::Tensors(vec![(String::new(), wide)])).unwrap_err();
        assert!(matches!(error, RunError::Shape { .. }), "{error:?}");
    }

    #[test]
    fn without_declarations_columns_pass_as_they_are() {
        let pipeline = testing::identity(&[None, Some(2), Some(1)]).open(&[]).unwrap();
        let answer = pipeline.infer(&table("a,b\n1,2\n3,4\n")).unwrap();
        assert_eq!(answer.outputs, [("y".to_owned(), floats(&[2, 2, 1], &[1.0, 2.0, 3.0, 4.0]))]);
        assert_eq!(answer.classes, None);
        let error = pipeline.infer(&table("a,b,c\n1,2,3\n")).unwrap_err();
        assert!(matches!(error, RunError::Shape { .. }), "{error:?}");
        let error = pipeline.infer(&Input::Image(vec![])).unwrap_err();
        assert!(error.to_string().contains("takes no images"), "{error}");
    }

    #[test]
    fn an_answer_that_is_no_number_is_an_error() {
        let pipeline = graph(vec![node("Sqrt", &["x"], &["y"])], vec![]).open(&[]).unwrap();
        let infer = |values: [f32; 4]| pipeline.infer(&Input::Tensors(vec![(String::new(), floats(&[2, 2], &values))]));
        assert!(infer([1.0, 4.0, 0.0, 9.0]).is_ok());
        let output = "y".to_owned();
        assert_eq!(infer([1.0, 1.0, 1.0, -1.0]), Err(RunError::NonFinite { output, row: 1 }));
        for missing in [f32::INFINITY, f32::NAN] {
            let error = infer([1.0, 1.0, missing, 1.0]).unwrap_err();
            assert!(matches!(&error, RunError::Unfit { reason } if reason.contains("row 2")), "{error:?}");
        }
    }

    #[test]
    fn declarations_that_do_not_suit_the_model_are_refused() {
        let short = STANDARDISE.replace("[5,6]", "[5]");
        let grey = r#"{"version":1,"kind":"image","steps":[{"op":"grey"}]}"#;
        for (files, expected) in [
            (vec![("pre.json", &*short)], "impute: values has 1 values for 2 features"),
            (vec![("pre.json", grey)], "it makes [1, 1, ?, ?], and the model takes [?, 2]"),
            (vec![("post.json", CLASSIFY)], "there is no labels.txt"),
            (vec![("post.json", CLASSIFY), ("labels.txt", "a\nb\nc\n")], "names 3 classes"),
            (vec![("labels.txt", "a\n\nb\n")], "line 2 is empty"),
            (vec![("post.json", "{}")], "must say \"version\": 1"),
        ] {
            let error = testing::identity(&[None, Some(2)]).open(&files).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }
}
