//! What a model file says of itself, read before any of it is run.
//!
//! Decides whether a graph is within limits, complete in one file and made of
//! known operators, and names every operator that is not. Knows the file format;
//! deliberately not how a graph is computed.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::model::OnnxOpRegister;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

use crate::Limits;
use crate::error::{LoadError, invalid, too_large};
use crate::port::Port;
use crate::tensor::{Dtype, elements};

/// The operator sets whose names the register means.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// What was found in a file.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) operators: BTreeSet<String>,
    pub(crate) opset: u64,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<String>,
}

/// Surveys a model and gives every free axis of its inputs a name that the
/// inference library can read, so that axes of one name stay equal.
pub(crate) fn survey(proto: &mut ModelProto, register: &OnnxOpRegister, limits: &Limits) -> Result<Survey, LoadError> {
    if proto.opset_import.is_empty() {
        return Err(LoadError::NotOnnx { reason: "it names no operator set".to_owned() });
    }
    let opset = proto.opset_import.iter().find(|set| DOMAINS[..2].contains(&&*set.domain));
    let opset = opset.and_then(|set| u64::try_from(set.version).ok()).unwrap_or(0);
    let graph = proto.graph.as_mut().ok_or_else(|| LoadError::NotOnnx { reason: "it holds no graph".to_owned() })?;
    if graph.output.is_empty() {
        return Err(LoadError::NotOnnx { reason: "its graph has no output".to_owned() });
    }
    let mut walk = Walk { register, limits, nodes: 0, known: BTreeSet::new(), unknown: BTreeSet::new() };
    walk.graph(graph)?;
    if !walk.unknown.is_empty() {
        return Err(LoadError::UnsupportedOperator { operators: walk.unknown.into_iter().collect() });
    }
    let inputs = inputs(graph, limits)?;
    let outputs = outputs(graph)?;
    Ok(Survey { operators: walk.known, opset, inputs, outputs })
}

struct Walk<'a> {
    register: &'a OnnxOpRegister,
    limits: &'a Limits,
    nodes: usize,
    known: BTreeSet<String>,
    unknown: BTreeSet<String>,
}

impl Walk<'_> {
    /// Depth is bounded: the decoder refuses messages nested more than 100 deep.
    fn graph(&mut self, graph: &GraphProto) -> Result<(), LoadError> {
        self.nodes = self.nodes.saturating_add(graph.node.len());
        if self.nodes > self.limits.nodes {
            return Err(too_large("nodes in the graph", self.nodes, self.limits.nodes));
        }
        if !graph.sparse_initializer.is_empty() {
            return Err(invalid("it has sparse weights; export it with dense ones"));
        }
        let mut sizes = BTreeMap::new();
        for tensor in &graph.initializer {
            self.tensor(tensor, &tensor.name)?;
            sizes.insert(&*tensor.name, tensor);
        }
        for node in &graph.node {
            self.node(node)?;
            self.constant_size(node, &sizes)?;
        }
        Ok(())
    }

    fn node(&mut self, node: &NodeProto) -> Result<(), LoadError> {
        let name = match &*node.domain {
            "" | "ai.onnx" => node.op_type.clone(),
            domain => format!("{domain}.{}", node.op_type),
        };
        let standard = DOMAINS.contains(&&*node.domain);
        if standard && self.register.0.contains_key(&node.op_type) {
            self.known.insert(name);
        } else {
            self.unknown.insert(name);
        }
        for attribute in &node.attribute {
            for tensor in attribute.t.iter().chain(&attribute.tensors) {
                self.tensor(tensor, &attribute.name)?;
            }
            for graph in attribute.g.iter().chain(&attribute.graphs) {
                self.graph(graph)?;
            }
        }
        Ok(())
    }

    fn tensor(&self, tensor: &TensorProto, name: &str) -> Result<(), LoadError> {
        let external = tensor.data_location == Some(DataLocation::External as i32);
        if external || !tensor.external_data.is_empty() {
            let location = tensor.external_data.iter().find(|entry| entry.key == "location");
            let location = location.map_or_else(String::new, |entry| entry.value.clone());
            return Err(LoadError::ExternalData { tensor: name.to_owned(), location });
        }
        let shape: Option<Vec<usize>> = tensor.dims.iter().map(|axis| usize::try_from(*axis).ok()).collect();
        let shape = shape.ok_or_else(|| invalid(format!("tensor {name:?} has a negative axis")))?;
        self.size(&format!("elements of tensor {name:?}"), &shape)
    }

    /// A few bytes of a file can ask for any amount of memory by these two.
    fn constant_size(&self, node: &NodeProto, sizes: &BTreeMap<&str, &TensorProto>) -> Result<(), LoadError> {
        let size = match &*node.op_type {
            "ConstantOfShape" => node.input.first(),
            "Expand" => node.input.get(1),
            _ => None,
        };
        let Some(tensor) = size.and_then(|name| sizes.get(&**name)) else { return Ok(()) };
        let raw = tensor.raw_data.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok());
        let axes = raw.map(i64::from_le_bytes).chain(tensor.int64_data.iter().copied());
        let axes: Vec<usize> = axes.map(|axis| usize::try_from(axis).unwrap_or(1)).collect();
        self.size(&format!("elements made by {}", node.op_type), &axes)
    }

    fn size(&self, what: &str, shape: &[usize]) -> Result<(), LoadError> {
        match elements(shape) {
            Some(count) if count <= self.limits.tensor_elements => Ok(()),
            count => Err(too_large(what, count.unwrap_or(usize::MAX), self.limits.tensor_elements)),
        }
    }
}

/// The graph's inputs that are not weights.
fn inputs(graph: &mut GraphProto, limits: &Limits) -> Result<Vec<Port>, LoadError> {
    let weights: BTreeSet<&str> = graph.initializer.iter().map(|t| &*t.name).collect();
    let mut ports = Vec::new();
    for input in graph.input.iter_mut().filter(|input| !weights.contains(&*input.name)) {
        let port = port(input)?;
        let fixed: Vec<usize> = port.shape.iter().map(|axis| axis.unwrap_or(1)).collect();
        let count = elements(&fixed).unwrap_or(usize::MAX);
        if count > limits.input_elements {
            let what = format!("elements of input {:?}", port.name);
            return Err(too_large(&what, count, limits.input_elements));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn port(input: &mut ValueInfoProto) -> Result<Port, LoadError> {
    let name = input.name.clone();
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_mut().and_then(|kind| kind.value.as_mut()) else {
        return Err(invalid(format!("input {name:?} is no tensor")));
    };
    let dtype =
        dtype(tensor.elem_type).map_err(|kind| invalid(format!("input {name:?} has elements of type {kind}")))?;
    let Some(shape) = tensor.shape.as_mut() else {
        return Err(invalid(format!("input {name:?} declares no shape; export it with one")));
    };
    let mut axes = Vec::new();
    for (index, axis) in shape.dim.iter_mut().enumerate() {
        let free = match &axis.value {
            Some(Value::DimValue(size)) => match usize::try_from(*size) {
                Ok(size) => {
                    axes.push(Some(size));
                    continue;
                }
                Err(_) => None,
            },
            Some(Value::DimParam(name)) => Some(name).filter(|name| !["", "?"].contains(&&***name)),
            None => None,
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let symbol = match free {
            Some(name) => format!("axis_{}", name.chars().map(plain).collect::<String>()),
            None if index == 0 => "batch".to_owned(),
            None => format!("free_{}_{index}", name.chars().map(plain).collect::<String>()),
        };
        axis.value = Some(Value::DimParam(symbol));
        axes.push(None);
    }
    Ok(Port { name, dtype, shape: axes })
}

/// The names of the graph's outputs, each of which something must make.
fn outputs(graph: &GraphProto) -> Result<Vec<String>, LoadError> {
    let made: BTreeSet<&str> = (graph.node.iter().flat_map(|node| &node.output))
        .chain(graph.input.iter().map(|input| &input.name))
        .chain(graph.initializer.iter().map(|tensor| &tensor.name))
        .map(|name| &**name)
        .collect();
    match graph.output.iter().find(|output| !made.contains(&*output.name)) {
        Some(output) => Err(invalid(format!("nothing computes its output {:?}", output.name))),
        None => Ok(graph.output.iter().map(|output| output.name.clone()).collect()),
    }
}

fn dtype(kind: i32) -> Result<Dtype, String> {
    match DataType::try_from(kind) {
        // Half precision stays inside: values enter and leave as FP32.
        Ok(DataType::Float | DataType::Float16) => Ok(Dtype::F32),
        Ok(DataType::Double) => Ok(Dtype::F64),
        Ok(DataType::Int8) => Ok(Dtype::I8),
        Ok(DataType::Int16) => Ok(Dtype::I16),
        Ok(DataType::Int32) => Ok(Dtype::I32),
        Ok(DataType::Int64) => Ok(Dtype::I64),
        Ok(DataType::Uint8) => Ok(Dtype::U8),
        Ok(DataType::Uint16) => Ok(Dtype::U16),
        Ok(DataType::Uint32) => Ok(Dtype::U32),
        Ok(DataType::Uint64) => Ok(Dtype::U64),
        Ok(DataType::Bool) => Ok(Dtype::Bool),
        Ok(DataType::String) => Ok(Dtype::Text),
        Ok(other) => Err(format!("{}, which is not supported", other.as_str_name())),
        Err(_) => Err(format!("number {kind}, which is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::testing::{self, Load, graph, load_bytes, node, port, weights};
    use prost::Message;
    use tract_onnx::pb::{AttributeProto, StringStringEntryProto};

    fn refusal(proto: &ModelProto) -> LoadError {
        proto.load().expect_err("this model must be refused")
    }

    fn adding(tensor: TensorProto) -> ModelProto {
        graph(vec![node("Add", &["x", "b"], &["y"])], vec![tensor])
    }

    #[test]
    fn every_unknown_operator_is_named_once() {
        let mut foreign = node("Relu", &["b"], &["c"]);
        foreign.domain = "com.example".to_owned();
        let nodes = vec![
            node("Relu", &["x"], &["a"]),
            node("FancyOp", &["a"], &["b"]),
            foreign,
            node("FancyOp", &["c"], &["d"]),
            node("Add", &["d", "x"], &["y"]),
        ];
        match refusal(&graph(nodes, vec![])) {
            LoadError::UnsupportedOperator { operators } => {
                assert_eq!(operators, ["FancyOp", "com.example.Relu"]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn operators_inside_subgraphs_are_found() {
        let mut branch = node("If", &["x"], &["y"]);
        let inner = GraphProto { node: vec![node("FancyOp", &["x"], &["z"])], ..Default::default() };
        branch.attribute = vec![AttributeProto { g: Some(inner), ..Default::default() }];
        let error = refusal(&graph(vec![branch], vec![]));
        let told = "the engine cannot run these operators: FancyOp";
        assert_eq!(error.to_string(), told);
    }

    #[test]
    fn weights_in_another_file_are_refused_by_its_name() {
        let mut tensor = weights("b", &[1, 2], &[]);
        tensor.data_location = Some(DataLocation::External as i32);
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.to_owned(), value: value.to_owned() };
        tensor.external_data = vec![entry("location", "../weights.bin"), entry("offset", "0")];
        match refusal(&adding(tensor)) {
            LoadError::ExternalData { tensor, location } => {
                assert_eq!((&*tensor, &*location), ("b", "../weights.bin"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_model_is_refused() {
        let whole = testing::adder().encode_to_vec();
        let limits = Limits::default();
        for bytes in [&b""[..], b"not a model at all", &whole[..whole.len() - 5]] {
            let error = load_bytes(bytes, &limits).unwrap_err();
            assert!(matches!(error, LoadError::NotOnnx { .. }), "{error:?}");
        }
        for length in 0..whole.len() {
            assert!(load_bytes(&whole[..length], &limits).is_err(), "cut at {length}");
        }
        let missing = Model::load(std::path::Path::new("/no/such/model.onnx"), &limits);
        assert!(matches!(missing, Err(LoadError::Io { .. })));
    }

    #[test]
    fn limits_are_checked_before_any_work() {
        let adder = testing::adder().encode_to_vec();
        let loose = Limits::default();
        let limits = [
            Limits { model_bytes: 10, ..loose.clone() },
            Limits { nodes: 0, ..loose.clone() },
            Limits { tensor_elements: 1, ..loose.clone() },
            Limits { input_elements: 1, ..loose },
        ];
        for limits in limits {
            let error = load_bytes(&adder, &limits).unwrap_err();
            assert!(matches!(error, LoadError::TooLarge { .. }), "{limits:?}: {error:?}");
        }
        let huge = [
            adding(weights("b", &[1 << 40, 1 << 40], &[1.0])),
            testing::identity(&[None, Some(1 << 40)]),
            ones_of(1 << 40),
        ];
        for proto in huge {
            let error = refusal(&proto);
            assert!(matches!(error, LoadError::TooLarge { .. }), "{error:?}");
        }
        assert!(ones_of(2).load().is_ok());
    }

    fn ones_of(size: i64) -> ModelProto {
        let mut shape = weights("s", &[1], &[]);
        shape.data_type = DataType::Int64 as i32;
        shape.int64_data = vec![size];
        let nodes = vec![node("ConstantOfShape", &["s"], &["c"]), node("Add", &["x", "c"], &["y"])];
        graph(nodes, vec![shape])
    }

    #[test]
    fn a_graph_that_contradicts_itself_is_refused_and_never_panics() {
        let mut no_output = testing::adder();
        no_output.graph.as_mut().unwrap().output[0].name = "z".to_owned();
        let mut half = testing::adder();
        half.graph.as_mut().unwrap().input[0] = port("x", DataType::Bfloat16, &[None, Some(2)]);
        let mut shapeless = testing::adder();
        shapeless.graph.as_mut().unwrap().input[0].r#type = None;
        let mut string = weights("b", &[1, 2], &[]);
        string.data_type = DataType::Bfloat16 as i32;
        for proto in [
            no_output,
            half,
            shapeless,
            adding(string),
            adding(weights("b", &[1, 2], &[1.0])),
            adding(weights("b", &[-1, 2], &[1.0, 2.0])),
            adding(weights("unused", &[1], &[1.0])),
        ] {
            let error = refusal(&proto);
            assert!(matches!(error, LoadError::Invalid { .. }), "{error:?}");
        }
    }

    #[test]
    fn free_axes_keep_their_names_apart() {
        let mut proto = testing::identity(&[None, Some(2), None]);
        let dims = |proto: &ModelProto| {
            let kind = proto.graph.as_ref().unwrap().input[0].r#type.clone().unwrap();
            let Some(type_proto::Value::TensorType(tensor)) = kind.value else { panic!() };
            tensor.shape.unwrap().dim.into_iter().map(|axis| axis.value).collect::<Vec<_>>()
        };
        let register = &tract_onnx::onnx().op_register;
        let found = survey(&mut proto, register, &Limits::default()).unwrap();
        assert_eq!(found.inputs[0].shape, [None, Some(2), None]);
        let free = Some(Value::DimParam("axis_N".to_owned()));
        assert_eq!(dims(&proto), [free.clone(), Some(Value::DimValue(2)), free]);
        assert_eq!((found.opset, found.outputs), (17, vec!["y".to_owned()]));
    }
}
