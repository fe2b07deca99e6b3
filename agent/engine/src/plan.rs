//! How a model file becomes plans.
//!
//! Decides what is in memory while that happens, and which plans there are. A plan
//! for a known number of rows is up to 15 times faster than one for any number, and
//! for some operators (recurrent ones without an initial state) the only one that
//! the library can make. Knows no ports and no limits.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prost::Message;
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto};
use tract_onnx::pb::{tensor_shape_proto, type_proto};
use tract_onnx::prelude::*;
use tract_onnx::tensor::load_tensor;
use tract_onnx::tract_core::ops::cnn::{Conv, Deconv};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_hir::infer::{Factoid, InferenceNode};

use crate::error::{LoadError, invalid};
use crate::explain::PlanFacts;
use crate::guard::{guard, told};
use crate::ops::{mend, rewrite};
use crate::stream::Stream;
use crate::warm::{Warm, forgetful};

/// Files up to here are decoded as a whole: the many small numbers of a forest are decoded twice as fast.
const SMALL: usize = 8 << 20;

/// Decodes a model of `length` bytes; a large file is never in memory as a whole.
pub(crate) fn decode(mut source: impl Read, length: usize) -> Result<ModelProto, LoadError> {
    let no_model = |reason: String| LoadError::NotOnnx { reason };
    if length <= SMALL {
        let mut bytes = Vec::with_capacity(length);
        let read = source.by_ref().take(length as u64).read_to_end(&mut bytes);
        read.map_err(|error| no_model(format!("the file cannot be read to its end: {error}")))?;
        return ModelProto::decode(&bytes[..]).map_err(|error| no_model(error.to_string()));
    }
    let mut stream = Stream::new(source, length);
    let decoded = ModelProto::decode(&mut stream);
    if let Some(error) = stream.failure() {
        return Err(no_model(format!("the file cannot be read to its end: {error}")));
    }
    decoded.map_err(|error| no_model(error.to_string()))
}

/// The graph. Each weight leaves the file's form when it enters the library's, so that
/// no two copies of all of them are in memory.
pub(crate) fn graph(onnx: &tract_onnx::Onnx, mut proto: ModelProto) -> Result<InferenceModel, String> {
    attempt(|| {
        let weights = proto.graph.as_mut().map(take_weights).unwrap_or_default();
        let parsed = onnx.parse(&proto, None)?;
        if let Some(name) = parsed.unresolved_inputs.first() {
            return Err(TractError::msg(format!("nothing computes {name:?}")));
        }
        drop(proto);
        let mut model = parsed.model;
        for (name, tensor) in weights {
            let tensor = load_tensor(&*onnx.provider, &tensor, None)?.into_arc_tensor();
            let outlet = parsed.outlets_by_name[&name];
            model.inputs.retain(|input| *input != outlet);
            let node = model.node_mut(outlet.node);
            node.outputs[outlet.slot].fact = TypedFact::try_from(tensor.clone())?.into();
            node.op = Box::new(Const::new(tensor)?);
        }
        Ok(model)
    })
}

/// Takes the weights out of a graph and declares an input in the place of each.
fn take_weights(graph: &mut GraphProto) -> BTreeMap<String, TensorProto> {
    let declared: Vec<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    let weights: BTreeMap<String, TensorProto> =
        graph.initializer.drain(..).map(|tensor| (tensor.name.clone(), tensor)).collect();
    for (name, tensor) in weights.iter().filter(|(name, _)| !declared.contains(name)) {
        let axis = |size: &i64| tensor_shape_proto::Dimension {
            value: Some(tensor_shape_proto::dimension::Value::DimValue(*size)),
            ..Default::default()
        };
        let shape = Some(TensorShapeProto { dim: tensor.dims.iter().map(axis).collect() });
        let kind = type_proto::Tensor { elem_type: tensor.data_type, shape };
        let kind = TypeProto { value: Some(type_proto::Value::TensorType(kind)), ..Default::default() };
        graph.input.push(ValueInfoProto { name: name.clone(), r#type: Some(kind), ..Default::default() });
    }
    weights
}

/// What the library says or panics with, in words.
fn attempt<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    guard(work)?.map_err(|error| told(&error))
}

/// What plans are made of: the graph for any number of rows, or, where the library
/// cannot type that, the graph before it is typed.
enum Source {
    Typed(TypedModel),
    Untyped(InferenceModel),
}

impl Source {
    /// The graph with its rows set.
    fn with_rows(&self, rows: &Symbol, count: usize) -> Result<TypedModel, String> {
        let set = HashMap::from([(rows.clone(), count.to_dim())]);
        attempt(|| match self {
            Source::Typed(model) => model.set_symbols(&set),
            Source::Untyped(model) => {
                let mut model = model.clone();
                model.set_symbols(&set)?;
                decluttered(model)
            }
        })
    }
}

fn typed(model: InferenceModel) -> TractResult<TypedModel> {
    let mut model = model.into_typed()?;
    forgetful(&mut model);
    mend(&mut model)?;
    Ok(model)
}

fn free_rows(model: &InferenceModel) -> Option<Symbol> {
    rows_of(model.input_fact(0).ok()?.shape.dims().next()?.concretize())
}

/// With our operators in the place of those that the library does badly.
fn decluttered(model: InferenceModel) -> TractResult<TypedModel> {
    rewrite(typed(model)?)
}

/// Whether the library panics on a node while the number of rows is free.
fn wants_rows(node: &InferenceNode) -> bool {
    node.op.name() == "RNN"
}

/// The symbol of the first axis of the first input, where that is free.
fn rows_of(dim: Option<TDim>) -> Option<Symbol> {
    match dim? {
        TDim::Sym(symbol) => Some(symbol),
        _ => None,
    }
}

fn optimised(model: TypedModel) -> Result<Warm, String> {
    attempt(|| Ok(Warm::new(model.into_optimized()?.into_runnable()?, true)))
}

/// Type and shape of an output; `None` is a free axis.
pub(crate) type Output = (DatumType, Vec<Option<usize>>);

fn inputs(model: &TypedModel) -> Result<Vec<DatumType>, String> {
    attempt(|| (0..model.inputs.len()).map(|at| Ok(model.input_fact(at)?.datum_type)).collect())
}

fn outputs(model: &TypedModel) -> Result<Vec<Output>, String> {
    attempt(|| {
        let facts = model.outputs.iter().map(|outlet| model.outlet_fact(*outlet));
        let axes = |fact: &TypedFact| fact.shape.iter().map(|axis| axis.to_i64().ok()?.try_into().ok()).collect();
        facts.map(|fact| fact.map(|fact| (fact.datum_type, axes(fact)))).collect()
    })
}

/// Plans for a known number of rows that are kept, the one for a single row apart.
const KEPT: usize = 2;

/// The plans of one model.
pub(crate) struct Plans {
    /// The types of the inputs, in order.
    pub(crate) inputs: Vec<DatumType>,
    /// The outputs, in order.
    pub(crate) outputs: Vec<Output>,
    /// The plan that was made when the model was loaded: for one row where the number
    /// is free, else for every call.
    first: Arc<Warm>,
    /// What other plans are made of, where the number of rows is free.
    more: Option<More>,
}

/// Plans for other numbers of rows than one, made when they are asked for.
struct More {
    source: Source,
    rows: Symbol,
    /// Whether a plan for a known number is the better one: matrix products alone gain
    /// nothing by it.
    fixed_pays: bool,
    fixed: Mutex<Vec<(usize, Arc<Warm>)>>,
    general: OnceLock<Result<Arc<Warm>, String>>,
}

impl Plans {
    /// The plans of what `read` reads, which is asked again when the library fails.
    ///
    /// # Errors
    /// What `read` says, or the library of its first attempt.
    pub(crate) fn new(read: &dyn Fn() -> Result<InferenceModel, LoadError>) -> Result<Plans, LoadError> {
        let graph = read()?;
        let hopeless = graph.nodes().iter().any(wants_rows) && free_rows(&graph).is_some();
        let plans =
            if hopeless { Err(String::new()) } else { attempt(|| decluttered(graph)).and_then(Plans::of_typed) };
        let first = match plans {
            Ok(plans) => return Ok(plans),
            Err(error) => error,
        };
        if let Some(plans) = Plans::of_untyped(read()?) {
            return Ok(plans);
        }
        let graph = read()?;
        let plain = attempt(|| {
            let model = typed(graph)?;
            let (inputs, outputs) = (inputs(&model), outputs(&model));
            let (inputs, outputs) = (inputs.map_err(TractError::msg)?, outputs.map_err(TractError::msg)?);
            Ok(Plans { inputs, outputs, first: Arc::new(Warm::new(model.into_runnable()?, false)), more: None })
        });
        plain.map_err(|error| invalid(if first.is_empty() { error } else { first }))
    }

    fn of_typed(model: TypedModel) -> Result<Plans, String> {
        let (inputs, outputs) = (inputs(&model)?, outputs(&model)?);
        let axis = |model: &TypedModel| Ok(model.input_fact(0)?.shape.first().cloned());
        // A graph of constants takes nothing.
        let rows = if model.inputs.is_empty() { None } else { rows_of(attempt(|| axis(&model))?) };
        let Some(rows) = rows else {
            return Ok(Plans { inputs, outputs, first: Arc::new(optimised(model)?), more: None });
        };
        let source = Source::Typed(model);
        match source.with_rows(&rows, 1).and_then(optimised) {
            Ok(first) => Ok(Plans { inputs, outputs, first: Arc::new(first), more: Some(More::new(source, rows)) }),
            Err(error) => {
                let Source::Typed(model) = source else { return Err(error) };
                Ok(Plans { inputs, outputs, first: Arc::new(optimised(model)?), more: None })
            }
        }
    }

    /// Of a graph that can only be typed when the number of its rows is known.
    fn of_untyped(model: InferenceModel) -> Option<Plans> {
        let rows = free_rows(&model)?;
        let source = Source::Untyped(model);
        let one = source.with_rows(&rows, 1).ok()?;
        let inputs = inputs(&one).ok()?;
        let mut both = outputs(&one).ok()?;
        // An axis is free where it changes with the rows.
        let two = outputs(&source.with_rows(&rows, 2).ok()?).ok()?;
        for ((_, one), (_, two)) in both.iter_mut().zip(two) {
            let differing = one.iter_mut().zip(two).filter(|(one, two)| **one != *two);
            differing.for_each(|(one, _)| *one = None);
        }
        let first = Arc::new(optimised(one).ok()?);
        Some(Plans { inputs, outputs: both, first, more: Some(More::new(source, rows)) })
    }

    /// What the plan of the first call is like.
    pub(crate) fn facts(&self) -> PlanFacts {
        self.first.facts()
    }

    /// The plan for inputs whose first has this many rows.
    ///
    /// # Errors
    /// What the library said when it could make none.
    pub(crate) fn of(&self, rows: usize) -> Result<Arc<Warm>, String> {
        match &self.more {
            Some(more) if rows != 1 => more.plan(rows),
            _ => Ok(self.first.clone()),
        }
    }
}

impl More {
    fn new(source: Source, rows: Symbol) -> More {
        let convolves = |node: &TypedNode| node.op_is::<Conv>() || node.op_is::<Deconv>();
        let fixed_pays = match &source {
            Source::Typed(model) => model.nodes().iter().any(convolves),
            Source::Untyped(_) => true,
        };
        More { source, rows, fixed_pays, fixed: Mutex::default(), general: OnceLock::new() }
    }

    fn plan(&self, rows: usize) -> Result<Arc<Warm>, String> {
        if self.fixed_pays {
            // Held while a plan is made: who asks for the same one waits for it.
            let mut fixed = self.fixed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = fixed.iter().position(|(count, _)| *count == rows) {
                fixed[..=at].rotate_right(1);
                return Ok(fixed[0].1.clone());
            }
            let generally = matches!(self.source, Source::Typed(_));
            if fixed.len() < KEPT || !generally {
                match self.source.with_rows(&self.rows, rows).and_then(optimised) {
                    Ok(plan) => {
                        fixed.insert(0, (rows, Arc::new(plan)));
                        fixed.truncate(KEPT);
                        return Ok(fixed[0].1.clone());
                    }
                    Err(error) if !generally => return Err(error),
                    Err(_) => {}
                }
            }
        }
        self.general.get_or_init(|| self.general()).clone()
    }

    fn general(&self) -> Result<Arc<Warm>, String> {
        let Source::Typed(model) = &self.source else { return Err("its number of rows must be known".to_owned()) };
        let plan = optimised(model.clone());
        let plain = || attempt(|| Ok(Warm::new(model.clone().into_runnable()?, false)));
        plan.or_else(|first| plain().map_err(|_| first)).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use crate::tensor::Tensor;
    use crate::testing::{Load, floats, model, node, port, weights};
    use tract_onnx::pb::tensor_proto::DataType;
    use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, attribute_proto::AttributeType};

    fn ints(name: &str, values: &[i64]) -> AttributeProto {
        let kind = AttributeType::Ints as i32;
        AttributeProto { name: name.to_owned(), r#type: kind, ints: values.to_vec(), ..Default::default() }
    }

    fn int(name: &str, value: i64) -> AttributeProto {
        AttributeProto { name: name.to_owned(), r#type: AttributeType::Int as i32, i: value, ..Default::default() }
    }

    /// [N, 3 steps, 1] to the last state [N, 2] of a recurrent operator without an
    /// initial state.
    fn recurrent(operator: &str, gates: i64) -> ModelProto {
        let mut turn = node("Transpose", &["x"], &["steps"]);
        turn.attribute = vec![ints("perm", &[1, 0, 2])];
        let mut cell = node(operator, &["steps", "w", "r"], &["", "last"]);
        cell.attribute = vec![int("hidden_size", 2)];
        let mut axes = weights("axes", &[1], &[]);
        axes.data_type = DataType::Int64 as i32;
        axes.int64_data = vec![0];
        let spread = |count: i64| (0..count).map(|at| ((at * 7) % 5) as f32 / 5.0 - 0.4).collect::<Vec<_>>();
        model(GraphProto {
            node: vec![turn, cell, node("Squeeze", &["last", "axes"], &["y"])],
            initializer: vec![
                axes,
                weights("w", &[1, gates * 2, 1], &spread(gates * 2)),
                weights("r", &[1, gates * 2, 2], &spread(gates * 4)),
            ],
            input: vec![port("x", DataType::Float, &[None, Some(3), Some(1)])],
            output: vec![port("y", DataType::Float, &[None, Some(2)])],
            ..Default::default()
        })
    }

    /// [N, 1, 2, 2], convolved with one kernel, which no plan for a known number of
    /// rows may answer otherwise than one for any.
    fn convolution() -> ModelProto {
        model(GraphProto {
            node: vec![node("Conv", &["x", "w"], &["y"])],
            initializer: vec![weights("w", &[1, 1, 2, 1], &[1.0, 10.0])],
            input: vec![port("x", DataType::Float, &[None, Some(1), Some(2), Some(2)])],
            output: vec![port("y", DataType::Float, &[None, Some(1), Some(1), Some(2)])],
            ..Default::default()
        })
    }

    /// Rows that differ from each other.
    fn input(rows: usize, row: &[usize]) -> Tensor {
        let count = rows * row.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|at| (at as f32 * 0.37).sin()).collect();
        floats(&[&[rows], row].concat(), &values)
    }

    /// However many rows there are, and whatever was asked before, each row's answer
    /// is its own.
    fn rows_are_answered_alike(proto: &ModelProto, row: &[usize]) {
        let model = proto.load().unwrap();
        assert_eq!(model.inputs()[0].shape[0], None);
        assert_eq!(model.outputs()[0].shape[0], None, "{:?}", model.outputs());
        let all = input(7, row);
        for rows in [3, 1, 7, 2, 5, 3, 6, 1] {
            let output = model.run(&[all.rows(0..rows).unwrap()]).unwrap().remove(0);
            assert_eq!(output.row_count(), rows);
            for at in 0..rows {
                let alone = proto.load().unwrap().run(&[all.rows(at..at + 1).unwrap()]).unwrap().remove(0);
                let own = output.rows(at..at + 1).unwrap();
                let near = own.as_f32().iter().zip(alone.as_f32().iter()).all(|(a, b)| (a - b).abs() < 1e-6);
                assert!(near, "row {at} of {rows}: {own:?} is not {alone:?}");
            }
        }
    }

    #[test]
    fn recurrent_models_take_any_number_of_rows_and_remember_none() {
        for (operator, gates) in [("GRU", 3), ("LSTM", 4), ("RNN", 1)] {
            rows_are_answered_alike(&recurrent(operator, gates), &[3, 1]);
        }
    }

    #[test]
    fn convolutions_answer_alike_by_every_plan() {
        rows_are_answered_alike(&convolution(), &[1, 2, 2]);
    }

    #[test]
    fn a_weight_that_is_also_declared_as_an_input_is_a_weight() {
        let mut proto = crate::testing::adder();
        let declared = port("b", DataType::Float, &[Some(1), Some(2)]);
        proto.graph.as_mut().unwrap().input.insert(0, declared);
        let model = proto.load().unwrap();
        assert_eq!(model.inputs().len(), 1);
        let output = model.run(&[floats(&[1, 2], &[0.0, 0.0])]).unwrap();
        assert_eq!(output, [floats(&[1, 2], &[1.0, 10.0])]);
    }
}
