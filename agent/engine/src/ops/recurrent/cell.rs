//! The cells: how the sums of a step become the next state.
//!
//! Decides the arithmetic of one step for a few rows of the batch. Formulas and
//! the order of gates are those of ONNX's LSTM and GRU. The states and gates of
//! a row are filled up to `Weights::pitch` numbers each; what fills them stays 0.

use fearless_simd::{Simd, f32x16, prelude::*};

use super::curve::{sigmoid, tanh};
use super::product::Packed;

/// The widest vector, to which states and gates are filled up.
pub(super) const LANES: usize = 16;

/// Which cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    /// Gates i, o, f, c.
    Lstm,
    /// Gates z, r, h.
    Gru {
        /// The reset gate scales the recurrent product, and not the state before it.
        after: bool,
    },
}

impl Cell {
    pub(super) fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru { .. } => 3,
        }
    }
}

/// The weights of one direction, laid out for the steps.
#[derive(Debug, PartialEq)]
pub(super) struct Weights {
    pub(super) input: Packed,
    recurrent: Packed,
    /// What every step's sums begin with, `input.width()` numbers.
    pub(super) bias: Vec<f32>,
    /// GRU: the bias that the reset gate scales, too.
    scaled: Vec<f32>,
    /// LSTM: what gates i, o and f see of the cell's own state.
    peepholes: Option<Vec<f32>>,
    /// Numbers of a state or a gate.
    pub(super) pitch: usize,
}

impl Weights {
    /// From ONNX's W [gates * hidden, features], R [gates * hidden, hidden], and B
    /// [2 * gates * hidden] and P [3 * hidden] where there are such.
    pub(super) fn new(
        cell: Cell,
        (features, hidden): (usize, usize),
        (w, r): (&[f32], &[f32]),
        b: Option<&[f32]>,
        p: Option<&[f32]>,
    ) -> Weights {
        let pitch = hidden.next_multiple_of(LANES);
        let columns = cell.gates() * pitch;
        let pack = |depth: usize, from: &[f32]| {
            Packed::new(depth, columns, |row, column| match column % pitch {
                unit if unit < hidden => from[(column / pitch * hidden + unit) * depth + row],
                _ => 0.0,
            })
        };
        let spread = |from: &[f32]| -> Vec<f32> {
            let gates = from.chunks_exact(hidden);
            gates.flat_map(|gate| gate.iter().copied().chain(std::iter::repeat_n(0.0, pitch - hidden))).collect()
        };
        let input = pack(features, w);
        let mut bias = vec![0.0; input.width()];
        let mut scaled = vec![0.0; pitch];
        if let Some((of_input, of_state)) = b.map(|b| b.split_at(cell.gates() * hidden)) {
            let (of_input, of_state) = (spread(of_input), spread(of_state));
            let apart = if cell == (Cell::Gru { after: true }) { 2 * pitch } else { columns };
            for (index, (to, (x, h))) in bias.iter_mut().zip(of_input.iter().zip(&of_state)).enumerate() {
                *to = x + if index < apart { *h } else { 0.0 };
            }
            scaled.copy_from_slice(&of_state[2 * pitch..3 * pitch]);
        }
        Weights { input, recurrent: pack(hidden, r), bias, scaled, peepholes: p.map(spread), pitch }
    }
}

/// The state of a few rows, and room for their sums.
pub(super) struct Rows {
    /// The output state of each row.
    pub(super) h: Vec<f32>,
    /// The cell state of each row.
    pub(super) c: Vec<f32>,
    sums: Vec<f32>,
    reset: Vec<f32>,
}

impl Rows {
    pub(super) fn new(weights: &Weights, rows: usize) -> Rows {
        let state = || vec![0.0; rows * weights.pitch];
        Rows { h: state(), c: state(), sums: vec![0.0; rows * weights.input.width()], reset: state() }
    }

    /// One step: from the input's part of the sums, for each row or none when the
    /// row has ended, to the next state.
    #[inline(always)]
    pub(super) fn step<S: Simd>(&mut self, simd: S, cell: Cell, weights: &Weights, inputs: &[Option<&[f32]>]) {
        let (pitch, width) = (weights.pitch, weights.input.width());
        for (sums, input) in self.sums.chunks_exact_mut(width).zip(inputs) {
            let Some(input) = input else { continue };
            sums.copy_from_slice(input);
            if cell == (Cell::Gru { after: true }) {
                sums[2 * pitch..3 * pitch].copy_from_slice(&weights.scaled);
            }
        }
        let states = self.h.chunks_exact(pitch);
        if cell == (Cell::Gru { after: false }) {
            self.step_before(simd, weights, inputs);
            return;
        }
        weights.recurrent.add(simd, states, 0..width, &mut self.sums, width);
        let rows =
            self.sums.chunks_exact(width).zip(self.h.chunks_exact_mut(pitch).zip(self.c.chunks_exact_mut(pitch)));
        for ((sums, (h, c)), input) in rows.zip(inputs) {
            match (input, cell) {
                (None, _) => {}
                (Some(_), Cell::Lstm) => lstm(simd, pitch, sums, weights.peepholes.as_deref(), c, h),
                (Some(input), Cell::Gru { .. }) => gru(simd, pitch, sums, input, h),
            }
        }
    }

    /// A GRU whose reset gate scales the state before the product: first the two
    /// gates, then the product with what is left of the state.
    #[inline(always)]
    fn step_before<S: Simd>(&mut self, simd: S, weights: &Weights, inputs: &[Option<&[f32]>]) {
        let (pitch, width) = (weights.pitch, weights.input.width());
        weights.recurrent.add(simd, self.h.chunks_exact(pitch), 0..2 * pitch, &mut self.sums, width);
        for (row, sums) in self.sums.chunks_exact(width).enumerate() {
            for at in (0..pitch).step_by(LANES) {
                let kept = sigmoid(simd, load(simd, sums, pitch + at)) * load(simd, &self.h, row * pitch + at);
                store(kept, &mut self.reset, row * pitch + at);
            }
        }
        weights.recurrent.add(simd, self.reset.chunks_exact(pitch), 2 * pitch..width, &mut self.sums, width);
        let rows = self.sums.chunks_exact(width).zip(self.h.chunks_exact_mut(pitch)).zip(inputs);
        for ((sums, h), _) in rows.filter(|(_, input)| input.is_some()) {
            for at in (0..pitch).step_by(LANES) {
                mix(sigmoid(simd, load(simd, sums, at)), tanh(simd, load(simd, sums, 2 * pitch + at)), h, at);
            }
        }
    }
}

#[inline(always)]
fn lstm<S: Simd>(simd: S, pitch: usize, sums: &[f32], peepholes: Option<&[f32]>, c: &mut [f32], h: &mut [f32]) {
    for at in (0..pitch).step_by(LANES) {
        let gate = |index: usize| load(simd, sums, index * pitch + at);
        let peep = |index: usize, state: f32x16<S>| match peepholes {
            Some(peepholes) => load(simd, peepholes, index * pitch + at).mul_add(state, gate(index)),
            None => gate(index),
        };
        let before = load(simd, c, at);
        let (input, forget) = (sigmoid(simd, peep(0, before)), sigmoid(simd, peep(2, before)));
        let after = forget.mul_add(before, input * tanh(simd, gate(3)));
        store(after, c, at);
        store(sigmoid(simd, peep(1, after)) * tanh(simd, after), h, at);
    }
}

#[inline(always)]
fn gru<S: Simd>(simd: S, pitch: usize, sums: &[f32], input: &[f32], h: &mut [f32]) {
    for at in (0..pitch).step_by(LANES) {
        let reset = sigmoid(simd, load(simd, sums, pitch + at));
        let candidate = reset.mul_add(load(simd, sums, 2 * pitch + at), load(simd, input, 2 * pitch + at));
        mix(sigmoid(simd, load(simd, sums, at)), tanh(simd, candidate), h, at);
    }
}

/// `(1 - update) * candidate + update * h`
#[inline(always)]
fn mix<S: Simd>(update: f32x16<S>, candidate: f32x16<S>, h: &mut [f32], at: usize) {
    let before = load(candidate.simd, h, at);
    store(update.mul_add(before - candidate, candidate), h, at);
}

#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32], at: usize) -> f32x16<S> {
    f32x16::from_slice(simd, &from[at..][..LANES])
}

#[inline(always)]
fn store<S: Simd>(vector: f32x16<S>, to: &mut [f32], at: usize) {
    vector.store_slice(&mut to[at..][..LANES]);
}
