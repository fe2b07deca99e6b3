//! One operator of ours in the inference library's terms.
//!
//! Decides how an operator's own arithmetic is joined to the library's graph, while
//! types are inferred and while it runs, and how its input is seen as rows. Knows no
//! operator.

use std::fmt::Debug;

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::cast::cast;

/// What an operator's builder gives to the library.
pub(super) type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// An operator: what it makes of which inputs, and the making itself.
pub(super) trait Kernel: Debug + Send + Sync + 'static {
    /// Type and shape of every output for these inputs, of which whole numbers from
    /// the graph come as INT64.
    ///
    /// # Errors
    /// When the operator does not take them.
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>>;

    /// The outputs' values, in the types and shapes of `facts`.
    ///
    /// # Errors
    /// When the values are none that the operator takes.
    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>>;
}

/// Joins a kernel to the graph at this node.
pub(super) fn operator(node: &NodeProto, kernel: impl Kernel) -> Built {
    ensure!(!node.input.is_empty(), "{} has no input", node.op_type);
    let wanted = node.output.iter().enumerate().filter(|(_, name)| !name.is_empty());
    let wanted = wanted.map(|(index, _)| index).collect();
    Ok((expand(Native { name: node.op_type.clone(), wanted, kernel: Arc::new(kernel) }), vec![]))
}

/// A kernel under its operator's name, with the outputs that the graph wants.
#[derive(Debug, Clone)]
struct Native {
    name: String,
    wanted: TVec<usize>,
    kernel: Arc<dyn Kernel>,
}

impl PartialEq for Native {
    fn eq(&self, other: &Native) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel) && self.wanted == other.wanted
    }
}

impl Eq for Native {}

impl Native {
    fn wanted<T: Clone>(&self, all: &[T]) -> TractResult<TVec<T>> {
        let one = |index: &usize| all.get(*index).cloned();
        let wanted: Option<TVec<T>> = self.wanted.iter().map(one).collect();
        wanted.with_context(|| format!("{} has {} outputs, and the graph wants more", self.name, all.len()))
    }

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.wanted(&self.kernel.facts(inputs).with_context(|| self.name.clone())?)
    }
}

impl Expansion for Native {
    fn name(&self) -> StaticName {
        self.name.clone().into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.wanted.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, self.wanted.len())?;
        s.given_all(inputs.iter().map(|input| &input.datum_type), move |s, kinds: Vec<DatumType>| {
            s.given_all(inputs.iter().map(|input| &input.shape), move |s, shapes: Vec<TVec<TDim>>| {
                let pairs = kinds.iter().zip(shapes);
                let facts: Vec<TypedFact> = pairs.map(|(kind, shape)| whole(*kind).fact(shape)).collect();
                for (output, fact) in outputs.iter().zip(self.facts(&facts.iter().collect::<Vec<_>>())?) {
                    s.equals(&output.datum_type, fact.datum_type)?;
                    s.equals(&output.shape, fact.shape.to_tvec())?;
                }
                Ok(())
            })
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let mut ready = TVec::new();
        for (index, input) in inputs.iter().enumerate() {
            let kind = model.outlet_fact(*input)?.datum_type;
            let name = format!("{prefix}.whole_{index}");
            ready.push(if kind == whole(kind) {
                *input
            } else {
                model.wire_node(name, cast(whole(kind)), &[*input])?[0]
            });
        }
        model.wire_node(prefix, self.clone(), &ready)
    }
}

/// The library counts in expressions of its own, which leave a graph as INT64.
fn whole(kind: DatumType) -> DatumType {
    if kind == DatumType::TDim { DatumType::I64 } else { kind }
}

impl Op for Native {
    fn name(&self) -> StaticName {
        self.name.clone().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Native {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let outputs = self.kernel.run(&inputs).with_context(|| self.name.clone())?;
        let outputs: Vec<TValue> = outputs.into_iter().map(Tensor::into_tvalue).collect();
        self.wanted(&outputs)
    }
}

impl TypedOp for Native {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.facts(inputs)
    }
}

/// The only one of a kernel's inputs.
pub(super) fn only<T>(inputs: &[T]) -> TractResult<&T> {
    let [input] = inputs else { bail!("it takes one input, not {}", inputs.len()) };
    Ok(input)
}

/// A shape [N, C], or [C] as one row, by rows and columns.
pub(super) fn matrix<D: Clone>(shape: &[D], one: D) -> TractResult<(D, D)> {
    match shape {
        [columns] => Ok((one, columns.clone())),
        [rows, columns] => Ok((rows.clone(), columns.clone())),
        _ => bail!("it takes rows of features, [N, C] or [C], and the input has {} axes", shape.len()),
    }
}

/// The number of rows of an input that must have this many columns.
pub(super) fn rows(fact: &TypedFact, columns: usize) -> TractResult<TDim> {
    let (rows, given) = matrix(&fact.shape, 1.to_dim())?;
    if let Ok(given) = given.to_usize() {
        ensure!(given == columns, "it is made for {columns} features, and the input has {given}");
    }
    Ok(rows)
}

/// Refuses what is no number of the specification's four types.
pub(super) fn numeric(kind: DatumType) -> TractResult<()> {
    let known = [DatumType::F32, DatumType::F64, DatumType::I64, DatumType::I32];
    ensure!(known.contains(&kind), "it takes float, double, int64 or int32, and the input is {kind:?}");
    Ok(())
}

/// Every attribute's numbers must be finite: one that is not would make every answer
/// wrong in silence.
pub(super) fn finite(name: &str, values: &[f32]) -> TractResult<()> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => bail!("{name}[{index}] is {}, not a finite number", values[index]),
        None => Ok(()),
    }
}

/// A node's list of finite numbers; empty where it has none.
pub(super) fn floats(node: &NodeProto, name: &str) -> TractResult<Vec<f32>> {
    let values = node.get_attr_opt_vec::<f32>(name)?.unwrap_or_default();
    finite(name, &values).with_context(|| node.op_type.clone())?;
    Ok(values)
}

/// An input's rows in FP32, and how many there are; each must have this many columns.
pub(super) fn float_rows(input: &Tensor, columns: usize) -> TractResult<(usize, Cow<'_, Tensor>)> {
    let (rows, given) = matrix(input.shape(), 1)?;
    ensure!(given == columns, "it is made for {columns} features, and the input has {given}");
    Ok((rows, input.cast_to::<f32>()?))
}

/// Elements of one answer; a few bytes of a file and a few rows can ask for any number.
const ELEMENTS: usize = 1 << 28;

/// How many elements an answer has, refused before they are made when too many.
pub(super) fn area(rows: usize, columns: usize) -> TractResult<usize> {
    let area = rows.checked_mul(columns).filter(|area| *area <= ELEMENTS);
    area.with_context(|| format!("{rows} times {columns} values are too many; at most {ELEMENTS} are allowed"))
}

/// The values of a tensor.
pub(super) fn values<T: Datum>(tensor: &Tensor) -> TractResult<&[T]> {
    tensor.try_as_plain_ram()?.as_slice::<T>()
}

/// A tensor of these values.
pub(super) fn tensor<T: Datum>(shape: &[usize], values: Vec<T>) -> TractResult<Tensor> {
    Ok(tract_ndarray::ArrayD::from_shape_vec(shape, values)?.into())
}

/// The sum of products, in eight sums that the processor can add at once.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_parts, a_rest) = a.as_chunks::<8>();
    let (b_parts, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a_parts.iter().zip(b_parts) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_limit() {
        assert_eq!(area(1 << 14, 1 << 14).unwrap(), ELEMENTS);
        assert!(area(1 << 14, (1 << 14) + 1).unwrap_err().to_string().contains("too many"));
        assert!(area(usize::MAX, 2).is_err());
    }

    #[test]
    fn the_sum_of_products_takes_every_element() {
        for length in [0, 1, 7, 8, 9, 17] {
            let ones = vec![1.0; length];
            let counted: Vec<f32> = (0..length).map(|index| index as f32).collect();
            assert_eq!(dot(&ones, &counted), counted.iter().sum::<f32>());
        }
    }
}
