//! Small trees as files, for the tests of this room.

mod answers;
mod flat;
mod hostile;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, TensorProto};

use crate::Model;
use crate::testing::{self, attribute, floats, node, port};

/// The tree `x <= 0.5` with leaves 1 and 2, as lists of ai.onnx.ml 3.
fn stump(operator: &str) -> Vec<AttributeProto> {
    let of = if operator == "TreeEnsembleRegressor" { "target" } else { "class" };
    vec![
        attribute("nodes_treeids", vec![0i64, 0, 0]),
        attribute("nodes_nodeids", vec![0i64, 1, 2]),
        attribute("nodes_featureids", vec![0i64, 0, 0]),
        attribute("nodes_values", vec![0.5f32, 0.0, 0.0]),
        attribute("nodes_modes", vec!["BRANCH_LEQ", "LEAF", "LEAF"]),
        attribute("nodes_truenodeids", vec![1i64, 0, 0]),
        attribute("nodes_falsenodeids", vec![2i64, 0, 0]),
        attribute(&format!("{of}_treeids"), vec![0i64, 0]),
        attribute(&format!("{of}_nodeids"), vec![1i64, 2]),
        attribute(&format!("{of}_ids"), vec![0i64, 0]),
        attribute(&format!("{of}_weights"), vec![0.2f32, 0.7]),
    ]
}

fn model_of(
    operator: &str,
    attributes: Vec<AttributeProto>,
    changes: Vec<AttributeProto>,
    kind: DataType,
) -> ModelProto {
    let names: &[&str] = if operator == "TreeEnsembleClassifier" { &["label", "score"] } else { &["score"] };
    let mut tree = node(operator, &["x"], names);
    tree.domain = "ai.onnx.ml".to_owned();
    tree.attribute = attributes;
    for change in changes {
        tree.attribute.retain(|kept| kept.name != change.name);
        tree.attribute.push(change);
    }
    let output = names.iter().map(|name| port(name, DataType::Float, &[None])).collect();
    let input = vec![port("x", kind, &[None, Some(2)])];
    testing::model(GraphProto { node: vec![tree], input, output, ..Default::default() })
}

fn regressor(changes: Vec<AttributeProto>) -> ModelProto {
    let mut attributes = stump("TreeEnsembleRegressor");
    attributes.push(attribute("n_targets", 1i64));
    model_of("TreeEnsembleRegressor", attributes, changes, DataType::Float)
}

fn classifier(changes: Vec<AttributeProto>) -> ModelProto {
    let mut attributes = stump("TreeEnsembleClassifier");
    attributes.push(attribute("classlabels_int64s", vec![5i64, 7]));
    model_of("TreeEnsembleClassifier", attributes, changes, DataType::Float)
}

fn scores(model: &Model, rows: &[f32]) -> Vec<f32> {
    let rows: Vec<f32> = rows.iter().flat_map(|value| [*value, 0.0]).collect();
    let outputs = model.run(&[floats(&[rows.len() / 2, 2], &rows)]).unwrap();
    outputs.last().unwrap().as_f32().to_vec()
}

fn close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{got:?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
    }
}

/// A TreeEnsemble of ai.onnx.ml 5: `x <= 0.5` with leaves that add 0.2 to target 0 and 0.4 to target 1.
fn fifth(changes: Vec<AttributeProto>, kind: DataType) -> ModelProto {
    let attributes = vec![
        attribute("n_targets", 2i64),
        attribute("nodes_featureids", vec![0i64]),
        attribute("nodes_truenodeids", vec![0i64]),
        attribute("nodes_falsenodeids", vec![1i64]),
        attribute("nodes_trueleafs", vec![1i64]),
        attribute("nodes_falseleafs", vec![1i64]),
        attribute("nodes_splits", testing::weights("", &[1], &[0.5])),
        attribute("nodes_modes", modes(&[0])),
        attribute("leaf_targetids", vec![0i64, 1]),
        attribute("leaf_weights", testing::weights("", &[2], &[0.2, 0.4])),
        attribute("tree_roots", vec![0i64]),
    ];
    model_of("TreeEnsemble", attributes, changes, kind)
}

fn modes(modes: &[u8]) -> TensorProto {
    let (dims, raw_data) = (vec![modes.len() as i64], modes.to_vec());
    TensorProto { dims, raw_data, data_type: DataType::Uint8 as i32, ..Default::default() }
}
