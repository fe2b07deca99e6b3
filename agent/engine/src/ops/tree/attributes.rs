//! TreeEnsembleClassifier and TreeEnsembleRegressor, as files of ai.onnx.ml 1 and 3
//! spell them: every node of every tree in parallel lists, found by tree and number.
//!
//! Decides which lists there must be and that they fit each other. Does not know how
//! trees are laid out, nor whether these are any.

use std::collections::HashMap;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::tract_hir::internal::*;

use super::super::labels::Labels;
use super::super::post_transform::PostTransform;
use super::finish::{Classes, Finish, check_base};
use super::layout::{Aggregate, Branch, Child, Drawn, Weight, outcome};

/// Reads a TreeEnsembleClassifier.
pub(super) fn classifier(ctx: &ParsingContext, node: &NodeProto) -> TractResult<(Drawn, Finish)> {
    let labels = Labels::read(node)?;
    let drawn = drawn(ctx, node, "class", labels.len(), Aggregate::Sum)?;
    let base = floats(ctx, node, "base_values")?;
    check_base(&base, drawn.targets, true)?;
    let classes = Some(Classes::new(labels, &drawn));
    Ok((drawn, Finish { base, transform: PostTransform::read(node)?, classes }))
}

/// Reads a TreeEnsembleRegressor.
pub(super) fn regressor(ctx: &ParsingContext, node: &NodeProto) -> TractResult<(Drawn, Finish)> {
    let aggregate = match node.get_attr_opt::<&str>("aggregate_function")?.unwrap_or("SUM") {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        other => bail!("{other:?} is no aggregate_function"),
    };
    let drawn = drawn(ctx, node, "target", targets(node)?, aggregate)?;
    let base = floats(ctx, node, "base_values")?;
    check_base(&base, drawn.targets, false)?;
    Ok((drawn, Finish { base, transform: PostTransform::read(node)?, classes: None }))
}

/// Targets that need no weights to be believed; above it, there are at least as many weights.
const FEW_TARGETS: usize = 1024;

/// The node's `n_targets`.
pub(super) fn targets(node: &NodeProto) -> TractResult<usize> {
    let count: i64 = node.get_attr("n_targets")?;
    ensure!(count > 0, "n_targets is {count}");
    Ok(usize::try_from(count)?)
}

/// Refuses targets out of all proportion to the weights: each row makes room for all of them.
pub(super) fn check_targets(drawn: &Drawn) -> TractResult<()> {
    let (targets, weights) = (drawn.targets, drawn.weights.len());
    ensure!(targets <= weights.max(FEW_TARGETS), "n_targets is {targets}, and there are {weights} weights");
    Ok(())
}

/// Numbers that are either a list of floats or, as `…_as_tensor`, a tensor.
fn floats(ctx: &ParsingContext, node: &NodeProto, name: &str) -> TractResult<Vec<f64>> {
    let list = node.get_attr_opt_slice::<f32>(name)?.filter(|list| !list.is_empty());
    let tensor = tensor(ctx, node, &format!("{name}_as_tensor"))?.filter(|list| !list.is_empty());
    match (list, tensor) {
        (Some(_), Some(_)) => bail!("{name} is given twice, as a list and as a tensor"),
        (Some(list), None) => Ok(list.iter().map(|value| f64::from(*value)).collect()),
        (None, tensor) => Ok(tensor.unwrap_or_default()),
    }
}

/// A tensor among the attributes, as numbers.
pub(super) fn tensor(ctx: &ParsingContext, node: &NodeProto, name: &str) -> TractResult<Option<Vec<f64>>> {
    let Some(tensor) = node.get_attr_opt::<&TensorProto>(name)? else { return Ok(None) };
    let tensor = ctx.load_tensor(tensor).with_context(|| format!("attribute {name}"))?;
    let number = tensor.datum_type().is_number();
    ensure!(number, "{name} holds {:?}", tensor.datum_type());
    let tensor = tensor.cast_to::<f64>()?;
    Ok(Some(tensor.try_as_plain_ram()?.as_slice::<f64>()?.to_vec()))
}

/// A list that has one number for each of `count` nodes; or is absent, where that is allowed.
pub(super) fn ints<'a>(
    node: &'a NodeProto,
    name: &str,
    count: usize,
    optional: bool,
) -> TractResult<Option<&'a [i64]>> {
    let list = node.get_attr_opt_slice::<i64>(name)?.filter(|list| !list.is_empty());
    match list {
        Some(list) if list.len() == count => Ok(Some(list)),
        None if optional || count == 0 => Ok(None),
        list => bail!("{name} has {} numbers instead of {count}", list.unwrap_or_default().len()),
    }
}

/// As `ints`, of indices.
pub(super) fn indices(node: &NodeProto, name: &str, count: usize) -> TractResult<Vec<usize>> {
    let list = ints(node, name, count, false)?.unwrap_or_default();
    let index = |value: &i64| usize::try_from(*value).ok().with_context(|| format!("{name} holds {value}"));
    list.iter().map(index).collect()
}

fn mode(name: &[u8]) -> TractResult<Option<u32>> {
    use outcome::{EQUAL, GREATER, LESS, UNORDERED};
    Ok(Some(match name {
        b"LEAF" => return Ok(None),
        b"BRANCH_LEQ" => LESS | EQUAL,
        b"BRANCH_LT" => LESS,
        b"BRANCH_GTE" => GREATER | EQUAL,
        b"BRANCH_GT" => GREATER,
        b"BRANCH_EQ" => EQUAL,
        b"BRANCH_NEQ" => LESS | GREATER | UNORDERED,
        other => bail!("{:?} is no mode of a node", String::from_utf8_lossy(other)),
    }))
}

/// The trees, whose weights are named `class_…` or `target_…`.
fn drawn(ctx: &ParsingContext, node: &NodeProto, of: &str, targets: usize, aggregate: Aggregate) -> TractResult<Drawn> {
    let modes = node.get_attr_opt_slice::<Vec<u8>>("nodes_modes")?.unwrap_or_default();
    let count = modes.len();
    ensure!(count > 0, "it has no nodes");
    let modes: Vec<Option<u32>> = modes.iter().map(|name| mode(name)).collect::<TractResult<_>>()?;
    let trees = indices(node, "nodes_treeids", count)?;
    let numbers = indices(node, "nodes_nodeids", count)?;
    // Of a node: which branch, or which leaf, it is.
    let (mut branches, mut leaves) = (0, 0);
    let places = modes.iter().map(|mode| {
        let next = if mode.is_some() { &mut branches } else { &mut leaves };
        *next += 1;
        if mode.is_some() { Child::Branch(*next - 1) } else { Child::Leaf(*next - 1) }
    });
    let places: Vec<Child> = places.collect();
    let mut found = HashMap::with_capacity(count);
    for ((tree, number), place) in trees.iter().zip(&numbers).zip(&places) {
        let before = found.insert((*tree, *number), *place);
        ensure!(before.is_none(), "tree {tree} has two nodes {number}");
    }
    let branches = self::branches(ctx, node, &modes, &trees, &found)?;
    let roots = roots(&trees, &places, &branches)?;
    let weights = weights(ctx, node, of, &found)?;
    let drawn = Drawn { branches, leaves, weights, roots, targets, aggregate };
    check_targets(&drawn)?;
    Ok(drawn)
}

type Found = HashMap<(usize, usize), Child>;

fn branches(
    ctx: &ParsingContext,
    node: &NodeProto,
    modes: &[Option<u32>],
    trees: &[usize],
    found: &Found,
) -> TractResult<Vec<Branch>> {
    let count = modes.len();
    let features = ints(node, "nodes_featureids", count, false)?.unwrap_or_default();
    let on_true = ints(node, "nodes_truenodeids", count, false)?.unwrap_or_default();
    let on_false = ints(node, "nodes_falsenodeids", count, false)?.unwrap_or_default();
    let missing = ints(node, "nodes_missing_value_tracks_true", count, true)?;
    let thresholds = floats(ctx, node, "nodes_values")?;
    ensure!(thresholds.len() == count, "nodes_values has {} numbers instead of {count}", thresholds.len());
    let mut branches = Vec::new();
    for (at, mode) in modes.iter().enumerate() {
        let Some(mode) = mode else { continue };
        let tree = trees[at];
        let child = |number: i64| {
            let child = usize::try_from(number).ok().and_then(|number| found.get(&(tree, number)));
            child.copied().with_context(|| format!("tree {tree} has no node {number}, to which another leads"))
        };
        let unordered = if missing.is_some_and(|missing| missing[at] != 0) { outcome::UNORDERED } else { 0 };
        branches.push(Branch {
            feature: usize::try_from(features[at])
                .ok()
                .with_context(|| format!("there is no feature {}", features[at]))?,
            thresholds: vec![thresholds[at]],
            holds: mode | unordered,
            on_true: child(on_true[at])?,
            on_false: child(on_false[at])?,
        });
    }
    Ok(branches)
}

/// Each tree's root, which is the node to which none leads, in the order of the trees' first nodes.
fn roots(trees: &[usize], places: &[Child], branches: &[Branch]) -> TractResult<Vec<Child>> {
    let mut led_to = (vec![false; places.len()], vec![false; places.len()]);
    let mut reached = |child: &Child, mark: bool| {
        let place = match child {
            Child::Branch(branch) => &mut led_to.0[*branch],
            Child::Leaf(leaf) => &mut led_to.1[*leaf],
        };
        std::mem::replace(place, *place || mark)
    };
    for child in branches.iter().flat_map(|branch| [&branch.on_true, &branch.on_false]) {
        reached(child, true);
    }
    let mut order: Vec<usize> = Vec::new();
    let mut roots: HashMap<usize, Option<Child>> = HashMap::new();
    for (tree, place) in trees.iter().zip(places) {
        let root = roots.entry(*tree).or_insert_with(|| {
            order.push(*tree);
            None
        });
        if !reached(place, false) {
            ensure!(root.is_none(), "tree {tree} has several roots");
            *root = Some(*place);
        }
    }
    let root = |tree: &usize| roots[tree].with_context(|| format!("tree {tree} has no root: it is a cycle"));
    order.iter().map(root).collect()
}

/// The weights of leaves. Old exporters gave some to branches too: nobody ever reads them.
fn weights(ctx: &ParsingContext, node: &NodeProto, of: &str, found: &Found) -> TractResult<Vec<Weight>> {
    let values = floats(ctx, node, &format!("{of}_weights"))?;
    let trees = indices(node, &format!("{of}_treeids"), values.len())?;
    let numbers = indices(node, &format!("{of}_nodeids"), values.len())?;
    let targets = indices(node, &format!("{of}_ids"), values.len())?;
    let mut weights = Vec::with_capacity(values.len());
    for (((tree, number), target), value) in trees.into_iter().zip(numbers).zip(targets).zip(values) {
        match found.get(&(tree, number)) {
            Some(Child::Leaf(leaf)) => weights.push(Weight { leaf: *leaf, target, value }),
            Some(Child::Branch(_)) => {}
            None => bail!("a weight is for node {number} of tree {tree}, which is not there"),
        }
    }
    Ok(weights)
}
