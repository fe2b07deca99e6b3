//! Dense layers: rows times constant weights, a bias, and the bounds of a clamp.
//!
//! Decides which matrix products of a model are computed here instead of by the
//! library (32-bit floats, the last axis with a constant matrix), and takes the bias
//! and the clamp that follow into the sum. The library lays the rows out anew for each
//! product, which a few rows do not pay for. Knows nothing of how a product is computed.

#[cfg(test)]
mod tests;

use fearless_simd::Level;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math::Add;
use tract_onnx::tract_hir::internal::*;

use super::direct::{Bounds, clamp_after, put, within};
use super::product::Packed;

/// Columns below which most of a panel would be filling.
const FEW_COLUMNS: usize = 8;

/// A layer. Input [..., depth], output [..., columns].
#[derive(Debug, Clone)]
struct Dense {
    weights: Arc<Packed>,
    /// What each sum begins with, and so the number of columns.
    bias: Arc<Vec<f32>>,
    bounds: Bounds,
}

impl PartialEq for Dense {
    fn eq(&self, other: &Self) -> bool {
        let bits = |bounds: Bounds| bounds.map(|(low, high)| (low.to_bits(), high.to_bits()));
        self.weights == other.weights && self.bias == other.bias && bits(self.bounds) == bits(other.bounds)
    }
}

impl Eq for Dense {}

impl Dense {
    fn shape<D: Clone>(&self, input: &[D], columns: D) -> TVec<D> {
        let rows = &input[..input.len().saturating_sub(1)];
        rows.iter().cloned().chain([columns]).collect()
    }
}

impl Op for Dense {
    fn name(&self) -> StaticName {
        "PetrelDense".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let (depth, columns) = (self.weights.depth(), self.bias.len());
        Ok(vec![format!("{depth} to {columns}, bounds {:?}", self.bounds)])
    }

    fn validation(&self) -> Validation {
        Validation::Rounding
    }

    op_as_typed_op!();
}

impl TypedOp for Dense {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(self.shape(&inputs[0].shape.to_tvec(), self.bias.len().to_dim()))))
    }

    as_op!();
}

impl EvalOp for Dense {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let (depth, columns) = (self.weights.depth(), self.bias.len());
        ensure!(input.shape().last() == Some(&depth), "rows of {depth} numbers are needed, not {:?}", input.shape());
        let rows = input.try_as_plain_ram()?;
        let rows = rows.as_slice::<f32>()?.chunks_exact(depth);
        let mut output = Tensor::zero::<f32>(&self.shape(input.shape(), columns))?;
        let mut sums = output.try_as_plain_ram_mut()?;
        let sums = sums.as_slice_mut::<f32>()?;
        sums.chunks_exact_mut(columns).for_each(|row| row.copy_from_slice(&self.bias));
        self.weights.add(Level::new(), rows, 0..columns, (sums, columns), self.bounds);
        Ok(tvec!(output.into_tvalue()))
    }
}

/// Puts ours in the place of each product that it knows. For a model that the library has simplified, and not
/// yet made ready to run.
pub(super) fn rewrite(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes.len() {
        let Some(mut op) = ours(model, &model.nodes[id])? else { continue };
        let mut last = id;
        if let Some((next, bias)) = bias_after(model, last, op.bias.len())? {
            (op.bias, last) = (bias.into(), next);
        }
        while let Some((next, bounds)) = clamp_after(model, last)? {
            op.bounds = Some(within(op.bounds, bounds));
            last = next;
        }
        put(model, id, last, "dense layer", op)?;
    }
    model.compact()
}

/// Of a product over the last axis of its first input, with a constant matrix.
fn ours(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Dense>> {
    let (Some(op), [input, weights]) = (node.op_as::<EinSum>(), &node.inputs[..]) else { return Ok(None) };
    let (input, output) = (model.outlet_fact(*input)?, &node.outputs[0].fact);
    let Some(weights) = &model.outlet_fact(*weights)?.konst else { return Ok(None) };
    let float = f32::datum_type();
    let floats = [op.operating_dt, input.datum_type, weights.datum_type(), output.datum_type];
    let known = op.q_params.is_none() && floats.iter().all(|kind| *kind == float);
    if !known || !input.is_plain() || !weights.is_plain() || input.rank() == 0 || input.rank() != output.rank() {
        return Ok(None);
    }
    let last = input.rank() - 1;
    let (mut depth_at, mut columns_at) = (None, None);
    for axis in op.axes.iter_all_axes() {
        let ([a], [b], [c]) = (&axis.inputs[..1], &axis.inputs[1..], &axis.outputs[..]) else { return Ok(None) };
        match (&a[..], &b[..], &c[..]) {
            ([a], [b], []) if *a == last && depth_at.is_none() => depth_at = Some(*b),
            ([], [b], [c]) if *c == last => columns_at = Some(*b),
            ([a], [], [c]) if a == c => {}
            // The matrix is the same for all.
            ([a], [b], [c]) if a == c && weights.shape()[*b] == 1 => {}
            _ => return Ok(None),
        }
    }
    let (Some(depth_at), Some(columns_at)) = (depth_at, columns_at) else { return Ok(None) };
    let (depth, columns) = (weights.shape()[depth_at], weights.shape()[columns_at]);
    if depth * columns != weights.len() || depth == 0 || columns < FEW_COLUMNS {
        return Ok(None);
    }
    let (down, across) = if depth_at < columns_at { (columns, 1) } else { (1, depth) };
    let numbers = weights.try_as_plain_ram()?;
    let numbers = numbers.as_slice::<f32>()?;
    let packed = Packed::new(depth, columns, |row, column| numbers[row * down + column * across]);
    Ok(Some(Dense { weights: packed.into(), bias: vec![0.0; columns].into(), bounds: None }))
}

/// The node that alone takes this one's output and only adds constants to its columns.
fn bias_after(model: &TypedModel, id: usize, columns: usize) -> TractResult<Option<(usize, Vec<f32>)>> {
    let Some(next) = model.single_succ(id)? else { return Ok(None) };
    if !next.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<Add>()) || model.outputs.contains(&id.into()) {
        return Ok(None);
    }
    let Some(other) = next.inputs.iter().find(|input| input.node != id) else { return Ok(None) };
    let Some(bias) = &model.outlet_fact(*other)?.konst else { return Ok(None) };
    let same = model.outlet_fact(id.into())?.shape == next.outputs[0].fact.shape;
    let of_columns = bias.len() == 1 || bias.len() == columns && bias.shape().last() == Some(&columns);
    if !same || !of_columns || bias.datum_type() != f32::datum_type() || !bias.is_plain() {
        return Ok(None);
    }
    let numbers = bias.try_as_plain_ram()?;
    let numbers = numbers.as_slice::<f32>()?;
    Ok(Some((next.id, numbers.iter().copied().cycle().take(columns).collect())))
}
