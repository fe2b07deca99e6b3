//! Tensors: the values that enter and leave a model.
//!
//! Decides shapes, element types and which conversions lose nothing that
//! matters. Knows neither files nor models.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An element type, under its name in the Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dtype {
    /// 32-bit float.
    #[serde(rename = "FP32")]
    F32,
    /// 64-bit float.
    #[serde(rename = "FP64")]
    F64,
    /// 8-bit signed integer.
    #[serde(rename = "INT8")]
    I8,
    /// 16-bit signed integer.
    #[serde(rename = "INT16")]
    I16,
    /// 32-bit signed integer.
    #[serde(rename = "INT32")]
    I32,
    /// 64-bit signed integer.
    #[serde(rename = "INT64")]
    I64,
    /// 8-bit unsigned integer.
    #[serde(rename = "UINT8")]
    U8,
    /// 16-bit unsigned integer.
    #[serde(rename = "UINT16")]
    U16,
    /// 32-bit unsigned integer.
    #[serde(rename = "UINT32")]
    U32,
    /// 64-bit unsigned integer.
    #[serde(rename = "UINT64")]
    U64,
    /// Truth value.
    #[serde(rename = "BOOL")]
    Bool,
    /// UTF-8 text.
    #[serde(rename = "BYTES")]
    Text,
}

impl Dtype {
    const ALL: [Dtype; 12] = [
        Dtype::F32,
        Dtype::F64,
        Dtype::I8,
        Dtype::I16,
        Dtype::I32,
        Dtype::I64,
        Dtype::U8,
        Dtype::U16,
        Dtype::U32,
        Dtype::U64,
        Dtype::Bool,
        Dtype::Text,
    ];

    fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "FP32",
            Dtype::F64 => "FP64",
            Dtype::I8 => "INT8",
            Dtype::I16 => "INT16",
            Dtype::I32 => "INT32",
            Dtype::I64 => "INT64",
            Dtype::U8 => "UINT8",
            Dtype::U16 => "UINT16",
            Dtype::U32 => "UINT32",
            Dtype::U64 => "UINT64",
            Dtype::Bool => "BOOL",
            Dtype::Text => "BYTES",
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F64)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Dtype {
    type Err = TensorError;

    fn from_str(name: &str) -> Result<Self, TensorError> {
        let found = Dtype::ALL.into_iter().find(|dtype| dtype.name() == name);
        found.ok_or_else(|| TensorError::Dtype(name.to_owned()))
    }
}

/// The elements of a tensor, row-major.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Data {
    /// FP32.
    F32(Vec<f32>),
    /// FP64.
    F64(Vec<f64>),
    /// INT8.
    I8(Vec<i8>),
    /// INT16.
    I16(Vec<i16>),
    /// INT32.
    I32(Vec<i32>),
    /// INT64.
    I64(Vec<i64>),
    /// UINT8.
    U8(Vec<u8>),
    /// UINT16.
    U16(Vec<u16>),
    /// UINT32.
    U32(Vec<u32>),
    /// UINT64.
    U64(Vec<u64>),
    /// BOOL.
    Bool(Vec<bool>),
    /// BYTES, all of them UTF-8.
    Text(Vec<String>),
}

/// `each!(data, values => …)`: the same expression for elements of any type.
macro_rules! each {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::tensor::Data::F32($values) => $body,
            $crate::tensor::Data::F64($values) => $body,
            $crate::tensor::Data::I8($values) => $body,
            $crate::tensor::Data::I16($values) => $body,
            $crate::tensor::Data::I32($values) => $body,
            $crate::tensor::Data::I64($values) => $body,
            $crate::tensor::Data::U8($values) => $body,
            $crate::tensor::Data::U16($values) => $body,
            $crate::tensor::Data::U32($values) => $body,
            $crate::tensor::Data::U64($values) => $body,
            $crate::tensor::Data::Bool($values) => $body,
            $crate::tensor::Data::Text($values) => $body,
        }
    };
}
pub(crate) use each;

impl Data {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        each!(self, values => values.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements' type.
    pub fn dtype(&self) -> Dtype {
        match self {
            Data::F32(_) => Dtype::F32,
            Data::F64(_) => Dtype::F64,
            Data::I8(_) => Dtype::I8,
            Data::I16(_) => Dtype::I16,
            Data::I32(_) => Dtype::I32,
            Data::I64(_) => Dtype::I64,
            Data::U8(_) => Dtype::U8,
            Data::U16(_) => Dtype::U16,
            Data::U32(_) => Dtype::U32,
            Data::U64(_) => Dtype::U64,
            Data::Bool(_) => Dtype::Bool,
            Data::Text(_) => Dtype::Text,
        }
    }

    fn slice(&self, range: Range<usize>) -> Data {
        each!(self, values => values[range].to_vec().into())
    }

    fn extend(&mut self, more: &Data) -> bool {
        match (self, more) {
            (Data::F32(to), Data::F32(from)) => to.extend_from_slice(from),
            (Data::F64(to), Data::F64(from)) => to.extend_from_slice(from),
            (Data::I8(to), Data::I8(from)) => to.extend_from_slice(from),
            (Data::I16(to), Data::I16(from)) => to.extend_from_slice(from),
            (Data::I32(to), Data::I32(from)) => to.extend_from_slice(from),
            (Data::I64(to), Data::I64(from)) => to.extend_from_slice(from),
            (Data::U8(to), Data::U8(from)) => to.extend_from_slice(from),
            (Data::U16(to), Data::U16(from)) => to.extend_from_slice(from),
            (Data::U32(to), Data::U32(from)) => to.extend_from_slice(from),
            (Data::U64(to), Data::U64(from)) => to.extend_from_slice(from),
            (Data::Bool(to), Data::Bool(from)) => to.extend_from_slice(from),
            (Data::Text(to), Data::Text(from)) => to.extend_from_slice(from),
            _ => return false,
        }
        true
    }
}

/// `From` for the elements of each type.
macro_rules! from_values {
    ($($kind:ty => $variant:ident),*) => {$(
        impl From<Vec<$kind>> for Data {
            fn from(values: Vec<$kind>) -> Data {
                Data::$variant(values)
            }
        }
    )*};
}
from_values!(f32 => F32, f64 => F64, i8 => I8, i16 => I16, i32 => I32, i64 => I64);
from_values!(u8 => U8, u16 => U16, u32 => U32, u64 => U64, bool => Bool, String => Text);

/// A shaped array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Length of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many elements as the product of the shape.
    pub data: Data,
}

impl Tensor {
    /// A tensor whose data fill its shape exactly.
    ///
    /// # Errors
    /// `Length` when they do not, `Overflow` when the shape is no size at all.
    pub fn new(shape: Vec<usize>, data: Data) -> Result<Tensor, TensorError> {
        let tensor = Tensor { shape, data };
        tensor.check()?;
        Ok(tensor)
    }

    /// Whether shape and data (both public) still agree.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn check(&self) -> Result<(), TensorError> {
        match elements(&self.shape) {
            None => Err(TensorError::Overflow { shape: self.shape.clone() }),
            Some(expected) if expected != self.data.len() => {
                Err(TensorError::Length { shape: self.shape.clone(), expected, got: self.data.len() })
            }
            Some(_) => Ok(()),
        }
    }

    /// The elements' type.
    pub fn dtype(&self) -> Dtype {
        self.data.dtype()
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Length of axis 0; a scalar is one row.
    pub fn row_count(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Index of the first element that is NaN or infinite.
    pub fn first_non_finite(&self) -> Option<usize> {
        match &self.data {
            Data::F32(v) => v.iter().position(|x| !x.is_finite()),
            Data::F64(v) => v.iter().position(|x| !x.is_finite()),
            _ => None,
        }
    }

    /// The row (index on axis 0) that holds an element.
    pub(crate) fn row_of(&self, element: usize) -> usize {
        let rows = self.row_count().max(1);
        element / (self.len() / rows).max(1)
    }

    /// The rows `range` of axis 0.
    ///
    /// # Errors
    /// `Rows` when the tensor is a scalar or has fewer.
    pub fn rows(&self, range: Range<usize>) -> Result<Tensor, TensorError> {
        self.check()?;
        let have = self.shape.first().copied().unwrap_or(0);
        if range.start > range.end || range.end > have {
            return Err(TensorError::Rows { start: range.start, end: range.end, have });
        }
        let width = self.len().checked_div(have).unwrap_or(0);
        let mut shape = self.shape.clone();
        shape[0] = range.len();
        let data = self.data.slice(range.start * width..range.end * width);
        Ok(Tensor { shape, data })
    }

    /// Puts pieces of equal width under one another; `None` when they do not fit.
    pub fn stack(pieces: Vec<Tensor>) -> Option<Tensor> {
        let mut pieces = pieces.into_iter();
        let mut whole = pieces.next()?;
        for piece in pieces {
            if whole.shape.is_empty() || whole.shape.get(1..) != piece.shape.get(1..) {
                return None;
            }
            whole.shape[0] += piece.shape[0];
            whole.data.extend(&piece.data).then_some(())?;
        }
        Some(whole)
    }

    /// The elements as FP32, borrowed when they already are; a truth value is 0 or 1.
    pub fn as_f32(&self) -> Cow<'_, [f32]> {
        match &self.data {
            Data::F32(v) => Cow::Borrowed(v),
            _ => Cow::Owned(self.to_f64().into_iter().map(|x| x as f32).collect()),
        }
    }

    /// Each element as text, as short as it can be read again.
    pub fn texts(&self) -> Vec<String> {
        each!(&self.data, values => values.iter().map(ToString::to_string).collect())
    }

    /// The elements as FP64 (a whole number beyond 2^53 is rounded); a truth value is 0
    /// or 1, text is NaN.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::F32(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Data::F64(v) => v.clone(),
            Data::I8(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Data::I16(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Data::I32(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Data::I64(v) => v.iter().map(|x| *x as f64).collect(),
            Data::U8(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Data::U16(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Data::U32(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Data::U64(v) => v.iter().map(|x| *x as f64).collect(),
            Data::Bool(v) => v.iter().map(|x| f64::from(u8::from(*x))).collect(),
            Data::Text(v) => vec![f64::NAN; v.len()],
        }
    }

    /// The same values in another type: floats may round, whole numbers must fit.
    /// `None` where that would change a value (3.5 as INT64) or mix in truth values or
    /// text.
    pub fn cast(&self, to: Dtype) -> Option<Tensor> {
        if self.dtype() == to {
            return Some(self.clone());
        }
        if matches!(self.dtype(), Dtype::Bool | Dtype::Text) {
            return None;
        }
        let data = match to {
            Dtype::F32 => Data::F32(self.as_f32().into_owned()),
            Dtype::F64 => Data::F64(self.to_f64()),
            Dtype::I64 => Data::I64(self.whole()?),
            Dtype::I8 => Data::I8(narrow(self.whole()?)?),
            Dtype::I16 => Data::I16(narrow(self.whole()?)?),
            Dtype::I32 => Data::I32(narrow(self.whole()?)?),
            Dtype::U8 => Data::U8(narrow(self.whole()?)?),
            Dtype::U16 => Data::U16(narrow(self.whole()?)?),
            Dtype::U32 => Data::U32(narrow(self.whole()?)?),
            Dtype::U64 => Data::U64(narrow(self.whole()?)?),
            Dtype::Bool | Dtype::Text => return None,
        };
        Some(Tensor { shape: self.shape.clone(), data })
    }

    fn whole(&self) -> Option<Vec<i64>> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match &self.data {
            Data::I64(v) => Some(v.clone()),
            Data::U64(v) => narrow(v.clone()),
            _ => {
                let whole = |x: f64| (x.fract() == 0.0 && x.abs() <= EXACT).then_some(x as i64);
                self.to_f64().into_iter().map(whole).collect()
            }
        }
    }
}

fn narrow<F, T: TryFrom<F>>(values: Vec<F>) -> Option<Vec<T>> {
    values.into_iter().map(|x| T::try_from(x).ok()).collect()
}

/// How many elements a shape holds; `None` when that is more than can be counted.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis))
}

/// Why something is no tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// Shape and data disagree.
    #[error("the shape {shape:?} holds {expected} elements, but there are {got}")]
    Length {
        /// The shape as given.
        shape: Vec<usize>,
        /// Elements that it holds.
        expected: usize,
        /// Elements that there are.
        got: usize,
    },
    /// The shape is larger than any memory.
    #[error("the shape {shape:?} is too large")]
    Overflow {
        /// The shape as given.
        shape: Vec<usize>,
    },
    /// Rows were asked for that are not there.
    #[error("rows {start}..{end} were asked for, but there are {have}")]
    Rows {
        /// First row asked for.
        start: usize,
        /// One past the last row asked for.
        end: usize,
        /// Rows that there are.
        have: usize,
    },
    /// No element type has this name.
    #[error("{0:?} is no element type; use FP32, FP64, INT8 to INT64, UINT8 to UINT64, BOOL or BYTES")]
    Dtype(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(shape: &[usize], values: &[i64]) -> Tensor {
        Tensor::new(shape.to_vec(), Data::I64(values.to_vec())).unwrap()
    }

    #[test]
    fn a_shape_must_be_filled_exactly() {
        let got = Tensor::new(vec![2, 3], Data::U8(vec![0; 5]));
        assert_eq!(got, Err(TensorError::Length { shape: vec![2, 3], expected: 6, got: 5 }));
        let huge = Tensor::new(vec![usize::MAX, 2], Data::U8(vec![]));
        assert_eq!(huge, Err(TensorError::Overflow { shape: vec![usize::MAX, 2] }));
    }

    #[test]
    fn rows_are_cut_and_put_together_again() {
        let tensor = whole(&[3, 2], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(tensor.rows(1..3).unwrap(), whole(&[2, 2], &[3, 4, 5, 6]));
        let pieces = (0..3).map(|row| tensor.rows(row..row + 1).unwrap()).collect();
        assert_eq!(Tensor::stack(pieces).unwrap(), tensor);
        assert_eq!(tensor.row_of(5), 2);
        assert_eq!(tensor.rows(2..4), Err(TensorError::Rows { start: 2, end: 4, have: 3 }));
        assert!(whole(&[], &[1]).rows(0..1).is_err());
        assert_eq!(whole(&[0, 2], &[]).rows(0..0).unwrap().len(), 0);
    }

    #[test]
    fn a_cast_never_changes_a_whole_number() {
        let bytes = whole(&[2], &[0, 255]).cast(Dtype::U8).unwrap();
        assert_eq!(bytes.data, Data::U8(vec![0, 255]));
        assert_eq!(whole(&[1], &[256]).cast(Dtype::U8), None);
        assert_eq!(bytes.cast(Dtype::F32).unwrap().data, Data::F32(vec![0.0, 255.0]));
        assert_eq!(bytes.cast(Dtype::Bool), None);
        let half = Tensor::new(vec![1], Data::F32(vec![0.5])).unwrap();
        assert_eq!(half.cast(Dtype::I32), None);
        assert_eq!(half.cast(Dtype::F64).unwrap().data, Data::F64(vec![0.5]));
    }

    #[test]
    fn what_is_no_number_is_found() {
        let tensor = Tensor::new(vec![3], Data::F64(vec![0.0, f64::NAN, f64::INFINITY])).unwrap();
        assert_eq!(tensor.first_non_finite(), Some(1));
        assert_eq!(whole(&[1], &[1]).first_non_finite(), None);
    }

    #[test]
    fn dtypes_speak_the_open_inference_protocol() {
        for dtype in Dtype::ALL {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
            assert_eq!(serde_json::to_string(&dtype).unwrap(), format!("\"{dtype}\""));
        }
        assert_eq!("FP16".parse::<Dtype>(), Err(TensorError::Dtype("FP16".to_owned())));
    }
}
