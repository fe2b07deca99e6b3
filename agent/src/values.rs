//! The values of a tensor as JSON and as text: each in its own type, floats with all their digits.

use engine::Data;
use serde::Serialize;
use std::fmt;

/// More values are cut off on a terminal.
const SHOWN: usize = 6;

/// A list of values of one type.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
    Text(Vec<String>),
}

impl From<Data> for Values {
    fn from(data: Data) -> Self {
        match data {
            Data::F32(v) => Values::F32(v),
            Data::F64(v) => Values::F64(v),
            Data::I8(v) => Values::I8(v),
            Data::I16(v) => Values::I16(v),
            Data::I32(v) => Values::I32(v),
            Data::I64(v) => Values::I64(v),
            Data::U8(v) => Values::U8(v),
            Data::U16(v) => Values::U16(v),
            Data::U32(v) => Values::U32(v),
            Data::U64(v) => Values::U64(v),
            Data::Bool(v) => Values::Bool(v),
            Data::Text(v) => Values::Text(v),
        }
    }
}

/// The first values only.
impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Values::F32(v) => list(f, v),
            Values::F64(v) => list(f, v),
            Values::I8(v) => list(f, v),
            Values::I16(v) => list(f, v),
            Values::I32(v) => list(f, v),
            Values::I64(v) => list(f, v),
            Values::U8(v) => list(f, v),
            Values::U16(v) => list(f, v),
            Values::U32(v) => list(f, v),
            Values::U64(v) => list(f, v),
            Values::Bool(v) => list(f, v),
            Values::Text(v) => list(f, v),
        }
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, values: &[T]) -> fmt::Result {
    let shown: Vec<String> = values.iter().take(SHOWN).map(ToString::to_string).collect();
    let rest = if values.len() > SHOWN { ", …" } else { "" };
    write!(f, "{}{rest}", shown.join(", "))
}
