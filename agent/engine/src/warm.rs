//! Prepared states of a plan, kept warm between calls.
//!
//! Decides who may use a state again: one caller at a time, never after an error or
//! a panic, and never where an operator would remember the call before. Knows no
//! files and no ports.

use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::EvalContext;
use tract_onnx::tract_core::ops::gru_seq::GruSeq;
use tract_onnx::tract_core::ops::scan::{OptScan, Scan};

use crate::explain::PlanFacts;
use crate::guard::{guard, told};

/// States that wait for their next call; more callers than that at once prepare
/// their own.
const IDLE: usize = 4;

/// A plan and the states that are ready to run it.
pub(crate) struct Warm {
    pub(crate) plan: Arc<TypedSimplePlan>,
    /// Whether the library could optimise it, or runs it as it was exported.
    optimised: bool,
    forgets: bool,
    idle: Mutex<Vec<TypedSimpleState>>,
}

impl Warm {
    pub(crate) fn new(plan: Arc<TypedSimplePlan>, optimised: bool) -> Warm {
        let forgets = plan.model().nodes().iter().all(forgets);
        Warm { plan, optimised, forgets, idle: Mutex::default() }
    }

    /// What it is like.
    pub(crate) fn facts(&self) -> PlanFacts {
        PlanFacts { optimised: self.optimised, steps: self.plan.order_without_consts().len() }
    }

    /// Runs once.
    ///
    /// # Errors
    /// What the library said, a panic in it included.
    pub(crate) fn run(&self, inputs: TVec<TValue>) -> Result<TVec<TValue>, String> {
        let warm = self.idle().pop();
        let ran = guard(|| -> TractResult<_> {
            let mut state = warm.map_or_else(|| self.plan.spawn(), Ok)?;
            let outputs = state.run(inputs)?;
            Ok((state, outputs))
        });
        let (state, outputs) = ran?.map_err(|error| told(&error))?;
        let mut idle = self.idle();
        if self.forgets && idle.len() < IDLE {
            idle.push(state);
        }
        Ok(outputs)
    }

    /// A state is whole whenever the lock is free, so a poisoned one is as good.
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<TypedSimpleState>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a node starts every call afresh.
fn forgets(node: &TypedNode) -> bool {
    if let Some(scan) = node.op_as::<OptScan>() {
        return scan.reset_every_turn && scan.skip == 0 && scan.plan.model().nodes().iter().all(forgets);
    }
    if let Some(gru) = node.op_as::<GruSeq>() {
        return gru.reset_every_turn;
    }
    matches!(node.op.state(&EvalContext::out_of_plan()), Ok(None))
}

/// Makes every loop start from its initial state at each call, as ONNX has it: the
/// library's own default is to go on where the call before ended.
pub(crate) fn forgetful(model: &mut TypedModel) {
    for node in model.nodes_mut() {
        if let Some(scan) = node.op_as_mut::<Scan>() {
            scan.reset_every_turn = true;
            forgetful(&mut scan.body);
        } else if let Some(gru) = node.op_as_mut::<GruSeq>() {
            gru.reset_every_turn = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[f32]) -> TVec<TValue> {
        tvec![Tensor::from_shape(&[values.len()], values).unwrap().into_tvalue()]
    }

    fn identity() -> Warm {
        let mut model = TypedModel::default();
        let source = model.add_source("x", f32::datum_type().fact([2])).unwrap();
        model.select_output_outlets(&[source]).unwrap();
        Warm::new(model.into_runnable().unwrap(), false)
    }

    #[test]
    fn a_state_waits_for_the_next_call_unless_it_failed() {
        let warm = identity();
        for _ in 0..3 {
            warm.run(values(&[1.0, 2.0])).unwrap();
            assert_eq!(warm.idle().len(), 1);
        }
        warm.run(values(&[1.0])).unwrap_err();
        assert_eq!(warm.idle().len(), 0);
        warm.run(values(&[1.0, 2.0])).unwrap();
        assert_eq!(warm.idle().len(), 1);
    }

    #[test]
    fn no_more_states_wait_than_are_allowed() {
        let warm = identity();
        let barrier = std::sync::Barrier::new(2 * IDLE);
        std::thread::scope(|scope| {
            for _ in 0..2 * IDLE {
                scope.spawn(|| {
                    barrier.wait();
                    (0..50).for_each(|_| assert!(warm.run(values(&[1.0, 2.0])).is_ok()));
                });
            }
        });
        assert!((1..=IDLE).contains(&warm.idle().len()));
    }
}
