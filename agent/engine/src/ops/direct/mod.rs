//! Convolution where each output sees few input channels, one or a handful:
//! depthwise convolutions, and the first of many models.
//!
//! Decides which convolutions of a model are computed here instead of by the
//! library (32-bit floats, one or two spatial axes, channels first, constant
//! kernels; at any stride, dilation, padding and number of groups), and takes the
//! bounds of a clamp that follows into the sum. Knows nothing of how planes are
//! convolved: that is `plane`.

mod plane;
#[cfg(test)]
mod tests;

use fearless_simd::Level;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, PoolSpec};
use tract_onnx::tract_core::ops::math::{Max, Min};
use tract_onnx::tract_core::ops::nn::DataFormat;
use tract_onnx::tract_hir::internal::*;

use plane::{Axis, Bounds, Layout};

/// A convolution with its weights. Input [N, C, spatial...] or
/// [C, spatial...], output the same with the output's channels.
#[derive(Debug, Clone)]
struct Direct {
    spec: PoolSpec,
    groups: usize,
    /// One kernel of an output channel after the other.
    kernels: Arc<Tensor>,
    /// One number for each output channel.
    bias: Arc<Tensor>,
    bounds: Bounds,
}

impl PartialEq for Direct {
    fn eq(&self, other: &Self) -> bool {
        let bits = |bounds: Bounds| bounds.map(|(low, high)| (low.to_bits(), high.to_bits()));
        self.spec == other.spec
            && self.groups == other.groups
            && self.kernels == other.kernels
            && self.bias == other.bias
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
        let layout = self.layout(shape.hw_dims());
        let (planes, kernels) = (input.try_as_plain_ram()?, self.kernels.try_as_plain_ram()?);
        let bias = self.bias.try_as_plain_ram()?;
        let (planes, kernels, bias) = (planes.as_slice::<f32>()?, kernels.as_slice::<f32>()?, bias.as_slice::<f32>()?);
        let mut out = output.try_as_plain_ram_mut()?;
        let out = out.as_slice_mut::<f32>()?;
        self.convolve(&layout, planes, (kernels, bias), out);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl Direct {
    fn layout(&self, spatial: &[usize]) -> Layout {
        let padded = self.spec.computed_padding(spatial);
        let axis = |index: usize| Axis {
            input: spatial[index],
            output: padded[index].convoluted,
            kernel: self.spec.kernel_shape[index],
            stride: self.spec.stride(index),
            dilation: self.spec.dilation(index),
            before: padded[index].pad_before,
        };
        let flat = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, before: 0 };
        if spatial.len() == 1 { Layout::new(flat, axis(0)) } else { Layout::new(axis(0), axis(1)) }
    }

    /// The planes of a group are copied once, for all the kernels that look at them.
    fn convolve(&self, layout: &Layout, planes: &[f32], (kernels, bias): (&[f32], &[f32]), out: &mut [f32]) {
        let level = Level::new();
        let (seen, given) = (self.spec.input_channels / self.groups, self.spec.output_channels / self.groups);
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

/// Terms of a sum up to which ours is the faster: with more, it pays to lay the
/// input out for the library's matrix product, which reads each number less often.
const FEW_TERMS: usize = 64;
/// Input channels up to which the kernels of a convolution with groups, or with
/// none, are looked at here.
const FEW_CHANNELS: usize = 4;

/// Puts ours in the place of each convolution that it knows. For a model that the library has simplified, and not yet made ready to run.
pub(super) fn rewrite(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes.len() {
        let Some(mut op) = ours(model, &model.nodes[id])? else { continue };
        let mut last = id;
        while let Some((next, bounds)) = clamp_after(model, last)? {
            let (low, high) = op.bounds.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
            // What comes later has the last word, as it has where the bounds cross.
            op.bounds = Some((low.max(bounds.0).min(bounds.1), high.max(bounds.0).min(bounds.1)));
            last = next;
        }
        let mut patch = TypedModelPatch::new("direct convolution");
        let input = patch.tap_model(model, model.nodes[id].inputs[0])?;
        let output = patch.wire_node(&model.nodes[last].name, op, &[input])?;
        patch.shunt_outside(model, last.into(), output[0])?;
        patch.obliterate(last)?;
        patch.apply(model)?;
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
    let few = seen == 1 && conv.group > 1 || seen <= FEW_CHANNELS && terms <= FEW_TERMS;
    if !few || kernels.len() != spec.output_channels * terms {
        return Ok(None);
    }
    let bias = match bias.len() {
        1 => bias
            .clone()
            .into_tensor()
            .into_shape(&[])?
            .broadcast_scalar_to_shape(&[spec.output_channels])?
            .into_arc_tensor(),
        channels if channels == spec.output_channels => bias.clone(),
        _ => return Ok(None),
    };
    Ok(Some(Direct { spec: spec.clone(), groups: conv.group, kernels: kernels.clone(), bias, bounds: None }))
}

/// The node that alone takes this one's output and only bounds it by constants.
fn clamp_after(model: &TypedModel, id: usize) -> TractResult<Option<(usize, (f32, f32))>> {
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
