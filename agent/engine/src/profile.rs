//! Where the time of an answer goes, by operator of the plan.
//!
//! Decides what is timed: each step of the plan on its own, nothing around it. The steps are those of the
//! optimised plan, so their names are the inference library's, not ONNX's. Knows neither files nor bundles.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan::eval;

use crate::error::RunError;
use crate::guard::{guard, told};
use crate::model::Model;
use crate::tensor::{Tensor as Values, TensorError};

/// Where the time of an answer goes.
#[derive(Debug, Serialize)]
pub struct Profile {
    /// How often the model ran; the times below are of one run, on average.
    pub runs: usize,
    /// Rows of one run.
    pub rows: usize,
    /// All steps together, in microseconds.
    pub total_us: f64,
    /// By operator, the costliest first.
    pub operators: Vec<Share>,
}

/// One operator's share.
#[derive(Debug, Serialize)]
pub struct Share {
    /// Its name in the plan.
    pub operator: String,
    /// Steps of the plan that are made by it.
    pub steps: usize,
    /// Their time together, in microseconds.
    pub us: f64,
}

impl Model {
    /// Runs so often on these inputs (as `run_rows` takes them; of a model with a fixed number of rows the
    /// first piece) and times every step. The first run, which warms the caches, is not counted.
    ///
    /// # Errors
    /// As `run_rows`.
    pub fn profile(&self, inputs: &[Values], runs: usize) -> Result<Profile, RunError> {
        let failed = |reason| RunError::Failed { reason };
        let first = self.pieces(inputs).map(|(piece, _)| inputs.iter().map(|tensor| tensor.rows(0..piece)).collect());
        let first: Option<Vec<Values>> = first.transpose().map_err(|error: TensorError| failed(error.to_string()))?;
        let inputs = first.as_deref().unwrap_or(inputs);
        self.check(inputs)?;
        let plan = self.plan(inputs)?;
        let timed = guard(|| self.time(&plan.plan, inputs, runs.max(1))).map_err(failed)?;
        timed.map_err(|error| failed(told(&error)))
    }

    fn time(&self, plan: &Arc<TypedSimplePlan>, inputs: &[Values], runs: usize) -> TractResult<Profile> {
        let mut state = plan.spawn()?;
        let mut times: BTreeMap<usize, Duration> = BTreeMap::new();
        for run in 0..=runs {
            state.run_plan_with_eval(self.entering(inputs)?, |context, step, node, inputs| {
                let start = Instant::now();
                let made = eval(context, step, node, inputs);
                if run > 0 {
                    *times.entry(node.id).or_default() += start.elapsed();
                }
                made
            })?;
        }
        let mut shares: BTreeMap<String, Share> = BTreeMap::new();
        for (id, time) in times {
            let operator = plan.model().node(id).op.name().into_owned();
            if ["Source", "Const"].contains(&&*operator) {
                continue;
            }
            let share = shares.entry(operator.clone()).or_insert(Share { operator, steps: 0, us: 0.0 });
            share.steps += 1;
            share.us += time.as_secs_f64() * 1e6 / runs as f64;
        }
        let mut operators: Vec<Share> = shares.into_values().collect();
        operators.sort_by(|a, b| b.us.total_cmp(&a.us));
        let rows = inputs.first().map_or(1, Values::row_count);
        Ok(Profile { runs, rows, total_us: operators.iter().map(|share| share.us).sum(), operators })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Load, floats, graph, node};

    #[test]
    fn every_step_is_timed_under_its_operator() {
        let nodes =
            vec![node("Softmax", &["x"], &["a"]), node("Sqrt", &["a"], &["b"]), node("Softmax", &["b"], &["y"])];
        let model = graph(nodes, vec![]).load().unwrap();
        let profile = model.profile(&[floats(&[4, 2], &[0.5; 8])], 3).unwrap();
        let softmax = profile.operators.iter().find(|share| share.operator == "Softmax").unwrap();
        assert_eq!((profile.runs, softmax.steps), (3, 2), "{profile:?}");
        assert!(softmax.us > 0.0 && profile.total_us >= softmax.us);
        assert!(profile.operators.is_sorted_by(|a, b| a.us >= b.us));
        assert!(matches!(model.profile(&[], 1), Err(RunError::InputCount { .. })));
        let fixed = testing::adder_of_rows(Some(2)).load().unwrap();
        assert_eq!(fixed.profile(&[floats(&[6, 2], &[0.0; 12])], 1).unwrap().rows, 2);
    }
}
