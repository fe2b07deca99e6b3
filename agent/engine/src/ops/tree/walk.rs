//! Rows through trees.
//!
//! Decides in which order trees and rows are walked, so that a tree stays in the cache
//! for a block of rows and several walks are under way at once, and how the leaves add
//! up: tree after tree, as ONNX Runtime adds them. Does not know what the sums mean.

use std::cmp::Ordering;

use super::layout::{Aggregate, Forest, LEAF, MORE, NOTHING, Node, Number, OUTCOMES, outcome};

/// What the trees say of some rows: both are [rows, targets].
#[derive(Debug)]
pub(super) struct Sums<T> {
    pub(super) values: Vec<T>,
    /// Whether any leaf spoke of the target.
    pub(super) seen: Vec<bool>,
}

/// How many walks belong together: rows in the same tree, or trees of the same row.
const BLOCK: usize = 64;
/// How many of them advance by turns: each waits for memory while the others go on.
const ABREAST: usize = 8;

impl<T: Number> Forest<T> {
    /// Walks rows of `width` features, which must be at least `features` and 1. An
    /// average is still a sum.
    pub(super) fn walk(&self, rows: &[T], width: usize) -> Sums<T> {
        let cells = rows.len() / width * self.targets;
        let mut sums = Sums { values: vec![T::default(); cells], seen: vec![self.whole; cells] };
        if rows.len() == width {
            for roots in self.roots.chunks(BLOCK) {
                let mut at = [NOTHING; BLOCK];
                let at = &mut at[..roots.len()];
                at.copy_from_slice(roots);
                self.descend(at, |_| rows);
                at.iter().for_each(|leaf| self.collect(*leaf, &mut sums.values, &mut sums.seen));
            }
            return sums;
        }
        let values = sums.values.chunks_mut(BLOCK * self.targets);
        let seen = sums.seen.chunks_mut(BLOCK * self.targets);
        for ((rows, values), seen) in rows.chunks(BLOCK * width).zip(values).zip(seen) {
            for root in &self.roots {
                let mut at = [*root; BLOCK];
                let at = &mut at[..rows.len() / width];
                self.descend(at, |row| &rows[row * width..(row + 1) * width]);
                let targets = values.chunks_mut(self.targets).zip(seen.chunks_mut(self.targets));
                for (leaf, (values, seen)) in at.iter().zip(targets) {
                    self.collect(*leaf, values, seen);
                }
            }
        }
        sums
    }

    /// Takes each walk from a root to its leaf.
    fn descend<'a>(&self, at: &mut [u32], row: impl Fn(usize) -> &'a [T])
    where
        T: 'a,
    {
        const LEQ: u32 = outcome::LESS | outcome::EQUAL;
        const GTE: u32 = outcome::GREATER | outcome::EQUAL;
        match self.uniform {
            Some(LEQ) => self.advance(at, row, |value, node| value <= node.threshold),
            Some(outcome::LESS) => self.advance(at, row, |value, node| value < node.threshold),
            Some(GTE) => self.advance(at, row, |value, node| value >= node.threshold),
            Some(outcome::GREATER) => self.advance(at, row, |value, node| value > node.threshold),
            Some(outcome::EQUAL) => self.advance(at, row, |value, node| value == node.threshold),
            _ => self.advance(at, row, |value, node| {
                let found = match value.partial_cmp(&node.threshold) {
                    Some(Ordering::Less) => outcome::LESS,
                    Some(Ordering::Equal) => outcome::EQUAL,
                    Some(Ordering::Greater) => outcome::GREATER,
                    None => outcome::UNORDERED,
                };
                node.rule >> OUTCOMES & found != 0
            }),
        }
    }

    fn advance<'a>(&self, at: &mut [u32], row: impl Fn(usize) -> &'a [T], holds: impl Fn(T, &Node<T>) -> bool)
    where
        T: 'a,
    {
        for (block, at) in at.chunks_mut(ABREAST).enumerate() {
            let mut rows = [row(block * ABREAST); ABREAST];
            for (lane, slot) in rows.iter_mut().enumerate().take(at.len()).skip(1) {
                *slot = row(block * ABREAST + lane);
            }
            let mut walking = true;
            while walking {
                walking = false;
                for (at, row) in at.iter_mut().zip(rows) {
                    if *at & LEAF == 0 {
                        let node = &self.nodes[*at as usize];
                        let feature = node.rule & ((1 << OUTCOMES) - 1);
                        *at = node.children[usize::from(holds(row[feature as usize], node))];
                        walking = true;
                    }
                }
            }
        }
    }

    /// What one leaf says, to one row's targets.
    fn collect(&self, leaf: u32, values: &mut [T], seen: &mut [bool]) {
        if leaf == NOTHING {
            return;
        }
        for entry in &self.entries[(leaf & !LEAF) as usize..] {
            let target = (entry.target & !MORE) as usize;
            let (value, seen) = (&mut values[target], &mut seen[target]);
            match self.aggregate {
                Aggregate::Sum | Aggregate::Average => *value += entry.value,
                Aggregate::Min if *seen && entry.value >= *value => {}
                Aggregate::Max if *seen && entry.value <= *value => {}
                Aggregate::Min | Aggregate::Max => *value = entry.value,
            }
            *seen = true;
            if entry.target & MORE == 0 {
                break;
            }
        }
    }
}
