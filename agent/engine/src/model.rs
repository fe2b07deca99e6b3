//! A model that can be run.
//!
//! Decides how a file becomes a plan and how tensors pass through it; nothing
//! that goes wrong inside the inference library, a panic included, gets past
//! this room. Knows nothing of processing, bundles or references.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Seek;
use std::path::Path;
use std::sync::Arc;

use tract_onnx::prelude::*;

use crate::Limits;
use crate::error::{LoadError, RunError, invalid, too_large};
use crate::exchange::{from_tract, into_tract};
use crate::explain::PlanFacts;
use crate::external;
use crate::guard::{guard, told};
use crate::onnx::survey;
use crate::ops::{library, rewrite_nodes};
use crate::plan::{Output, Plans, decode, graph};
use crate::port::Port;
use crate::tensor::{Dtype, Tensor as Values};
use crate::warm::Warm;

/// A loaded model, ready to run; may be shared between threads.
pub struct Model {
    plans: Plans,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    operators: BTreeSet<String>,
    opset: u64,
    input_elements: usize,
    rows_at_once: Option<usize>,
}

/// Without the plan: that would be every weight.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut model = f.debug_struct("Model");
        model.field("inputs", &self.inputs).field("outputs", &self.outputs);
        model.field("operators", &self.operators).finish_non_exhaustive()
    }
}

impl Model {
    /// Loads an ONNX file of at most `limits.model_bytes`; its weights may lie in
    /// files beside it.
    ///
    /// # Errors
    /// `LoadError`: everything that is wrong with the file, and each operator that
    /// the engine lacks.
    pub fn load(path: &Path, limits: &Limits) -> Result<Model, LoadError> {
        let unreadable = |source| LoadError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        if size > limits.model_bytes {
            let what = "bytes of the model file".to_owned();
            return Err(LoadError::TooLarge { what, size, limit: limits.model_bytes });
        }
        let dir = path.parent().unwrap_or(Path::new(""));
        guard(|| Model::read(&file, size, dir, limits)).unwrap_or_else(|panic| Err(invalid(panic)))
    }

    fn read(file: &File, size: u64, dir: &Path, limits: &Limits) -> Result<Model, LoadError> {
        let onnx = library();
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let surveyed = Cell::new(None);
        let plans = Plans::new(&|| {
            let mut source = file;
            source.rewind().map_err(|error| LoadError::NotOnnx { reason: error.to_string() })?;
            let mut proto = decode(source, length)?;
            external::gather(&mut proto, dir, limits)?;
            surveyed.set(Some(survey(&mut proto, &onnx.op_register, limits)?));
            proto.graph.as_mut().map_or(Ok(()), rewrite_nodes).map_err(invalid)?;
            graph(&onnx, proto).map_err(invalid)
        })?;
        let survey = surveyed.take().ok_or_else(|| invalid("it was not read"))?;
        let outputs = output_ports(&plans.outputs, &survey.outputs, limits)?;
        Ok(Model {
            plans,
            inputs: survey.inputs,
            outputs,
            operators: survey.operators,
            opset: survey.opset,
            input_elements: limits.input_elements,
            rows_at_once: None,
        })
    }

    /// Lets `run_rows` cut rows into calls of at most so many, where their number is
    /// free: what `measure_batch` found. Right only where a row's answer does not depend
    /// on the rows beside it, which that measurement checks.
    pub fn with_rows_at_once(self, rows: Option<usize>) -> Model {
        Model { rows_at_once: rows, ..self }
    }

    /// What the model takes, in order.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What the model gives, in order.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// The operators that it is made of; with the domain unless that is ONNX's own.
    pub fn operators(&self) -> &BTreeSet<String> {
        &self.operators
    }

    /// The version of ONNX's own operator set; 0 when the file names none.
    pub fn opset(&self) -> u64 {
        self.opset
    }

    /// How it is run.
    pub fn plan_facts(&self) -> PlanFacts {
        self.plans.facts()
    }

    /// Runs once: one tensor for each input, in order; a free axis takes any length
    /// from 1. Gives one tensor for each output, in order.
    ///
    /// # Errors
    /// `RunError` when the inputs do not fit, or the model fails on them.
    pub fn run(&self, inputs: &[Values]) -> Result<Vec<Values>, RunError> {
        self.check(inputs)?;
        let failed = |error: TractError| RunError::Failed { reason: told(&error) };
        let plan = self.plan(inputs)?;
        let outputs = plan.run(self.entering(inputs).map_err(failed)?);
        let outputs = outputs.map_err(|reason| RunError::Failed { reason })?;
        let outputs = outputs.iter().zip(&self.outputs).map(|(value, port)| from_tract(value, port.dtype));
        outputs.collect::<TractResult<_>>().map_err(failed)
    }

    /// The inputs as a plan takes them.
    pub(crate) fn entering(&self, inputs: &[Values]) -> TractResult<TVec<TValue>> {
        inputs.iter().zip(&self.plans.inputs).map(|(values, kind)| into_tract(values, *kind)).collect()
    }

    /// The plan for inputs whose first has this many rows.
    pub(crate) fn plan(&self, inputs: &[Values]) -> Result<Arc<Warm>, RunError> {
        let rows = inputs.first().and_then(|first| first.shape.first().copied());
        self.plans.of(rows.unwrap_or(1)).map_err(|reason| RunError::Failed { reason })
    }

    /// As `run`, but a model exported for a fixed number of rows takes any multiple
    /// of it: the rows go through piece by piece, as they do `with_rows_at_once`.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_rows(&self, inputs: &[Values]) -> Result<Vec<Values>, RunError> {
        let Some((piece, rows)) = self.pieces(inputs) else { return self.run(inputs) };
        let mut columns: Vec<Vec<Values>> = vec![Vec::new(); self.outputs.len()];
        for start in (0..rows).step_by(piece) {
            let cut = |tensor: &Values| tensor.rows(start..rows.min(start + piece));
            let inputs = inputs.iter().map(cut).collect::<Result<Vec<_>, _>>();
            let inputs = inputs.map_err(|error| RunError::Failed { reason: error.to_string() })?;
            for (column, output) in columns.iter_mut().zip(self.run(&inputs)?) {
                column.push(output);
            }
        }
        let whole: Option<Vec<Values>> = columns.into_iter().map(Values::stack).collect();
        whole.ok_or_else(|| RunError::Failed { reason: "its outputs change their shape from row to row".to_owned() })
    }

    /// The number of rows of one call and how many are given, when they differ and
    /// everything can be cut.
    pub(crate) fn pieces(&self, inputs: &[Values]) -> Option<(usize, usize)> {
        let fixed = *self.inputs.first()?.shape.first()?;
        let piece = fixed.or(self.rows_at_once).filter(|piece| *piece > 0)?;
        let rows = inputs.first()?.row_count();
        let alike = |port: &Port| port.shape.first() == Some(&fixed);
        let cuttable = self.inputs.iter().chain(&self.outputs).all(alike)
            && inputs.iter().all(|tensor| tensor.row_count() == rows)
            && rows > piece
            && (fixed.is_none() || rows % piece == 0);
        cuttable.then_some((piece, rows))
    }

    pub(crate) fn check(&self, inputs: &[Values]) -> Result<(), RunError> {
        if inputs.len() != self.inputs.len() {
            return Err(RunError::InputCount { expected: self.inputs.len(), got: inputs.len() });
        }
        for (tensor, port) in inputs.iter().zip(&self.inputs) {
            let name = || port.name.clone();
            tensor.check().map_err(|source| RunError::Tensor { name: name(), source })?;
            if tensor.len() > self.input_elements {
                let (elements, limit) = (tensor.len(), self.input_elements);
                return Err(RunError::TooLarge { elements, limit });
            }
            if tensor.dtype() != port.dtype {
                let (expected, got) = (port.dtype, tensor.dtype());
                return Err(RunError::Dtype { name: name(), expected, got });
            }
            if !port.fits(&tensor.shape) {
                let (expected, got) = (port.shape.clone(), tensor.shape.clone());
                return Err(RunError::Shape { name: name(), expected, got });
            }
        }
        Ok(())
    }

    /// Puts named tensors into the model's order and element types. The empty name
    /// will do for a model with one input.
    ///
    /// # Errors
    /// `RunError` when one is missing, or cannot become the model's type unchanged.
    pub fn arrange(&self, named: &[(String, Values)]) -> Result<Vec<Values>, RunError> {
        if named.len() != self.inputs.len() {
            return Err(RunError::InputCount { expected: self.inputs.len(), got: named.len() });
        }
        let arranged = self.inputs.iter().map(|port| {
            let mine =
                |(name, _): &&(String, Values)| *name == port.name || (name.is_empty() && self.inputs.len() == 1);
            let Some((_, tensor)) = named.iter().find(mine) else {
                let given = named.iter().map(|(name, _)| name.clone()).collect();
                return Err(RunError::MissingInput { name: port.name.clone(), given });
            };
            tensor.cast(port.dtype).ok_or_else(|| RunError::Dtype {
                name: port.name.clone(),
                expected: port.dtype,
                got: tensor.dtype(),
            })
        });
        arranged.collect()
    }
}

fn output_ports(made: &[Output], names: &[String], limits: &Limits) -> Result<Vec<Port>, LoadError> {
    let mut ports = Vec::new();
    for ((kind, shape), name) in made.iter().zip(names) {
        let dtype = match kind {
            DatumType::F32 | DatumType::F16 => Dtype::F32,
            DatumType::F64 => Dtype::F64,
            DatumType::I8 => Dtype::I8,
            DatumType::I16 => Dtype::I16,
            DatumType::I32 => Dtype::I32,
            DatumType::I64 | DatumType::TDim => Dtype::I64,
            DatumType::U8 => Dtype::U8,
            DatumType::U16 => Dtype::U16,
            DatumType::U32 => Dtype::U32,
            DatumType::U64 => Dtype::U64,
            DatumType::Bool => Dtype::Bool,
            DatumType::String => Dtype::Text,
            other => return Err(invalid(format!("output {name:?} has unsupported type {other:?}"))),
        };
        let count = shape.iter().map(|axis| axis.unwrap_or(1)).try_fold(1usize, usize::checked_mul);
        match count {
            Some(count) if count <= limits.tensor_elements => {}
            _ => {
                let what = format!("elements of output {name:?}");
                return Err(too_large(&what, count.unwrap_or(usize::MAX), limits.tensor_elements));
            }
        }
        ports.push(Port { name: name.clone(), dtype, shape: shape.clone() });
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Data;
    use crate::testing::{self, Load, floats, graph, node};
    use tract_onnx::pb::tensor_proto::DataType;

    #[test]
    fn a_batch_of_any_size_runs() {
        let model = testing::adder().load().unwrap();
        let port = |name: &str| Port { name: name.to_owned(), dtype: Dtype::F32, shape: vec![None, Some(2)] };
        assert_eq!(model.inputs(), [port("x")]);
        assert_eq!(model.outputs(), [port("y")]);
        assert_eq!(model.operators().iter().collect::<Vec<_>>(), ["Add"]);
        assert_eq!(model.opset(), 17);
        for rows in [1, 2, 7] {
            let input = floats(&[rows, 2], &vec![0.5; rows * 2]);
            let output = model.run(&[input]).unwrap();
            assert_eq!(output, [floats(&[rows, 2], &[1.5, 10.5].repeat(rows))]);
        }
    }

    #[test]
    fn half_precision_stays_inside() {
        let half = |name| testing::port(name, DataType::Float16, &[None, Some(2)]);
        let mut proto = graph(vec![node("Neg", &["x"], &["y"])], vec![]);
        let inner = proto.graph.as_mut().unwrap();
        (inner.input, inner.output) = (vec![half("x")], vec![half("y")]);
        let model = proto.load().unwrap();
        assert_eq!((model.inputs()[0].dtype, model.outputs()[0].dtype), (Dtype::F32, Dtype::F32));
        // The halves nearest to 0.1 and to 2049.
        let answer = model.run(&[floats(&[1, 2], &[0.1, 2049.0])]).unwrap();
        assert_eq!(answer, [floats(&[1, 2], &[-0.099_975_586, -2048.0])]);
        let error = model.run(&[floats(&[1, 2], &[0.5, 1e5])]).unwrap_err().to_string();
        assert!(error.contains("100000 is too large for half precision"), "{error}");
    }

    #[test]
    fn softmax_is_over_the_last_axis() {
        let model = graph(vec![node("Softmax", &["x"], &["y"])], vec![]).load().unwrap();
        let output = model.run(&[floats(&[2, 2], &[0.0, 0.0, 0.0, 3f32.ln()])]).unwrap();
        for (got, expected) in output[0].as_f32().iter().zip([0.5, 0.5, 0.25, 0.75]) {
            assert!((got - expected).abs() < 1e-6, "{output:?}");
        }
    }

    #[test]
    fn inputs_that_do_not_fit_are_refused() {
        let model = testing::adder().load().unwrap();
        let good = floats(&[1, 2], &[0.0, 0.0]);
        let run = |inputs: &[Values]| model.run(inputs).unwrap_err();
        assert_eq!(run(&[]), RunError::InputCount { expected: 1, got: 0 });
        assert_eq!(run(&[good.clone(), good]), RunError::InputCount { expected: 1, got: 2 });
        for shape in [vec![1, 3], vec![2], vec![0, 2], vec![1, 2, 1]] {
            let tensor = floats(&shape, &vec![0.0; shape.iter().product()]);
            let (name, expected) = ("x".to_owned(), vec![None, Some(2)]);
            assert_eq!(run(&[tensor]), RunError::Shape { name, expected, got: shape });
        }
        let whole = Values::new(vec![1, 2], Data::I64(vec![1, 2])).unwrap();
        assert!(matches!(run(&[whole]), RunError::Dtype { got: Dtype::I64, .. }));
        let torn = Values { shape: vec![2, 2], data: Data::F32(vec![0.0]) };
        assert!(matches!(run(&[torn]), RunError::Tensor { .. }));

        let small = Limits { input_elements: 2, ..Limits::default() };
        let bytes = prost::Message::encode_to_vec(&testing::adder());
        let model = testing::load_bytes(&bytes, &small).unwrap();
        let error = model.run(&[floats(&[2, 2], &[0.0; 4])]).unwrap_err();
        assert_eq!(error, RunError::TooLarge { elements: 4, limit: 2 });
    }

    #[test]
    fn inputs_are_found_by_name_and_become_the_models_type() {
        let model = testing::adder().load().unwrap();
        let bytes = Values::new(vec![1, 2], Data::U8(vec![3, 4])).unwrap();
        let arranged = model.arrange(&[(String::new(), bytes.clone())]).unwrap();
        assert_eq!(arranged, [floats(&[1, 2], &[3.0, 4.0])]);
        let error = model.arrange(&[("z".to_owned(), bytes)]).unwrap_err();
        assert!(matches!(error, RunError::MissingInput { name, .. } if name == "x"));
    }

    #[test]
    fn a_model_of_fixed_rows_takes_multiples_piece_by_piece() {
        let model = testing::adder_of_rows(Some(2)).load().unwrap();
        let input = floats(&[4, 2], &[0.0; 8]);
        assert!(matches!(model.run(std::slice::from_ref(&input)), Err(RunError::Shape { .. })));
        let output = model.run_rows(&[input]).unwrap();
        assert_eq!(output, [floats(&[4, 2], &[1.0, 10.0].repeat(4))]);
        let odd = floats(&[3, 2], &[0.0; 6]);
        assert!(matches!(model.run_rows(&[odd]), Err(RunError::Shape { .. })));
    }

    #[test]
    fn rows_go_through_in_calls_of_the_size_that_runs_best() {
        let input = floats(&[5, 2], &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]);
        let whole = testing::adder().load().unwrap().run(std::slice::from_ref(&input)).unwrap();
        for (rows, pieces) in [(1, true), (2, true), (4, true), (5, false), (64, false)] {
            let model = testing::adder().load().unwrap().with_rows_at_once(Some(rows));
            assert_eq!(model.pieces(std::slice::from_ref(&input)).is_some(), pieces);
            assert_eq!(model.run_rows(std::slice::from_ref(&input)).unwrap(), whole);
        }
    }

    #[test]
    fn a_model_that_fails_on_its_input_says_so() {
        let odd = testing::weights("b", &[3], &[1.0, 2.0, 3.0]);
        let model = graph(vec![node("Add", &["x", "b"], &["y"])], vec![odd]).load().unwrap();
        let error = model.run(&[floats(&[1, 2], &[0.0, 0.0])]).unwrap_err();
        assert!(matches!(error, RunError::Failed { .. }), "{error:?}");
    }

    #[test]
    fn a_model_may_be_shared_between_threads() {
        let model = testing::adder().load().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| model.run(&[floats(&[1, 2], &[0.0, 0.0])]).unwrap());
            }
        });
    }
}
