//! Sums of whole numbers.
//!
//! Decides that they are added in their own type: the library adds them in 32 bits, where a sum of 64-bit numbers
//! becomes another number and nobody is told. Beyond its type a sum wraps, as it does in NumPy and in ONNX Runtime.
//! Knows nothing of the means and norms that are made of such sums.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};
use tract_onnx::tract_hir::internal::*;

/// A sum over some axes, each of which stays with one element.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WholeSum {
    axes: TVec<usize>,
}

/// The sums of one element type, of which there are four in ONNX.
macro_rules! sums {
    ($kind:ty, $input:expr, $axes:expr) => {{
        let mut sums = $input.to_plain_array_view::<$kind>()?.to_owned();
        for axis in $axes.iter().map(|axis| tract_ndarray::Axis(*axis)) {
            sums = sums.fold_axis(axis, 0, |sum: &$kind, next: &$kind| sum.wrapping_add(*next)).insert_axis(axis);
        }
        sums.into_tensor()
    }};
}

impl Op for WholeSum {
    fn name(&self) -> StaticName {
        "PetrelWholeSum".into()
    }

    op_as_typed_op!();
}

impl TypedOp for WholeSum {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        self.axes.iter().for_each(|axis| shape[*axis] = 1.to_dim());
        Ok(tvec!(inputs[0].datum_type.fact(shape)))
    }

    as_op!();
}

impl EvalOp for WholeSum {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let sums = match input.datum_type() {
            DatumType::I32 => sums!(i32, input, self.axes),
            DatumType::I64 => sums!(i64, input, self.axes),
            DatumType::U32 => sums!(u32, input, self.axes),
            DatumType::U64 => sums!(u64, input, self.axes),
            other => bail!("a sum of whole numbers does not take {other:?}"),
        };
        Ok(tvec!(sums.into_tvalue()))
    }
}

/// Puts ours in the place of each sum of whole numbers.
pub(super) fn rewrite(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes.len() {
        let node = &model.nodes[id];
        let Some(Reduce { axes, reducer: Reducer::Sum }) = node.op_as::<Reduce>() else { continue };
        let kind = model.outlet_fact(node.inputs[0])?.datum_type;
        if [DatumType::I32, DatumType::I64, DatumType::U32, DatumType::U64].contains(&kind) {
            let op = WholeSum { axes: axes.clone() };
            model.nodes[id].op = Box::new(op);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::tensor_proto::DataType;
    use tract_onnx::pb::{GraphProto, TensorProto};

    use crate::tensor::{Data, Tensor};
    use crate::testing::{self, Load, attribute, model, node, port};

    const LARGE: i64 = 3_000_000_000;

    /// What the operator makes of two rows of three, over these axes.
    fn reduced(operator: &str, kind: DataType, rows: Data, axes: Vec<i64>) -> Data {
        let mut reduce = node(operator, &["x", "axes"], &["y"]);
        reduce.attribute = vec![attribute("keepdims", 0)];
        let (dims, data_type) = (vec![axes.len() as i64], DataType::Int64 as i32);
        let axes = TensorProto { dims, data_type, int64_data: axes, ..testing::weights("axes", &[], &[]) };
        let mut proto = model(GraphProto {
            node: vec![reduce],
            initializer: vec![axes],
            input: vec![port("x", kind, &[None, Some(3)])],
            output: vec![port("y", kind, &[])],
            ..Default::default()
        });
        proto.opset_import[0].version = 18;
        let input = Tensor::new(vec![2, 3], rows).unwrap();
        proto.load().unwrap().run(&[input]).unwrap().remove(0).data
    }

    #[test]
    fn long_sums_keep_their_upper_bits() {
        let rows = || Data::I64(vec![LARGE, -1, LARGE, 1, i64::MAX, 1]);
        let of = |operator: &str, axes: Vec<i64>| reduced(operator, DataType::Int64, rows(), axes);
        assert_eq!(of("ReduceSum", vec![1]), Data::I64(vec![2 * LARGE - 1, i64::MIN + 1]));
        assert_eq!(of("ReduceSum", vec![0]), Data::I64(vec![LARGE + 1, i64::MAX - 1, LARGE + 1]));
        assert_eq!(of("ReduceSum", vec![0, -1]), Data::I64(vec![i64::MIN + 2 * LARGE]));
        assert_eq!(of("ReduceMean", vec![1]), Data::I64(vec![(2 * LARGE - 1) / 3, (i64::MIN + 1) / 3]));
        assert_eq!(of("ReduceL1", vec![0]), Data::I64(vec![LARGE + 1, i64::MIN, LARGE + 1]));
    }

    #[test]
    fn other_whole_numbers_are_added_in_their_own_type() {
        let unsigned = reduced("ReduceSum", DataType::Uint32, Data::U32(vec![1, 2, LARGE as u32, 4, 5, 6]), vec![1]);
        assert_eq!(unsigned, Data::U32(vec![LARGE as u32 + 3, 15]));
        let long = reduced("ReduceSum", DataType::Uint64, Data::U64(vec![u64::MAX - 3, 1, 1, 4, 5, 6]), vec![1]);
        assert_eq!(long, Data::U64(vec![u64::MAX - 1, 15]));
        let short = reduced("ReduceMean", DataType::Int32, Data::I32(vec![i32::MAX, 1, 0, -4, 1, 1]), vec![1]);
        assert_eq!(short, Data::I32(vec![i32::MIN / 3, 0]));
    }

    /// The library would add them itself, while it types the graph.
    #[test]
    fn sums_of_large_constants_are_refused() {
        let long = |name: &str, values: &[i64]| TensorProto {
            dims: vec![values.len() as i64],
            data_type: DataType::Int64 as i32,
            int64_data: values.to_vec(),
            ..testing::weights(name, &[], &[])
        };
        let summed = |values: &[i64]| {
            model(GraphProto {
                node: vec![node("ReduceSum", &["c"], &["sum"]), node("Add", &["x", "sum"], &["y"])],
                initializer: vec![long("c", values)],
                input: vec![port("x", DataType::Int64, &[None, Some(1)])],
                output: vec![port("y", DataType::Int64, &[None, Some(1)])],
                ..Default::default()
            })
        };
        let input = Tensor::new(vec![1, 1], Data::I64(vec![1])).unwrap();
        let answer = summed(&[20, 30]).load().unwrap().run(&[input]).unwrap();
        assert_eq!(answer[0].data, Data::I64(vec![51]));
        let error = summed(&[LARGE, 1]).load().unwrap_err().to_string();
        assert!(error.contains("a sum of constants beyond 32 bits"), "{error}");
    }
}
