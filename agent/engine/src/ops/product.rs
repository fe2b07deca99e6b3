//! Products with a matrix that stays the same.
//!
//! Decides how such a matrix is laid out once, so that a product reads it from
//! first to last in whole vectors, and how many sums are held in registers. Knows
//! nothing of what the numbers mean.

use std::ops::Range;

use fearless_simd::{Level, Simd, dispatch, prelude::*};

use super::direct::{Bounds, bounded};

/// Columns that lie together: two of the widest vectors.
pub(super) const PANEL: usize = 32;
/// Vectors that pass by a panel while it is in the nearest cache.
const TOGETHER: usize = 64;
/// Most vectors that are multiplied at once.
const ROWS: usize = 8;

/// A matrix of `depth` rows, in panels of `PANEL` columns; the last is filled up with zeros.
#[derive(Debug, PartialEq)]
pub(super) struct Packed {
    depth: usize,
    panels: Vec<f32>,
}

impl Packed {
    /// From the element at (row, column).
    pub(super) fn new(depth: usize, columns: usize, element: impl Fn(usize, usize) -> f32) -> Packed {
        let mut panels = vec![0.0; depth * columns.next_multiple_of(PANEL)];
        for column in 0..columns {
            let panel = &mut panels[column / PANEL * depth * PANEL..];
            for row in 0..depth {
                panel[row * PANEL + column % PANEL] = element(row, column);
            }
        }
        Packed { depth, panels }
    }

    /// Numbers of a vector that it is multiplied with.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Columns, the filling included.
    pub(super) fn width(&self) -> usize {
        self.panels.len() / self.depth
    }

    /// Adds the products of some vectors to as many rows of sums, `pitch` apart, in
    /// these columns, which begin with a panel; and keeps the sums within the bounds.
    pub(super) fn add<'a>(
        &self,
        level: Level,
        mut vectors: impl ExactSizeIterator<Item = &'a [f32]>,
        columns: Range<usize>,
        (mut sums, pitch): (&mut [f32], usize),
        bounds: Bounds,
    ) {
        while vectors.len() > 0 {
            let mut some: [&[f32]; TOGETHER] = [&[]; TOGETHER];
            let count = vectors.len().min(TOGETHER);
            some.iter_mut().zip(&mut vectors).for_each(|(to, vector)| *to = &vector[..self.depth]);
            let some = &some[..count];
            dispatch!(level, simd => self.add_some(simd, some, columns.clone(), (&mut *sums, pitch), bounds));
            // The last of the rows may be shorter than the pitch.
            let done = (pitch * count).min(sums.len());
            sums = &mut sums[done..];
        }
    }

    #[inline(always)]
    fn add_some<S: Simd>(
        &self,
        simd: S,
        vectors: &[&[f32]],
        columns: Range<usize>,
        (sums, pitch): (&mut [f32], usize),
        bounds: Bounds,
    ) {
        for column in columns.clone().step_by(PANEL) {
            let panel = &self.panels[column * self.depth..][..self.depth * PANEL];
            let width = (columns.end - column).min(PANEL);
            let mut row = 0;
            while row < vectors.len() {
                let now = at_once::<S>(vectors.len() - row);
                let vectors = &vectors[row..][..now];
                let from = row * pitch + column;
                if width == PANEL {
                    rows(simd, panel, vectors, (&mut sums[from..], pitch), bounds);
                } else {
                    // A panel that is not full would write over what is beside its sums.
                    let mut aside = [0.0; ROWS * PANEL];
                    for (at, aside) in aside.chunks_exact_mut(PANEL).take(now).enumerate() {
                        aside[..width].copy_from_slice(&sums[from + at * pitch..][..width]);
                    }
                    rows(simd, panel, vectors, (&mut aside, PANEL), bounds);
                    for (at, aside) in aside.chunks_exact(PANEL).take(now).enumerate() {
                        sums[from + at * pitch..][..width].copy_from_slice(&aside[..width]);
                    }
                }
                row += now;
            }
        }
    }
}

/// How many of the vectors that are left are multiplied at once: all registers hold
/// sums where there are 32 of them, half of that where there are 16.
#[inline(always)]
fn at_once<S: Simd>(left: usize) -> usize {
    let many = cfg!(target_arch = "aarch64") || S::f32s::LEN == 16;
    match left {
        8.. if many => 8,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// A few vectors with a panel. The fewer they are, the more sums of each there must be,
/// or each product waits for the one before.
#[inline(always)]
fn rows<S: Simd>(simd: S, panel: &[f32], vectors: &[&[f32]], sums: (&mut [f32], usize), bounds: Bounds) {
    match (vectors.len(), S::f32s::LEN) {
        (8, _) => tile::<S, 8, 2, 1>(simd, panel, vectors, sums, bounds),
        (4, _) => tile::<S, 4, 2, 1>(simd, panel, vectors, sums, bounds),
        (2, _) => tile::<S, 2, 2, 2>(simd, panel, vectors, sums, bounds),
        (_, 16) => tile::<S, 1, 2, 4>(simd, panel, vectors, sums, bounds),
        _ => tile::<S, 1, 4, 2>(simd, panel, vectors, sums, bounds),
    }
}

/// So many vectors with so many columns of a panel at once, the terms in so many parts.
#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const WIDE: usize, const PARTS: usize>(
    simd: S,
    panel: &[f32],
    vectors: &[&[f32]],
    (sums, pitch): (&mut [f32], usize),
    bounds: Bounds,
) {
    let lanes = S::f32s::LEN;
    let depth = panel.len() / PANEL;
    let Ok(vectors) = <&[&[f32]; ROWS]>::try_from(vectors) else { return };
    // Loops, not closures: what a closure does is not always compiled for these vectors.
    let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
    for row in 0..ROWS {
        rows[row] = &vectors[row][..depth];
    }
    let whole = depth - depth % PARTS;
    for first in (0..PANEL).step_by(WIDE * lanes) {
        let none = S::f32s::splat(simd, 0.0);
        let mut parts = [[[none; WIDE]; ROWS]; PARTS];
        let mut term = 0;
        while term < whole {
            for part in 0..PARTS {
                let line = &panel[(term + part) * PANEL + first..][..WIDE * lanes];
                for row in 0..ROWS {
                    let number = S::f32s::splat(simd, rows[row][term + part]);
                    for at in 0..WIDE {
                        let weights = S::f32s::from_slice(simd, &line[at * lanes..][..lanes]);
                        parts[part][row][at] = weights.mul_add(number, parts[part][row][at]);
                    }
                }
            }
            term += PARTS;
        }
        for term in whole..depth {
            let line = &panel[term * PANEL + first..][..WIDE * lanes];
            for row in 0..ROWS {
                let number = S::f32s::splat(simd, rows[row][term]);
                for at in 0..WIDE {
                    let weights = S::f32s::from_slice(simd, &line[at * lanes..][..lanes]);
                    parts[0][row][at] = weights.mul_add(number, parts[0][row][at]);
                }
            }
        }
        for row in 0..ROWS {
            let to = &mut sums[row * pitch + first..][..WIDE * lanes];
            for at in 0..WIDE {
                let to = &mut to[at * lanes..][..lanes];
                let sum = parts.iter().fold(S::f32s::from_slice(simd, to), |sum, part| sum + part[row][at]);
                bounded(simd, sum, bounds).store_slice(to);
            }
        }
    }
}
