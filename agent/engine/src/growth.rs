//! How much memory a graph asks for, from what is written in it.
//!
//! Decides what an operator that is fed by constants will make, and what follows from shapes: a few bytes of a
//! file can ask for any amount of memory. An operator that is not known here, or a free axis, may still ask for
//! more; the worker's own limit is for that.

use std::collections::BTreeMap;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

use crate::external::element_bytes;
use crate::shapes;
use crate::tensor::elements;

/// Elements of a constant that can still be a shape, or sizes of something.
const SHORT: usize = 64;

/// What is known of a graph's tensors before it runs: never more than there will be.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    outer: Option<&'a Known<'a>>,
    numbers: BTreeMap<&'a str, Vec<f64>>,
    shapes: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Known<'a> {
    /// What a graph declares, and its short constants; it sees those of the graph around it, too.
    pub(crate) fn of(graph: &'a GraphProto, outer: Option<&'a Known<'a>>) -> Self {
        let mut known = Known { outer, numbers: BTreeMap::new(), shapes: BTreeMap::new() };
        for info in graph.input.iter().chain(&graph.value_info) {
            known.shapes.extend(declared(info).map(|(shape, _)| (&*info.name, shape)));
        }
        for tensor in &graph.initializer {
            known.constant(&tensor.name, tensor);
        }
        known
    }

    fn numbers(&self, name: &str) -> Option<&Vec<f64>> {
        self.numbers.get(name).or_else(|| self.outer?.numbers(name))
    }

    fn shape(&self, name: &str) -> Option<&Vec<usize>> {
        self.shapes.get(name).or_else(|| self.outer?.shape(name))
    }

    fn constant(&mut self, name: &'a str, tensor: &TensorProto) {
        let shape: Option<Vec<usize>> = tensor.dims.iter().map(|axis| usize::try_from(*axis).ok()).collect();
        let Some(shape) = shape else { return };
        if elements(&shape).is_some_and(|count| count <= SHORT) {
            self.numbers.insert(name, numbers(tensor));
        }
        self.shapes.insert(name, shape);
    }

    /// Sees the next node and tells the shape of what it makes, where constants alone decide that it is large.
    pub(crate) fn see(&mut self, node: &'a NodeProto) -> Option<Vec<usize>> {
        if let ("Constant", Some(output)) = (&*node.op_type, node.output.first()) {
            for attribute in &node.attribute {
                match &*attribute.name {
                    "value" => attribute.t.iter().for_each(|tensor| self.constant(output, tensor)),
                    "value_int" => drop(self.numbers.insert(output, vec![attribute.i as f64])),
                    "value_ints" if attribute.ints.len() <= SHORT => {
                        self.numbers.insert(output, attribute.ints.iter().map(|n| *n as f64).collect());
                    }
                    _ => {}
                }
            }
            return None;
        }
        let made = self.made(node)?;
        if let Some(output) = node.output.first() {
            self.shapes.insert(output, made.clone());
        }
        Some(made)
    }

    fn made(&self, node: &NodeProto) -> Option<Vec<usize>> {
        let number = |at: usize| node.input.get(at).and_then(|name| self.numbers(name)).filter(|n| !n.is_empty());
        let shape = |at: usize| node.input.get(at).and_then(|name| self.shape(name)).cloned();
        let ints = |name: &str| {
            let found = node.attribute.iter().find(|attribute| attribute.name == name)?;
            let values: Vec<f64> =
                found.ints.iter().map(|n| *n as f64).chain(found.floats.iter().map(|x| f64::from(*x))).collect();
            (values.len() <= SHORT && !values.is_empty()).then_some(values)
        };
        let sizes = |numbers: &[f64]| numbers.iter().map(|n| size(*n)).collect::<Vec<usize>>();
        let times = |shape: Option<Vec<usize>>, by: &[f64]| {
            let axis = |at: usize| shape.as_ref().and_then(|shape| shape.get(at)).copied().unwrap_or(1);
            by.iter().enumerate().map(|(at, by)| size(axis(at) as f64 * by)).collect::<Vec<usize>>()
        };
        Some(match &*node.op_type {
            "ConstantOfShape" | "HannWindow" | "HammingWindow" | "BlackmanWindow" => sizes(number(0)?),
            "Expand" => sizes(number(1)?),
            "RandomNormal" | "RandomUniform" => sizes(&ints("shape")?),
            "Tile" => times(shape(0), number(1)?),
            "Range" => vec![size(((number(1)?[0] - number(0)?[0]) / number(2)?[0]).ceil())],
            "OneHot" => shape(0).unwrap_or_default().into_iter().chain([size(number(1)?[0])]).collect(),
            "Resize" => match number(3) {
                Some(made) => sizes(made),
                // Before opset 11 the scales came second.
                None => times(shape(0), number(2).or_else(|| number(1))?),
            },
            "Upsample" => times(shape(0), number(1).cloned().or_else(|| ints("scales"))?.as_slice()),
            "Pad" => padded(shape(0), &number(1).cloned().or_else(|| ints("pads"))?, 0),
            "Conv" | "MaxPool" | "AveragePool" | "LpPool" => padded(shape(0), &ints("pads")?, 2),
            "ConvTranspose" => match ints("output_shape") {
                Some(made) => sizes(&made),
                None => times(shape(0).map(|shape| shape.into_iter().skip(2).collect()), &ints("strides")?),
            },
            _ => return shapes::made(node, shape),
        })
    }
}

/// A shape with its first axes left alone and the others padded: all beginnings, then all ends.
fn padded(shape: Option<Vec<usize>>, pads: &[f64], first: usize) -> Vec<usize> {
    let (begins, ends) = pads.split_at(pads.len() / 2);
    let axis = |at: usize| shape.as_ref().and_then(|shape| shape.get(at)).copied().unwrap_or(1);
    let grown =
        begins.iter().zip(ends).enumerate().map(|(at, (begin, end))| size(axis(first + at) as f64 + begin + end));
    (0..first).map(axis).chain(grown).collect()
}

/// A length of an axis; what is no length counts as one.
fn size(number: f64) -> usize {
    if number >= 0.0 { number as usize } else { 1 }
}

fn numbers(tensor: &TensorProto) -> Vec<f64> {
    fn raw<const N: usize>(tensor: &TensorProto, read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        tensor.raw_data.chunks_exact(N).filter_map(|bytes| bytes.try_into().ok()).map(read).collect()
    }
    match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int64) if tensor.raw_data.is_empty() => tensor.int64_data.iter().map(|n| *n as f64).collect(),
        Ok(DataType::Int64) => raw(tensor, |bytes| i64::from_le_bytes(bytes) as f64),
        Ok(DataType::Int32) if tensor.raw_data.is_empty() => tensor.int32_data.iter().map(|n| f64::from(*n)).collect(),
        Ok(DataType::Int32) => raw(tensor, |bytes| f64::from(i32::from_le_bytes(bytes))),
        Ok(DataType::Float) if tensor.raw_data.is_empty() => tensor.float_data.iter().map(|x| f64::from(*x)).collect(),
        Ok(DataType::Float) => raw(tensor, |bytes| f64::from(f32::from_le_bytes(bytes))),
        _ => Vec::new(),
    }
}

/// The shape that is declared for a tensor, its free axes as 1, and the bytes that it takes; more than can
/// be counted is as much as can be.
pub(crate) fn declared(info: &ValueInfoProto) -> Option<(Vec<usize>, u64)> {
    let Some(type_proto::Value::TensorType(tensor)) = &info.r#type.as_ref()?.value else { return None };
    let axis = |value: &Option<Value>| match value {
        Some(Value::DimValue(size)) => usize::try_from(*size).unwrap_or(1),
        _ => 1,
    };
    let shape: Vec<usize> = tensor.shape.as_ref()?.dim.iter().map(|axis_of| axis(&axis_of.value)).collect();
    let bytes = elements(&shape).and_then(|count| count.checked_mul(element_bytes(tensor.elem_type).unwrap_or(1)));
    Some((shape, bytes.map_or(u64::MAX, |bytes| bytes as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LoadError;
    use crate::testing::{Load, graph, node, port, weights};
    use tract_onnx::pb::AttributeProto;

    const HUGE: i64 = 1 << 40;

    fn whole(name: &str, values: &[i64]) -> TensorProto {
        let mut tensor = weights(name, &[values.len() as i64], &[]);
        tensor.data_type = DataType::Int64 as i32;
        tensor.int64_data = values.to_vec();
        tensor
    }

    fn with(mut node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
        node.attribute.push(AttributeProto { name: name.to_owned(), ints: ints.to_vec(), ..Default::default() });
        node
    }

    /// A few bytes that ask for a terabyte, by each operator that can.
    #[test]
    fn what_constants_ask_for_is_refused_before_it_is_made() {
        let scalar = |name: &str, value| TensorProto { dims: vec![], ..whole(name, &[value]) };
        let cases = [
            (node("ConstantOfShape", &["s"], &["y"]), vec![whole("s", &[HUGE])]),
            (node("Expand", &["x", "s"], &["y"]), vec![whole("s", &[HUGE, 2])]),
            (node("Tile", &["x", "s"], &["y"]), vec![whole("s", &[1, HUGE])]),
            (node("Range", &["a", "b", "c"], &["y"]), vec![scalar("a", 0), scalar("b", HUGE), scalar("c", 1)]),
            (node("Resize", &["x", "", "", "s"], &["y"]), vec![whole("s", &[HUGE, 2])]),
            (node("Resize", &["x", "", "s"], &["y"]), vec![weights("s", &[2], &[1.0, 1e12])]),
            (node("Resize", &["x", "s"], &["y"]), vec![weights("s", &[2], &[1.0, 1e12])]),
            (node("Upsample", &["x", "s"], &["y"]), vec![weights("s", &[2], &[1.0, 1e12])]),
            (node("Pad", &["x", "s"], &["y"]), vec![whole("s", &[0, 0, 0, HUGE])]),
            (with(node("Pad", &["x"], &["y"]), "pads", &[0, HUGE, 0, 0]), vec![]),
            (node("OneHot", &["x", "d", "v"], &["y"]), vec![scalar("d", HUGE), weights("v", &[2], &[0.0, 1.0])]),
            (with(node("RandomNormal", &[], &["y"]), "shape", &[HUGE]), vec![]),
            (with(node("RandomUniform", &[], &["y"]), "shape", &[1 << 20, 1 << 20]), vec![]),
            (with(node("Conv", &["x", "w"], &["y"]), "pads", &[HUGE, 0]), vec![weights("w", &[1, 2, 1], &[1.0, 1.0])]),
            (with(node("MaxPool", &["x"], &["y"]), "pads", &[HUGE, 0]), vec![]),
            (
                with(node("ConvTranspose", &["x", "w"], &["y"]), "strides", &[HUGE]),
                vec![weights("w", &[2, 1, 1], &[1.0, 1.0])],
            ),
            (
                with(node("ConvTranspose", &["x", "w"], &["y"]), "output_shape", &[HUGE]),
                vec![weights("w", &[2, 1, 1], &[1.0, 1.0])],
            ),
        ];
        for (node, constants) in cases {
            let operator = node.op_type.clone();
            let mut nodes = vec![node.clone()];
            // A constant may come from a node as well as from the graph.
            nodes.splice(
                0..0,
                constants.iter().map(|tensor| {
                    let mut constant = crate::testing::node("Constant", &[], &[&tensor.name]);
                    let value =
                        AttributeProto { name: "value".to_owned(), t: Some(tensor.clone()), ..Default::default() };
                    constant.attribute = vec![value];
                    constant
                }),
            );
            for proto in [graph(vec![node], constants), graph(nodes, vec![])] {
                match proto.load().unwrap_err() {
                    LoadError::TooLarge { what, .. } => assert!(what.contains(&operator), "{what}"),
                    LoadError::UnsupportedOperator { operators } => {
                        assert_eq!(operators, std::slice::from_ref(&operator))
                    }
                    other => panic!("{operator}: {other}"),
                }
            }
        }
    }

    #[test]
    fn a_branch_sees_the_constants_around_it() {
        let inner = GraphProto { node: vec![node("ConstantOfShape", &["s"], &["z"])], ..Default::default() };
        let mut branch = node("If", &["x"], &["y"]);
        branch.attribute = vec![AttributeProto { g: Some(inner), ..Default::default() }];
        let error = graph(vec![branch], vec![whole("s", &[HUGE])]).load().unwrap_err();
        assert!(error.to_string().contains("ConstantOfShape"), "{error}");
    }

    #[test]
    fn what_is_made_of_what_was_made_is_counted_too() {
        let nodes = vec![
            node("Tile", &["x", "s"], &["a"]),
            node("Tile", &["a", "s"], &["b"]),
            node("Tile", &["b", "s"], &["y"]),
        ];
        let error = graph(nodes, vec![whole("s", &[1 << 10, 1 << 5])]).load().unwrap_err();
        assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn memory_is_estimated_before_it_is_taken() {
        let mut proto = graph(vec![node("Identity", &["x"], &["y"])], vec![]);
        let shape = [Some(1 << 14), Some(1 << 14)];
        proto.graph.as_mut().unwrap().value_info = vec![port("y", DataType::Double, &shape)];
        let error = proto.load().unwrap_err();
        assert!(error.to_string().contains("bytes of memory"), "{error}");
        proto.graph.as_mut().unwrap().value_info = vec![port("y", DataType::Double, &[None, Some(2)])];
        assert!(proto.load().is_ok());
    }
}
