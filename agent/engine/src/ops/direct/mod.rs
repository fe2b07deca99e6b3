//! Convolution, and pools, of planes: how nearly all the time of a model of pictures
//! or sounds is spent.
//!
//! Decides which convolutions of a model are computed here instead of by the
//! library (32-bit floats, one or two spatial axes, channels first, constant
//! kernels; at any stride, dilation, padding and number of groups), keeps the
//! library from making something else of them, and takes the bounds of a clamp that
//! follows into the sum. Two ways: where few outputs look at the same planes, tap by
//! tap (`plane`, and `same` where outputs lie as inputs do); else as a
//! matrix product (`product` and `tile`). Knows nothing of how either computes.

mod plane;
mod pool;
mod product;
mod same;
#[cfg(test)]
mod tests;
mod tile;

use fearless_simd::Level;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, PoolSpec};
use tract_onnx::tract_core::ops::math::{Max, Min};
use tract_onnx::tract_core::ops::nn::DataFormat;
use tract_onnx::tract_hir::internal::*;

use plane::{Axis, Layout};
use product::Packed;
use same::Same;

pub(super) use plane::Bounds;
pub(super) use tile::bounded;

/// A convolution with its weights. Input [N, C, spatial...] or
/// [C, spatial...], output the same with the output's channels.
#[derive(Debug, Clone)]
struct Direct {
    spec: PoolSpec,
    groups: usize,
    weights: Arc<Weights>,
    bounds: Bounds,
}

/// Weights and bias, as the way to compute wants them.
#[derive(Debug, PartialEq)]
enum Weights {
    /// One kernel of an output channel after the other, and one bias for each.
    Taps(Vec<f32>, Vec<f32>),
    Product(Packed),
}

impl PartialEq for Direct {
    fn eq(&self, other: &Self) -> bool {
        let bits = |bounds: Bounds| bounds.map(|(low, high)| (low.to_bits(), high.to_bits()));
        self.spec == other.spec
            && self.groups == other.groups
            && self.weights == other.weights
            && bits(self.bounds) == bits(other.bounds)
    }
}

impl Eq for Direct {}

impl Op for Direct {
    fn name(&self) -> StaticName {
        "PetrelDirectConvolution".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let mut info = self.spec.info();
        info.push(format!("bounds {:?}", self.bounds));
        Ok(info)
    }

    fn validation(&self) -> Validation {
        Validation::Rounding
    }

    op_as_typed_op!();
}

impl TypedOp for Direct {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.spec.output_facts(inputs)
    }

    as_op!();
}

impl EvalOp for Direct {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let shape = self.spec.data_format.shape(input.shape())?;
        let mut output = Tensor::zero::<f32>(&self.spec.output_shape(input.shape())?.shape)?;
        if output.len() == 0 || input.len() == 0 {
            ensure!(output.len() == 0, "a convolution of an empty input");
            return Ok(tvec!(output.into_tvalue()));
        }
        let (y, x) = axes(&self.spec, shape.hw_dims());
        let planes = input.try_as_plain_ram()?;
        let planes = planes.as_slice::<f32>()?;
        let mut out = output.try_as_plain_ram_mut()?;
        let out = out.as_slice_mut::<f32>()?;
        match &*self.weights {
            Weights::Taps(kernels, bias) => self.convolve((y, x), planes, (kernels, bias), out),
            Weights::Product(packed) => packed.convolve(Level::new(), &Layout::new(y, x), planes, self.bounds, out),
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

impl Direct {
    /// The planes of a group are copied once, for all the kernels that look at them.
    fn convolve(&self, (y, x): (Axis, Axis), planes: &[f32], (kernels, bias): (&[f32], &[f32]), out: &mut [f32]) {
        let level = Level::new();
        let (seen, given) = (self.spec.input_channels / self.groups, self.spec.output_channels / self.groups);
        if let Some(same) = Same::new(y, x) {
            return same.convolve(level, (planes, seen), (kernels, bias), self.bounds, (out, given));
        }
        let layout = &Layout::new(y, x);
        let volume = kernels.len() / self.spec.output_channels;
        let each_in = layout.plane();
        let each_out = out.len() / (planes.len() / each_in / seen * given);
        let (mut room, mut sums) = (layout.room(seen), layout.sums());
        let offsets = layout.offsets();
        let of_plane = |plane: usize| offsets.iter().map(move |offset| (plane * layout.copied() + offset, 0.0));
        let mut taps: Vec<(usize, f32)> = (0..seen).flat_map(of_plane).collect();
        for (index, group) in planes.chunks_exact(seen * each_in).enumerate() {
            for (plane, copy) in group.chunks_exact(each_in).zip(room.chunks_exact_mut(layout.copied())) {
                layout.copy(plane, copy);
            }
            for output in index * given..(index + 1) * given {
                let channel = output % self.spec.output_channels;
                let kernel = &kernels[channel * volume..][..volume];
                taps.iter_mut().zip(kernel).for_each(|((_, tap), weight)| *tap = *weight);
                let out = &mut out[output * each_out..][..each_out];
                layout.convolve(level, &room, &taps, (bias[channel], self.bounds), &mut sums, out);
            }
        }
    }
}

/// Down and across; a model with one spatial axis has the second.
fn axes(spec: &PoolSpec, spatial: &[usize]) -> (Axis, Axis) {
    let padded = spec.computed_padding(spatial);
    let axis = |index: usize| Axis {
        input: spatial[index],
        output: padded[index].convoluted,
        kernel: spec.kernel_shape[index],
        stride: spec.stride(index),
        dilation: spec.dilation(index),
        before: padded[index].pad_before,
    };
    let flat = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, before: 0 };
    if spatial.len() == 1 { (flat, axis(0)) } else { (axis(0), axis(1)) }
}

/// Outputs that look at the same planes, below which each is summed tap by tap: it does
/// not pay to gather for so few what the taps see.
const FEW_OUTPUTS: usize = 8;

/// Keeps convolutions that see one element from being made matrix products by the
/// library, which would then be split where planes are joined, and turned around
/// where there are several rows. It does so where the dilation is 1, which is
/// without meaning where there is nothing to dilate: so it is made another.
pub(super) fn keep(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes.len() {
        let node = &model.nodes[id];
        let Some(conv) = node.op_as::<Conv>().filter(|conv| sees_one(conv)) else { continue };
        if conv.q_params.is_some() || model.outlet_fact(node.inputs[0])?.datum_type != f32::datum_type() {
            continue;
        }
        let mut conv = conv.clone();
        // Where a stride is taken out, the dilation is divided by it.
        conv.pool_spec.dilations = Some(conv.pool_spec.strides().iter().map(|stride| 2 * stride).collect());
        model.nodes[id].op = Box::new(conv);
    }
    Ok(())
}

/// Gives back those that were kept and not taken; whether there were any.
pub(super) fn release(model: &mut TypedModel) -> bool {
    let mut any = false;
    for node in &mut model.nodes {
        let Some(conv) = node.op_as::<Conv>().filter(|conv| sees_one(conv)) else { continue };
        if conv.pool_spec.dilations().iter().any(|dilation| *dilation != 1) {
            let mut conv = conv.clone();
            conv.pool_spec.dilations = None;
            node.op = Box::new(conv);
            any = true;
        }
    }
    any
}

fn sees_one(conv: &Conv) -> bool {
    conv.pool_spec.kernel_shape.iter().all(|size| *size == 1)
}

/// Puts ours in the place of each convolution that it knows. For a model that the library has simplified, and not yet made ready to run.
pub(super) fn rewrite(model: &mut TypedModel) -> TractResult<()> {
    pool::rewrite(model)?;
    for id in 0..model.nodes.len() {
        let Some(mut op) = ours(model, &model.nodes[id])? else { continue };
        let mut last = id;
        while let Some((next, bounds)) = clamp_after(model, last)? {
            op.bounds = Some(within(op.bounds, bounds));
            last = next;
        }
        put(model, id, last, "direct convolution", op)?;
    }
    model.compact()
}

fn ours(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Direct>> {
    let Some(conv) = node.op_as::<Conv>() else { return Ok(None) };
    let [input, kernels, bias] = node.inputs[..] else { return Ok(None) };
    let (input, spec) = (model.outlet_fact(input)?, &conv.pool_spec);
    let (Some(kernels), Some(bias)) = (&model.outlet_fact(kernels)?.konst, &model.outlet_fact(bias)?.konst) else {
        return Ok(None);
    };
    let float = |dt: DatumType| dt == f32::datum_type();
    let known = conv.q_params.is_none()
        && conv.kernel_fmt == KernelFormat::OIHW
        && matches!(spec.data_format, DataFormat::NCHW | DataFormat::CHW)
        && matches!(spec.rank(), 1 | 2)
        && float(input.datum_type)
        && float(kernels.datum_type())
        && float(bias.datum_type())
        && input.is_plain()
        && kernels.is_plain()
        && bias.is_plain()
        && conv.group > 0
        && spec.input_channels.is_multiple_of(conv.group)
        && spec.output_channels.is_multiple_of(conv.group);
    if !known {
        return Ok(None);
    }
    let seen = spec.input_channels / conv.group;
    let terms = seen * spec.kernel_shape.iter().product::<usize>();
    if kernels.len() != spec.output_channels * terms {
        return Ok(None);
    }
    let numbers = |tensor: &Tensor| TractResult::Ok(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec());
    let (kernels, mut bias) = (numbers(kernels)?, numbers(bias)?);
    if bias.len() == 1 {
        bias = vec![bias[0]; spec.output_channels];
    }
    if bias.len() != spec.output_channels || kernels.is_empty() {
        return Ok(None);
    }
    let few = spec.output_channels / conv.group < FEW_OUTPUTS;
    let weights = if few {
        Weights::Taps(kernels, bias)
    } else {
        Weights::Product(Packed::new(conv.group, seen, &kernels, &bias))
    };
    Ok(Some(Direct { spec: spec.clone(), groups: conv.group, weights: weights.into(), bounds: None }))
}

/// `op` in the place of the nodes from `first` to `last`, each the only one that takes the output of the one before.
pub(super) fn put(
    model: &mut TypedModel,
    first: usize,
    last: usize,
    why: &str,
    op: impl Into<Box<dyn TypedOp>>,
) -> TractResult<()> {
    let mut patch = TypedModelPatch::new(why);
    let input = patch.tap_model(model, model.nodes[first].inputs[0])?;
    let output = patch.wire_node(&model.nodes[last].name, op, &[input])?;
    patch.shunt_outside(model, last.into(), output[0])?;
    patch.obliterate(last)?;
    patch.apply(model)
}

/// Bounds, and then others. What comes later has the last word, as it has where the bounds cross.
pub(super) fn within(first: Bounds, (low, high): (f32, f32)) -> (f32, f32) {
    let first = first.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
    (first.0.max(low).min(high), first.1.max(low).min(high))
}

/// The node that alone takes this one's output and only bounds it by constants.
pub(super) fn clamp_after(model: &TypedModel, id: usize) -> TractResult<Option<(usize, (f32, f32))>> {
    let Some(next) = model.single_succ(id)? else { return Ok(None) };
    let (Some(op), 2) = (next.op_as::<TypedBinOp>(), next.inputs.len()) else { return Ok(None) };
    let other = next.inputs.iter().find(|input| input.node != id);
    let Some(constant) = other.map(|other| model.outlet_fact(*other)).transpose()?.and_then(|fact| fact.konst.as_ref())
    else {
        return Ok(None);
    };
    if constant.len() != 1 || constant.datum_type() != f32::datum_type() || model.outputs.contains(&id.into()) {
        return Ok(None);
    }
    let limit = *constant.try_as_plain_ram()?.as_slice::<f32>()?.first().context("a constant of one number")?;
    let bounds = if op.0.is::<Max>() {
        (limit, f32::INFINITY)
    } else if op.0.is::<Min>() {
        (f32::NEG_INFINITY, limit)
    } else {
        return Ok(None);
    };
    Ok((!limit.is_nan()).then_some((next.id, bounds)))
}
