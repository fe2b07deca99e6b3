//! What a model file says of itself, read before any of it is run.
//!
//! Decides whether a graph is within limits and made of known operators, and
//! names every operator that is not. Knows the file format; deliberately not how
//! a graph is computed.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::model::OnnxOpRegister;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

use crate::Limits;
use crate::error::{LoadError, invalid, too_large};
use crate::external::element_bytes;
use crate::growth::{Known, declared};
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

/// What a graph is made of, its subgraphs included.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// Operators and how often each is used; with the domain unless that is ONNX's own.
    pub(crate) operators: BTreeMap<String, usize>,
    /// Those that the engine lacks.
    pub(crate) unknown: BTreeSet<String>,
    /// Nodes in all.
    pub(crate) nodes: usize,
    /// Bytes of all weights.
    pub(crate) weights: u64,
    /// Bytes of the largest other tensor that is known before anything runs.
    pub(crate) largest: u64,
}

/// Surveys a model and gives every free axis of its inputs a name that the
/// inference library can read, so that axes of one name stay equal.
pub(crate) fn survey(proto: &mut ModelProto, register: &OnnxOpRegister, limits: &Limits) -> Result<Survey, LoadError> {
    let inventory = inventory(proto, register, limits)?;
    if !inventory.unknown.is_empty() {
        return Err(LoadError::UnsupportedOperator { operators: inventory.unknown.into_iter().collect() });
    }
    let opset = opset(proto);
    let graph = proto.graph.as_mut().ok_or_else(no_graph)?;
    let inputs = inputs(graph, limits)?;
    let outputs = outputs(graph)?;
    Ok(Survey { operators: inventory.operators.into_keys().collect(), opset, inputs, outputs })
}

/// Counts what a model is made of; operators that the engine lacks are no error here.
pub(crate) fn inventory(
    proto: &ModelProto,
    register: &OnnxOpRegister,
    limits: &Limits,
) -> Result<Inventory, LoadError> {
    if proto.opset_import.is_empty() {
        return Err(LoadError::NotOnnx { reason: "it names no operator set".to_owned() });
    }
    let graph = proto.graph.as_ref().ok_or_else(no_graph)?;
    if graph.output.is_empty() {
        return Err(LoadError::NotOnnx { reason: "its graph has no output".to_owned() });
    }
    let mut walk = Walk { register, limits, found: Inventory::default() };
    walk.graph(graph, limits.depth, None)?;
    let memory = walk.found.weights.saturating_add(walk.found.largest);
    if memory > limits.memory_bytes {
        let what = "bytes of memory for the weights and the largest tensor".to_owned();
        return Err(LoadError::TooLarge { what, size: memory, limit: limits.memory_bytes });
    }
    Ok(walk.found)
}

/// The version of ONNX's own operator set; 0 when the file names none.
pub(crate) fn opset(proto: &ModelProto) -> u64 {
    let own = proto.opset_import.iter().find(|set| DOMAINS[..2].contains(&&*set.domain));
    own.and_then(|set| u64::try_from(set.version).ok()).unwrap_or(0)
}

fn no_graph() -> LoadError {
    LoadError::NotOnnx { reason: "it holds no graph".to_owned() }
}

struct Walk<'a> {
    register: &'a OnnxOpRegister,
    limits: &'a Limits,
    found: Inventory,
}

impl Walk<'_> {
    /// Walks a graph in which others may lie, so many deep; it may lie in another itself.
    fn graph(&mut self, graph: &GraphProto, depth: usize, outer: Option<&Known>) -> Result<(), LoadError> {
        self.found.nodes = self.found.nodes.saturating_add(graph.node.len());
        if self.found.nodes > self.limits.nodes {
            return Err(too_large("nodes in the graph", self.found.nodes, self.limits.nodes));
        }
        if !graph.sparse_initializer.is_empty() {
            return Err(invalid("it has sparse weights; export it with dense ones"));
        }
        for tensor in &graph.initializer {
            self.tensor(tensor, &tensor.name)?;
        }
        for info in &graph.value_info {
            let bytes = declared(info).map_or(0, |(_, bytes)| bytes);
            self.found.largest = self.found.largest.max(bytes);
        }
        let mut known = Known::of(graph, outer);
        for node in &graph.node {
            self.node(node, depth, &known)?;
            if let Some(made) = known.see(node) {
                self.size(&format!("elements made by {}", node.op_type), &made)?;
                let bytes = elements(&made).unwrap_or(usize::MAX).saturating_mul(4) as u64;
                self.found.largest = self.found.largest.max(bytes);
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &NodeProto, depth: usize, known: &Known) -> Result<(), LoadError> {
        let name = match &*node.domain {
            "" | "ai.onnx" => node.op_type.clone(),
            domain => format!("{domain}.{}", node.op_type),
        };
        let standard = DOMAINS.contains(&&*node.domain);
        if !(standard && self.register.0.contains_key(&node.op_type)) {
            self.found.unknown.insert(name.clone());
        }
        *self.found.operators.entry(name).or_default() += 1;
        for attribute in &node.attribute {
            for tensor in attribute.t.iter().chain(&attribute.tensors) {
                self.tensor(tensor, &attribute.name)?;
            }
            for graph in attribute.g.iter().chain(&attribute.graphs) {
                let Some(depth) = depth.checked_sub(1) else {
                    return Err(too_large("graphs inside one another", self.limits.depth + 1, self.limits.depth));
                };
                self.graph(graph, depth, Some(known))?;
            }
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &TensorProto, name: &str) -> Result<(), LoadError> {
        let shape: Option<Vec<usize>> = tensor.dims.iter().map(|axis| usize::try_from(*axis).ok()).collect();
        let shape = shape.ok_or_else(|| invalid(format!("tensor {name:?} has a negative axis")))?;
        self.size(&format!("elements of tensor {name:?}"), &shape)?;
        let each = element_bytes(tensor.data_type).unwrap_or(1);
        let bytes = elements(&shape).unwrap_or(usize::MAX).saturating_mul(each);
        self.found.weights = self.found.weights.saturating_add(bytes as u64);
        Ok(())
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
    use tract_onnx::pb::AttributeProto;

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
    fn graphs_lie_in_one_another_only_so_deep() {
        let nested = |depth: usize| {
            let innermost = node("Relu", &["x"], &["y"]);
            (0..depth).fold(innermost, |inner, _| {
                let mut branch = node("If", &["x"], &["y"]);
                let inner = GraphProto { node: vec![inner], ..Default::default() };
                branch.attribute = vec![AttributeProto { g: Some(inner), ..Default::default() }];
                branch
            })
        };
        let depth = Limits::default().depth;
        let found =
            |depth| inventory(&graph(vec![nested(depth)], vec![]), &tract_onnx::onnx().op_register, &Limits::default());
        assert_eq!(found(depth).unwrap().nodes, depth + 1);
        let error = found(depth + 1).unwrap_err();
        assert!(matches!(error, LoadError::TooLarge { limit, .. } if limit == depth as u64), "{error}");
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
