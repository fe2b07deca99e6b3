//! Tiny models for this crate's tests, built in memory and saved to a folder.

use std::path::PathBuf;

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

use crate::error::LoadError;
use crate::model::Model;
use crate::tensor::{Data, Tensor};
use crate::{Limits, Pipeline};

pub(crate) fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape.to_vec(), Data::F32(values.to_vec())).unwrap()
}

/// A tensor's declaration; `None` is the free axis "N".
pub(crate) fn port(name: &str, kind: DataType, shape: &[Option<i64>]) -> ValueInfoProto {
    let axis = |axis: &Option<i64>| Dimension {
        value: Some(axis.map_or(Value::DimParam("N".to_owned()), Value::DimValue)),
        ..Default::default()
    };
    let shape = TensorShapeProto { dim: shape.iter().map(axis).collect() };
    let tensor = type_proto::Tensor { elem_type: kind as i32, shape: Some(shape) };
    let value = Some(type_proto::Value::TensorType(tensor));
    let kind = TypeProto { value, ..Default::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(kind), ..Default::default() }
}

pub(crate) fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: operator.to_owned(),
        name: format!("{operator}_{}", outputs.join("_")),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: outputs.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// What an attribute of a node can hold.
pub(crate) trait Attribute {
    fn fill(self, attribute: &mut AttributeProto);
}

/// How each kind of attribute is kept.
macro_rules! attribute {
    ($kind:ty, $form:ident, $value:ident => $field:ident = $stored:expr) => {
        impl Attribute for $kind {
            fn fill(self, attribute: &mut AttributeProto) {
                let $value = self;
                attribute.$field = $stored;
                attribute.r#type = AttributeType::$form as i32;
            }
        }
    };
}

attribute!(i64, Int, value => i = value);
attribute!(f32, Float, value => f = value);
attribute!(&str, String, value => s = value.into());
attribute!(Vec<i64>, Ints, value => ints = value);
attribute!(Vec<f32>, Floats, value => floats = value);
attribute!(Vec<&str>, Strings, value => strings = value.into_iter().map(Into::into).collect());
attribute!(TensorProto, Tensor, value => t = Some(value));

pub(crate) fn attribute(name: &str, value: impl Attribute) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.to_owned(), ..Default::default() };
    value.fill(&mut attribute);
    attribute
}

pub(crate) fn weights(name: &str, shape: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: shape.to_vec(),
        data_type: DataType::Float as i32,
        float_data: values.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        graph: Some(GraphProto { name: "test".to_owned(), ..graph }),
        ..Default::default()
    }
}

/// From `x` [N, 2] to `y` by these nodes, with these weights.
pub(crate) fn graph(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    model(GraphProto {
        node: nodes,
        initializer,
        input: vec![port("x", DataType::Float, &[None, Some(2)])],
        output: vec![port("y", DataType::Float, &[None, Some(2)])],
        ..Default::default()
    })
}

/// `y = x + [1, 10]`, from [rows, 2] to [rows, 2].
pub(crate) fn adder_of_rows(rows: Option<i64>) -> ModelProto {
    model(GraphProto {
        node: vec![node("Add", &["x", "b"], &["y"])],
        initializer: vec![weights("b", &[1, 2], &[1.0, 10.0])],
        input: vec![port("x", DataType::Float, &[rows, Some(2)])],
        output: vec![port("y", DataType::Float, &[rows, Some(2)])],
        ..Default::default()
    })
}

/// `y = x + [1, 10]` for any number of rows.
pub(crate) fn adder() -> ModelProto {
    adder_of_rows(None)
}

/// `y = x`, from and to this shape.
pub(crate) fn identity(shape: &[Option<i64>]) -> ModelProto {
    model(GraphProto {
        node: vec![node("Identity", &["x"], &["y"])],
        input: vec![port("x", DataType::Float, shape)],
        output: vec![port("y", DataType::Float, shape)],
        ..Default::default()
    })
}

pub(crate) trait Load {
    fn load(&self) -> Result<Model, LoadError>;
    fn open(&self, files: &[(&str, &str)]) -> Result<Pipeline, LoadError>;
}

impl Load for ModelProto {
    fn load(&self) -> Result<Model, LoadError> {
        load_bytes(&self.encode_to_vec(), &Limits::default())
    }

    /// As the model of a bundle folder that also holds these files.
    fn open(&self, files: &[(&str, &str)]) -> Result<Pipeline, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.onnx"), self.encode_to_vec()).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Pipeline::open(dir.path(), &Limits::default())
    }
}

pub(crate) fn load_bytes(bytes: &[u8], limits: &Limits) -> Result<Model, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    Model::load(&path, limits)
}

/// Chance that is the same each time (a linear congruential generator, Knuth's constants).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    /// Numbers from -1 to 1.
    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.below(2001) as f32 / 1000.0 - 1.0).collect()
    }
}
