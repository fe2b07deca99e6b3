//! Trees as flat arrays.
//!
//! Decides what is a tree (each branch is reached once, from one root), and how it
//! lies in memory: the branches of a tree together, parents before children, each 16
//! bytes with thresholds of 32 bits. Does not know how a file spells it, nor what is
//! done with a leaf's weights.

use std::ops::{AddAssign, Neg, Sub};

use tract_onnx::tract_hir::internal::*;

/// The arithmetic of an ensemble: that of its input, at least 32 bits of it.
pub(super) trait Number:
    Datum + Copy + Default + PartialOrd + AddAssign + Neg<Output = Self> + Sub<Output = Self>
{
    fn from_f64(value: f64) -> Self;
    fn to_f32(self) -> f32;
    fn over(self, divisor: usize) -> Self;
}

impl Number for f32 {
    fn from_f64(value: f64) -> f32 {
        value as f32
    }
    fn to_f32(self) -> f32 {
        self
    }
    fn over(self, divisor: usize) -> f32 {
        self / divisor as f32
    }
}

impl Number for f64 {
    fn from_f64(value: f64) -> f64 {
        value
    }
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn over(self, divisor: usize) -> f64 {
        self / divisor as f64
    }
}

/// For which outcomes of the comparison of a value with the threshold a branch is
/// true: any mode, and where missing values go, is a set of these four.
pub(super) mod outcome {
    pub(crate) const LESS: u32 = 1;
    pub(crate) const EQUAL: u32 = 2;
    pub(crate) const GREATER: u32 = 4;
    /// The value is no number; a threshold always is one.
    pub(crate) const UNORDERED: u32 = 8;
}

/// Where a branch leads: indices into `Drawn`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Child {
    Branch(usize),
    Leaf(usize),
}

/// A branch as it was read.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) feature: usize,
    /// What the value is compared with; several are tried in turn, and one hit is enough.
    pub(super) thresholds: Vec<f64>,
    /// The `outcome`s for which it is true.
    pub(super) holds: u32,
    pub(super) on_true: Child,
    pub(super) on_false: Child,
}

/// One weight of one leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    pub(super) leaf: usize,
    pub(super) target: usize,
    pub(super) value: f64,
}

/// How the weights that the trees give to one target become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Aggregate {
    #[default]
    Sum,
    Average,
    Min,
    Max,
}

/// An ensemble as it was read, nothing checked.
#[derive(Debug, Clone, Default)]
pub(super) struct Drawn {
    pub(super) branches: Vec<Branch>,
    /// How many leaves there are; some may have no weight.
    pub(super) leaves: usize,
    pub(super) weights: Vec<Weight>,
    /// One for each tree, in the order in which they are added up.
    pub(super) roots: Vec<Child>,
    pub(super) targets: usize,
    pub(super) aggregate: Aggregate,
}

/// In a child's index: this is a leaf, and the rest is its first entry.
pub(super) const LEAF: u32 = 1 << 31;
/// In an entry's target: another entry of the same leaf follows.
pub(super) const MORE: u32 = 1 << 31;
/// The leaf that adds nothing.
pub(super) const NOTHING: u32 = u32::MAX;
/// Below this bit of a node's rule is its feature, from it on its outcomes.
pub(super) const OUTCOMES: u32 = 28;

#[derive(Debug, Clone)]
pub(super) struct Node<T> {
    /// The feature and, from bit `OUTCOMES`, when the branch is true.
    pub(super) rule: u32,
    pub(super) threshold: T,
    /// Where it goes when false, and when true.
    pub(super) children: [u32; 2],
}

/// What a leaf adds to one target.
#[derive(Debug, Clone)]
pub(super) struct Entry<T> {
    pub(super) target: u32,
    pub(super) value: T,
}

/// An ensemble ready to be walked.
#[derive(Debug, Clone)]
pub(super) struct Forest<T> {
    pub(super) nodes: Vec<Node<T>>,
    pub(super) entries: Vec<Entry<T>>,
    pub(super) roots: Vec<u32>,
    pub(super) targets: usize,
    pub(super) aggregate: Aggregate,
    /// Every leaf adds to every target; where it has no entry, nothing.
    pub(super) whole: bool,
    /// How many features a row must have.
    pub(super) features: usize,
    /// The outcomes of every branch, where all have the same.
    pub(super) uniform: Option<u32>,
}

impl<T: Number> Forest<T> {
    /// # Errors
    /// When these are no trees, or more than the indices can name.
    pub(super) fn lay(drawn: &Drawn) -> TractResult<Forest<T>> {
        let adds = matches!(drawn.aggregate, Aggregate::Sum | Aggregate::Average);
        let complete = drawn.weights.len() == drawn.leaves.saturating_mul(drawn.targets);
        let whole = adds && complete && !drawn.roots.is_empty();
        let (entries, starts) = leaves(drawn, whole)?;
        let mut forest = Forest {
            nodes: Vec::with_capacity(drawn.branches.len()),
            entries,
            roots: Vec::with_capacity(drawn.roots.len()),
            targets: drawn.targets,
            aggregate: drawn.aggregate,
            whole,
            features: 0,
            uniform: None,
        };
        let mut placed = vec![false; drawn.branches.len()];
        for root in &drawn.roots {
            let root = match *root {
                Child::Leaf(leaf) => *starts.get(leaf).context("a root is a leaf that is not there")?,
                Child::Branch(branch) => forest.tree(drawn, &starts, branch, &mut placed)?,
            };
            forest.roots.push(root);
        }
        if let Some(lost) = placed.iter().position(|placed| !placed) {
            bail!("no root leads to branch {lost}: it is in a cycle, or in no tree");
        }
        let mut rules = forest.nodes.iter().map(|node| node.rule >> OUTCOMES);
        forest.uniform = rules.next().filter(|first| rules.all(|rule| rule == *first));
        Ok(forest)
    }

    /// Lays out one tree, parents first and the true child next to its parent.
    fn tree(&mut self, drawn: &Drawn, starts: &[u32], root: usize, placed: &mut [bool]) -> TractResult<u32> {
        let first = index(self.nodes.len())?;
        let mut open: Vec<(usize, Option<usize>)> = vec![(root, None)];
        while let Some((branch, parent)) = open.pop() {
            let Some(place) = placed.get_mut(branch) else { bail!("branch {branch} is not there") };
            if std::mem::replace(place, true) {
                bail!("branch {branch} is reached twice: a cycle, or trees that share it");
            }
            let at = index(self.nodes.len())?;
            if let Some(parent) = parent {
                self.nodes[parent].children[0] = at;
            }
            let branch = &drawn.branches[branch];
            ensure!(branch.feature < 1 << OUTCOMES, "feature {} is out of range", branch.feature);
            ensure!(!branch.thresholds.is_empty(), "a branch compares with nothing");
            ensure!(!branch.thresholds.iter().any(|value| value.is_nan()), "a threshold is not a number");
            self.features = self.features.max(branch.feature + 1);
            let last = self.nodes.len() + branch.thresholds.len() - 1;
            let find = |child| match child {
                Child::Leaf(leaf) => starts.get(leaf).copied().with_context(|| format!("leaf {leaf} is not there")),
                // A true child comes next; a false one corrects this when its place is known.
                Child::Branch(_) => index(last + 1),
            };
            let children = [find(branch.on_false)?, find(branch.on_true)?];
            let rule = branch.feature as u32 | branch.holds << OUTCOMES;
            for threshold in &branch.thresholds {
                let next = index(self.nodes.len() + 1)?;
                self.nodes.push(Node { rule, threshold: T::from_f64(*threshold), children: [next, children[1]] });
            }
            self.nodes[last].children[0] = children[0];
            if let Child::Branch(child) = branch.on_false {
                open.push((child, Some(last)));
            }
            if let Child::Branch(child) = branch.on_true {
                open.push((child, None));
            }
        }
        Ok(first)
    }
}

fn index(at: usize) -> TractResult<u32> {
    ensure!(at < LEAF as usize - 1, "it has too many nodes");
    Ok(at as u32)
}

/// The entries of all leaves, and for each leaf the child's index that leads to it.
///
/// Where every leaf adds to every target (`whole`), as in a forest of classifiers, most
/// weights are zeros, which add nothing: they are left out.
fn leaves<T: Number>(drawn: &Drawn, whole: bool) -> TractResult<(Vec<Entry<T>>, Vec<u32>)> {
    let mut weights = drawn.weights.clone();
    weights.sort_by_key(|weight| weight.leaf);
    let mut entries: Vec<Entry<T>> = Vec::with_capacity(weights.len());
    let mut starts = vec![NOTHING; drawn.leaves];
    let mut named = vec![usize::MAX; drawn.targets];
    for Weight { leaf, target, value } in weights {
        ensure!(!value.is_nan(), "a weight is not a number");
        let Some(last) = named.get_mut(target) else {
            bail!("a weight is for target {target}, and there are {}", drawn.targets)
        };
        ensure!(*last != leaf, "a leaf has two weights for target {target}");
        *last = leaf;
        let Some(start) = starts.get_mut(leaf) else { bail!("a weight is for leaf {leaf}, which is not there") };
        if whole && value == 0.0 {
            continue;
        }
        if *start == NOTHING {
            *start = LEAF | index(entries.len())?;
        } else if let Some(before) = entries.last_mut() {
            before.target |= MORE;
        }
        entries.push(Entry { target: index(target)?, value: T::from_f64(value) });
    }
    Ok((entries, starts))
}
