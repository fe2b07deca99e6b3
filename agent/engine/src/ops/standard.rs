//! Operators of ONNX itself that the inference library lacks, or whose attributes it
//! passes over in silence.
//!
//! Decides which nodes are said by other nodes, which are refused for an attribute, and
//! what reversing is. Knows nothing of the classical operators.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, only, operator, values};

/// A kernel of ours that only rewritten nodes name.
pub(super) const REVERSE: &str = "petrel.Reverse";

/// Rewrites the nodes of a graph and of the graphs inside it.
///
/// # Errors
/// In words, when a node asks for what would be passed over.
pub(crate) fn rewrite(graph: &mut GraphProto) -> Result<(), String> {
    for mut node in std::mem::take(&mut graph.node) {
        for attribute in &mut node.attribute {
            attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(rewrite)?;
        }
        if let Some(reason) = passed_over(&node) {
            return Err(format!("{} {:?}: {reason}", node.op_type, node.name));
        }
        if sums_large_constants(&node, graph) {
            return Err(format!(
                "{} {:?}: a sum of constants beyond 32 bits is not supported",
                node.op_type, node.name
            ));
        }
        match &*node.op_type {
            "RNN" if text(&node, "direction") == Some("reverse") => reversed(node, graph),
            "LpPool" => pool_of_powers(node, graph)?,
            "ReduceLogSumExp" if node.input.len() > 1 => {
                axes_as_attribute(&mut node, graph)?;
                graph.node.push(node);
            }
            "Upsample" if node.input.len() == 1 => {
                let scales = attribute(&node, "scales").map(|scales| scales.floats.clone()).unwrap_or_default();
                node.input.push(weight(graph, &node.output[..1], "scales", scales));
                graph.node.push(node);
            }
            _ => graph.node.push(node),
        }
    }
    Ok(())
}

/// What a node says that the library would not hear.
fn passed_over(node: &NodeProto) -> Option<String> {
    let number = |name: &str| attribute(node, name).map(|attribute| attribute.i);
    match &*node.op_type {
        "RNN" => {
            let names = attribute(node, "activations").map(|attribute| &attribute.strings[..]).unwrap_or_default();
            if let Some(name) = names.iter().find(|name| !name.eq_ignore_ascii_case(b"Tanh")) {
                let name = String::from_utf8_lossy(name);
                return Some(format!("the activation {name} is not supported in the place of Tanh"));
            }
            attribute(node, "clip").is_some().then(|| "clip is not supported".to_owned())
        }
        "Attention" => ["left_window_size", "right_window_size"]
            .iter()
            .any(|name| number(name).is_some_and(|size| size >= 0))
            .then(|| "a window is not supported".to_owned()),
        "BatchNormalization" => (number("training_mode") == Some(1))
            .then(|| "training is not supported; export it for inference".to_owned()),
        // The average that it is made of divides by what is left of a window at the edge.
        "LpPool" => (number("ceil_mode") == Some(1)).then(|| "ceil_mode is not supported".to_owned()),
        "QuantizeLinear" => (number("output_dtype").is_some_and(|kind| ![0, DataType::Uint8 as i64].contains(&kind))
            && node.input.get(2).is_none_or(String::is_empty))
        .then(|| "an output_dtype other than uint8 needs a zero point of that type".to_owned()),
        "SpaceToDepth" => (text(node, "mode") == Some("CRD")).then(|| "the mode CRD is not supported".to_owned()),
        "Swish" => (attribute(node, "alpha").is_some_and(|alpha| alpha.f != 1.0))
            .then(|| "an alpha that is not 1 is not supported".to_owned()),
        _ => None,
    }
}

/// Whether a node adds long integers that are known beforehand and that the library, which then adds them itself in
/// 32 bits, would take for others.
fn sums_large_constants(node: &NodeProto, graph: &GraphProto) -> bool {
    let sums = ["ReduceSum", "ReduceMean", "ReduceL1", "ReduceLogSum"].contains(&&*node.op_type);
    let values = node.input.first().filter(|_| sums).and_then(|name| constant(graph, name));
    let total = |values: Vec<i64>| values.iter().fold(0u64, |sum, value| sum.saturating_add(value.unsigned_abs()));
    values.is_some_and(|values| total(values) > i32::MAX as u64)
}

/// The long integers of this name, where the graph itself has them.
fn constant(graph: &GraphProto, name: &str) -> Option<Vec<i64>> {
    let weight = graph.initializer.iter().find(|weight| weight.name == name);
    let made = || {
        let makes = |node: &&NodeProto| node.op_type == "Constant" && node.output.iter().any(|made| made == name);
        attribute(graph.node.iter().find(makes)?, "value")?.t.as_ref()
    };
    let tensor = weight.or_else(made).filter(|tensor| tensor.data_type == DataType::Int64 as i32)?;
    let (longs, _) = tensor.raw_data.as_chunks::<8>();
    let raw = longs.iter().map(|bytes| i64::from_le_bytes(*bytes));
    Some(tensor.int64_data.iter().copied().chain(raw).collect())
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn text<'a>(node: &'a NodeProto, name: &str) -> Option<&'a str> {
    std::str::from_utf8(&attribute(node, name)?.s).ok()
}

/// A name beside that of a node's first output.
fn beside(outputs: &[String], what: &str) -> String {
    format!("{}/petrel.{what}", outputs.first().map(String::as_str).unwrap_or_default())
}

/// Adds a list of numbers to the weights.
fn weight(graph: &mut GraphProto, outputs: &[String], what: &str, values: Vec<f32>) -> String {
    let name = beside(outputs, what);
    let (dims, data_type) = (vec![values.len() as i64], DataType::Float as i32);
    graph.initializer.push(TensorProto {
        name: name.clone(),
        dims,
        data_type,
        float_data: values,
        ..Default::default()
    });
    name
}

fn plain(operator: &str, input: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.to_owned(),
        name: output.to_owned(),
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..Default::default()
    }
}

/// A plain recurrence (LSTM and GRU are ours) from the end to the beginning, which the library would run forward: over
/// the reversed sequence, and what it says of each step put back in order.
fn reversed(mut node: NodeProto, graph: &mut GraphProto) {
    let axis = attribute(&node, "layout").map_or(0, |layout| layout.i);
    let reverse = |input: &str, output: &str| {
        let attribute = AttributeProto { name: "axis".to_owned(), i: axis, r#type: 2, ..Default::default() };
        NodeProto { attribute: vec![attribute], ..plain(REVERSE, &[input], output) }
    };
    node.attribute.retain(|attribute| attribute.name != "direction");
    let made: Vec<String> = node.output.iter().filter(|name| !name.is_empty()).cloned().collect();
    let input = beside(&made, "reversed");
    graph.node.push(reverse(&node.input[0], &input));
    node.input[0] = input;
    let steps = node.output.first().filter(|name| !name.is_empty()).cloned();
    if steps.is_some() {
        node.output[0] = beside(&made, "steps");
    }
    let inner = node.output[0].clone();
    graph.node.push(node);
    if let Some(steps) = steps {
        graph.node.push(reverse(&inner, &steps));
    }
}

/// Puts the axes that a node takes as a constant input where older operator sets have them.
fn axes_as_attribute(node: &mut NodeProto, graph: &GraphProto) -> Result<(), String> {
    let Some(name) = node.input.drain(1..).next().filter(|name| !name.is_empty()) else { return Ok(()) };
    let Some(ints) = constant(graph, &name) else {
        return Err(format!("{} {:?}: its axes must be constants", node.op_type, node.name));
    };
    node.attribute.push(AttributeProto { name: "axes".to_owned(), ints, r#type: 7, ..Default::default() });
    Ok(())
}

/// LpPool is the root of a sum of powers, and the sum is an average times its window.
fn pool_of_powers(node: NodeProto, graph: &mut GraphProto) -> Result<(), String> {
    let p = attribute(&node, "p").map_or(2, |p| p.i);
    let window = attribute(&node, "kernel_shape").map(|kernel| kernel.ints.clone()).unwrap_or_default();
    let area = window.iter().try_fold(1i64, |area, side| area.checked_mul(*side)).filter(|area| *area > 0);
    let (Some(area), [input], [output], 1..) = (area, &node.input[..], &node.output[..], p) else {
        return Err("LpPool: p and kernel_shape must be positive".to_owned());
    };
    let outputs = [output.clone()];
    let at = |what: &str| beside(&outputs, what);
    let power = weight(graph, &outputs, "p", vec![p as f32]);
    let size = weight(graph, &outputs, "size", vec![area as f32]);
    let root = weight(graph, &outputs, "root", vec![1.0 / p as f32]);
    let mut average = plain("AveragePool", &[&at("powers")], &at("average"));
    average.attribute = node.attribute.iter().filter(|attribute| attribute.name != "p").cloned().collect();
    let padded = AttributeProto { name: "count_include_pad".to_owned(), i: 1, r#type: 2, ..Default::default() };
    average.attribute.push(padded);
    graph.node.extend([
        plain("Abs", &[input], &at("magnitudes")),
        plain("Pow", &[&at("magnitudes"), &power], &at("powers")),
        average,
        plain("Mul", &[&at("average"), &size], &at("sum")),
        plain("Pow", &[&at("sum"), &root], output),
    ]);
    Ok(())
}

/// In the place of an operator that the library never meets, because `rewrite` said it by others.
pub(super) fn rewritten(_: &ParsingContext, node: &NodeProto) -> Built {
    bail!("{} was not rewritten", node.op_type)
}

/// The Resize of the operator set after the last Upsample; it rounds down.
pub(super) fn upsample(ctx: &ParsingContext, node: &NodeProto) -> Built {
    let mut resize = node.clone();
    let down =
        AttributeProto { name: "nearest_mode".to_owned(), s: b"floor".to_vec(), r#type: 3, ..Default::default() };
    resize.attribute.push(down);
    let ctx = ParsingContext { onnx_operator_set_version: 10, ..ctx.clone() };
    let build = ctx.framework.op_register.0.get("Resize").context("there is no Resize")?;
    build(&ctx, &resize)
}

/// A sequence from its end to its beginning; the first part of it when lengths are given.
#[derive(Debug)]
struct Reverse {
    time: usize,
    /// The axis that there is a length for each element of.
    batch: Option<usize>,
}

pub(super) fn reverse(_: &ParsingContext, node: &NodeProto) -> Built {
    operator(node, Reverse { time: node.get_attr_opt("axis")?.unwrap_or(0), batch: None })
}

pub(super) fn reverse_sequence(_: &ParsingContext, node: &NodeProto) -> Built {
    let time = node.get_attr_opt("time_axis")?.unwrap_or(0);
    let batch = node.get_attr_opt("batch_axis")?.unwrap_or(1);
    ensure!(time + batch == 1, "its axes are 0 and 1, not {time} and {batch}");
    operator(node, Reverse { time, batch: Some(batch) })
}

impl Kernel for Reverse {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = match (inputs, self.batch) {
            ([input, _lengths], Some(_)) => input,
            (inputs, _) => only(inputs)?,
        };
        ensure!(input.rank() > self.time.max(self.batch.unwrap_or(0)), "the input has {} axes", input.rank());
        Ok(tvec!(input.datum_type.fact(input.shape.clone())))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input: &Tensor = inputs.first().context("it has no input")?;
        let lengths = match (self.batch, inputs.get(1)) {
            (Some(_), Some(lengths)) => Some(values::<i64>(&*lengths.cast_to::<i64>()?)?.to_vec()),
            _ => None,
        };
        let kind = input.datum_type();
        Ok(tvec!(dispatch_datum!(Self::values(kind)(self, input, lengths.as_deref()))?))
    }
}

impl Reverse {
    fn values<T: Datum>(&self, input: &Tensor, lengths: Option<&[i64]>) -> TractResult<Tensor> {
        use tract_ndarray::{Axis, Slice};
        let view = input.to_plain_array_view::<T>()?;
        let mut output = view.to_owned();
        let (Some(batch), Some(lengths)) = (self.batch, lengths) else {
            let mut backward = view;
            backward.invert_axis(Axis(self.time));
            output.assign(&backward);
            return Ok(output.into_tensor());
        };
        let (rows, steps) = (view.shape()[batch], view.shape()[self.time]);
        ensure!(lengths.len() == rows, "there are {} lengths for {rows} sequences", lengths.len());
        for (row, length) in lengths.iter().enumerate() {
            ensure!((0..=steps as i64).contains(length), "a length is {length}, of a sequence of {steps}");
            let first = Slice::from(0..*length as isize);
            let mut from = view.slice_axis(Axis(batch), Slice::from(row..row + 1));
            from.slice_axis_inplace(Axis(self.time), first);
            from.invert_axis(Axis(self.time));
            let mut to = output.slice_axis_mut(Axis(batch), Slice::from(row..row + 1));
            to.slice_axis_inplace(Axis(self.time), first);
            to.assign(&from);
        }
        Ok(output.into_tensor())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, Load, floats, node, port, weights};
    use tract_onnx::pb::tensor_proto::DataType::{Float, Int64};
    use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, TensorProto};

    /// One unit: `h = tanh(x + h)`, over three steps.
    fn recurrence(attributes: Vec<AttributeProto>) -> ModelProto {
        let mut unit = node("RNN", &["x", "w", "r"], &["y", "h"]);
        unit.attribute = attributes;
        testing::model(GraphProto {
            node: vec![unit],
            initializer: vec![weights("w", &[1, 1, 1], &[1.0]), weights("r", &[1, 1, 1], &[1.0])],
            input: vec![port("x", Float, &[Some(3), Some(1), Some(1)])],
            output: vec![
                port("y", Float, &[Some(3), Some(1), Some(1), Some(1)]),
                port("h", Float, &[Some(1), Some(1), Some(1)]),
            ],
            ..Default::default()
        })
    }

    #[test]
    fn a_recurrence_runs_backward_where_it_says_so() {
        let direction =
            AttributeProto { name: "direction".to_owned(), s: b"reverse".to_vec(), r#type: 3, ..Default::default() };
        let model = recurrence(vec![direction]).load().unwrap();
        let answer = model.run(&[floats(&[3, 1, 1], &[0.1, 0.2, 0.3])]).unwrap();
        let third = 0.3f32.tanh();
        let second = (0.2 + third).tanh();
        let first = (0.1 + second).tanh();
        for (got, expected) in answer[0].as_f32().iter().zip([first, second, third]) {
            assert!((got - expected).abs() < 1e-6, "{answer:?}");
        }
        assert!((answer[1].as_f32()[0] - first).abs() < 1e-6, "{answer:?}");
    }

    #[test]
    fn a_sequence_is_reversed_up_to_its_length() {
        let int = |name: &str, i: i64| AttributeProto { name: name.to_owned(), i, r#type: 2, ..Default::default() };
        let lengths = |values: &[i64]| TensorProto {
            name: "n".to_owned(),
            dims: vec![values.len() as i64],
            data_type: Int64 as i32,
            int64_data: values.to_vec(),
            ..Default::default()
        };
        let mut reverse = node("ReverseSequence", &["x", "n"], &["y"]);
        reverse.attribute = vec![int("time_axis", 1), int("batch_axis", 0)];
        let shape = [Some(2), Some(3)];
        let model = |values: &[i64]| {
            let graph = GraphProto {
                node: vec![reverse.clone()],
                initializer: vec![lengths(values)],
                input: vec![port("x", Float, &shape)],
                output: vec![port("y", Float, &shape)],
                ..Default::default()
            };
            testing::model(graph).load().unwrap()
        };
        let input = [floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])];
        let answer = model(&[2, 3]).run(&input).unwrap();
        assert_eq!(answer, [floats(&[2, 3], &[2.0, 1.0, 3.0, 6.0, 5.0, 4.0])]);
        for (values, told) in [(&[2, 4][..], "a length is 4"), (&[-1, 0], "a length is -1"), (&[1], "1 lengths")] {
            let error = model(values).run(&input).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn what_would_be_passed_over_is_refused() {
        let strings = vec![b"Relu".to_vec()];
        let relu = AttributeProto { name: "activations".to_owned(), strings, r#type: 8, ..Default::default() };
        let error = recurrence(vec![relu]).load().unwrap_err().to_string();
        assert!(error.contains("the activation Relu is not supported in the place of Tanh"), "{error}");
        let clip = AttributeProto { name: "clip".to_owned(), f: 1.0, r#type: 1, ..Default::default() };
        let error = recurrence(vec![clip]).load().unwrap_err().to_string();
        assert!(error.contains("clip"), "{error}");
        assert!(recurrence(vec![]).load().is_ok());
    }
}
