//! Convolution of planes with one kernel.
//!
//! Decides the order of memory and arithmetic. A plane is first copied to where
//! padding is really there and columns (and rows) that a stride skips lie apart;
//! then every tap of the kernel is the same plane, shifted, so the sum over taps
//! runs over whole vectors, with neither borders nor strides in it. Knows
//! nothing of models, batches or channels.

use fearless_simd::{Level, Simd, dispatch, prelude::*};

use super::tile::{WIDEST, bounded};

/// Vectors that are summed at once, so that a multiplication need not wait for
/// the one before it.
const AT_ONCE: usize = 4;
/// Rows shorter than this are not worth a loop each: all rows are then summed as
/// one, with the gaps between them.
const SHORT: usize = 2 * WIDEST;

/// One spatial axis of a convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    /// Padding before the first element.
    pub(super) before: usize,
}

impl Axis {
    /// Remainders, by the stride, of the positions that taps look at.
    fn phases(&self) -> Vec<usize> {
        let mut phases: Vec<usize> = (0..self.kernel).map(|tap| tap * self.dilation % self.stride).collect();
        phases.sort_unstable();
        phases.dedup();
        phases
    }

    /// Positions of each phase: those of the outputs, and what the last tap sees beyond.
    fn extent(&self) -> usize {
        self.output + (self.kernel - 1) * self.dilation / self.stride
    }

    /// Of a phase: the first position that is not padding, which element it is,
    /// and how many follow from there.
    fn covered(&self, phase: usize) -> (usize, usize, usize) {
        let first = self.before.saturating_sub(phase).div_ceil(self.stride);
        let element = first * self.stride + phase - self.before;
        let count = self.input.saturating_sub(element).div_ceil(self.stride);
        (first, element, count.min(self.extent().saturating_sub(first)))
    }
}

/// Where a plane's elements are copied to, and where the taps find them.
#[derive(Debug)]
pub(super) struct Layout {
    y: Axis,
    x: Axis,
    phases: (Vec<usize>, Vec<usize>),
    rows: usize,
    pitch: usize,
    parts: Vec<Part>,
    /// What padding is.
    empty: f32,
}

/// The elements of one phase of each axis: where the first is in the plane, and
/// where it goes to in the copy.
#[derive(Debug)]
struct Part {
    from: usize,
    to: usize,
    rows: usize,
    columns: usize,
}

/// What the sums are bounded by, both ends included.
pub(in crate::ops) type Bounds = Option<(f32, f32)>;

impl Layout {
    pub(super) fn new(y: Axis, x: Axis) -> Layout {
        let (phases, rows, pitch) = ((y.phases(), x.phases()), y.extent(), x.extent());
        let mut parts = vec![];
        for (index_y, phase_y) in phases.0.iter().enumerate() {
            for (index_x, phase_x) in phases.1.iter().enumerate() {
                let (first_row, from_row, count) = y.covered(*phase_y);
                let (first, from, columns) = x.covered(*phase_x);
                let to = ((index_y * phases.1.len() + index_x) * rows + first_row) * pitch + first;
                if count > 0 && columns > 0 {
                    parts.push(Part { from: from_row * x.input + from, to, rows: count, columns });
                }
            }
        }
        Layout { y, x, phases, rows, pitch, parts, empty: 0.0 }
    }

    /// With this in place of the padding's zeros.
    pub(super) fn with_empty(self, empty: f32) -> Layout {
        Layout { empty, ..self }
    }

    /// Elements of an input plane.
    pub(super) fn plane(&self) -> usize {
        self.y.input * self.x.input
    }

    /// Elements of a copy.
    pub(super) fn copied(&self) -> usize {
        self.phases.0.len() * self.phases.1.len() * self.rows * self.pitch
    }

    /// Whether a copy is the plane itself: each output sees the one element at its place.
    pub(super) fn is_plain(&self) -> bool {
        [self.y, self.x]
            .iter()
            .all(|axis| (axis.kernel, axis.stride, axis.before) == (1, 1, 0) && axis.input == axis.output)
    }

    /// Elements of an output plane.
    pub(super) fn outputs(&self) -> usize {
        self.y.output * self.x.output
    }

    /// Outputs whose columns lie beside each other in a copy, and how far it is from such
    /// a line to the next.
    pub(super) fn lines(&self) -> (usize, usize) {
        if self.pitch == self.x.output { (self.outputs(), 0) } else { (self.x.output, self.pitch) }
    }

    /// Room for so many copies, all padding; with a margin, so that a vector may
    /// begin at any element.
    pub(super) fn room(&self, planes: usize) -> Vec<f32> {
        vec![self.empty; planes * self.copied() + AT_ONCE * WIDEST]
    }

    /// Room for the sums of short rows; empty when rows are long.
    pub(super) fn sums(&self) -> Vec<f32> {
        let short = self.x.output < SHORT;
        vec![0.0; if short { ((self.y.output - 1) * self.pitch + self.x.output).next_multiple_of(WIDEST) } else { 0 }]
    }

    /// How far into the copy each tap looks for the first output, in the order of the kernel.
    pub(super) fn offsets(&self) -> Vec<usize> {
        let at = |axis: &Axis, phases: &[usize], tap: usize| {
            let position = tap * axis.dilation;
            (phases.partition_point(|phase| *phase < position % axis.stride), position / axis.stride)
        };
        let taps = (0..self.y.kernel).flat_map(|y| (0..self.x.kernel).map(move |x| (y, x)));
        taps.map(|(y, x)| {
            let (phase_y, row) = at(&self.y, &self.phases.0, y);
            let (phase_x, column) = at(&self.x, &self.phases.1, x);
            ((phase_y * self.phases.1.len() + phase_x) * self.rows + row) * self.pitch + column
        })
        .collect()
    }

    /// Copies a plane; the padding stays.
    pub(super) fn copy(&self, plane: &[f32], room: &mut [f32]) {
        for part in &self.parts {
            let from = (&plane[part.from..], self.y.stride * self.x.input);
            let to = (&mut room[part.to..], self.pitch);
            match self.x.stride {
                1 => copy_rows::<1>(from, to, part.rows, part.columns, Some(self.empty)),
                2 => copy_rows::<2>(from, to, part.rows, part.columns, Some(self.empty)),
                stride => {
                    for row in 0..part.rows {
                        let from = from.0[row * from.1..].iter().step_by(stride);
                        to.0[row * to.1..][..part.columns].iter_mut().zip(from).for_each(|(to, x)| *to = *x);
                    }
                }
            }
        }
    }

    /// Convolves a copied plane: `start` plus the sum of the taps, each with its
    /// offset, into a plane of outputs.
    pub(super) fn convolve(
        &self,
        level: Level,
        room: &[f32],
        taps: &[(usize, f32)],
        start: (f32, Bounds),
        sums: &mut [f32],
        out: &mut [f32],
    ) {
        self.fold::<false>(level, room, taps, start, sums, out);
    }

    /// The greatest of what the taps see, whatever their weights, or what is empty if that is greater.
    pub(super) fn greatest(
        &self,
        level: Level,
        room: &[f32],
        taps: &[(usize, f32)],
        sums: &mut [f32],
        out: &mut [f32],
    ) {
        self.fold::<true>(level, room, taps, (self.empty, None), sums, out);
    }

    fn fold<const GREATEST: bool>(
        &self,
        level: Level,
        room: &[f32],
        taps: &[(usize, f32)],
        start: (f32, Bounds),
        sums: &mut [f32],
        out: &mut [f32],
    ) {
        let width = self.x.output;
        if sums.is_empty() {
            dispatch!(level, simd => lines::<_, GREATEST>(simd, (room, self.pitch), taps, start, (&mut *out, width)));
            return;
        }
        let length = sums.len();
        dispatch!(level, simd => lines::<_, GREATEST>(simd, (room, 0), taps, start, (&mut *sums, length)));
        copy_rows::<1>((sums, self.pitch), (out, width), self.y.output, width, None);
    }
}

/// Copies rows from one pitch to another, of each every `STRIDE`th number, eight
/// at a time: what goes too far is overwritten by the row after it, or with
/// `empty`, made that.
#[inline(always)]
fn copy_rows<const STRIDE: usize>(
    (from, from_pitch): (&[f32], usize),
    (to, to_pitch): (&mut [f32], usize),
    rows: usize,
    columns: usize,
    empty: Option<f32>,
) {
    const EIGHT: usize = 8;
    let whole = columns.next_multiple_of(EIGHT);
    for row in 0..rows {
        let (from, to) = (&from[row * from_pitch..], &mut to[row * to_pitch..]);
        if from.len() < whole * STRIDE || to.len() < columns + EIGHT {
            // At the end there is no room to go too far.
            to[..columns].iter_mut().zip(from.iter().step_by(STRIDE)).for_each(|(to, x)| *to = *x);
            continue;
        }
        for at in (0..columns).step_by(EIGHT) {
            let window = &from[at * STRIDE..][..EIGHT * STRIDE];
            let eight: [f32; EIGHT] = std::array::from_fn(|index| window[index * STRIDE]);
            to[at..][..EIGHT].copy_from_slice(&eight);
        }
        if let Some(empty) = empty {
            to[columns..][..EIGHT].fill(empty);
        }
    }
}

/// Sums for lines of outputs that look at lines of a copied plane, each so far
/// from the next.
#[inline(always)]
fn lines<S: Simd, const GREATEST: bool>(
    simd: S,
    (room, pitch): (&[f32], usize),
    taps: &[(usize, f32)],
    (start, bounds): (f32, Bounds),
    (out, width): (&mut [f32], usize),
) {
    for y in 0..out.len() / width {
        line::<S, GREATEST>(simd, &room[y * pitch..], taps, (start, bounds), &mut out[y * width..][..width]);
    }
}

/// As `sum`, with the number of taps known to the compiler where it is a usual one.
#[inline(always)]
fn line<S: Simd, const GREATEST: bool>(
    simd: S,
    room: &[f32],
    taps: &[(usize, f32)],
    start: (f32, Bounds),
    out: &mut [f32],
) {
    if let Ok(taps) = <&[(usize, f32); 9]>::try_from(taps) {
        sum::<S, GREATEST>(simd, room, taps, start, out);
    } else {
        sum::<S, GREATEST>(simd, room, taps, start, out);
    }
}

/// Sums at every element of `out`, which is at least one of the widest vectors long.
#[inline(always)]
fn sum<S: Simd, const GREATEST: bool>(
    simd: S,
    room: &[f32],
    taps: &[(usize, f32)],
    start: (f32, Bounds),
    out: &mut [f32],
) {
    let mut done = 0;
    while done < out.len() {
        if out.len() - done >= AT_ONCE * S::f32s::LEN {
            block::<S, AT_ONCE, GREATEST>(simd, &room[done..], taps, start, &mut out[done..]);
            done += AT_ONCE * S::f32s::LEN;
        } else {
            // The last vector may go over elements that are there already.
            let at = done.min(out.len() - S::f32s::LEN);
            block::<S, 1, GREATEST>(simd, &room[at..], taps, start, &mut out[at..]);
            done = at + S::f32s::LEN;
        }
    }
}

#[inline(always)]
fn block<S: Simd, const VECTORS: usize, const GREATEST: bool>(
    simd: S,
    room: &[f32],
    taps: &[(usize, f32)],
    (start, bounds): (f32, Bounds),
    out: &mut [f32],
) {
    let lanes = S::f32s::LEN;
    let mut sums = [S::f32s::splat(simd, start); VECTORS];
    for (offset, tap) in taps {
        let shifted = &room[*offset..][..VECTORS * lanes];
        let tap = S::f32s::splat(simd, *tap);
        for vector in 0..VECTORS {
            let seen = S::f32s::from_slice(simd, &shifted[vector * lanes..][..lanes]);
            sums[vector] = if GREATEST {
                // What is not a number is passed over.
                seen.simd_gt(sums[vector]).select(seen, sums[vector])
            } else {
                seen.mul_add(tap, sums[vector])
            };
        }
    }
    let out = &mut out[..VECTORS * lanes];
    for vector in 0..VECTORS {
        bounded(simd, sums[vector], bounds).store_slice(&mut out[vector * lanes..][..lanes]);
    }
}
