//! The convolutions and pools beside their definitions, on random shapes.

use tract_onnx::tract_core::ops::cnn::{MaxPool, PaddingSpec, SumPool};
use tract_onnx::tract_core::ops::math::{max, min};

use super::*;
use crate::testing::Chance;

/// One convolution's case: sizes and attributes of each spatial axis.
#[derive(Debug)]
struct Case {
    batch: usize,
    groups: usize,
    /// Input channels of a group.
    seen: usize,
    /// Output channels of a group.
    given: usize,
    axes: Vec<Axis>,
    after: Vec<usize>,
    bounds: Bounds,
}

impl Case {
    fn any(chance: &mut Chance) -> Case {
        let (mut axes, mut after) = (vec![], vec![]);
        for _ in 0..chance.below(2) + 1 {
            let (kernel, stride, dilation) = (chance.below(5) + 1, chance.below(3) + 1, chance.below(3) + 1);
            let (before, behind) = (chance.below(4), chance.below(4));
            let field = (kernel - 1) * dilation + 1;
            let long = if chance.below(4) == 0 { 90 } else { 18 };
            let input = (chance.below(long) + 1).max(field.saturating_sub(before + behind)).max(1);
            let output = (input + before + behind - field) / stride + 1;
            axes.push(Axis { input, output, kernel, stride, dilation, before });
            after.push(behind);
        }
        let bounds = [None, Some((0.0, f32::INFINITY)), Some((-0.3, 0.4))][chance.below(3)];
        let (batch, groups, given) = (chance.below(3) + 1, chance.below(4) + 1, chance.below(20) + 1);
        let seen = if chance.below(2) == 0 { 1 } else { chance.below(10) + 1 };
        Case { batch, groups, seen, given, axes, after, bounds }
    }

    fn model(&self, kernels: &[f32], bias: &[f32], channels_first: bool) -> TypedModel {
        let each = |of: fn(&Axis) -> usize| self.axes.iter().map(of).collect::<TVec<usize>>();
        let mut shape = vec![self.batch, self.groups * self.seen];
        shape.extend(each(|axis| axis.input));
        let mut weights = vec![self.groups * self.given, self.seen];
        weights.extend(each(|axis| axis.kernel));
        if !channels_first {
            let channels = shape.remove(1);
            shape.push(channels);
        }
        let conv = Conv {
            pool_spec: PoolSpec {
                data_format: if channels_first { DataFormat::NCHW } else { DataFormat::NHWC },
                kernel_shape: each(|axis| axis.kernel),
                padding: PaddingSpec::Explicit(each(|axis| axis.before), self.after.iter().copied().collect()),
                dilations: Some(each(|axis| axis.dilation)),
                strides: Some(each(|axis| axis.stride)),
                input_channels: self.groups * self.seen,
                output_channels: self.groups * self.given,
            },
            kernel_fmt: KernelFormat::OIHW,
            group: self.groups,
            q_params: None,
        };
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact(&shape)).unwrap();
        let kernels = model.add_const("kernels", Tensor::from_shape(&weights, kernels).unwrap()).unwrap();
        let bias = model.add_const("bias", Tensor::from_shape(&[bias.len()], bias).unwrap()).unwrap();
        let mut y = model.wire_node("conv", conv, &[x, kernels, bias]).unwrap();
        if let Some((low, high)) = self.bounds {
            let scalar = |value: f32| tensor0(value).broadcast_scalar_to_shape(&vec![1; shape.len()]).unwrap();
            let low = model.add_const("low", scalar(low)).unwrap();
            let high = model.add_const("high", scalar(high)).unwrap();
            y = model.wire_node("max", max(), &[y[0], low]).unwrap();
            y = model.wire_node("min", min(), &[y[0], high]).unwrap();
        }
        model.select_output_outlets(&y).unwrap();
        model
    }

    /// The definition, term by term.
    fn expected(&self, input: &[f32], kernels: &[f32], bias: &[f32]) -> Vec<f32> {
        let flat = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, before: 0 };
        let x = self.axes[self.axes.len() - 1];
        let y = if self.axes.len() == 2 { self.axes[0] } else { flat };
        let mut out = vec![];
        for plane in 0..self.batch * self.groups * self.given {
            let channel = plane % (self.groups * self.given);
            for (row, column) in (0..y.output).flat_map(|row| (0..x.output).map(move |column| (row, column))) {
                let mut sum = f64::from(bias[channel]);
                for (seen, down, right) in self.terms(y.kernel, x.kernel) {
                    let at = |axis: Axis, output: usize, tap: usize| {
                        let position = (output * axis.stride + tap * axis.dilation).checked_sub(axis.before);
                        position.filter(|position| *position < axis.input)
                    };
                    if let (Some(row), Some(column)) = (at(y, row, down), at(x, column, right)) {
                        let from = plane / self.given * self.seen + seen;
                        let tap = kernels[((channel * self.seen + seen) * y.kernel + down) * x.kernel + right];
                        sum += f64::from(tap) * f64::from(input[(from * y.input + row) * x.input + column]);
                    }
                }
                let (low, high) = self.bounds.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
                out.push((sum as f32).max(low).min(high));
            }
        }
        out
    }

    fn terms(&self, rows: usize, columns: usize) -> Vec<(usize, usize, usize)> {
        let taps = move |seen| (0..rows).flat_map(move |row| (0..columns).map(move |column| (seen, row, column)));
        (0..self.seen).flat_map(taps).collect()
    }
}

fn is_ours(model: &TypedModel) -> bool {
    model.nodes.iter().any(|node| node.op_is::<Direct>())
}

#[test]
fn it_agrees_with_the_definition_for_any_shape_and_attributes() {
    let mut chance = Chance(7);
    for _ in 0..600 {
        let case = Case::any(&mut chance);
        let outputs = case.groups * case.given;
        let volume: usize = case.seen * case.axes.iter().map(|axis| axis.kernel).product::<usize>();
        let elements: usize =
            case.batch * case.groups * case.seen * case.axes.iter().map(|axis| axis.input).product::<usize>();
        let (kernels, bias) = (chance.floats(outputs * volume), chance.floats(outputs));
        let input = chance.floats(elements);
        let mut model = case.model(&kernels, &bias, true);
        let shape = model.outlet_fact(model.inputs[0]).unwrap().shape.as_concrete().unwrap().to_vec();
        rewrite(&mut model).unwrap();
        assert!(is_ours(&model), "{case:?}");
        assert_eq!(model.nodes.len(), 2, "the bounds are not taken in: {case:?}");
        let x = Tensor::from_shape(&shape, &input).unwrap().into_tvalue();
        let got = model.into_optimized().unwrap().into_runnable().unwrap().run(tvec!(x)).unwrap();
        let expected = case.expected(&input, &kernels, &bias);
        let got = got[0].to_plain_array_view::<f32>().unwrap();
        assert_eq!(got.len(), expected.len(), "{case:?}");
        let apart = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max);
        assert!(apart < 3e-5, "{apart} {case:?}");
    }
}

#[test]
fn a_free_batch_axis_takes_any_number_of_rows() {
    let mut chance = Chance(3);
    let axis = Axis { input: 9, output: 9, kernel: 3, stride: 1, dilation: 1, before: 1 };
    let case = Case { batch: 1, groups: 3, seen: 1, given: 1, axes: vec![axis; 2], after: vec![1, 1], bounds: None };
    let (kernels, bias) = (chance.floats(27), chance.floats(3));
    let mut model = case.model(&kernels, &bias, true);
    let free = model.symbols.sym("N");
    let fact = f32::fact([free.to_dim(), 3.to_dim(), 9.to_dim(), 9.to_dim()]);
    model.set_outlet_fact(model.inputs[0], fact.clone()).unwrap();
    rewrite(&mut model).unwrap();
    assert_eq!(model.outlet_fact(model.outputs[0]).unwrap().shape, fact.shape);
    let plan = model.into_runnable().unwrap();
    for batch in [1, 4] {
        let input = chance.floats(batch * 3 * 81);
        let x = Tensor::from_shape(&[batch, 3, 9, 9], &input).unwrap();
        let got = plan.run(tvec!(x.into_tvalue())).unwrap();
        let axes = case.axes.clone();
        let expected = Case { batch, axes, after: vec![1, 1], ..case }.expected(&input, &kernels, &bias);
        assert_eq!(got[0].shape(), [batch, 3, 9, 9]);
        for (got, expected) in got[0].to_plain_array_view::<f32>().unwrap().iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn what_it_does_not_know_it_leaves_alone() {
    let mut chance = Chance(5);
    let axis = Axis { input: 9, output: 9, kernel: 3, stride: 1, dilation: 1, before: 1 };
    let case = Case { batch: 1, groups: 4, seen: 1, given: 1, axes: vec![axis; 2], after: vec![1, 1], bounds: None };
    let (kernels, bias) = (chance.floats(36), chance.floats(4));
    let mut model = case.model(&kernels, &bias, false);
    rewrite(&mut model).unwrap();
    assert!(!is_ours(&model));
    // The unbounded sum is an answer, too: it must stay.
    let bounded = Case { bounds: Some((0.0, 1.0)), axes: case.axes.clone(), after: vec![1, 1], ..case };
    let mut model = bounded.model(&kernels, &bias, true);
    let (conv, out) = (model.node_by_name("conv").unwrap().id, model.outputs[0]);
    model.select_output_outlets(&[conv.into(), out]).unwrap();
    rewrite(&mut model).unwrap();
    assert!(is_ours(&model) && model.node_by_name("max").is_ok());
}

/// The answer of a model of one operator, after `rewrite`.
fn answer(op: impl Into<Box<dyn TypedOp>>, shape: &[usize], x: &[f32]) -> (TypedModel, Vec<f32>) {
    let mut model = TypedModel::default();
    let input = model.add_source("x", f32::fact(shape)).unwrap();
    let out = model.wire_node("y", op, &[input]).unwrap();
    model.select_output_outlets(&out).unwrap();
    rewrite(&mut model).unwrap();
    let x = Tensor::from_shape(shape, x).unwrap().into_tvalue();
    let got = model.clone().into_runnable().unwrap().run(tvec!(x)).unwrap();
    let got = got[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect();
    (model, got)
}

#[test]
fn pools_agree_with_the_definition_for_any_shape_and_attributes() {
    let mut chance = Chance(11);
    for round in 0..300 {
        let case = Case::any(&mut chance);
        let each = |of: fn(&Axis) -> usize| case.axes.iter().map(of).collect::<TVec<usize>>();
        let mut shape = vec![case.batch, case.seen];
        shape.extend(each(|axis| axis.input));
        let pool_spec = PoolSpec {
            data_format: DataFormat::NCHW,
            kernel_shape: each(|axis| axis.kernel),
            padding: PaddingSpec::Explicit(each(|axis| axis.before), case.after.iter().copied().collect()),
            dilations: Some(each(|axis| axis.dilation)),
            strides: Some(each(|axis| axis.stride)),
            input_channels: case.seen,
            output_channels: case.seen,
        };
        let x = chance.floats(shape.iter().product());
        let (greatest, padded) = (round % 3 == 0, round % 3 == 1);
        let op: Box<dyn TypedOp> = if greatest {
            Box::new(MaxPool { pool_spec, with_index_outputs: None })
        } else {
            Box::new(SumPool { pool_spec, count_include_pad: padded, normalize: true })
        };
        let (model, got) = answer(op, &shape, &x);
        assert!(model.nodes.iter().any(|node| node.op().name() == "PetrelPool"), "{case:?}");
        let flat = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, before: 0 };
        let right = case.axes[case.axes.len() - 1];
        let down = if case.axes.len() == 2 { case.axes[0] } else { flat };
        let at = |axis: Axis, output: usize, tap: usize| {
            (output * axis.stride + tap * axis.dilation).checked_sub(axis.before).filter(|at| *at < axis.input)
        };
        let mut got = got.into_iter();
        for plane in x.chunks_exact(down.input * right.input) {
            for (row, column) in (0..down.output).flat_map(|y| (0..right.output).map(move |x| (y, x))) {
                let taps = (0..down.kernel).flat_map(|y| (0..right.kernel).map(move |x| (y, x)));
                let seen = taps.filter_map(|(y, x)| Some(at(down, row, y)? * right.input + at(right, column, x)?));
                let seen: Vec<f32> = seen.map(|at| plane[at]).collect();
                let count = if padded { down.kernel * right.kernel } else { seen.len() };
                let expected = if greatest {
                    seen.iter().copied().fold(f32::MIN, f32::max)
                } else {
                    seen.iter().sum::<f32>() / count as f32
                };
                let got = got.next().unwrap();
                let alike = (got - expected).abs() < 1e-5 || got.is_nan() && expected.is_nan() || got == expected;
                assert!(alike, "{got} {expected} {case:?}");
            }
        }
        assert_eq!(got.next(), None);
    }
}

#[test]
fn what_is_not_a_number_stays_so_and_only_where_it_is_seen() {
    let axis = Axis { input: 9, output: 9, kernel: 3, stride: 1, dilation: 1, before: 1 };
    // Tap by tap with outputs as inputs and without, and as a product.
    for (stride, given) in [(1, 1), (2, 1), (1, 9)] {
        let axis = Axis { stride, output: 8 / stride + 1, ..axis };
        let bounds = Some((0.0, f32::INFINITY));
        let case = Case { batch: 1, groups: 1, seen: 1, given, axes: vec![axis; 2], after: vec![1, 1], bounds };
        let (kernels, bias) = (vec![1.0; 9 * given], vec![0.0; given]);
        let mut model = case.model(&kernels, &bias, true);
        rewrite(&mut model).unwrap();
        assert!(is_ours(&model));
        let mut input = vec![-1.0; 81];
        // At the end of a row: the next row's beginning must not see it.
        (input[4 * 9 + 8], input[80]) = (f32::NAN, f32::INFINITY);
        let x = Tensor::from_shape(&[1, 1, 9, 9], &input).unwrap().into_tvalue();
        let got = model.into_runnable().unwrap().run(tvec!(x)).unwrap();
        let got = got[0].to_plain_array_view::<f32>().unwrap();
        for (at, got) in got.iter().enumerate() {
            let (row, column) = (at / axis.output % axis.output * stride, at % axis.output * stride);
            let sees = |y: usize, x: usize| row.abs_diff(y) < 2 && column.abs_diff(x) < 2;
            let expected = if sees(8, 8) { f32::INFINITY } else { 0.0 };
            assert!(if sees(4, 8) { got.is_nan() } else { *got == expected }, "{got} at {row} {column}");
        }
    }
}
