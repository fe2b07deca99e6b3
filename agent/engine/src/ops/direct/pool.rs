//! The greatest, or the mean, of what a window sees of a plane.
//!
//! Decides which pools of a model are computed here instead of by the library
//! (32-bit floats, one or two spatial axes, channels first) and what a mean is
//! divided by. How windows are laid out and folded is `plane`'s.

use fearless_simd::Level;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::cnn::{MaxPool, PaddingSpec, PoolSpec, SumPool};
use tract_onnx::tract_core::ops::nn::DataFormat;
use tract_onnx::tract_hir::internal::*;

use super::axes;
use super::plane::{Axis, Layout};

/// What is made of a window's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// At least the least finite number, as the library has it.
    Greatest,
    /// Over the elements in the window, or with the padding ones.
    Mean { padded: bool },
}

/// A pool. Input [N, C, spatial...] or [C, spatial...], output alike.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pool {
    spec: PoolSpec,
    kind: Kind,
}

impl Op for Pool {
    fn name(&self) -> StaticName {
        "PetrelPool".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(self.spec.info())
    }

    fn validation(&self) -> Validation {
        Validation::Rounding
    }

    op_as_typed_op!();
}

impl TypedOp for Pool {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.spec.output_facts(inputs)
    }

    as_op!();
}

impl EvalOp for Pool {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let mut output = Tensor::zero::<f32>(&self.spec.output_shape(input.shape())?.shape)?;
        if output.len() == 0 || input.len() == 0 {
            ensure!(output.len() == 0, "a pool of an empty input");
            return Ok(tvec!(output.into_tvalue()));
        }
        let (y, x) = axes(&self.spec, self.spec.data_format.shape(input.shape())?.hw_dims());
        let planes = input.try_as_plain_ram()?;
        let mut out = output.try_as_plain_ram_mut()?;
        self.kind.pool((y, x), planes.as_slice::<f32>()?, out.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl Kind {
    fn pool(self, (y, x): (Axis, Axis), planes: &[f32], out: &mut [f32]) {
        let level = Level::new();
        let layout = match self {
            Kind::Greatest => Layout::new(y, x).with_empty(f32::MIN),
            Kind::Mean { .. } => Layout::new(y, x),
        };
        let taps: Vec<(usize, f32)> = layout.offsets().into_iter().map(|offset| (offset, 1.0)).collect();
        let (mut room, mut sums) = (layout.room(1), layout.sums());
        let parts = match self {
            Kind::Greatest => vec![],
            Kind::Mean { padded: true } => vec![1.0 / taps.len() as f32; layout.outputs()],
            Kind::Mean { padded: false } => {
                let down = seen(y);
                let across = seen(x);
                down.iter().flat_map(|rows| across.iter().map(move |columns| 1.0 / (rows * columns) as f32)).collect()
            }
        };
        for (plane, out) in planes.chunks_exact(layout.plane()).zip(out.chunks_exact_mut(layout.outputs())) {
            layout.copy(plane, &mut room);
            match self {
                Kind::Greatest => layout.greatest(level, &room, &taps, &mut sums, out),
                Kind::Mean { .. } => layout.convolve(level, &room, &taps, (0.0, None), &mut sums, out),
            }
            out.iter_mut().zip(&parts).for_each(|(out, part)| *out *= part);
        }
    }
}

/// Elements that each window sees of an axis.
fn seen(axis: Axis) -> Vec<usize> {
    let within = |position: &usize| (axis.before..axis.before + axis.input).contains(position);
    let window = |output| (0..axis.kernel).map(move |tap| output * axis.stride + tap * axis.dilation);
    (0..axis.output).map(|output| window(output).filter(within).count()).collect()
}

/// Puts ours in the place of each pool that it knows.
pub(super) fn rewrite(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes.len() {
        let node = &model.nodes[id];
        let (spec, kind) = if let Some(pool) = node.op_as::<MaxPool>().filter(|pool| pool.with_index_outputs.is_none())
        {
            (&pool.pool_spec, Kind::Greatest)
        } else if let Some(pool) = node.op_as::<SumPool>().filter(|pool| pool.normalize) {
            // Such padding may end within a window, which then divides by less.
            let ragged = matches!(pool.pool_spec.padding, PaddingSpec::ExplicitOnnxPool(_, _, true));
            if ragged && pool.count_include_pad {
                continue;
            }
            (&pool.pool_spec, Kind::Mean { padded: pool.count_include_pad })
        } else {
            continue;
        };
        let fact = model.outlet_fact(node.inputs[0])?;
        let known = matches!(spec.data_format, DataFormat::NCHW | DataFormat::CHW)
            && matches!(spec.rank(), 1 | 2)
            && fact.datum_type == f32::datum_type()
            && fact.is_plain();
        if known {
            model.nodes[id].op = Box::new(Pool { spec: spec.clone(), kind });
        }
    }
    Ok(())
}
