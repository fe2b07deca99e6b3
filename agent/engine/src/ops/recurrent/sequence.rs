//! A whole sequence: every step of every row, in each direction.
//!
//! Decides the order of the work. The input's part of the sums is a product for
//! many steps at once; the rest goes step by step, a few rows of the batch
//! together. Knows nothing of gates.

use fearless_simd::Level;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use super::cell::{Rows, Weights};
use super::{Operands, Recurrent, What};

/// Rows of the batch that go through the steps together.
const TOGETHER: usize = 4;
/// Steps whose input's part is computed at once.
const STEPS: usize = 48;

/// What a call is about, in numbers.
struct Sizes {
    time: usize,
    batch: usize,
    features: usize,
    hidden: usize,
}

impl EvalOp for Recurrent {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (x, r) = (inputs[0].shape(), inputs[2].shape());
        let (time, batch) = self.axes();
        let sizes = Sizes { time: x[time], batch: x[batch], features: x[2], hidden: r[2] };
        let Operands { b, lengths, h, c, p } = self.operands;
        let given = |slot: Option<usize>| slot.map(|slot| &*inputs[slot]);
        let lengths = self.lengths(&sizes, given(lengths))?;
        let initial = [given(h), given(c)];
        let states = self.shape(What::LastH, x, r);
        for state in initial.into_iter().flatten() {
            ensure!(
                state.shape() == &states[..],
                "an initial state of shape {:?} where {states:?} is needed",
                state.shape()
            );
        }
        let computed;
        let weights = match &self.ready {
            Some(ready) => &**ready,
            None => {
                computed = self.weights(&inputs[1], &inputs[2], given(b), given(p))?;
                &computed
            }
        };
        ensure!(x[2] == inputs[1].shape()[2], "{} features where {} are needed", x[2], inputs[1].shape()[2]);
        let zero = |what: What| Tensor::zero::<f32>(&self.shape(what, x, r));
        let mut outputs = [zero(What::All)?, zero(What::LastH)?, zero(What::LastC)?];
        self.run(Level::new(), &sizes, &inputs[0], &lengths, initial, weights, &mut outputs)?;
        let [all, h, c] = outputs.map(Some);
        let mut outputs = [(What::All, all), (What::LastH, h), (What::LastC, c)];
        let mut take =
            |what: &What| outputs.iter_mut().find(|(is, _)| is == what).and_then(|(_, tensor)| tensor.take());
        self.outputs.iter().map(|what| Ok(take(what).context("an output twice")?.into_tvalue())).collect()
    }
}

impl Recurrent {
    /// Of each row, how many steps it has.
    fn lengths(&self, sizes: &Sizes, given: Option<&Tensor>) -> TractResult<Vec<usize>> {
        let Some(given) = given else { return Ok(vec![sizes.time; sizes.batch]) };
        let given = given.cast_to::<i64>()?;
        let given = given.try_as_plain_ram()?;
        let given = given.as_slice::<i64>()?;
        ensure!(given.len() == sizes.batch, "{} lengths for {} rows", given.len(), sizes.batch);
        let length = |length: &i64| usize::try_from(*length).ok().filter(|length| *length <= sizes.time);
        given
            .iter()
            .map(|l| length(l).with_context(|| format!("a length of {l} in a sequence of {}", sizes.time)))
            .collect()
    }

    /// Every direction, a few rows at a time.
    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        level: Level,
        sizes: &Sizes,
        x: &Tensor,
        lengths: &[usize],
        initial: [Option<&Tensor>; 2],
        weights: &[Weights],
        outputs: &mut [Tensor; 3],
    ) -> TractResult<()> {
        let x = x.try_as_plain_ram()?;
        let x = x.as_slice::<f32>()?;
        let [all, last_h, last_c] = outputs;
        let (mut all, mut last_h, mut last_c) =
            (all.try_as_plain_ram_mut()?, last_h.try_as_plain_ram_mut()?, last_c.try_as_plain_ram_mut()?);
        let (all, last_h, last_c) =
            (all.as_slice_mut::<f32>()?, last_h.as_slice_mut::<f32>()?, last_c.as_slice_mut::<f32>()?);
        let hidden = sizes.hidden;
        for (direction, (weights, reverse)) in weights.iter().zip(&self.directions).enumerate() {
            for first in (0..sizes.batch).step_by(TOGETHER) {
                let count = TOGETHER.min(sizes.batch - first);
                let mut rows = Rows::new(weights, count);
                for (state, initial) in [&mut rows.h, &mut rows.c].into_iter().zip(initial) {
                    let Some(initial) = initial else { continue };
                    let initial = initial.try_as_plain_ram()?;
                    for (row, state) in state.chunks_exact_mut(weights.pitch).enumerate() {
                        let at = self.state_at(sizes, direction, first + row);
                        state[..hidden].copy_from_slice(&initial.as_slice::<f32>()?[at..][..hidden]);
                    }
                }
                let each = Each {
                    op: self,
                    sizes,
                    x,
                    lengths: &lengths[first..][..count],
                    first,
                    direction,
                    reverse: *reverse,
                };
                each.steps(level, weights, &mut rows, all);
                for (state, last) in [(&rows.h, &mut *last_h), (&rows.c, &mut *last_c)] {
                    for (row, state) in state.chunks_exact(weights.pitch).enumerate() {
                        let at = self.state_at(sizes, direction, first + row);
                        last[at..][..hidden].copy_from_slice(&state[..hidden]);
                    }
                }
            }
        }
        Ok(())
    }

    /// Where a row's state is in an initial or last state.
    fn state_at(&self, sizes: &Sizes, direction: usize, row: usize) -> usize {
        let directions = self.directions.len();
        sizes.hidden * if self.batch_first { row * directions + direction } else { direction * sizes.batch + row }
    }
}

/// A few rows of the batch in one direction.
struct Each<'a> {
    op: &'a Recurrent,
    sizes: &'a Sizes,
    x: &'a [f32],
    lengths: &'a [usize],
    first: usize,
    direction: usize,
    reverse: bool,
}

impl Each<'_> {
    fn steps(&self, level: Level, weights: &Weights, rows: &mut Rows, all: &mut [f32]) {
        let width = weights.input.width();
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        let mut inputs = vec![0.0; self.lengths.len() * STEPS.min(longest) * width];
        for start in (0..longest).step_by(STEPS) {
            let steps = STEPS.min(longest - start);
            for (row, inputs) in inputs.chunks_exact_mut(STEPS.min(longest) * width).enumerate() {
                let mine = steps.min(self.lengths[row].saturating_sub(start));
                let inputs = &mut inputs[..mine * width];
                inputs.chunks_exact_mut(width).for_each(|sums| sums.copy_from_slice(&weights.bias));
                let vectors = (start..start + mine).map(|step| self.input(row, step));
                weights.input.add(level, vectors, 0..width, (inputs, width), None);
            }
            for step in start..start + steps {
                let of_row = |row: usize| {
                    let at = (row * STEPS.min(longest) + step - start) * width;
                    (step < self.lengths[row]).then(|| &inputs[at..][..width])
                };
                let mut now: [Option<&[f32]>; TOGETHER] = [None; TOGETHER];
                let now = &mut now[..self.lengths.len()];
                now.iter_mut().enumerate().for_each(|(row, input)| *input = of_row(row));
                rows.step(level, self.op.cell, weights, now);
                for row in (0..self.lengths.len()).filter(|row| now[*row].is_some()) {
                    let h = &rows.h[row * weights.pitch..][..self.sizes.hidden];
                    all[self.output_at(row, step)..][..self.sizes.hidden].copy_from_slice(h);
                }
            }
        }
    }

    /// Which element of the sequence a row's step is about.
    fn time(&self, row: usize, step: usize) -> usize {
        if self.reverse { self.lengths[row] - 1 - step } else { step }
    }

    fn input(&self, row: usize, step: usize) -> &[f32] {
        let (time, row) = (self.time(row, step), self.first + row);
        let at = if self.op.batch_first { row * self.sizes.time + time } else { time * self.sizes.batch + row };
        &self.x[at * self.sizes.features..][..self.sizes.features]
    }

    fn output_at(&self, row: usize, step: usize) -> usize {
        let (time, row, directions) = (self.time(row, step), self.first + row, self.op.directions.len());
        let Sizes { time: times, batch, hidden, .. } = *self.sizes;
        hidden
            * if self.op.batch_first {
                (row * times + time) * directions + self.direction
            } else {
                (time * directions + self.direction) * batch + row
            }
    }
}
