//! The cells: how the sums of a step become the next state.
//!
//! Decides the arithmetic of one step for a few rows of the batch. Formulas and
//! the order of gates are those of ONNX's LSTM and GRU. The states and gates of
//! a row are filled up to `Weights::pitch` numbers each; what fills them stays 0.

use fearless_simd::{Level, Simd, dispatch, f32x16, prelude::*};

use super::curve::{sigmoid, tanh};
use crate::ops::product::Packed;

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
    pub(super) fn step(&mut self, level: Level, cell: Cell, weights: &Weights, inputs: &[Option<&[f32]>]) {
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
            // The gates first, then the product with what they leave of the state.
            weights.recurrent.add(level, states, 0..2 * pitch, (&mut self.sums, width), None);
            let rows = self.sums.chunks_exact(width).zip(self.h.chunks_exact(pitch));
            for ((sums, h), left) in rows.zip(self.reset.chunks_exact_mut(pitch)) {
                dispatch!(level, simd => reset(simd, &sums[pitch..], h, &mut *left));
            }
            let states = self.reset.chunks_exact(pitch);
            weights.recurrent.add(level, states, 2 * pitch..width, (&mut self.sums, width), None);
        } else {
            weights.recurrent.add(level, states, 0..width, (&mut self.sums, width), None);
        }
        let rows =
            self.sums.chunks_exact(width).zip(self.h.chunks_exact_mut(pitch).zip(self.c.chunks_exact_mut(pitch)));
        for ((sums, (h, c)), input) in rows.zip(inputs) {
            let Some(input) = input else { continue };
            let input = &input[2 * pitch..3 * pitch];
            match cell {
                Cell::Lstm => {
                    let peepholes = weights.peepholes.as_deref();
                    dispatch!(level, simd => lstm(simd, sums, peepholes, &mut *c, &mut *h));
                }
                Cell::Gru { after: true } => dispatch!(level, simd => gru(simd, sums, Some(input), &mut *h)),
                Cell::Gru { after: false } => dispatch!(level, simd => gru(simd, sums, None, &mut *h)),
            }
        }
    }
}

#[inline(always)]
fn lstm<S: Simd>(simd: S, sums: &[f32], peepholes: Option<&[f32]>, c: &mut [f32], h: &mut [f32]) {
    let pitch = h.len();
    for at in (0..pitch).step_by(LANES) {
        let mut gates = [0, 1, 2, 3].map(|gate| load(simd, sums, gate * pitch + at));
        let before = load(simd, c, at);
        if let Some(peepholes) = peepholes {
            gates[0] = load(simd, peepholes, at).mul_add(before, gates[0]);
            gates[2] = load(simd, peepholes, 2 * pitch + at).mul_add(before, gates[2]);
        }
        let (input, forget) = (sigmoid(simd, gates[0]), sigmoid(simd, gates[2]));
        let after = forget.mul_add(before, input * tanh(simd, gates[3]));
        store(after, c, at);
        if let Some(peepholes) = peepholes {
            gates[1] = load(simd, peepholes, pitch + at).mul_add(after, gates[1]);
        }
        store(sigmoid(simd, gates[1]) * tanh(simd, after), h, at);
    }
}

/// What the reset gate leaves of a state.
#[inline(always)]
fn reset<S: Simd>(simd: S, gate: &[f32], h: &[f32], left: &mut [f32]) {
    for at in (0..h.len()).step_by(LANES) {
        store(sigmoid(simd, load(simd, gate, at)) * load(simd, h, at), left, at);
    }
}

/// `(1 - z) * candidate + z * h`, where the candidate's sum is whole, or is the
/// recurrent part that the reset gate scales, and the input's apart.
#[inline(always)]
fn gru<S: Simd>(simd: S, sums: &[f32], input: Option<&[f32]>, h: &mut [f32]) {
    let pitch = h.len();
    for at in (0..pitch).step_by(LANES) {
        let mut candidate = load(simd, sums, 2 * pitch + at);
        if let Some(input) = input {
            candidate = sigmoid(simd, load(simd, sums, pitch + at)).mul_add(candidate, load(simd, input, at));
        }
        let (candidate, before) = (tanh(simd, candidate), load(simd, h, at));
        store(sigmoid(simd, load(simd, sums, at)).mul_add(before - candidate, candidate), h, at);
    }
}

#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32], at: usize) -> f32x16<S> {
    f32x16::from_slice(simd, &from[at..][..LANES])
}

#[inline(always)]
fn store<S: Simd>(vector: f32x16<S>, to: &mut [f32], at: usize) {
    vector.store_slice(&mut to[at..][..LANES]);
}
