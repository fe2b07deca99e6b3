//! Tree ensembles as operators of the inference library.
//!
//! Decides names, shapes and element types, and how a tensor becomes rows. Does not
//! know how a row is answered.

use std::sync::Arc;

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::finish::Finish;
use super::layout::{Drawn, Forest, Number};
use super::{attributes, attributes_v5};

/// Puts the operators in the place of the library's own.
pub(in super::super) fn register(onnx: &mut Onnx) {
    onnx.op_register.insert("TreeEnsembleClassifier", |ctx, node| operator(ctx, node, attributes::classifier));
    onnx.op_register.insert("TreeEnsembleRegressor", |ctx, node| operator(ctx, node, attributes::regressor));
    onnx.op_register.insert("TreeEnsemble", |ctx, node| operator(ctx, node, attributes_v5::ensemble));
}

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

fn operator(
    ctx: &ParsingContext,
    node: &NodeProto,
    read: fn(&ParsingContext, &NodeProto) -> TractResult<(Drawn, Finish)>,
) -> Built {
    let (drawn, finish) = read(ctx, node)?;
    // A classifier gives labels and scores, and a file may name either alone.
    let wanted = match finish.classes {
        Some(_) => (0..2).filter(|at| node.output.get(*at).is_some_and(|name| !name.is_empty())).collect(),
        None => tvec!(0),
    };
    let wide = node.op_type == "TreeEnsemble";
    Ok((expand(Ensemble { drawn: Arc::new(drawn), finish, wanted, wide }), vec![]))
}

/// An ensemble whose input's type is not known yet.
#[derive(Debug, Clone)]
struct Ensemble {
    drawn: Arc<Drawn>,
    finish: Finish,
    /// Which of its outputs the file names.
    wanted: TVec<usize>,
    /// Its scores are of the input's type, not always floats.
    wide: bool,
}

impl Expansion for Ensemble {
    fn name(&self) -> StaticName {
        "TreeEnsemble".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, self.wanted.len())?;
        for (output, which) in outputs.iter().zip(&self.wanted) {
            let labels = self.finish.classes.as_ref().filter(|_| *which == 0);
            match labels {
                Some(classes) => {
                    s.equals(&output.rank, 1)?;
                    s.equals(&output.datum_type, classes.labels.datum_type())?;
                }
                None => {
                    s.equals(&output.rank, 2)?;
                    s.equals(&output.shape[1], self.drawn.targets.to_dim())?;
                    match self.wide {
                        true => s.equals(&output.datum_type, &inputs[0].datum_type)?,
                        false => s.equals(&output.datum_type, f32::datum_type())?,
                    }
                }
            }
            s.given(&inputs[0].shape, move |s, shape| {
                let rows = if shape.len() == 1 { 1.to_dim() } else { shape[0].clone() };
                s.equals(&output.shape[0], rows)
            })?;
        }
        Ok(())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?;
        let outlets = match fact.datum_type {
            DatumType::F64 => model.wire_node(prefix, self.planted::<f64>(fact)?, inputs)?,
            DatumType::F32 | DatumType::I64 | DatumType::I32 => {
                model.wire_node(prefix, self.planted::<f32>(fact)?, inputs)?
            }
            other => bail!("a tree ensemble takes floats, doubles and whole numbers, not {other:?}"),
        };
        Ok(self.wanted.iter().map(|which| outlets[*which]).collect())
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.wanted.len())
    }
}

impl Ensemble {
    fn planted<T: Number>(&self, input: &TypedFact) -> TractResult<Planted<T>> {
        let forest = Forest::<T>::lay(&self.drawn)?;
        ensure!([1, 2].contains(&input.rank()), "a tree ensemble takes rows of features, not {} axes", input.rank());
        if let Some(width) = input.shape.last().and_then(|width| width.to_usize().ok()) {
            let features = forest.features;
            ensure!(features <= width, "its trees ask for {features} features, and its input has {width}");
        }
        Ok(Planted { forest: Arc::new(forest), finish: Arc::new(self.finish.clone()), wide: self.wide })
    }
}

/// An ensemble that computes in `T`.
#[derive(Debug, Clone)]
struct Planted<T> {
    forest: Arc<Forest<T>>,
    finish: Arc<Finish>,
    wide: bool,
}

/// Two are the same only when they are one.
impl<T> PartialEq for Planted<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.forest, &other.forest)
    }
}

impl<T> Eq for Planted<T> {}

impl<T: Number> Op for Planted<T> {
    fn name(&self) -> StaticName {
        "TreeEnsemble".into()
    }

    op_as_typed_op!();
}

/// Scores that one run may make: of all rows and targets.
const SCORES: usize = 1 << 28;

impl<T: Number> EvalOp for Planted<T> {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let (width, targets) = (input.shape().last().copied().unwrap_or(0), self.forest.targets);
        let features = self.forest.features.max(1);
        ensure!(width >= features, "its trees ask for {features} features, and a row has {width}");
        let rows = input.len() / width;
        let scores = rows.checked_mul(targets).filter(|scores| *scores <= SCORES);
        ensure!(scores.is_some(), "{rows} rows of {targets} scores are too many at once");
        let input = input.cast_to::<T>()?;
        let mut sums = self.forest.walk(input.try_as_plain_ram()?.as_slice::<T>()?, width);
        let chosen = self.finish.rows(&mut sums, targets, self.forest.aggregate, self.forest.roots.len());
        let mut scores = Tensor::from_shape(&[rows, targets], &sums.values)?;
        if !self.wide {
            scores = scores.cast_to::<f32>()?.into_owned();
        }
        Ok(match &self.finish.classes {
            Some(classes) => tvec!(classes.labels.tensor(&chosen).into_tvalue(), scores.into_tvalue()),
            None => tvec!(scores.into_tvalue()),
        })
    }
}

impl<T: Number> TypedOp for Planted<T> {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = &inputs[0].shape;
        let rows = if shape.rank() == 1 { 1.to_dim() } else { shape[0].clone() };
        let kind = if self.wide { T::datum_type() } else { f32::datum_type() };
        let scores = kind.fact([rows.clone(), self.forest.targets.to_dim()]);
        Ok(match &self.finish.classes {
            Some(classes) => tvec!(classes.labels.datum_type().fact([rows]), scores),
            None => tvec!(scores),
        })
    }

    as_op!();
}
