//! The innermost part of a matrix product: a tile of sums held in registers.
//!
//! Decides how many sums are held at once. Knows nothing of planes or kernels: a
//! panel of weights, a block of columns, and where the sums go.

use fearless_simd::{Simd, prelude::*};

use super::plane::Bounds;

/// Rows of a panel of weights. They lie beside each other, term by term.
pub(super) const PANEL: usize = 8;
/// Most vectors of columns in a block.
pub(super) const VECTORS: usize = 3;
/// The widest vector, in numbers.
pub(super) const WIDEST: usize = 16;

/// The sums of a panel: for each row its `start` plus the products of its weights
/// with the columns of a block, into rows `pitch` apart. The block holds
/// one to `VECTORS` whole vectors for each term of the panel.
#[inline(always)]
pub(super) fn panel<S: Simd>(
    simd: S,
    (panel, block): (&[f32], &[f32]),
    (start, bounds): (&[f32; PANEL], Bounds),
    (out, pitch): (&mut [f32], usize),
) {
    let columns = block.len() / (panel.len() / PANEL);
    match columns / S::f32s::LEN {
        1 => rows::<S, 1>(simd, (panel, block), (start, bounds), (out, pitch)),
        2 => rows::<S, 2>(simd, (panel, block), (start, bounds), (out, pitch)),
        _ => rows::<S, VECTORS>(simd, (panel, block), (start, bounds), (out, pitch)),
    }
}

/// All rows at once where there are 32 registers, else one half after the other.
#[inline(always)]
fn rows<S: Simd, const WIDE: usize>(
    simd: S,
    (panel, block): (&[f32], &[f32]),
    (start, bounds): (&[f32; PANEL], Bounds),
    (out, pitch): (&mut [f32], usize),
) {
    const HALF: usize = PANEL / 2;
    if cfg!(target_arch = "aarch64") || S::f32s::LEN == WIDEST {
        tile::<S, PANEL, WIDE>(simd, (panel, 0), block, (start, bounds), (out, pitch));
    } else {
        tile::<S, HALF, WIDE>(simd, (panel, 0), block, (start, bounds), (&mut *out, pitch));
        tile::<S, HALF, WIDE>(simd, (panel, HALF), block, (start, bounds), (&mut out[HALF * pitch..], pitch));
    }
}

#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const WIDE: usize>(
    simd: S,
    (panel, first): (&[f32], usize),
    block: &[f32],
    (start, bounds): (&[f32; PANEL], Bounds),
    (out, pitch): (&mut [f32], usize),
) {
    let lanes = S::f32s::LEN;
    // Loops, not closures: what a closure does is not always compiled for these vectors.
    let none = S::f32s::splat(simd, 0.0);
    let mut sums = [[none; WIDE]; ROWS];
    for row in 0..ROWS {
        sums[row] = [S::f32s::splat(simd, start[first + row]); WIDE];
    }
    for (weights, numbers) in panel.chunks_exact(PANEL).zip(block.chunks_exact(WIDE * lanes)) {
        let mut columns = [none; WIDE];
        for at in 0..WIDE {
            columns[at] = S::f32s::from_slice(simd, &numbers[at * lanes..][..lanes]);
        }
        for row in 0..ROWS {
            let weight = S::f32s::splat(simd, weights[first + row]);
            for at in 0..WIDE {
                sums[row][at] = columns[at].mul_add(weight, sums[row][at]);
            }
        }
    }
    for row in 0..ROWS {
        let out = &mut out[row * pitch..][..WIDE * lanes];
        for at in 0..WIDE {
            bounded(simd, sums[row][at], bounds).store_slice(&mut out[at * lanes..][..lanes]);
        }
    }
}

/// What is not a number stays so: where one operand is none, the second is taken.
#[inline(always)]
pub(in crate::ops) fn bounded<S: Simd>(simd: S, sum: S::f32s, bounds: Bounds) -> S::f32s {
    let Some((low, high)) = bounds else { return sum };
    S::f32s::splat(simd, high).min(S::f32s::splat(simd, low).max(sum))
}
