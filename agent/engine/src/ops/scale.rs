//! Operators that leave the shape as it is: Scaler, Normalizer, Imputer and
//! Binarizer.
//!
//! Decides their attributes and their arithmetic, one element or one row at a time.
//! Knows nothing of models.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, finite, floats, matrix, numeric, only, operator, tensor, values};

/// Whether an attribute with one value for each feature, or one for all, suits a shape.
fn suits<D: Clone>(name: &str, length: usize, shape: &[D], known: impl Fn(&D) -> Option<usize>) -> TractResult<()> {
    match shape.last().and_then(known) {
        _ if length == 1 => Ok(()),
        _ if shape.is_empty() => bail!("{name} has {length} values, and the input is a single one"),
        Some(features) if features != length => {
            bail!("{name} has {length} values, and the input has {features} features")
        }
        _ => Ok(()),
    }
}

fn dim(dim: &TDim) -> Option<usize> {
    dim.to_usize().ok()
}

/// (x - offset) * scale.
#[derive(Debug)]
struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

pub(super) fn scaler(_: &ParsingContext, node: &NodeProto) -> Built {
    let (mut offset, mut scale) = (floats(node, "offset")?, floats(node, "scale")?);
    if offset.is_empty() {
        offset = vec![0.0; scale.len()];
    }
    if scale.is_empty() {
        scale = vec![1.0; offset.len()];
    }
    ensure!(!scale.is_empty(), "Scaler: it has neither offset nor scale");
    let (offsets, scales) = (offset.len(), scale.len());
    ensure!(offsets == scales, "Scaler: offset has {offsets} values and scale {scales}; they must be equally long");
    operator(node, Scaler { offset, scale })
}

impl Kernel for Scaler {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        numeric(input.datum_type)?;
        suits("scale", self.scale.len(), &input.shape, dim)?;
        Ok(tvec!(f32::fact(input.shape.clone())))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        suits("scale", self.scale.len(), input.shape(), |axis| Some(*axis))?;
        let factors = self.offset.iter().zip(&self.scale).cycle();
        let scaled = if input.datum_type() == DatumType::F64 {
            let pairs = values::<f64>(input)?.iter().zip(factors);
            pairs.map(|(x, (offset, scale))| ((x - f64::from(*offset)) * f64::from(*scale)) as f32).collect()
        } else {
            let input = input.cast_to::<f32>()?;
            let pairs = values::<f32>(&input)?.iter().zip(factors);
            pairs.map(|(x, (offset, scale))| (x - offset) * scale).collect::<Vec<f32>>()
        };
        Ok(tvec!(tensor(input.shape(), scaled)?))
    }
}

/// By what a row is divided.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Normalizer {
    Max,
    L1,
    L2,
}

pub(super) fn normalizer(_: &ParsingContext, node: &NodeProto) -> Built {
    let norm = match node.get_attr_opt::<&str>("norm")?.unwrap_or("MAX") {
        "MAX" => Normalizer::Max,
        "L1" => Normalizer::L1,
        "L2" => Normalizer::L2,
        other => bail!("Normalizer: {other:?} is no norm; MAX, L1 and L2 are"),
    };
    operator(node, norm)
}

impl Normalizer {
    /// A row whose norm is zero stays as it is. MAX is the largest value and not the
    /// largest magnitude, by the specification.
    fn apply(self, row: &mut [f32]) {
        let norm = match self {
            Normalizer::Max => row.iter().copied().fold(f32::MIN, f32::max),
            Normalizer::L1 => row.iter().map(|x| x.abs()).sum(),
            Normalizer::L2 => row.iter().map(|x| x * x).sum::<f32>().sqrt(),
        };
        if norm != 0.0 {
            row.iter_mut().for_each(|x| *x /= norm);
        }
    }
}

impl Kernel for Normalizer {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        numeric(input.datum_type)?;
        matrix(&input.shape, 1.to_dim())?;
        Ok(tvec!(f32::fact(input.shape.clone())))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        let (_, columns) = matrix(input.shape(), 1)?;
        let mut normal = values::<f32>(&*input.cast_to::<f32>()?)?.to_vec();
        normal.chunks_mut(columns.max(1)).for_each(|row| self.apply(row));
        Ok(tvec!(tensor(input.shape(), normal)?))
    }
}

/// What stands for a missing value, and what takes its place.
#[derive(Debug)]
enum Imputer {
    Floats { missing: f32, instead: Vec<f32> },
    Ints { missing: i64, instead: Vec<i64> },
}

pub(super) fn imputer(_: &ParsingContext, node: &NodeProto) -> Built {
    let real = node.get_attr_opt_vec::<f32>("imputed_value_floats")?.unwrap_or_default();
    let ints = node.get_attr_opt_vec::<i64>("imputed_value_int64s")?.unwrap_or_default();
    finite("imputed_value_floats", &real)?;
    let imputer = match (real.is_empty(), ints.is_empty()) {
        (false, true) => {
            Imputer::Floats { missing: node.get_attr_opt("replaced_value_float")?.unwrap_or(0.0), instead: real }
        }
        (true, false) => {
            Imputer::Ints { missing: node.get_attr_opt("replaced_value_int64")?.unwrap_or(0), instead: ints }
        }
        _ => bail!("Imputer: it needs either imputed_value_floats or imputed_value_int64s"),
    };
    operator(node, imputer)
}

impl Imputer {
    fn len(&self) -> usize {
        match self {
            Imputer::Floats { instead, .. } => instead.len(),
            Imputer::Ints { instead, .. } => instead.len(),
        }
    }
}

impl Kernel for Imputer {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        let takes = match self {
            Imputer::Floats { .. } => [DatumType::F32, DatumType::F64],
            Imputer::Ints { .. } => [DatumType::I64, DatumType::I32],
        };
        let kind = input.datum_type;
        ensure!(takes.contains(&kind), "its values are {takes:?}, and the input is {kind:?}");
        if let (Imputer::Ints { instead, .. }, DatumType::I32) = (self, kind) {
            let wide = instead.iter().find(|value| i32::try_from(**value).is_err());
            ensure!(wide.is_none(), "the value {wide:?} does not fit the input, which is int32");
        }
        suits("imputed_value", self.len(), &input.shape, dim)?;
        Ok(tvec!(kind.fact(input.shape.clone())))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        suits("imputed_value", self.len(), input.shape(), |axis| Some(*axis))?;
        let filled = match self {
            Imputer::Floats { missing, instead } if input.datum_type() == DatumType::F32 => {
                let gone = |x: &f32| x == missing || (x.is_nan() && missing.is_nan());
                fill::<f32>(input, gone, instead)?
            }
            Imputer::Floats { missing, instead } => {
                let gone = |x: &f64| *x == f64::from(*missing) || (x.is_nan() && missing.is_nan());
                fill::<f64>(input, gone, &instead.iter().map(|x| f64::from(*x)).collect::<Vec<_>>())?
            }
            Imputer::Ints { missing, instead } => {
                let whole = input.cast_to::<i64>()?;
                fill::<i64>(&whole, |x| x == missing, instead)?.cast_to_dt(input.datum_type())?.into_owned()
            }
        };
        Ok(tvec!(filled))
    }
}

fn fill<T: Datum + Copy>(input: &Tensor, gone: impl Fn(&T) -> bool, instead: &[T]) -> TractResult<Tensor> {
    let pairs = values::<T>(input)?.iter().zip(instead.iter().cycle());
    tensor(input.shape(), pairs.map(|(x, instead)| if gone(x) { *instead } else { *x }).collect())
}

/// 1 above the threshold, 0 elsewhere.
#[derive(Debug)]
struct Binarizer(f32);

pub(super) fn binarizer(_: &ParsingContext, node: &NodeProto) -> Built {
    let threshold = node.get_attr_opt("threshold")?.unwrap_or(0.0);
    finite("threshold", &[threshold])?;
    operator(node, Binarizer(threshold))
}

impl Kernel for Binarizer {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        numeric(input.datum_type)?;
        Ok(tvec!(input.datum_type.fact(input.shape.clone())))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        let wide = input.cast_to::<f64>()?;
        let above = values::<f64>(&wide)?.iter().map(|x| f64::from(u8::from(*x > f64::from(self.0))));
        let above = tensor(input.shape(), above.collect())?;
        Ok(tvec!(above.cast_to_dt(input.datum_type())?.into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{close, ints, refusal, row, run};
    use crate::tensor::{Data, Tensor};
    use crate::testing::{attribute, floats};

    #[test]
    fn features_are_scaled_in_any_type() {
        let attributes = || vec![attribute("offset", vec![1f32, 2.0]), attribute("scale", vec![2f32, 0.5])];
        let scaled = [0.0, 1.0, 18.0, -1.0];
        let real = [1.0, 4.0, 10.0, 0.0];
        let types = [
            Data::F32(real.map(|x| x as f32).to_vec()),
            Data::F64(real.to_vec()),
            Data::I64(real.map(|x| x as i64).to_vec()),
            Data::I32(real.map(|x| x as i32).to_vec()),
        ];
        for data in types {
            let input = Tensor::new(vec![2, 2], data).unwrap();
            close(&run("Scaler", 1, input, attributes())[0], &[2, 2], &scaled);
        }
        let one = vec![attribute("offset", vec![1f32]), attribute("scale", vec![3f32])];
        close(&run("Scaler", 1, floats(&[3], &[1.0, 2.0, 3.0]), one)[0], &[3], &[0.0, 3.0, 6.0]);
    }

    #[test]
    fn rows_are_divided_by_their_norm_unless_that_is_zero() {
        let rows = floats(&[2, 2], &[3.0, -4.0, 0.0, 0.0]);
        for (norm, expected) in [("MAX", [1.0, -4.0 / 3.0]), ("L1", [3.0 / 7.0, -4.0 / 7.0]), ("L2", [0.6, -0.8])] {
            let got = run("Normalizer", 1, rows.clone(), vec![attribute("norm", norm)]);
            close(&got[0], &[2, 2], &[expected[0], expected[1], 0.0, 0.0]);
        }
    }

    #[test]
    fn what_is_missing_is_filled() {
        let attributes =
            vec![attribute("replaced_value_float", f32::NAN), attribute("imputed_value_floats", vec![7f32, 8.0])];
        let got = run("Imputer", 1, floats(&[2, 2], &[f32::NAN, 1.0, 2.0, f32::NAN]), attributes);
        close(&got[0], &[2, 2], &[7.0, 1.0, 2.0, 8.0]);
        let attributes = vec![attribute("replaced_value_int64", -1i64), attribute("imputed_value_int64s", vec![5i64])];
        assert_eq!(run("Imputer", 1, ints(&[1, 3], &[-1, 0, -1]), attributes), [ints(&[1, 3], &[5, 0, 5])]);
    }

    #[test]
    fn above_the_threshold_is_one() {
        let got = run("Binarizer", 1, row(&[1.0, 1.5, f32::NAN]), vec![attribute("threshold", 1f32)]);
        close(&got[0], &[1, 3], &[0.0, 1.0, 0.0]);
        let got = run("Binarizer", 1, ints(&[1, 2], &[0, 3]), vec![]);
        assert_eq!(got, [ints(&[1, 2], &[0, 1])]);
    }

    #[test]
    fn attributes_that_cannot_be_meant_are_refused() {
        let two = || row(&[0.0, 0.0]);
        for (name, attributes, why) in [
            ("Scaler", vec![], "neither offset nor scale"),
            ("Scaler", vec![attribute("scale", vec![1f32; 3])], "3 values, and the input has 2"),
            ("Scaler", vec![attribute("scale", vec![f32::NAN])], "scale[0] is NaN"),
            ("Scaler", vec![attribute("scale", vec![1f32]), attribute("offset", vec![1f32; 2])], "equally long"),
            ("Normalizer", vec![attribute("norm", "L3")], "no norm"),
            ("Imputer", vec![], "either"),
            ("Imputer", vec![attribute("imputed_value_int64s", vec![1i64])], "the input is F32"),
            ("Imputer", vec![attribute("imputed_value_floats", vec![f32::INFINITY])], "not a finite number"),
            ("Binarizer", vec![attribute("threshold", f32::NAN)], "not a finite number"),
            ("Binarizer", vec![attribute("threshold", 1i64)], "expected float"),
        ] {
            let reason = refusal(name, two(), attributes);
            assert!(reason.contains(why), "{reason:?} does not say {why:?}");
        }
    }
}
