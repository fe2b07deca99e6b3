//! Operators of ONNX in which exponentials are added or undone.
//!
//! Decides them so that they neither overflow nor vanish: the largest exponent is taken out first. The
//! inference library's own answer infinity for arguments beyond 88, and some are wrong besides. Computed in
//! FP64 and rounded at the end.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, only, operator, values};

/// The operator set in which a softmax stopped to see everything from its axis on as one.
const ALONG_ONE_AXIS: i64 = 13;

pub(super) fn log_softmax(ctx: &ParsingContext, node: &NodeProto) -> Built {
    let flat = ctx.onnx_operator_set_version < ALONG_ONE_AXIS;
    let axis = node.get_attr_opt("axis")?.unwrap_or(if flat { 1 } else { -1 });
    operator(node, LogSoftmax { axis, flat })
}

pub(super) fn log_sum_exp(_: &ParsingContext, node: &NodeProto) -> Built {
    ensure!(node.input.len() == 1, "its axes must be constants");
    let axes = node.get_attr_opt_vec::<i64>("axes")?.unwrap_or_default();
    let keep = node.get_attr_opt::<i64>("keepdims")?.unwrap_or(1) == 1;
    let none = node.get_attr_opt::<i64>("noop_with_empty_axes")?.unwrap_or(0) == 1;
    operator(node, LogSumExp { axes, keep, none })
}

pub(super) fn softplus(_: &ParsingContext, node: &NodeProto) -> Built {
    operator(node, Each { of: |x, _| x.max(0.0) + (-x.abs()).exp().ln_1p(), alpha: 1.0 })
}

pub(super) fn celu(_: &ParsingContext, node: &NodeProto) -> Built {
    let alpha = node.get_attr_opt("alpha")?.unwrap_or(1.0);
    ensure!(alpha != 0.0, "alpha is 0");
    operator(node, Each { of: |x, alpha| if x > 0.0 { x } else { alpha * (x / alpha).exp_m1() }, alpha })
}

/// The values in FP64, and back in the type that they came in.
fn computed(input: &Tensor, shape: &[usize], work: impl FnOnce(&[f64]) -> Vec<f64>) -> TractResult<TVec<Tensor>> {
    let wide = input.cast_to::<f64>()?;
    let made = Tensor::from_shape(shape, &work(values::<f64>(&wide)?))?;
    Ok(tvec!(made.cast_to_dt(input.datum_type())?.into_owned()))
}

fn float(fact: &TypedFact) -> TractResult<()> {
    ensure!(fact.datum_type.is_float(), "it takes floats, not {:?}", fact.datum_type);
    Ok(())
}

fn place(axis: i64, rank: usize) -> TractResult<usize> {
    let at = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(at).ok().filter(|at| *at < rank).with_context(|| format!("there is no axis {axis} of {rank}"))
}

/// The logarithm of a sum of exponentials. All minus infinity, or any infinity, is itself.
fn log_sum(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = values.clone().fold(f64::NEG_INFINITY, |most, x| if x > most || x.is_nan() { x } else { most });
    if most.is_infinite() || most.is_nan() { most } else { most + values.map(|x| (x - most).exp()).sum::<f64>().ln() }
}

/// An operator that sees each value alone, with one parameter.
struct Each {
    of: fn(f64, f64) -> f64,
    alpha: f32,
}

impl std::fmt::Debug for Each {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Each").field("alpha", &self.alpha).finish_non_exhaustive()
    }
}

impl Kernel for Each {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        float(input)?;
        Ok(tvec!(input.datum_type.fact(input.shape.clone())))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        let one = |x: &f64| if x.is_nan() { *x } else { (self.of)(*x, self.alpha.into()) };
        computed(input, input.shape(), |values| values.iter().map(one).collect())
    }
}

/// The logarithm of a softmax along one axis, or over all from it on.
#[derive(Debug)]
struct LogSoftmax {
    axis: i64,
    flat: bool,
}

impl Kernel for LogSoftmax {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        float(input)?;
        place(self.axis, input.rank())?;
        Ok(tvec!(input.datum_type.fact(input.shape.clone())))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        let shape = input.shape();
        let axis = place(self.axis, shape.len())?;
        let inner: usize = if self.flat { 1 } else { shape[axis + 1..].iter().product() };
        let length: usize = if self.flat { shape[axis..].iter().product() } else { shape[axis] };
        computed(input, shape, |values| {
            let mut made = values.to_vec();
            let block = (length * inner).max(1);
            for block in made.chunks_mut(block) {
                for at in 0..inner {
                    let sum = log_sum(block[at..].iter().step_by(inner).copied());
                    block[at..].iter_mut().step_by(inner).for_each(|x| *x -= sum);
                }
            }
            made
        })
    }
}

/// The logarithm of a sum of exponentials over some axes; over all where none is named.
#[derive(Debug)]
struct LogSumExp {
    axes: Vec<i64>,
    keep: bool,
    /// Whether no axes mean none.
    none: bool,
}

impl LogSumExp {
    fn axes(&self, rank: usize) -> TractResult<Vec<usize>> {
        match (self.axes.is_empty(), self.none) {
            (true, false) => Ok((0..rank).collect()),
            _ => self.axes.iter().map(|axis| place(*axis, rank)).collect(),
        }
    }

    fn shape<D: Clone>(&self, given: &[D], one: D) -> TractResult<TVec<D>> {
        let axes = self.axes(given.len())?;
        let left = given.iter().enumerate().filter_map(|(at, length)| match (axes.contains(&at), self.keep) {
            (true, false) => None,
            (true, true) => Some(one.clone()),
            (false, _) => Some(length.clone()),
        });
        Ok(left.collect())
    }
}

impl Kernel for LogSumExp {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        float(input)?;
        Ok(tvec!(input.datum_type.fact(self.shape(&input.shape.to_tvec(), 1.to_dim())?)))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        let given = input.shape();
        let axes = self.axes(given.len())?;
        let shape = self.shape(given, 1)?;
        computed(input, &shape, |values| {
            let mut groups = vec![Vec::new(); shape.iter().product()];
            let mut index = vec![0; given.len()];
            for value in values {
                let kept = index.iter().zip(given).enumerate().filter(|(at, _)| !axes.contains(at));
                let group = kept.fold(0, |group, (_, (at, length))| group * length + at);
                groups[group].push(*value);
                for (at, length) in index.iter_mut().zip(given).rev() {
                    *at += 1;
                    if *at < *length {
                        break;
                    }
                    *at = 0;
                }
            }
            groups.into_iter().map(|group| log_sum(group.into_iter())).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::tensor::Tensor;
    use crate::testing::{Load, floats, graph, node, weights};
    use tract_onnx::pb::tensor_proto::DataType;
    use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

    fn one(operator: &str, attributes: Vec<AttributeProto>, input: &[f32], initializer: Vec<TensorProto>) -> Tensor {
        let mut inputs = vec!["x"];
        inputs.extend(initializer.iter().map(|_| "axes"));
        let node = NodeProto { attribute: attributes, ..node(operator, &inputs, &["y"]) };
        let model = graph(vec![node], initializer).load().unwrap();
        model.run(&[floats(&[input.len() / 2, 2], input)]).unwrap().remove(0)
    }

    fn near(got: &Tensor, expected: &[f32]) {
        assert_eq!(got.len(), expected.len(), "{got:?}");
        let near = |(got, want): (&f32, &f32)| got == want || (got - want).abs() <= 1e-6 * want.abs().max(1.0);
        assert!(got.as_f32().iter().zip(expected).all(near), "{got:?} is not {expected:?}");
    }

    #[test]
    fn far_exponents_neither_overflow_nor_vanish() {
        let rows = [-110.0, -120.0, 100.0, 2.0];
        let axes = AttributeProto { name: "axes".to_owned(), ints: vec![1], r#type: 7, ..Default::default() };
        near(&one("ReduceLogSumExp", vec![axes], &rows, vec![]), &[-109.999_95, 100.0]);
        let axes =
            TensorProto { data_type: DataType::Int64 as i32, int64_data: vec![-1], ..weights("axes", &[1], &[]) };
        near(&one("ReduceLogSumExp", vec![], &rows, vec![axes]), &[-109.999_95, 100.0]);
        near(&one("ReduceLogSumExp", vec![], &[1.0, 1.0], vec![]), &[1.0 + 2f32.ln()]);
        let infinite = [f32::NEG_INFINITY, f32::NEG_INFINITY];
        near(&one("ReduceLogSumExp", vec![], &infinite, vec![]), &[f32::NEG_INFINITY]);
        near(&one("LogSoftmax", vec![], &[0.0, -90.0, 500.0, -500.0], vec![]), &[0.0, -90.0, 0.0, -1000.0]);
        near(&one("Softplus", vec![], &[100.0, -100.0, 0.0, 1.0], vec![]), &[100.0, 0.0, 2f32.ln(), 1.313_261_7]);
    }

    #[test]
    fn celu_bends_by_its_alpha() {
        let alpha = |f| vec![AttributeProto { name: "alpha".to_owned(), f, r#type: 1, ..Default::default() }];
        for a in [0.5f32, 1.0, 2.0] {
            let expected = [3.0, a * ((-1.0 / a).exp() - 1.0)];
            near(&one("Celu", alpha(a), &[3.0, -1.0], vec![]), &expected);
        }
    }
}
