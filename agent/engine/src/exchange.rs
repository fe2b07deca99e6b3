//! Values on their way into the inference library and out of it.
//!
//! Decides that each is copied exactly once, as one block. Knows no plan.

use tract_onnx::prelude::*;

use crate::tensor::{Data, Dtype, Tensor as Values};

/// A tensor of the library that holds these values; `kind` is the model's own type,
/// which differs from theirs for half precision only.
pub(crate) fn into_tract(values: &Values, kind: DatumType) -> TractResult<TValue> {
    let shape = &values.shape[..];
    let tensor = match &values.data {
        Data::F32(v) => Tensor::from_shape(shape, v),
        Data::F64(v) => Tensor::from_shape(shape, v),
        Data::I8(v) => Tensor::from_shape(shape, v),
        Data::I16(v) => Tensor::from_shape(shape, v),
        Data::I32(v) => Tensor::from_shape(shape, v),
        Data::I64(v) => Tensor::from_shape(shape, v),
        Data::U8(v) => Tensor::from_shape(shape, v),
        Data::U16(v) => Tensor::from_shape(shape, v),
        Data::U32(v) => Tensor::from_shape(shape, v),
        Data::U64(v) => Tensor::from_shape(shape, v),
        Data::Bool(v) => Tensor::from_shape(shape, v),
        // Text cannot be copied as a block.
        Data::Text(v) => Ok(tract_ndarray::ArrayD::from_shape_vec(shape, v.clone())?.into_tensor()),
    };
    let tensor = tensor?;
    if kind != DatumType::F16 {
        return Ok(tensor.into_tvalue());
    }
    // From here on a value is rounded to infinity.
    const HALF: f32 = 65520.0;
    if let Some(large) = values.as_f32().iter().find(|x| x.is_finite() && x.abs() >= HALF) {
        return Err(TractError::msg(format!("{large} is too large for half precision")));
    }
    Ok(tensor.cast_to_dt(kind)?.into_owned().into_tvalue())
}

/// The values of a tensor, as elements of this type.
pub(crate) fn from_tract(tensor: &Tensor, dtype: Dtype) -> TractResult<Values> {
    fn values<T: Datum>(tensor: &Tensor) -> TractResult<Vec<T>> {
        Ok(tensor.cast_to::<T>()?.try_as_plain_ram()?.as_slice::<T>()?.to_vec())
    }
    let data = match dtype {
        Dtype::F32 => Data::F32(values(tensor)?),
        Dtype::F64 => Data::F64(values(tensor)?),
        Dtype::I8 => Data::I8(values(tensor)?),
        Dtype::I16 => Data::I16(values(tensor)?),
        Dtype::I32 => Data::I32(values(tensor)?),
        Dtype::I64 => Data::I64(values(tensor)?),
        Dtype::U8 => Data::U8(values(tensor)?),
        Dtype::U16 => Data::U16(values(tensor)?),
        Dtype::U32 => Data::U32(values(tensor)?),
        Dtype::U64 => Data::U64(values(tensor)?),
        Dtype::Bool => Data::Bool(values(tensor)?),
        Dtype::Text => Data::Text(values(tensor)?),
    };
    Ok(Values { shape: tensor.shape().to_vec(), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_type_come_back_as_they_went() {
        let all: [Data; 12] = [
            vec![1.5f32, -0.0].into(),
            vec![1.5f64, f64::MIN_POSITIVE].into(),
            vec![-1i8, 7].into(),
            vec![-300i16, 7].into(),
            vec![-70_000i32, 7].into(),
            vec![i64::MIN, 7].into(),
            vec![255u8, 7].into(),
            vec![u16::MAX, 7].into(),
            vec![u32::MAX, 7].into(),
            vec![u64::MAX, 7].into(),
            vec![true, false].into(),
            vec!["ä".to_owned(), String::new()].into(),
        ];
        for data in all {
            for shape in [vec![2], vec![1, 2, 1]] {
                let values = Values::new(shape, data.clone()).unwrap();
                let tensor = into_tract(&values, DatumType::F32).unwrap();
                assert_eq!(from_tract(&tensor, values.dtype()).unwrap(), values);
            }
        }
        let none = Values::new(vec![0, 3], Data::F32(vec![])).unwrap();
        assert_eq!(from_tract(&into_tract(&none, DatumType::F32).unwrap(), Dtype::F32).unwrap(), none);
    }
}
