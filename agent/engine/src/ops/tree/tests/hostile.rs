//! Files that are no trees: each is refused when it is loaded, with its reason.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, ModelProto};

use super::{classifier, fifth, modes, regressor};
use crate::testing::{self, Load, attribute};

fn refused(model: &ModelProto, because: &str) {
    let error = model.load().expect_err(because).to_string();
    assert!(error.contains(because), "{error} does not say {because:?}");
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    attribute(name, values.to_vec())
}

#[test]
fn lists_that_do_not_fit_each_other() {
    for name in ["nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids"] {
        refused(&regressor(vec![ints(name, &[0, 1])]), &format!("{name} has 2 numbers instead of 3"));
        refused(&regressor(vec![ints(name, &[])]), &format!("{name} has 0 numbers instead of 3"));
    }
    for name in ["target_treeids", "target_nodeids", "target_ids", "nodes_missing_value_tracks_true"] {
        refused(&regressor(vec![ints(name, &[0])]), &format!("{name} has 1 numbers"));
    }
    refused(&regressor(vec![attribute("nodes_values", vec![0.5f32])]), "nodes_values has 1 numbers instead of 3");
    refused(&regressor(vec![attribute("target_weights", vec![0.5f32])]), "target_treeids has 2 numbers instead of 1");
    refused(&regressor(vec![attribute("nodes_modes", Vec::<&str>::new())]), "no nodes");
    let twice = attribute("nodes_values_as_tensor", testing::weights("", &[3], &[0.0; 3]));
    refused(&regressor(vec![twice]), "given twice");
}

#[test]
fn graphs_that_are_no_trees() {
    refused(&regressor(vec![ints("nodes_truenodeids", &[0, 0, 0])]), "cycle");
    refused(&regressor(vec![ints("nodes_truenodeids", &[2, 0, 0])]), "several roots");
    refused(&regressor(vec![ints("nodes_truenodeids", &[9, 0, 0])]), "no node 9");
    refused(&regressor(vec![ints("nodes_truenodeids", &[-1, 0, 0])]), "no node -1");
    refused(&regressor(vec![ints("nodes_truenodeids", &[i64::MAX, 0, 0])]), "no node 9223372036854775807");
    refused(&regressor(vec![ints("nodes_nodeids", &[0, 1, 1])]), "two nodes 1");
    refused(&regressor(vec![ints("nodes_treeids", &[0, 0, 1])]), "no node 2");
    // 0 -> 1 and 2; 1 -> 2 and a leaf: branch 2 has two parents.
    let shared = vec![
        ints("nodes_treeids", &[0; 4]),
        ints("nodes_nodeids", &[0, 1, 2, 3]),
        ints("nodes_featureids", &[0; 4]),
        attribute("nodes_values", vec![0.5f32; 4]),
        attribute("nodes_modes", vec!["BRANCH_LEQ", "BRANCH_LEQ", "BRANCH_LEQ", "LEAF"]),
        ints("nodes_truenodeids", &[1, 2, 3, 0]),
        ints("nodes_falsenodeids", &[2, 3, 3, 0]),
        ints("target_nodeids", &[3, 3]),
        ints("target_ids", &[0, 1]),
        attribute("n_targets", 2i64),
    ];
    refused(&regressor(shared.clone()), "reached twice");
    // A cycle beside the tree: 1 -> 2 -> 1, and 0 a leaf.
    let mut beside = shared;
    beside.retain(|kept| !["nodes_modes", "nodes_truenodeids", "nodes_falsenodeids"].contains(&&*kept.name));
    beside.push(attribute("nodes_modes", vec!["LEAF", "BRANCH_LEQ", "BRANCH_LEQ", "LEAF"]));
    beside.push(ints("nodes_truenodeids", &[0, 2, 1, 0]));
    beside.push(ints("nodes_falsenodeids", &[0, 3, 3, 0]));
    refused(&regressor(beside), "no root leads to branch");
}

#[test]
fn numbers_out_of_range() {
    refused(&regressor(vec![ints("nodes_featureids", &[-1, 0, 0])]), "no feature -1");
    refused(&regressor(vec![ints("nodes_featureids", &[2, 0, 0])]), "ask for 3 features, and its input has 2");
    refused(&regressor(vec![ints("nodes_featureids", &[1 << 31, 0, 0])]), "out of range");
    refused(&regressor(vec![ints("target_ids", &[0, -1])]), "target_ids holds -1");
    refused(&regressor(vec![ints("target_ids", &[0, 1])]), "target 1, and there are 1");
    refused(&regressor(vec![ints("target_nodeids", &[1, 7])]), "node 7 of tree 0");
    refused(&regressor(vec![ints("target_nodeids", &[1, 1])]), "two weights for target 0");
    refused(&regressor(vec![attribute("target_weights", vec![0.5, f32::NAN])]), "not a number");
    refused(&regressor(vec![attribute("nodes_values", vec![f32::NAN, 0.0, 0.0])]), "a threshold is not a number");
    for targets in [0i64, -1, 1 << 31, i64::MAX] {
        refused(&regressor(vec![attribute("n_targets", targets)]), &format!("n_targets is {targets}"));
    }
    refused(&regressor(vec![attribute("base_values", vec![0.5f32, 0.5])]), "base_values: there are 2 for 1");
    refused(&regressor(vec![attribute("base_values", vec![f32::NAN])]), "base_values: one is not a number");
    refused(&classifier(vec![attribute("base_values", vec![0.1f32; 3])]), "base_values: there are 3 for 2");
    refused(&classifier(vec![ints("class_ids", &[0, 2])]), "target 2, and there are 2");
}

#[test]
fn words_that_nobody_specified() {
    refused(&regressor(vec![attribute("nodes_modes", vec!["BRANCH", "LEAF", "LEAF"])]), "no mode of a node");
    refused(&regressor(vec![attribute("aggregate_function", "MEDIAN")]), "no aggregate_function");
    refused(&regressor(vec![attribute("post_transform", "TANH")]), "no post_transform");
    let float = |changes| fifth(changes, DataType::Float);
    refused(&float(vec![attribute("nodes_modes", modes(&[7]))]), "7 is no mode");
    refused(&float(vec![attribute("post_transform", 5i64)]), "5 is no post_transform");
    refused(&float(vec![attribute("aggregate_function", -1i64)]), "-1 is no aggregate_function");
}

#[test]
fn the_fifth_version_is_checked_alike() {
    let float = |changes| fifth(changes, DataType::Float);
    let leaf = |name| attribute(name, vec![0i64]);
    refused(&float(vec![leaf("nodes_trueleafs")]), "reached twice");
    refused(&float(vec![leaf("nodes_falseleafs")]), "branch 1 is not there");
    refused(&float(vec![ints("nodes_truenodeids", &[2])]), "leaf 2 is not there");
    refused(&float(vec![ints("tree_roots", &[0, 0])]), "reached twice");
    refused(&float(vec![ints("tree_roots", &[1])]), "branch 1 is not there");
    refused(&float(vec![ints("tree_roots", &[])]), "no root leads to branch 0");
    refused(&float(vec![ints("leaf_targetids", &[0])]), "leaf_targetids has 1 numbers instead of 2");
    refused(&float(vec![ints("leaf_targetids", &[0, 2])]), "target 2, and there are 2");
    refused(&float(vec![attribute("nodes_modes", modes(&[6]))]), "no members");
    refused(&float(vec![attribute("nodes_modes", modes(&[0, 0]))]), "nodes_modes has 2 numbers instead of 1");
    refused(&fifth(vec![], DataType::Bool), "not Bool");
}
