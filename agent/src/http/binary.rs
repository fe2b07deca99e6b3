//! The binary tensor extension of the Open Inference Protocol: values as bytes behind the JSON of a request or a response.
//!
//! Decides the form: little-endian, row-major, one byte for a truth value, a length of four bytes before each text.

use axum::http::HeaderName;
use engine::{Data, Dtype};

/// Says where the JSON ends and the bytes begin.
pub(crate) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// How the extension is called in the server's metadata.
pub(crate) const EXTENSION: &str = "binary_tensor_data";

/// Bytes as values.
///
/// # Errors
/// In words, for the one who asked.
pub(crate) fn read(dtype: Dtype, bytes: &[u8]) -> Result<Data, String> {
    Ok(match dtype {
        Dtype::F32 => Data::F32(each(bytes, f32::from_le_bytes)?),
        Dtype::F64 => Data::F64(each(bytes, f64::from_le_bytes)?),
        Dtype::I8 => Data::I8(each(bytes, i8::from_le_bytes)?),
        Dtype::I16 => Data::I16(each(bytes, i16::from_le_bytes)?),
        Dtype::I32 => Data::I32(each(bytes, i32::from_le_bytes)?),
        Dtype::I64 => Data::I64(each(bytes, i64::from_le_bytes)?),
        Dtype::U8 => Data::U8(bytes.to_vec()),
        Dtype::U16 => Data::U16(each(bytes, u16::from_le_bytes)?),
        Dtype::U32 => Data::U32(each(bytes, u32::from_le_bytes)?),
        Dtype::U64 => Data::U64(each(bytes, u64::from_le_bytes)?),
        Dtype::Bool => match bytes.iter().find(|byte| **byte > 1) {
            Some(byte) => return Err(format!("a truth value is 0 or 1, and {byte} is among them")),
            None => Data::Bool(bytes.iter().map(|byte| *byte == 1).collect()),
        },
        Dtype::Text => Data::Text(texts(bytes)?),
    })
}

fn each<T, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, String> {
    let (values, rest) = bytes.as_chunks::<N>();
    match rest.len() {
        0 => Ok(values.iter().map(|value| read(*value)).collect()),
        more => Err(format!("{} bytes are {} values of {N} and {more} bytes more", bytes.len(), values.len())),
    }
}

fn texts(mut bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let cut = || format!("text {} is cut off", texts.len());
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?;
        let (text, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        texts.push(str::from_utf8(text).map_err(|why| format!("text {}: {why}", texts.len()))?.to_owned());
        bytes = rest;
    }
    Ok(texts)
}

/// Values as bytes, behind those that are there.
pub(crate) fn write(data: &Data, bytes: &mut Vec<u8>) {
    match data {
        Data::F32(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::F64(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::I8(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::I16(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::I32(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::I64(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::U8(v) => bytes.extend(v),
        Data::U16(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::U32(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::U64(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::Bool(v) => bytes.extend(v.iter().map(|truth| u8::from(*truth))),
        Data::Text(v) => v.iter().for_each(|text| {
            // An answer is far below four gigabytes.
            bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(text.as_bytes());
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_type_come_back_as_they_went() {
        let all = [
            Data::F32(vec![1.5, f32::MIN]),
            Data::F64(vec![-0.1]),
            Data::I8(vec![-1]),
            Data::I16(vec![-300, 2]),
            Data::I32(vec![i32::MIN]),
            Data::I64(vec![i64::MAX]),
            Data::U8(vec![255, 0]),
            Data::U16(vec![65_535]),
            Data::U32(vec![u32::MAX]),
            Data::U64(vec![u64::MAX]),
            Data::Bool(vec![true, false]),
            Data::Text(vec!["ä".into(), String::new(), "b".into()]),
            Data::F32(Vec::new()),
        ];
        for data in all {
            let mut bytes = Vec::new();
            write(&data, &mut bytes);
            assert_eq!(read(data.dtype(), &bytes), Ok(data));
        }
        let mut bytes = Vec::new();
        write(&Data::Text(vec!["hi".into()]), &mut bytes);
        assert_eq!(bytes, [2, 0, 0, 0, b'h', b'i']);
    }

    #[test]
    fn bytes_that_are_no_values_are_refused() {
        for (dtype, bytes, expected) in [
            (Dtype::F32, &[0, 0, 0, 0, 1][..], "5 bytes are 1 values of 4 and 1 bytes more"),
            (Dtype::Bool, &[1, 2], "0 or 1"),
            (Dtype::Text, &[1, 0, 0], "text 0 is cut off"),
            (Dtype::Text, &[0, 0, 0, 0, 9, 0, 0, 0, 1], "text 1 is cut off"),
            (Dtype::Text, &[255, 255, 255, 255], "text 0 is cut off"),
            (Dtype::Text, &[1, 0, 0, 0, 0xff], "text 0: invalid utf-8"),
        ] {
            let fault = read(dtype, bytes).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
