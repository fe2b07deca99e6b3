//! A bundle's folder as something that answers: pre-processing, model,
//! post-processing.
//!
//! Decides whether the declared steps suit the model, and that an answer which is
//! no number is an error. Knows no manifest and no signature: the folder's files
//! have been believed before it is opened.

use std::path::Path;

use serde::Serialize;

use crate::Limits;
use crate::error::{LoadError, RunError};
use crate::input::Input;
use crate::model::Model;
use crate::picture::Picture;
use crate::port::{Port, show};
use crate::processing::{ImagePre, Post, Pre, TabularPre, declaration, parse_labels, softmax, wrong};
use crate::table::Table;
use crate::tensor::{Data, Dtype, Tensor, elements};

/// A model with the processing that its bundle declares; may be shared between threads.
#[derive(Debug)]
pub struct Pipeline {
    model: Model,
    pre: Pre,
    post: Post,
    labels: Option<Vec<String>>,
    limits: Limits,
}

/// What the model says.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Every output by name; the first after softmax, where that is declared.
    pub outputs: Vec<(String, Tensor)>,
    /// The likeliest class of each row of the first output, where argmax is declared.
    pub classes: Option<Vec<Class>>,
}

/// The likeliest class of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Class {
    /// Counted from 0; the first of equals.
    pub index: usize,
    /// Its name, where labels are declared.
    pub label: Option<String>,
    /// The output's value for it: a probability after softmax.
    pub score: f32,
}

impl Pipeline {
    /// Opens a folder with `model.onnx` and, where used, `pre.json`, `post.json` and
    /// `labels.txt`.
    ///
    /// # Errors
    /// `LoadError` when a file cannot be read or understood, or the declared steps do
    /// not suit the model.
    pub fn open(dir: &Path, limits: &Limits) -> Result<Pipeline, LoadError> {
        let pre = match declaration(dir, "pre.json")? {
            Some(bytes) => Pre::parse("pre.json", &bytes)?,
            None => Pre::Nothing,
        };
        let post = match declaration(dir, "post.json")? {
            Some(bytes) => Post::parse("post.json", &bytes)?,
            None => Post::default(),
        };
        let labels = declaration(dir, "labels.txt")?.map(|bytes| parse_labels(&bytes)).transpose()?;
        let model = Model::load(&dir.join("model.onnx"), limits)?;
        let pipeline = Pipeline { model, pre, post, labels, limits: limits.clone() };
        pipeline.check_pre()?;
        pipeline.check_post()?;
        Ok(pipeline)
    }

    /// The model inside.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The classes' names, in the order of the model's output.
    pub fn labels(&self) -> Option<&[String]> {
        self.labels.as_deref()
    }

    /// From an input to an answer: `prepare` and `answer` in one.
    ///
    /// # Errors
    /// `RunError`.
    pub fn infer(&self, input: &Input) -> Result<Answer, RunError> {
        self.answer(&self.prepare(input)?)
    }

    /// Pre-processes: one tensor for each of the model's inputs, in its order, shape
    /// and type. These are the engineered features that drift is measured on.
    ///
    /// # Errors
    /// `RunError` when the input does not fit the model.
    pub fn prepare(&self, input: &Input) -> Result<Vec<Tensor>, RunError> {
        match input {
            Input::Tensors(named) => match &self.pre {
                Pre::Tabular(pre) => {
                    let engineered = named
                        .iter()
                        .map(|(name, tensor)| Ok((name.clone(), engineer(pre, tensor, &self.model.inputs()[0])?)));
                    self.model.arrange(&engineered.collect::<Result<Vec<_>, _>>()?)
                }
                Pre::Image(_) | Pre::Nothing => self.model.arrange(named),
            },
            Input::Table(table) => self.table(table),
            Input::Image(bytes) => match &self.pre {
                Pre::Image(pre) => {
                    let tensor = image(pre, bytes, &self.limits)?;
                    self.model.arrange(&[(String::new(), tensor)])
                }
                Pre::Tabular(_) | Pre::Nothing => Err(RunError::Image {
                    reason: "this bundle takes no images: its pre.json does not declare how".to_owned(),
                }),
            },
        }
    }

    /// Runs the model on prepared tensors and post-processes.
    ///
    /// # Errors
    /// `RunError`; `NonFinite` when any output value is NaN or infinite.
    pub fn answer(&self, prepared: &[Tensor]) -> Result<Answer, RunError> {
        let names = self.model.outputs().iter().map(|port| port.name.clone());
        let mut outputs: Vec<(String, Tensor)> = names.zip(self.model.run_rows(prepared)?).collect();
        for (name, tensor) in &outputs {
            if let Some(element) = tensor.first_non_finite() {
                let (output, row) = (name.clone(), tensor.row_of(element));
                return Err(RunError::NonFinite { output, row });
            }
        }
        let mut classes = None;
        if let Some((_, first)) = outputs.first_mut() {
            let width = first.shape.last().copied().unwrap_or(1);
            if self.post.softmax {
                let mut values = first.to_f64();
                softmax(&mut values, width);
                first.data = floats(values, first.dtype());
            }
            classes = self.post.argmax.then(|| self.classes(first, width));
        }
        Ok(Answer { outputs, classes })
    }

    fn classes(&self, output: &Tensor, width: usize) -> Vec<Class> {
        let labels = self.labels.as_deref().filter(|_| self.post.labels);
        let class = |row: &[f32]| {
            let first = (0, row[0]);
            let pairs = row.iter().copied().enumerate();
            let (index, score) = pairs.fold(first, |best, next| if next.1 > best.1 { next } else { best });
            let label = labels.and_then(|labels| labels.get(index)).cloned();
            Class { index, label, score }
        };
        output.as_f32().chunks_exact(width.max(1)).map(class).collect()
    }

    /// A table as the model's only input; its columns fill the axes after the first.
    fn table(&self, table: &Table) -> Result<Vec<Tensor>, RunError> {
        let [port] = self.model.inputs() else {
            return Err(RunError::InputCount { expected: self.model.inputs().len(), got: 1 });
        };
        let columns: Vec<usize> = match &self.pre {
            Pre::Tabular(TabularPre { columns: Some(names), .. }) => {
                names.iter().map(|name| column(table, name)).collect::<Result<_, _>>()?
            }
            _ => (0..table.columns.len()).collect(),
        };
        let mut values = Vec::with_capacity(table.rows.len() * columns.len());
        for row in &table.rows {
            let cell = |index: &usize| f64::from(row.get(*index).copied().unwrap_or(f32::NAN));
            values.extend(columns.iter().map(cell));
        }
        if let Pre::Tabular(pre) = &self.pre {
            pre.apply(&mut values, columns.len());
        }
        let mut shape = vec![table.rows.len(), columns.len()];
        let rest: Option<Vec<usize>> = port.shape.iter().skip(1).copied().collect();
        if let Some(rest) = rest.filter(|rest| elements(rest) == Some(columns.len())) {
            shape.splice(1.., rest);
        }
        let tensor = Tensor { shape, data: Data::F64(values) };
        self.model.arrange(&[(String::new(), tensor)])
    }

    /// Whether the declared pre-processing makes what the model takes.
    fn check_pre(&self) -> Result<(), LoadError> {
        let file = "pre.json";
        let lone = match (&self.pre, self.model.inputs()) {
            (Pre::Nothing, _) => return Ok(()),
            (_, [port]) => port,
            (_, ports) => {
                let reason = format!("it is for one input, and the model has {}", ports.len());
                return Err(wrong(file, reason));
            }
        };
        match &self.pre {
            Pre::Nothing => {}
            Pre::Image(pre) => {
                let channels = Some(if pre.grey { 1 } else { 3 });
                let (width, height) = pre.resize.unzip();
                let made = [Some(1), channels, height, width];
                let agree =
                    |(want, got): (&Option<usize>, Option<usize>)| want.is_none() || got.is_none() || *want == got;
                let fits = lone.shape.len() == made.len() && lone.shape.iter().zip(made).all(agree);
                if !fits {
                    let (made, takes) = (show(&made), show(&lone.shape));
                    return Err(wrong(file, format!("it makes {made}, and the model takes {takes}")));
                }
            }
            Pre::Tabular(pre) => {
                let rest: Option<Vec<usize>> = lone.shape.iter().skip(1).copied().collect();
                let features = rest.and_then(|rest| elements(&rest));
                let lengths = pre.lengths();
                let features = features.or(lengths.first().map(|(_, length)| *length));
                let odd = lengths.iter().find(|(_, length)| Some(*length) != features);
                if let (Some((what, length)), Some(features)) = (odd, features) {
                    let reason = format!("{what} has {length} values for {features} features");
                    return Err(wrong(file, reason));
                }
            }
        }
        Ok(())
    }

    /// Whether the declared post-processing can be done to the model's first output.
    fn check_post(&self) -> Result<(), LoadError> {
        let file = "post.json";
        let Some(first) = self.model.outputs().first() else { return Ok(()) };
        let classes = first.shape.last().copied();
        if (self.post.softmax || self.post.argmax) && (classes.is_none() || classes == Some(Some(0))) {
            return Err(wrong(file, format!("output {:?} has no axis of classes", first.name)));
        }
        if self.post.softmax && !first.dtype.is_float() {
            return Err(wrong(file, format!("softmax: output {:?} is {}", first.name, first.dtype)));
        }
        match (&self.labels, classes.flatten()) {
            (None, _) if self.post.labels => Err(wrong(file, "labels: there is no labels.txt")),
            (Some(labels), Some(classes)) if self.post.labels && labels.len() != classes => {
                let reason = format!("it names {} classes, and the model has {classes}", labels.len());
                Err(wrong("labels.txt", reason))
            }
            _ => Ok(()),
        }
    }
}

/// The tabular steps on a tensor whose axes after the first are the features.
fn engineer(pre: &TabularPre, tensor: &Tensor, port: &Port) -> Result<Tensor, RunError> {
    let name = || port.name.clone();
    tensor.check().map_err(|source| RunError::Tensor { name: name(), source })?;
    if !port.fits_rows(&tensor.shape) {
        let (expected, got) = (port.shape.clone(), tensor.shape.clone());
        return Err(RunError::Shape { name: name(), expected, got });
    }
    let mut values = tensor.to_f64();
    pre.apply(&mut values, tensor.len() / tensor.row_count().max(1));
    Ok(Tensor { shape: tensor.shape.clone(), data: Data::F64(values) })
}

/// An image file as FP32 of shape [1, channels, height, width].
fn image(pre: &ImagePre, bytes: &[u8], limits: &Limits) -> Result<Tensor, RunError> {
    let picture = Picture::decode(bytes, limits).map_err(|reason| RunError::Image { reason })?;
    let picture = if pre.grey { picture.grey() } else { picture.colour() };
    let picture = match pre.resize {
        Some((width, height)) => picture.resize(width, height),
        None => picture,
    };
    let factor = pre.factor.unwrap_or(1.0);
    let Picture { width, height, channels, pixels } = picture;
    let plane = |channel| pixels.iter().skip(channel).step_by(channels);
    let value = |pixel: &u8| (f64::from(*pixel) * factor) as f32;
    let values = (0..channels).flat_map(plane).map(value).collect();
    Ok(Tensor { shape: vec![1, channels, height, width], data: Data::F32(values) })
}

fn column(table: &Table, name: &str) -> Result<usize, RunError> {
    let found = table.columns.iter().position(|column| column == name);
    found.ok_or_else(|| RunError::MissingColumn { name: name.to_owned(), given: table.columns.clone() })
}

fn floats(values: Vec<f64>, dtype: Dtype) -> Data {
    match dtype {
        Dtype::F32 => Data::F32(values.into_iter().map(|x| x as f32).collect()),
        _ => Data::F64(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Load, floats, graph, node};
    use std::io::Cursor;

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
    fn an_image_becomes_planes_of_scaled_pixels() {
        let pre = r#"{"version":1,"kind":"image","steps":[{"op":"scale","factor":0.5}]}"#;
        let model = testing::identity(&[None, Some(3), Some(1), Some(2)]);
        let pipeline = model.open(&[("pre.json", pre)]).unwrap();
        let mut png = Vec::new();
        let picture = image::RgbImage::from_raw(2, 1, vec![2, 4, 6, 8, 10, 12]).unwrap();
        picture.write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
        let prepared = pipeline.prepare(&Input::Image(png)).unwrap();
        assert_eq!(prepared, [floats(&[1, 3, 1, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0])]);
        let error = pipeline.prepare(&Input::Image(b"\x89PNG".to_vec())).unwrap_err();
        assert!(matches!(error, RunError::Image { .. }), "{error:?}");
    }

    #[test]
    fn an_answer_that_is_no_number_is_an_error() {
        let pipeline = graph(vec![node("Sqrt", &["x"], &["y"])], vec![]).open(&[]).unwrap();
        let infer = |values: [f32; 4]| pipeline.infer(&Input::Tensors(vec![(String::new(), floats(&[2, 2], &values))]));
        assert!(infer([1.0, 4.0, 0.0, 9.0]).is_ok());
        let output = "y".to_owned();
        assert_eq!(infer([1.0, 1.0, 1.0, -1.0]), Err(RunError::NonFinite { output, row: 1 }));
        let output = "y".to_owned();
        let infinite = [f32::INFINITY, 1.0, 1.0, 1.0];
        assert_eq!(infer(infinite), Err(RunError::NonFinite { output, row: 0 }));
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
