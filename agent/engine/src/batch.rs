//! How many rows a model should be given at once.
//!
//! Decides when a larger batch pays, by running it: dense and recurrent models gain, convolutions lose. The
//! figures are those of the machine that measures. Knows no bundle and no request.

use std::time::{Duration, Instant};

use crate::error::RunError;
use crate::golden::{Golden, Tolerance};
use crate::model::Model;
use crate::tensor::Tensor;

/// Sizes that are tried.
const SIZES: [usize; 4] = [1, 4, 16, 64];
/// A larger batch must save this share of a row's time, or it is not worth the memory.
const WORTH: f64 = 0.2;
/// How long each size is measured, after a first run that is not counted.
const SPELL: Duration = Duration::from_millis(100);

/// Rows per call at which the model runs best on this machine, among 1, 4, 16 and 64; `None` where its number
/// of rows is fixed, or where a row's answer depends on the rows beside it. `inputs` are rows as `Model::run`
/// takes them.
///
/// # Errors
/// As `Model::run`.
pub fn measure_batch(model: &Model, inputs: &[Tensor]) -> Result<Option<usize>, RunError> {
    if !rows_stand_alone(model, inputs)? {
        return Ok(None);
    }
    let mut best = (1, time(model, inputs, 1)?);
    for size in &SIZES[1..] {
        let row = time(model, inputs, *size)?;
        if row <= best.1 * (1.0 - WORTH) {
            best = (*size, row);
        }
    }
    Ok(Some(best.0))
}

/// Whether the number of rows is free and two rows together are answered as each is alone: axis 0 may be
/// something else than a batch. `inputs` are rows as `Model::run` takes them.
///
/// # Errors
/// As `Model::run`.
pub fn rows_stand_alone(model: &Model, inputs: &[Tensor]) -> Result<bool, RunError> {
    let free = |shape: &[Option<usize>]| shape.first() == Some(&None);
    let batched = model.inputs().iter().chain(model.outputs()).all(|port| free(&port.shape));
    if !batched || inputs.is_empty() || inputs.iter().any(Tensor::is_empty) {
        return Ok(false);
    }
    let together = model.run(&rows(inputs, 2))?;
    let named = |tensors: Vec<Tensor>, ports: &[crate::port::Port]| {
        ports.iter().map(|port| port.name.clone()).zip(tensors).collect::<Vec<_>>()
    };
    let first = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.rows(0..1)).collect::<Result<Vec<_>, _>>();
    let Ok(expected) = first(&together) else { return Ok(false) };
    let golden = Golden { inputs: named(rows(inputs, 1), model.inputs()), outputs: named(expected, model.outputs()) };
    Ok(golden.check(model, Tolerance { abs: 1e-4, rel: 1e-4 }).is_ok())
}

/// Seconds that a row takes in batches of this size: the fastest of many, since nothing makes a run too fast.
fn time(model: &Model, inputs: &[Tensor], size: usize) -> Result<f64, RunError> {
    let batch = rows(inputs, size);
    model.run(&batch)?;
    let (begin, mut fastest) = (Instant::now(), Duration::MAX);
    while begin.elapsed() < SPELL {
        let start = Instant::now();
        model.run(&batch)?;
        fastest = fastest.min(start.elapsed());
    }
    Ok(fastest.as_secs_f64() / size as f64)
}

/// So many rows of each input, over again where there are fewer.
fn rows(inputs: &[Tensor], count: usize) -> Vec<Tensor> {
    let cut = |tensor: &Tensor| {
        let have = tensor.row_count().max(1);
        let row = |at: usize| tensor.rows(at % have..at % have + 1).ok();
        let stacked = (0..count).map(row).collect::<Option<Vec<Tensor>>>().and_then(Tensor::stack);
        stacked.unwrap_or_else(|| tensor.clone())
    };
    inputs.iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Load, floats, graph, node};
    use tract_onnx::pb::tensor_proto::DataType;
    use tract_onnx::pb::{AttributeProto, TensorProto};

    #[test]
    fn a_tiny_model_gains_by_larger_batches() {
        let model = testing::adder().load().unwrap();
        let size = measure_batch(&model, &[floats(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])]).unwrap();
        // The call costs more than adding two numbers, so that anything but the largest would be odd.
        assert!(size.is_some_and(|size| size >= 16), "{size:?}");
        assert_eq!(rows(&[floats(&[2, 1], &[1.0, 2.0])], 3), [floats(&[3, 1], &[1.0, 2.0, 1.0])]);
    }

    #[test]
    fn a_fixed_number_of_rows_is_left_alone() {
        let model = testing::adder_of_rows(Some(2)).load().unwrap();
        assert_eq!(measure_batch(&model, &[floats(&[2, 2], &[0.0; 4])]).unwrap(), None);
    }

    #[test]
    fn an_axis_that_is_no_batch_is_left_alone() {
        // Rows are added up from the top: what comes out depends on the rows before.
        let axis = TensorProto {
            data_type: DataType::Int64 as i32,
            int64_data: vec![0],
            ..testing::weights("axis", &[], &[])
        };
        let mut sum = node("CumSum", &["x", "axis"], &["y"]);
        sum.attribute = vec![AttributeProto { name: "reverse".to_owned(), r#type: 2, i: 1, ..Default::default() }];
        let model = graph(vec![sum], vec![axis]).load().unwrap();
        let x = floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(model.run(std::slice::from_ref(&x)).unwrap()[0].as_f32()[..2], [4.0, 6.0]);
        assert_eq!(measure_batch(&model, &[x]).unwrap(), None);
    }
}
