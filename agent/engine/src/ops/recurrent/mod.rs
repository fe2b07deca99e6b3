//! ONNX's LSTM and GRU, a whole sequence at once.
//!
//! Decides what of the two operators is computed here: 32-bit floats, the usual
//! activations, no clipping; every direction, layout, length and initial state.
//! The rest is refused in words, because the library's own operators pass over
//! such attributes in silence. Nothing is kept from one call to the next. Knows
//! nothing of how a product or a step is computed.

mod cell;
mod curve;
mod sequence;
#[cfg(test)]
mod tests;

use tract_onnx::model::{OnnxOpRegister, optional_inputs, optional_outputs};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use cell::{Cell, Weights};

/// Where an operand of ONNX's operator is among the inputs that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operands {
    b: Option<usize>,
    lengths: Option<usize>,
    h: Option<usize>,
    c: Option<usize>,
    p: Option<usize>,
}

/// One of the two operators. Inputs X, W, R and those of `operands`; outputs
/// those of Y, Y_h and Y_c that are asked for.
#[derive(Debug, Clone)]
struct Recurrent {
    cell: Cell,
    /// Of each direction, whether it runs from the end.
    directions: TVec<bool>,
    /// Layout 1: the batch is the first axis, and not the second.
    batch_first: bool,
    operands: Operands,
    outputs: TVec<What>,
    /// Weights that are constant, laid out once.
    ready: Option<Arc<Vec<Weights>>>,
}

/// An output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    All,
    LastH,
    LastC,
}

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("LSTM", |_, node| parse(node, Cell::Lstm));
    operators.insert("GRU", |_, node| {
        let after = node.get_attr_opt::<i64>("linear_before_reset")?.unwrap_or(0) != 0;
        parse(node, Cell::Gru { after })
    });
}

fn parse(node: &NodeProto, cell: Cell) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let directions: TVec<bool> = match node.get_attr_opt::<&str>("direction")?.unwrap_or("forward") {
        "forward" => tvec!(false),
        "reverse" => tvec!(true),
        "bidirectional" => tvec!(false, true),
        other => bail!("direction {other:?} is none of forward, reverse and bidirectional"),
    };
    let usual: &[&str] = if cell == Cell::Lstm { &["Sigmoid", "Tanh", "Tanh"] } else { &["Sigmoid", "Tanh"] };
    if let Some(asked) = node.get_attr_opt_tvec::<&str>("activations")? {
        let same = |(a, b): (&&str, &&str)| a.eq_ignore_ascii_case(b);
        let known = asked.len() == usual.len() * directions.len() && asked.iter().zip(usual.iter().cycle()).all(same);
        ensure!(known, "only the usual activations are known, and not {asked:?}");
    }
    ensure!(node.get_attr_opt::<f32>("clip")?.is_none(), "clip is not known");
    ensure!(node.get_attr_opt::<i64>("input_forget")?.unwrap_or(0) == 0, "input_forget is not known");
    let mut inputs = optional_inputs(node).skip(3);
    let mut next = || inputs.next().flatten();
    let operands = Operands { b: next(), lengths: next(), h: next(), c: next(), p: next() };
    let asked = optional_outputs(node).zip([What::All, What::LastH, What::LastC]);
    Ok((
        expand(Recurrent {
            cell,
            directions,
            batch_first: node.get_attr_opt::<i64>("layout")?.unwrap_or(0) == 1,
            operands,
            outputs: asked.filter_map(|(slot, what)| slot.map(|_| what)).collect(),
            ready: None,
        }),
        vec![],
    ))
}

impl Recurrent {
    /// Axes of X: time, batch.
    fn axes(&self) -> (usize, usize) {
        if self.batch_first { (1, 0) } else { (0, 1) }
    }

    /// An output's shape from those of X and R.
    fn shape<D: Clone>(&self, what: What, x: &[D], r: &[D]) -> TVec<D> {
        let (time, batch) = self.axes();
        let (time, batch, directions, hidden) = (x[time].clone(), x[batch].clone(), r[0].clone(), r[2].clone());
        match (what, self.batch_first) {
            (What::All, false) => tvec!(time, directions, batch, hidden),
            (What::All, true) => tvec!(batch, time, directions, hidden),
            (_, false) => tvec!(directions, batch, hidden),
            (_, true) => tvec!(batch, directions, hidden),
        }
    }

    /// The weights of each direction, from the operands W, R, and B and P where given.
    fn weights(&self, w: &Tensor, r: &Tensor, b: Option<&Tensor>, p: Option<&Tensor>) -> TractResult<Vec<Weights>> {
        let (features, hidden, gates) = (w.shape()[2], r.shape()[2], self.cell.gates());
        let part = |tensor: &Tensor, direction: usize, shape: &[usize]| -> TractResult<Vec<f32>> {
            let full = [&[self.directions.len()], shape].concat();
            ensure!(tensor.shape() == full, "weights of shape {:?} where {full:?} is needed", tensor.shape());
            let each = shape.iter().product::<usize>();
            Ok(tensor.try_as_plain_ram()?.as_slice::<f32>()?[direction * each..][..each].to_vec())
        };
        ensure!(features > 0 && hidden > 0, "a recurrent operator without features or without state");
        let of = |direction: usize| -> TractResult<Weights> {
            let (w, r) =
                (part(w, direction, &[gates * hidden, features])?, part(r, direction, &[gates * hidden, hidden])?);
            let b = b.map(|b| part(b, direction, &[2 * gates * hidden])).transpose()?;
            let p = p.map(|p| part(p, direction, &[3 * hidden])).transpose()?;
            Ok(Weights::new(self.cell, (features, hidden), (&w, &r), b.as_deref(), p.as_deref()))
        };
        (0..self.directions.len()).map(of).collect()
    }
}

impl Expansion for Recurrent {
    fn name(&self) -> StaticName {
        "PetrelRecurrent".into()
    }

    fn validation(&self) -> Validation {
        Validation::Rounding
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let Operands { b, lengths, h, c, p } = self.operands;
        check_input_arity(inputs, 3 + [b, lengths, h, c, p].iter().flatten().count())?;
        check_output_arity(outputs, self.outputs.len())?;
        for (index, input) in inputs.iter().enumerate() {
            let (dtype, rank) = match index {
                _ if Some(index) == lengths => (i32::datum_type(), 1),
                _ if Some(index) == b || Some(index) == p => (f32::datum_type(), 2),
                _ => (f32::datum_type(), 3),
            };
            s.equals(&input.datum_type, dtype)?;
            s.equals(&input.rank, rank)?;
        }
        let (time, batch) = self.axes();
        let (x, w, r) = (&inputs[0], &inputs[1], &inputs[2]);
        let directions = self.directions.len() as i64;
        s.equals(&r.shape[0], directions.to_dim())?;
        s.equals(&w.shape[0], directions.to_dim())?;
        s.equals(&x.shape[2], &w.shape[2])?;
        for (output, what) in outputs.iter().zip(&self.outputs) {
            let axes = [x.shape[time].bex(), x.shape[batch].bex(), r.shape[0].bex(), r.shape[2].bex()];
            let [time, batch, directions, hidden] = axes;
            let shape = match (what, self.batch_first) {
                (What::All, false) => vec![time, directions, batch, hidden],
                (What::All, true) => vec![batch, time, directions, hidden],
                (_, false) => vec![directions, batch, hidden],
                (_, true) => vec![batch, directions, hidden],
            };
            s.equals(&output.datum_type, f32::datum_type())?;
            s.equals(&output.rank, shape.len() as i64)?;
            for (axis, dim) in shape.into_iter().enumerate() {
                s.equals(&output.shape[axis], dim)?;
            }
        }
        Ok(())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let constant = |slot: Option<usize>| -> TractResult<Option<Arc<Tensor>>> {
            Ok(slot.map(|slot| model.outlet_fact(inputs[slot])).transpose()?.and_then(|fact| fact.konst.clone()))
        };
        let Operands { b, p, .. } = self.operands;
        let given = [constant(Some(1))?, constant(Some(2))?, constant(b)?, constant(p)?];
        let ready = match &given {
            [Some(w), Some(r), of_b, of_p] if of_b.is_some() == b.is_some() && of_p.is_some() == p.is_some() => {
                Some(Arc::new(self.weights(w, r, of_b.as_deref(), of_p.as_deref())?))
            }
            _ => None,
        };
        model.wire_node(prefix, Recurrent { ready, ..self.clone() }, inputs)
    }
}

impl PartialEq for Recurrent {
    fn eq(&self, other: &Self) -> bool {
        self.cell == other.cell
            && self.directions == other.directions
            && self.batch_first == other.batch_first
            && self.operands == other.operands
            && self.outputs == other.outputs
            && self.ready == other.ready
    }
}

impl Eq for Recurrent {}

impl Op for Recurrent {
    fn name(&self) -> StaticName {
        "PetrelRecurrent".into()
    }

    fn validation(&self) -> Validation {
        Validation::Rounding
    }

    op_as_typed_op!();
}

impl TypedOp for Recurrent {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let (x, r) = (inputs[0].shape.to_tvec(), inputs[2].shape.to_tvec());
        Ok(self.outputs.iter().map(|what| f32::fact(self.shape(*what, &x, &r))).collect())
    }

    as_op!();
}
