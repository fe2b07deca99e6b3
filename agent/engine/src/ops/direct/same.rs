//! Convolution of planes with one kernel, where outputs lie as the inputs do:
//! stride 1, and rows as long as those of the input.
//!
//! Decides that nothing is laid out anew: every tap is the plane, shifted as a
//! whole, with zeros before and after it. Where a shift carries a row's end into its
//! neighbour, the sums of such taps are left out. Knows nothing of models.

use fearless_simd::{Level, Simd, dispatch, prelude::*};

use super::plane::{Axis, Bounds};
use super::tile::{WIDEST, bounded};

/// Vectors that are summed at once.
const AT_ONCE: usize = 2;

/// How the taps of a kernel see planes of one size.
#[derive(Debug)]
pub(super) struct Same {
    y: Axis,
    x: Axis,
    /// For each column of the kernel: which outputs it sees within their own row (1, or
    /// else 0).
    within: Vec<Vec<f32>>,
}

/// The taps of a column of the kernel: how far each looks, and its weight.
type Taps = [(usize, f32)];

impl Same {
    pub(super) fn new(y: Axis, x: Axis) -> Option<Same> {
        let alike = y.stride == 1 && x.stride == 1 && x.input == x.output;
        let outputs = y.output * x.output;
        let sees = |tap: usize, column: usize| (x.before..x.before + x.input).contains(&(column + tap * x.dilation));
        let column = |tap| {
            let row = (0..x.output).map(move |column| f32::from(u8::from(sees(tap, column))));
            row.cycle().take(outputs + AT_ONCE * WIDEST).collect()
        };
        alike.then(|| Same { y, x, within: (0..x.kernel).map(column).collect() })
    }

    /// From one plane to the next where they are copied to.
    fn pitch(&self) -> usize {
        let rows = self.y.output + (self.y.kernel - 1) * self.y.dilation;
        rows * self.x.input + (self.x.kernel - 1) * self.x.dilation
    }

    /// As `Direct` wants it: `seen` planes for every `given` outputs.
    pub(super) fn convolve(
        &self,
        level: Level,
        (planes, seen): (&[f32], usize),
        (kernels, bias): (&[f32], &[f32]),
        bounds: Bounds,
        (out, given): (&mut [f32], usize),
    ) {
        let mut room = vec![0.0; seen * self.pitch() + AT_ONCE * WIDEST];
        // By columns of the kernel.
        let mut order = vec![];
        for x in 0..self.x.kernel {
            for (plane, y) in (0..seen).flat_map(|plane| (0..self.y.kernel).map(move |y| (plane, y))) {
                let offset = plane * self.pitch() + y * self.y.dilation * self.x.input + x * self.x.dilation;
                order.push(((plane * self.y.kernel + y) * self.x.kernel + x, offset));
            }
        }
        dispatch!(level, simd => self.all(simd, &mut room, (planes, seen), &order, (kernels, bias), bounds, (&mut *out, given)));
    }

    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "split, it would be compiled without vectors")]
    fn all<S: Simd>(
        &self,
        simd: S,
        room: &mut [f32],
        (planes, seen): (&[f32], usize),
        order: &[(usize, usize)],
        (kernels, bias): (&[f32], &[f32]),
        bounds: Bounds,
        (out, given): (&mut [f32], usize),
    ) {
        let (each_in, each_out) = (self.y.input * self.x.input, self.y.output * self.x.output);
        let mut taps = vec![(0, 0.0); order.len()];
        let mut short = [0.0; WIDEST];
        // Before the first row, and before the first column.
        let before = self.y.before * self.x.input + self.x.before;
        for (index, group) in planes.chunks_exact(seen * each_in).enumerate() {
            for (at, plane) in group.chunks_exact(each_in).enumerate() {
                room[at * self.pitch() + before..][..each_in].copy_from_slice(plane);
            }
            for output in index * given..(index + 1) * given {
                let channel = output % bias.len();
                let kernel = &kernels[channel * order.len()..][..order.len()];
                taps.iter_mut().zip(order).for_each(|(tap, (from, offset))| *tap = (*offset, kernel[*from]));
                let out = &mut out[output * each_out..][..each_out];
                if each_out < S::f32s::LEN {
                    self.plane(simd, room, &taps, (bias[channel], bounds), &mut short[..S::f32s::LEN]);
                    out.copy_from_slice(&short[..each_out]);
                } else {
                    self.plane(simd, room, &taps, (bias[channel], bounds), out);
                }
            }
        }
    }

    /// With the number of taps known to the compiler where it is a usual one.
    #[inline(always)]
    fn plane<S: Simd>(&self, simd: S, room: &[f32], taps: &Taps, to: (f32, Bounds), out: &mut [f32]) {
        match (<&[Vec<f32>; 3]>::try_from(&self.within[..]), <&[(usize, f32); 9]>::try_from(taps)) {
            (Ok(within), Ok(taps)) => sums(simd, room, (within, taps, 3), to, out),
            _ => sums(simd, room, (&self.within, taps, taps.len() / self.within.len()), to, out),
        }
    }
}

#[inline(always)]
fn sums<S: Simd>(simd: S, room: &[f32], taps: (&[Vec<f32>], &Taps, usize), to: (f32, Bounds), out: &mut [f32]) {
    let (lanes, mut done) = (S::f32s::LEN, 0);
    while done < out.len() {
        if out.len() - done >= AT_ONCE * lanes {
            block::<S, AT_ONCE>(simd, room, done, taps, to, out);
            done += AT_ONCE * lanes;
        } else {
            // The last vector may go over elements that are there already.
            let at = done.min(out.len() - lanes);
            block::<S, 1>(simd, room, at, taps, to, out);
            done = at + lanes;
        }
    }
}

#[inline(always)]
fn block<S: Simd, const VECTORS: usize>(
    simd: S,
    room: &[f32],
    at: usize,
    (within, taps, each): (&[Vec<f32>], &Taps, usize),
    (start, bounds): (f32, Bounds),
    out: &mut [f32],
) {
    let (lanes, none) = (S::f32s::LEN, S::f32s::splat(simd, 0.0));
    let mut sums = [S::f32s::splat(simd, start); VECTORS];
    for (within, taps) in within.iter().zip(taps.chunks_exact(each)) {
        let mut column = [none; VECTORS];
        for (offset, tap) in taps {
            let shifted = &room[at + offset..][..VECTORS * lanes];
            let tap = S::f32s::splat(simd, *tap);
            for vector in 0..VECTORS {
                column[vector] =
                    S::f32s::from_slice(simd, &shifted[vector * lanes..][..lanes]).mul_add(tap, column[vector]);
            }
        }
        let within = &within[at..][..VECTORS * lanes];
        for vector in 0..VECTORS {
            let seen = S::f32s::from_slice(simd, &within[vector * lanes..][..lanes]).simd_gt(none);
            sums[vector] += seen.select(column[vector], none);
        }
    }
    let out = &mut out[at..][..VECTORS * lanes];
    for vector in 0..VECTORS {
        bounded(simd, sums[vector], bounds).store_slice(&mut out[vector * lanes..][..lanes]);
    }
}
