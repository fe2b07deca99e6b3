//! What files answer: the expected numbers are those of ONNX Runtime 1.32 on the same files.

use tract_onnx::pb::tensor_proto::DataType;

use super::{classifier, close, fifth, model_of, modes, regressor, scores, stump};
use crate::testing::{self, Load, attribute, floats};
use crate::{Data, Tensor};

/// Labels and scores of a classifier for x = 0 and x = 1.
fn classes(changes: Vec<tract_onnx::pb::AttributeProto>) -> (Vec<i64>, Vec<f32>) {
    let model = classifier(changes).load().unwrap();
    let outputs = model.run(&[floats(&[2, 2], &[0.0, 0.0, 1.0, 0.0])]).unwrap();
    let Data::I64(labels) = &outputs[0].data else { panic!("{outputs:?}") };
    (labels.clone(), outputs[1].as_f32().to_vec())
}

/// Weights of the classifier's leaves: of leaf 1, then of leaf 2, for these classes.
fn leaves(nodes: Vec<i64>, ids: Vec<i64>, weights: Vec<f32>) -> Vec<tract_onnx::pb::AttributeProto> {
    vec![
        attribute("class_treeids", vec![0i64; nodes.len()]),
        attribute("class_nodeids", nodes),
        attribute("class_ids", ids),
        attribute("class_weights", weights),
    ]
}

#[test]
fn one_score_becomes_two_classes() {
    let base = |values: Vec<f32>| attribute("base_values", values);
    let transform = |name: &'static str| attribute("post_transform", name);
    let mixed = || attribute("class_weights", vec![-0.2f32, 0.7]);
    let cases = [
        (vec![], [0.8, 0.2, 0.3, 0.7]),
        (vec![base(vec![0.1])], [0.7, 0.3, 0.2, 0.8]),
        (vec![base(vec![0.1, 0.3])], [0.3, 0.0, 0.8, 0.0]),
        (vec![mixed()], [0.2, -0.2, -0.7, 0.7]),
        (vec![mixed(), base(vec![0.1])], [0.1, -0.1, -0.8, 0.8]),
        (vec![transform("LOGISTIC")], [0.45016605, 0.54983395, 0.33181226, 0.66818774]),
        (vec![transform("SOFTMAX")], [0.8, 0.2, 0.3, 0.7]),
        (vec![transform("SOFTMAX"), mixed()], [0.2, -0.2, -0.7, 0.7]),
        (vec![transform("SOFTMAX"), base(vec![0.1, 0.3])], [0.5744425, 0.42555746, 0.6899745, 0.31002554]),
        (vec![mixed(), transform("LOGISTIC")], [0.54983395, 0.45016605, 0.33181226, 0.66818774]),
        (vec![transform("PROBIT")], [-0.8417561, 0.0, 0.5244459, 0.0]),
    ];
    for (changes, expected) in cases {
        let (labels, scores) = classes(changes);
        assert_eq!(labels, [5, 7]);
        close(&scores, &expected);
    }
}

#[test]
fn the_second_of_two_classes_may_be_the_one_with_weights() {
    let second = || attribute("class_ids", vec![1i64, 1]);
    let (labels, scores) = classes(vec![second()]);
    assert_eq!(labels, [5, 7]);
    close(&scores, &[0.0, 0.2, 0.0, 0.7]);
    let (_, scores) = classes(vec![second(), attribute("base_values", vec![0.1f32])]);
    close(&scores, &[0.0, 0.2, 0.0, 0.7]);
    let (labels, scores) = classes(vec![second(), attribute("base_values", vec![0.1f32, 0.3])]);
    assert_eq!(labels, [5, 5]);
    close(&scores, &[0.0, 0.3, 0.0, 0.3]);
}

/// Where both classes have weights the labels are 1 and 0, whatever the classes are called.
#[test]
fn two_classes_with_weights_of_their_own() {
    let both = || leaves(vec![1, 1, 2, 2], vec![0, 1, 0, 1], vec![0.2, 0.8, 0.6, -0.4]);
    let with = |mut changes: Vec<_>, more| {
        changes.extend(more);
        classes(changes)
    };
    let (labels, scores) = with(both(), vec![]);
    assert_eq!(labels, [1, 0]);
    close(&scores, &[0.2, 0.8, 0.6, -0.4]);
    let (_, scores) = with(both(), vec![attribute("base_values", vec![0.1f32])]);
    close(&scores, &[0.3, 0.8, 0.7, -0.4]);
    let (labels, scores) = with(both(), vec![attribute("base_values", vec![0.1f32, 0.3])]);
    assert_eq!(labels, [1, 1]);
    close(&scores, &[-0.5, 0.5, -0.9, 0.9]);
    let each = || leaves(vec![1, 2], vec![0, 1], vec![0.2, 0.7]);
    let (labels, scores) = with(each(), vec![]);
    assert_eq!(labels, [1, 1]);
    close(&scores, &[-0.2, 0.2, 0.0, 0.7]);
    let (_, scores) = with(each(), vec![attribute("post_transform", "LOGISTIC")]);
    close(&scores, &[0.45016605, 0.54983395, 0.5, 0.66818774]);
}

#[test]
fn the_highest_of_many_classes_wins_and_the_first_of_equals() {
    let three = |changes: Vec<_>| classes([changes, vec![attribute("classlabels_int64s", vec![3i64, 4, 6])]].concat());
    let (labels, scores) = three(leaves(vec![1, 2], vec![0, 1], vec![-0.2, 0.7]));
    assert_eq!(labels, [3, 4]);
    close(&scores, &[-0.2, 0.0, 0.0, 0.0, 0.7, 0.0]);
    let base = attribute("base_values", vec![0.1f32, 0.3, 0.3]);
    let (labels, scores) = three([leaves(vec![1, 2], vec![0, 1], vec![-0.2, 0.7]), vec![base]].concat());
    assert_eq!(labels, [4, 4]);
    close(&scores, &[-0.1, 0.3, 0.3, 0.1, 1.0, 0.3]);
    let soft = attribute("post_transform", "SOFTMAX");
    let (_, scores) = three([leaves(vec![1, 2], vec![0, 1], vec![0.2, 0.7]), vec![soft]].concat());
    close(&scores, &[0.37915242, 0.31042376, 0.31042376, 0.24914339, 0.5017132, 0.24914339]);
}

#[test]
fn a_single_class_and_classes_of_text() {
    let (labels, scores) =
        classes(vec![attribute("classlabels_int64s", vec![9i64]), attribute("class_weights", vec![-0.2f32, 0.7])]);
    assert_eq!(labels, [0, 1]);
    close(&scores, &[-0.2, 0.7]);
    let mut text = stump("TreeEnsembleClassifier");
    text.push(attribute("classlabels_strings", vec!["a", "b"]));
    let model = model_of("TreeEnsembleClassifier", text, vec![], DataType::Float).load().unwrap();
    let outputs = model.run(&[floats(&[2, 2], &[0.0, 0.0, 1.0, 0.0])]).unwrap();
    assert_eq!(outputs[0].data, Data::Text(vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn trees_are_added_averaged_or_compared() {
    // A second tree is one leaf: 0.3 for target 0.
    let two = |how: &'static str, targets: i64| {
        vec![
            attribute("nodes_treeids", vec![0i64, 0, 0, 1]),
            attribute("nodes_nodeids", vec![0i64, 1, 2, 0]),
            attribute("nodes_featureids", vec![0i64, 0, 0, 0]),
            attribute("nodes_values", vec![0.5f32, 0.0, 0.0, 0.0]),
            attribute("nodes_modes", vec!["BRANCH_LEQ", "LEAF", "LEAF", "LEAF"]),
            attribute("nodes_truenodeids", vec![1i64, 0, 0, 0]),
            attribute("nodes_falsenodeids", vec![2i64, 0, 0, 0]),
            attribute("target_treeids", vec![0i64, 0, 1]),
            attribute("target_nodeids", vec![1i64, 2, 0]),
            attribute("target_ids", vec![0, targets.min(2) - 1, 0]),
            attribute("target_weights", vec![0.2f32, 0.4, 0.3]),
            attribute("n_targets", targets),
            attribute("aggregate_function", how),
        ]
    };
    let base = attribute("base_values", vec![0.1f32]);
    let bases = attribute("base_values", vec![0.1f32, 0.2, 0.05]);
    let cases = [
        ("SUM", [0.5, 0.7], [0.6, 0.0, 0.0, 0.4, 0.6, 0.0]),
        ("AVERAGE", [0.25, 0.35], [0.35, 0.0, 0.0, 0.25, 0.4, 0.0]),
        ("MIN", [0.2, 0.3], [0.3, 0.0, 0.0, 0.4, 0.6, 0.0]),
        ("MAX", [0.3, 0.4], [0.4, 0.0, 0.0, 0.4, 0.6, 0.0]),
    ];
    for (how, plain, several) in cases {
        close(&scores(&regressor(two(how, 1)).load().unwrap(), &[0.0, 1.0]), &plain);
        let based = [two(how, 1), vec![base.clone()]].concat();
        close(&scores(&regressor(based).load().unwrap(), &[0.0, 1.0]), &plain.map(|value| value + 0.1));
        let based = [two(how, 3), vec![bases.clone()]].concat();
        close(&scores(&regressor(based).load().unwrap(), &[0.0, 1.0]), &several);
    }
}

#[test]
fn a_single_target_is_transformed_by_probit_alone() {
    for (transform, expected) in
        [("LOGISTIC", [0.2, 0.7]), ("SOFTMAX", [0.2, 0.7]), ("PROBIT", [-0.8417561, 0.5244459])]
    {
        let model = regressor(vec![attribute("post_transform", transform)]).load().unwrap();
        close(&scores(&model, &[0.0, 1.0]), &expected);
    }
}

#[test]
fn every_mode_and_where_missing_values_go() {
    let cases = [
        ("BRANCH_LEQ", [true, true, false, false]),
        ("BRANCH_LT", [true, false, false, false]),
        ("BRANCH_GTE", [false, true, true, false]),
        ("BRANCH_GT", [false, false, true, false]),
        ("BRANCH_EQ", [false, true, false, false]),
        ("BRANCH_NEQ", [true, false, true, true]),
    ];
    for (mode, holds) in cases {
        for missing in [false, true] {
            let changes = vec![
                attribute("nodes_modes", vec![mode, "LEAF", "LEAF"]),
                attribute("nodes_missing_value_tracks_true", vec![i64::from(missing), 0, 0]),
            ];
            let got = scores(&regressor(changes).load().unwrap(), &[0.25, 0.5, 1.0, f32::NAN]);
            let mut holds = holds;
            holds[3] |= missing;
            close(&got, &holds.map(|holds| if holds { 0.2 } else { 0.7 }));
        }
    }
}

#[test]
fn whole_numbers_and_doubles_are_taken_too() {
    let mut attributes = stump("TreeEnsembleRegressor");
    attributes.push(attribute("n_targets", 1i64));
    for (kind, data) in [
        (DataType::Int64, Data::I64(vec![0, 9, 1, 9])),
        (DataType::Int32, Data::I32(vec![0, 9, 1, 9])),
        (DataType::Double, Data::F64(vec![0.5, 9.0, 0.5 + 1e-12, 9.0])),
    ] {
        let model = model_of("TreeEnsembleRegressor", attributes.clone(), vec![], kind).load().unwrap();
        let outputs = model.run(&[Tensor::new(vec![2, 2], data).unwrap()]).unwrap();
        close(&outputs[0].as_f32(), &[0.2, 0.7]);
    }
}

#[test]
fn the_fifth_version_has_members_and_answers_in_its_inputs_type() {
    close(&scores(&fifth(vec![], DataType::Float).load().unwrap(), &[0.0, 1.0]), &[0.2, 0.0, 0.0, 0.4]);
    let softmax = fifth(vec![attribute("post_transform", 1i64)], DataType::Float).load().unwrap();
    close(&scores(&softmax, &[0.0]), &[0.54983395, 0.45016605]);
    let members = testing::weights("", &[3], &[1.0, 30.0, f32::NAN]);
    let changes = vec![attribute("nodes_modes", modes(&[6])), attribute("membership_values", members)];
    let model = fifth(changes, DataType::Float).load().unwrap();
    close(&scores(&model, &[1.0, 30.0, 2.0, f32::NAN]), &[0.2, 0.0, 0.2, 0.0, 0.0, 0.4, 0.0, 0.4]);
    let model = fifth(vec![], DataType::Double).load().unwrap();
    let outputs = model.run(&[Tensor::new(vec![1, 2], Data::F64(vec![0.0, 0.0])).unwrap()]).unwrap();
    assert_eq!(outputs[0].data, Data::F64(vec![f64::from(0.2f32), 0.0]));
}

#[test]
fn a_classifier_may_give_its_scores_alone() {
    let mut proto = classifier(vec![]);
    let graph = proto.graph.as_mut().unwrap();
    graph.node[0].output[0].clear();
    graph.output.remove(0);
    close(&scores(&proto.load().unwrap(), &[0.0, 1.0]), &[0.8, 0.2, 0.3, 0.7]);
}
