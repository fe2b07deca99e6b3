//! Products with a matrix that stays the same.
//!
//! Decides how such a matrix is laid out once, so that a product reads it from
//! first to last in whole vectors. Knows nothing of what the numbers mean.

use std::ops::Range;

use fearless_simd::{Level, Simd, dispatch, f32x16, prelude::*};

/// Columns that are computed together: two of the widest vectors.
pub(super) const PANEL: usize = 32;
const LANES: usize = 16;

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

    /// Columns, the filling included.
    pub(super) fn width(&self) -> usize {
        self.panels.len() / self.depth
    }

    /// Adds the products of some vectors to as many rows of sums, `pitch` apart,
    /// in these columns (whole panels).
    pub(super) fn add<'a>(
        &self,
        level: Level,
        mut vectors: impl ExactSizeIterator<Item = &'a [f32]>,
        columns: Range<usize>,
        mut sums: &mut [f32],
        pitch: usize,
    ) {
        while vectors.len() > 0 {
            if vectors.len() >= 3 {
                let three = [(); 3].map(|()| vectors.next().unwrap_or_default());
                dispatch!(level, simd => self.add_rows(simd, three, columns.clone(), &mut *sums, pitch));
                sums = &mut sums[3 * pitch..];
            } else {
                let one = [vectors.next().unwrap_or_default()];
                dispatch!(level, simd => self.add_rows(simd, one, columns.clone(), &mut *sums, pitch));
                sums = &mut sums[pitch..];
            }
        }
    }

    #[inline(always)]
    fn add_rows<S: Simd, const ROWS: usize>(
        &self,
        simd: S,
        vectors: [&[f32]; ROWS],
        columns: Range<usize>,
        sums: &mut [f32],
        pitch: usize,
    ) {
        let vectors = vectors.map(|vector| &vector[..self.depth]);
        for column in columns.step_by(PANEL) {
            let panel = &self.panels[column * self.depth..][..self.depth * PANEL];
            // Even and odd rows apart: a sum then waits half as often for the one before it.
            let mut even = [[f32x16::splat(simd, 0.0); 2]; ROWS];
            let mut odd = even;
            for pair in 0..self.depth / 2 {
                let lines = &panel[2 * pair * PANEL..][..2 * PANEL];
                for row in 0..ROWS {
                    let (a, b) = (vectors[row][2 * pair], vectors[row][2 * pair + 1]);
                    let (a, b) = (f32x16::splat(simd, a), f32x16::splat(simd, b));
                    for half in 0..2 {
                        even[row][half] = load(simd, lines, half).mul_add(a, even[row][half]);
                        odd[row][half] = load(simd, lines, 2 + half).mul_add(b, odd[row][half]);
                    }
                }
            }
            for row in 0..ROWS {
                for half in 0..2 {
                    let mut sum = even[row][half] + odd[row][half];
                    if self.depth % 2 == 1 {
                        let line = &panel[(self.depth - 1) * PANEL..];
                        let last = f32x16::splat(simd, vectors[row][self.depth - 1]);
                        sum = load(simd, line, half).mul_add(last, sum);
                    }
                    let to = &mut sums[row * pitch + column + half * LANES..][..LANES];
                    (f32x16::from_slice(simd, to) + sum).store_slice(to);
                }
            }
        }
    }
}

#[inline(always)]
fn load<S: Simd>(simd: S, line: &[f32], at: usize) -> f32x16<S> {
    f32x16::from_slice(simd, &line[at * LANES..][..LANES])
}
