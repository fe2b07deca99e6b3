//! DequantizeLinear: from small integers to FP32, y = (x - zero point) * scale, along an axis or for all.
//!
//! The library's own operator computes the same, but where QuantizeLinear follows it, with nothing but
//! operators between them that keep the shape, the optimiser puts one table of 256 entries in place of them
//! all. That is right for Relu and silently wrong for Softmax, whose answer depends on the neighbours too: it
//! becomes 1 for every class. So it is written out here in plain arithmetic, which has no such optimisation.

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::tract_core::ops::math::{mul, sub};

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("DequantizeLinear", read);
}

fn read(_: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let block = node.get_attr_opt::<i64>("block_size")?.unwrap_or(0);
    ensure!(block == 0, "DequantizeLinear with blocks is not supported");
    let axis = node.get_attr_opt("axis")?.unwrap_or(1);
    let zero_point = node.input.get(2).is_some_and(|name| !name.is_empty());
    Ok((expand(DequantizeLinear { axis, zero_point }), vec![]))
}

#[derive(Debug, Clone)]
struct DequantizeLinear {
    axis: i64,
    zero_point: bool,
}

impl Expansion for DequantizeLinear {
    fn name(&self) -> StaticName {
        "DequantizeLinear".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2 + usize::from(self.zero_point))?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[1].datum_type, f32::datum_type())?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        if self.zero_point {
            solver.equals(&inputs[0].datum_type, &inputs[2].datum_type)?;
        }
        solver.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let rank = model.outlet_fact(inputs[0])?.rank();
        let mut wire = model.wire_node(format!("{prefix}.number"), cast(f32::datum_type()), &inputs[..1])?[0];
        if self.zero_point {
            let zero = self.along(model, inputs[2], rank)?;
            // Symmetric quantisation, which is most: there is nothing to subtract.
            if zero.try_as_plain_ram()?.as_slice::<f32>()?.iter().any(|zero| *zero != 0.0) {
                let zero = model.add_const(format!("{prefix}.zero_point"), zero)?;
                wire = model.wire_node(format!("{prefix}.centred"), sub(), &[wire, zero])?[0];
            }
        }
        let scale = self.along(model, inputs[1], rank)?;
        let scale = model.add_const(format!("{prefix}.scale"), scale)?;
        model.wire_node(prefix, mul(), &[wire, scale])
    }
}

impl DequantizeLinear {
    /// A constant as FP32 that lies along the axis, or serves for all when it is one.
    fn along(&self, model: &TypedModel, outlet: OutletId, rank: usize) -> TractResult<Tensor> {
        let constant = model.outlet_fact(outlet)?.konst.clone();
        let constant = constant.context("its scale and zero point must be constants")?;
        let mut shape = tvec![1; rank];
        if constant.len() != 1 {
            let axis = if self.axis < 0 { self.axis + rank as i64 } else { self.axis };
            let axis = usize::try_from(axis).ok().filter(|axis| *axis < rank);
            shape[axis.context("its axis is not one of the input's")?] = constant.len();
        }
        constant.cast_to::<f32>()?.into_owned().into_shape(&shape)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Load, floats, graph, node, weights};
    use tract_onnx::pb::tensor_proto::DataType;
    use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto, TensorProto};

    fn bytes(name: &str, kind: DataType, values: &[i32]) -> TensorProto {
        let mut tensor = weights(name, &[values.len() as i64], &[]);
        if values.len() == 1 {
            tensor.dims.clear();
        }
        tensor.data_type = kind as i32;
        tensor.int32_data = values.to_vec();
        tensor
    }

    fn scalar(name: &str, value: f32) -> TensorProto {
        TensorProto { dims: vec![], ..weights(name, &[1], &[value]) }
    }

    /// x, quantised; then `middle`; then quantised and dequantised again, each step 1 / 128.
    fn between(middle: Vec<NodeProto>, kind: DataType, zero: i32) -> ModelProto {
        let mut nodes = vec![
            node("QuantizeLinear", &["x", "in", "z"], &["q"]),
            node("DequantizeLinear", &["q", "in", "z"], &["a"]),
        ];
        nodes.extend(middle);
        nodes.push(node("QuantizeLinear", &["b", "out", "z"], &["p"]));
        nodes.push(node("DequantizeLinear", &["p", "out", "z"], &["y"]));
        graph(nodes, vec![scalar("in", 0.125), scalar("out", 1.0 / 128.0), bytes("z", kind, &[zero])])
    }

    fn answer(model: &ModelProto, values: &[f32]) -> Vec<f32> {
        let input = floats(&[values.len() / 2, 2], values);
        model.load().unwrap().run(&[input]).unwrap()[0].as_f32().into_owned()
    }

    /// The library's own operator answers 1 for every class here.
    #[test]
    fn a_softmax_between_quantised_tensors_is_a_softmax() {
        let both = || vec![node("Softmax", &["a"], &["c"]), node("Relu", &["c"], &["b"])];
        for middle in [vec![node("Softmax", &["a"], &["b"])], both()] {
            for (kind, zero) in
                [(DataType::Uint8, 0), (DataType::Uint8, 100), (DataType::Int8, 0), (DataType::Int8, -20)]
            {
                let model = between(middle.clone(), kind, zero);
                let got = answer(&model, &[0.0, 0.0, 0.0, 2.0, 1.0, 0.0]);
                let odds = |x: f32| 1.0 / (1.0 + x.exp());
                let expected = [0.5, 0.5, odds(2.0), odds(-2.0), odds(-1.0), odds(1.0)];
                for (got, expected) in got.iter().zip(expected) {
                    assert!((got - expected).abs() <= 1.0 / 256.0 + 1e-6, "{kind:?} {zero}: {got} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn what_a_table_could_do_is_still_right() {
        let model = between(vec![node("Relu", &["a"], &["b"])], DataType::Int8, 0);
        assert_eq!(answer(&model, &[-1.0, 0.25, 0.5, -0.125]), [0.0, 0.25, 0.5, 0.0]);
    }

    #[test]
    fn scales_lie_along_their_axis() {
        for (axis, expected) in
            [(Some(0), [1.0, 2.0, 30.0, 40.0]), (Some(-1), [1.0, 20.0, 3.0, 40.0]), (None, [1.0, 20.0, 3.0, 40.0])]
        {
            let mut weight = bytes("w", DataType::Int8, &[1, 2, 3, 4]);
            weight.dims = vec![2, 2];
            let mut dequantise = node("DequantizeLinear", &["w", "s", "z"], &["f"]);
            dequantise.attribute = axis
                .map(|i| AttributeProto { name: "axis".into(), r#type: 2, i, ..Default::default() })
                .into_iter()
                .collect();
            let scales = weights("s", &[2], &[1.0, 10.0]);
            let zero = bytes("z", DataType::Int8, &[0, 0]);
            let model = graph(vec![dequantise, node("Add", &["x", "f"], &["y"])], vec![weight, scales, zero]);
            assert_eq!(answer(&model, &[0.0; 4]), expected, "{axis:?}");
        }
    }
}
