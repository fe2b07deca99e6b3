//! One operator as a model, for this room's tests.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto};

use crate::error::LoadError;
use crate::model::Model;
use crate::tensor::{Data, Dtype, Tensor};
use crate::testing::{Load, floats, model, node, port};

/// From `x` by one node of ai.onnx.ml to `y0`, `y1`, …; the first axis of two is free.
pub(super) fn operator(operator: &str, outputs: usize, input: &Tensor, attributes: Vec<AttributeProto>) -> ModelProto {
    let names: Vec<String> = (0..outputs).map(|index| format!("y{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut node = node(operator, &["x"], &names);
    node.domain = "ai.onnx.ml".to_owned();
    node.attribute = attributes;
    let kind = match input.dtype() {
        Dtype::F64 => DataType::Double,
        Dtype::I64 => DataType::Int64,
        Dtype::I32 => DataType::Int32,
        Dtype::Text => DataType::String,
        _ => DataType::Float,
    };
    let free = input.shape.len() > 1;
    let axis = |(index, axis): (usize, &usize)| (index > 0 || !free).then_some(*axis as i64);
    let shape: Vec<Option<i64>> = input.shape.iter().enumerate().map(axis).collect();
    let mut model = model(GraphProto {
        node: vec![node],
        input: vec![port("x", kind, &shape)],
        output: names.iter().map(|name| port(name, DataType::Float, &[])).collect(),
        ..Default::default()
    });
    model.opset_import[0].version = 17;
    model
}

/// What the operator makes of this input.
pub(super) fn run(name: &str, outputs: usize, input: Tensor, attributes: Vec<AttributeProto>) -> Vec<Tensor> {
    let model: Model = operator(name, outputs, &input, attributes).load().unwrap();
    model.run(&[input]).unwrap()
}

/// Why a model with these attributes is not loaded.
pub(super) fn refusal(name: &str, input: Tensor, attributes: Vec<AttributeProto>) -> String {
    let outputs = if name.ends_with("Classifier") { 2 } else { 1 };
    match operator(name, outputs, &input, attributes).load() {
        Err(LoadError::Invalid { reason }) => reason,
        other => panic!("{name}: {other:?}"),
    }
}

pub(super) fn close(got: &Tensor, shape: &[usize], expected: &[f32]) {
    assert_eq!((got.shape.as_slice(), got.dtype()), (shape, Dtype::F32));
    for (at, (got, expected)) in got.as_f32().iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "value {at}: {got} is not {expected}");
    }
}

pub(super) fn texts(shape: &[usize], values: &[&str]) -> Tensor {
    let values = values.iter().map(|text| (*text).to_owned()).collect();
    Tensor::new(shape.to_vec(), Data::Text(values)).unwrap()
}

pub(super) fn ints(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::new(shape.to_vec(), Data::I64(values.to_vec())).unwrap()
}

pub(super) fn row(values: &[f32]) -> Tensor {
    floats(&[1, values.len()], values)
}
