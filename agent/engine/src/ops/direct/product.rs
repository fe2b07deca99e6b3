//! Convolution as a matrix product: weights times what the taps see.
//!
//! Decides which outputs are computed together. Their columns are gathered into a
//! block that stays in the nearest cache while all the weights pass by it, and
//! the planes are never laid out as a whole. Knows nothing of models.

use fearless_simd::{Level, Simd, dispatch, prelude::*};

use super::plane::{Bounds, Layout};
use super::tile::{self, PANEL, VECTORS, WIDEST};

/// Outputs of a plane below which the planes of several rows of a batch are taken
/// together, so that the weights pass by less often.
const TOGETHER: usize = 8 * WIDEST;
/// Numbers that are copied at once.
const COPIED: usize = 16;

/// Weights of all output channels, in panels of `PANEL` channels of a group; the
/// last panel of a group is filled up with zeros.
#[derive(Debug, PartialEq)]
pub(super) struct Packed {
    groups: usize,
    /// Input and output channels of a group.
    seen: usize,
    given: usize,
    panels: Vec<f32>,
    bias: Vec<f32>,
}

impl Packed {
    /// From kernels in the order output channel, input channel, taps.
    pub(super) fn new(groups: usize, seen: usize, kernels: &[f32], bias: &[f32]) -> Packed {
        let (given, terms) = (bias.len() / groups, kernels.len() / bias.len());
        let mut panels = vec![0.0; groups * given.next_multiple_of(PANEL) * terms];
        let mut padded = vec![0.0; groups * given.next_multiple_of(PANEL)];
        for (channel, kernel) in kernels.chunks_exact(terms).enumerate() {
            let row = channel / given * given.next_multiple_of(PANEL) + channel % given;
            padded[row] = bias[channel];
            let panel = &mut panels[row / PANEL * PANEL * terms + row % PANEL..];
            panel.iter_mut().step_by(PANEL).zip(kernel).for_each(|(to, weight)| *to = *weight);
        }
        Packed { groups, seen, given, panels, bias: padded }
    }

    fn terms(&self) -> usize {
        self.panels.len() / self.bias.len()
    }

    /// Convolves whole rows of a batch, [N, C, plane], into [N, C', plane'].
    pub(super) fn convolve(&self, level: Level, layout: &Layout, planes: &[f32], bounds: Bounds, out: &mut [f32]) {
        let (each_in, each_out) =
            (self.groups * self.seen * layout.plane(), self.groups * self.given * layout.outputs());
        let together = (TOGETHER / layout.outputs()).max(1);
        let mut room = if layout.is_plain() {
            vec![]
        } else {
            layout.room(together.min(planes.len() / each_in) * self.groups * self.seen)
        };
        let mut scratch = Scratch::default();
        for (planes, out) in planes.chunks(together * each_in).zip(out.chunks_mut(together * each_out)) {
            let source = if layout.is_plain() {
                planes
            } else {
                let copies = room.chunks_exact_mut(layout.copied());
                planes.chunks_exact(layout.plane()).zip(copies).for_each(|(plane, copy)| layout.copy(plane, copy));
                &room
            };
            let rows = planes.len() / each_in;
            dispatch!(level, simd => self.convolve_rows(simd, layout, (source, rows), bounds, &mut *out, &mut scratch));
        }
    }

    #[inline(always)]
    fn convolve_rows<S: Simd>(
        &self,
        simd: S,
        layout: &Layout,
        (source, rows): (&[f32], usize),
        bounds: Bounds,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (lanes, terms) = (S::f32s::LEN, self.terms());
        let count = rows * layout.outputs();
        let vectors = count.div_ceil(lanes);
        // Blocks as alike as can be.
        let wide = vectors.div_ceil(vectors.div_ceil(VECTORS));
        let offsets = layout.offsets();
        scratch.block.resize(terms * VECTORS * WIDEST + COPIED, 0.0);
        scratch.tile.resize(PANEL * VECTORS * WIDEST, 0.0);
        for group in 0..self.groups {
            for first in (0..count).step_by(wide * lanes) {
                let columns = (count - first).min(wide * lanes);
                let width = columns.next_multiple_of(lanes);
                self.runs(layout, first..first + columns, &mut scratch.runs);
                let of_group = &source[group * self.seen * layout.copied()..];
                gather(of_group, (self.seen, layout.copied()), (&offsets, &scratch.runs), &mut scratch.block, width);
                self.block(simd, layout, (group, first, columns, width), bounds, out, scratch);
            }
        }
    }

    /// Where the columns of these outputs begin, before the offset of a tap.
    #[inline(always)]
    fn runs(&self, layout: &Layout, outputs: std::ops::Range<usize>, runs: &mut Vec<Run>) {
        runs.clear();
        let (each, (line, pitch)) = (layout.outputs(), layout.lines());
        let image = self.groups * self.seen * layout.copied();
        let mut at = outputs.start;
        while at < outputs.end {
            let within = at % each;
            let length = (line - within % line).min(outputs.end - at);
            let from = at / each * image + within / line * pitch + within % line;
            runs.push(Run { from, to: at - outputs.start, length });
            at += length;
        }
    }

    /// All the panels of a group with one block of columns.
    #[inline(always)]
    fn block<S: Simd>(
        &self,
        simd: S,
        layout: &Layout,
        (group, first, columns, width): (usize, usize, usize, usize),
        bounds: Bounds,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (terms, each) = (self.terms(), layout.outputs());
        let image = self.groups * self.given * each;
        let block = &scratch.block[..terms * width];
        let rows = self.given.next_multiple_of(PANEL);
        let simple = columns == width && first % each + columns <= each;
        // Whole planes may go too far where another panel's planes come after and over it.
        let planes = first % each == 0 && columns == each && width <= 2 * each;
        for row in (0..self.given).step_by(PANEL) {
            let at = group * rows + row;
            let weights = &self.panels[at * terms..][..PANEL * terms];
            let Ok(start) = <&[f32; PANEL]>::try_from(&self.bias[at..at + PANEL]) else { continue };
            let to = first / each * image + (group * self.given + row) * each;
            let given = (self.given - row).min(PANEL);
            if simple && given == PANEL || planes && row + PANEL < self.given {
                tile::panel(simd, (weights, block), (start, bounds), (&mut out[to + first % each..], each));
                continue;
            }
            tile::panel(simd, (weights, block), (start, bounds), (&mut scratch.tile, width));
            for channel in 0..given {
                let sums = &scratch.tile[channel * width..][..columns];
                let mut done = 0;
                while done < columns {
                    let (index, within) = ((first + done) / each, (first + done) % each);
                    let length = (each - within).min(columns - done);
                    let to = index * image + (group * self.given + row + channel) * each + within;
                    out[to..][..length].copy_from_slice(&sums[done..][..length]);
                    done += length;
                }
            }
        }
    }
}

/// What is used again from block to block.
#[derive(Default)]
struct Scratch {
    runs: Vec<Run>,
    block: Vec<f32>,
    tile: Vec<f32>,
}

/// Columns that lie beside each other in the source and in the block.
struct Run {
    from: usize,
    to: usize,
    length: usize,
}

/// For each plane and tap the columns, into lines of a block.
#[inline(always)]
fn gather(
    source: &[f32],
    (planes, each): (usize, usize),
    (offsets, runs): (&[usize], &[Run]),
    block: &mut [f32],
    width: usize,
) {
    let mut line = 0;
    for plane in 0..planes {
        for offset in offsets {
            let from = &source[plane * each + offset..];
            let to = &mut block[line..];
            for run in runs {
                copy(&from[run.from..], &mut to[run.to..], run.length);
            }
            line += width;
        }
    }
}

/// Copies whole chunks: what goes too far is written again by what comes after.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32], length: usize) {
    let whole = length.next_multiple_of(COPIED);
    if from.len() < whole || to.len() < whole {
        to[..length].copy_from_slice(&from[..length]);
        return;
    }
    let (to, from) = (to[..whole].as_chunks_mut::<COPIED>().0, from[..whole].as_chunks::<COPIED>().0);
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
