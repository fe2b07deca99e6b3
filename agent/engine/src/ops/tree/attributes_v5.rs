//! TreeEnsemble, as files of ai.onnx.ml 5 spell it: branches and leaves in lists of
//! their own, found by index.
//!
//! Decides what the numbers of its modes, aggregates and transforms mean. These are the
//! specification's; ONNX Runtime 1.32 takes 1 for logistic and 2 for softmax.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::super::post_transform::PostTransform;
use super::attributes::{check_targets, indices, ints, targets, tensor};
use super::finish::Finish;
use super::layout::{Aggregate, Branch, Child, Drawn, Weight, outcome};

/// Reads a TreeEnsemble.
pub(super) fn ensemble(ctx: &ParsingContext, node: &NodeProto) -> TractResult<(Drawn, Finish)> {
    let values = tensor(ctx, node, "leaf_weights")?.context("it has no leaf_weights")?;
    let leaves = values.len();
    let targeted = indices(node, "leaf_targetids", leaves)?;
    let weights = targeted.into_iter().zip(values).enumerate();
    let weights = weights.map(|(leaf, (target, value))| Weight { leaf, target, value }).collect();
    let aggregate = match node.get_attr_opt::<i64>("aggregate_function")?.unwrap_or(1) {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => bail!("{other} is no aggregate_function"),
    };
    let transform = match node.get_attr_opt::<i64>("post_transform")?.unwrap_or(0) {
        0 => PostTransform::None,
        1 => PostTransform::Softmax,
        2 => PostTransform::Logistic,
        3 => PostTransform::SoftmaxZero,
        4 => PostTransform::Probit,
        other => bail!("{other} is no post_transform"),
    };
    let branches = branches(ctx, node)?;
    let roots = node.get_attr_slice::<i64>("tree_roots")?;
    let root = |root: &i64| Ok(Child::Branch(usize::try_from(*root)?));
    let roots = roots.iter().map(root).collect::<TractResult<_>>()?;
    let drawn = Drawn { branches, leaves, weights, roots, targets: targets(node)?, aggregate };
    check_targets(&drawn)?;
    Ok((drawn, Finish { base: Vec::new(), transform, classes: None }))
}

fn branches(ctx: &ParsingContext, node: &NodeProto) -> TractResult<Vec<Branch>> {
    use outcome::{EQUAL, GREATER, LESS, UNORDERED};
    let splits = tensor(ctx, node, "nodes_splits")?.context("it has no nodes_splits")?;
    let modes = tensor(ctx, node, "nodes_modes")?.context("it has no nodes_modes")?;
    let count = splits.len();
    ensure!(count > 0, "it has no nodes");
    ensure!(modes.len() == count, "nodes_modes has {} numbers instead of {count}", modes.len());
    let features = indices(node, "nodes_featureids", count)?;
    let on_true = indices(node, "nodes_truenodeids", count)?;
    let on_false = indices(node, "nodes_falsenodeids", count)?;
    let true_leaf = indices(node, "nodes_trueleafs", count)?;
    let false_leaf = indices(node, "nodes_falseleafs", count)?;
    let missing = ints(node, "nodes_missing_value_tracks_true", count, true)?;
    // The sets of the BRANCH_MEMBER nodes, one after the other, each ended by NaN.
    let members = tensor(ctx, node, "membership_values")?.unwrap_or_default();
    let mut sets = members.split(|member| member.is_nan());
    let child = |leaf: usize, index| if leaf == 0 { Child::Branch(index) } else { Child::Leaf(index) };
    let mut branches = Vec::with_capacity(count);
    for at in 0..count {
        let mut thresholds = vec![splits[at]];
        let holds = match modes[at] as u8 {
            0 => LESS | EQUAL,
            1 => LESS,
            2 => GREATER | EQUAL,
            3 => GREATER,
            4 => EQUAL,
            5 => LESS | GREATER | UNORDERED,
            6 => {
                thresholds =
                    sets.next().filter(|set| !set.is_empty()).context("a BRANCH_MEMBER has no members")?.to_vec();
                EQUAL
            }
            other => bail!("{other} is no mode of a node"),
        };
        let unordered = if missing.is_some_and(|missing| missing[at] != 0) { UNORDERED } else { 0 };
        branches.push(Branch {
            feature: features[at],
            thresholds,
            holds: holds | unordered,
            on_true: child(true_leaf[at], on_true[at]),
            on_false: child(false_leaf[at], on_false[at]),
        });
    }
    Ok(branches)
}
