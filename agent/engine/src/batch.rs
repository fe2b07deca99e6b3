//! Whether a model gains by taking several rows in one call.
//!
//! Decides how many, from times measured on this machine: matrix products and
//! recurrent steps gain, convolutions lose. Knows nothing of who will call, or when.

use std::time::{Duration, Instant};

use crate::error::RunError;
use crate::model::Model;
use crate::tensor::Tensor;

/// Rows per call that are tried.
const TRIED: [usize; 4] = [1, 4, 16, 64];
/// How long each is measured; at least `CALLS` calls.
const BUDGET: Duration = Duration::from_millis(100);
const CALLS: usize = 3;
/// What batching must gain to be worth the wait of its first row.
const WORTH: f64 = 1.2;
/// The smallest number of rows counts whose time is this near to the best one's.
const NEAR: f64 = 1.1;

/// How many rows to put into a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchAdvice {
    /// Rows per call; 1 where batching does not pay.
    pub rows_per_call: usize,
    /// Time per row one by one, over time per row in such calls.
    pub speedup: f64,
}

/// Measures a model on rows of one's choice (the first of them, again and again; an
/// input without rows stays as it is). A model with a fixed number of rows is not
/// measured: that number is the advice.
///
/// # Errors
/// As `Model::run`.
pub fn measure_batch(model: &Model, rows: &[Tensor]) -> Result<BatchAdvice, RunError> {
    if let Some(fixed) = model.inputs().first().and_then(|port| *port.shape.first()?) {
        return Ok(BatchAdvice { rows_per_call: fixed.max(1), speedup: 1.0 });
    }
    let mut times = Vec::new();
    for count in TRIED {
        let inputs: Option<Vec<Tensor>> = model
            .inputs()
            .iter()
            .zip(rows)
            .map(|(port, tensor)| {
                if port.shape.first() != Some(&None) {
                    return Some(tensor.clone());
                }
                Tensor::stack(vec![tensor.rows(0..1).ok()?; count])
            })
            .collect();
        let Some(inputs) = inputs.filter(|inputs| inputs.len() == rows.len()) else { break };
        match seconds(model, &inputs) {
            Ok(seconds) => times.push((count, seconds / count as f64)),
            // More rows than the limits allow, or than the model can take.
            Err(_) if count > 1 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(advise(&times))
}

/// The best time of a call.
fn seconds(model: &Model, inputs: &[Tensor]) -> Result<f64, RunError> {
    model.run(inputs)?;
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut calls = 0;
    while calls < CALLS || begin.elapsed() < BUDGET {
        let call = Instant::now();
        model.run(inputs)?;
        best = best.min(call.elapsed().as_secs_f64());
        calls += 1;
    }
    Ok(best)
}

/// From pairs of rows per call, the first being 1, and seconds per row.
fn advise(times: &[(usize, f64)]) -> BatchAdvice {
    let best = times.iter().map(|(_, time)| *time).fold(f64::INFINITY, f64::min);
    let chosen = times.iter().find(|(_, time)| *time <= best * NEAR);
    match (times.first(), chosen) {
        (Some((_, alone)), Some((rows, time))) if alone / time >= WORTH => {
            BatchAdvice { rows_per_call: *rows, speedup: alone / time }
        }
        _ => BatchAdvice { rows_per_call: 1, speedup: 1.0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Load, floats};

    #[test]
    fn the_smallest_batch_that_gains_enough_is_advised() {
        let one = BatchAdvice { rows_per_call: 1, speedup: 1.0 };
        for (times, expected) in [
            (vec![], one),
            (vec![(1, 8.0)], one),
            // A convolution: batches are slower.
            (vec![(1, 8.0), (4, 9.0), (16, 12.0)], one),
            // Not worth it.
            (vec![(1, 8.0), (4, 7.0), (16, 6.9)], one),
            // 64 is hardly better than 16.
            (vec![(1, 8.0), (4, 4.0), (16, 2.0), (64, 1.95)], BatchAdvice { rows_per_call: 16, speedup: 4.0 }),
            // Past the caches.
            (vec![(1, 8.0), (4, 4.0), (16, 6.0)], BatchAdvice { rows_per_call: 4, speedup: 2.0 }),
        ] {
            assert_eq!(advise(&times), expected, "{times:?}");
        }
    }

    #[test]
    fn a_fixed_number_of_rows_is_not_for_us_to_choose() {
        let model = testing::adder_of_rows(Some(2)).load().unwrap();
        let advice = measure_batch(&model, &[floats(&[2, 2], &[0.0; 4])]).unwrap();
        assert_eq!(advice, BatchAdvice { rows_per_call: 2, speedup: 1.0 });
    }

    #[test]
    fn a_free_number_of_rows_is_measured() {
        let model = testing::adder().load().unwrap();
        let advice = measure_batch(&model, &[floats(&[1, 2], &[0.5, 1.0])]).unwrap();
        // Almost all of this model's time is the call, so batches of it must gain.
        assert!(advice.rows_per_call > 1 && advice.speedup >= WORTH, "{advice:?}");
        let wrong = measure_batch(&model, &[floats(&[1, 3], &[0.0; 3])]);
        assert!(matches!(wrong, Err(RunError::Shape { .. })), "{wrong:?}");
    }
}
