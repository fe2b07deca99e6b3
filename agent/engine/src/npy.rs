//! NumPy arrays: one in a file, several in an archive.
//!
//! Decides which arrays become tensors and how an archive is written so that the
//! same tensors are always the same bytes. Knows nothing of what they mean.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use npyz::{DType, Deserialize, NpyFile, Order, Serialize, TypeChar, WriteOptions, WriterBuilder};
use zip::write::FileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use crate::Limits;
use crate::input::InputError;
use crate::tensor::{Data, Tensor, each, elements};

/// Arrays in one archive.
const ARRAYS: usize = 64;
/// Bytes of one array's header; real ones take some 120.
const HEADER: usize = 2048;

/// Reads one array from its beginning.
pub(crate) fn read_array(mut source: impl Read, limits: &Limits) -> Result<Tensor, InputError> {
    let preamble = preamble(&mut source).map_err(InputError::array)?;
    let file = NpyFile::new((&preamble[..]).chain(source)).map_err(InputError::array)?;
    let shape: Option<Vec<usize>> = file.shape().iter().map(|axis| usize::try_from(*axis).ok()).collect();
    let shape = shape.unwrap_or_else(|| vec![usize::MAX]);
    // Text is counted by its characters: an element can be as long as it says.
    let width = match file.dtype() {
        DType::Plain(kind) if kind.type_char() == TypeChar::UnicodeStr => kind.size_field().max(1),
        _ => 1,
    };
    let count = elements(&shape).and_then(|count| count.checked_mul(usize::try_from(width).ok()?));
    let count = count.unwrap_or(usize::MAX);
    if count > limits.input_elements {
        return Err(InputError::TooLarge { what: "elements", size: count as u64, limit: limits.input_elements as u64 });
    }
    let data = data(file, &shape).map_err(InputError::array)?;
    Tensor::new(shape, data).map_err(InputError::array)
}

fn data<R: Read>(file: NpyFile<R>, shape: &[usize]) -> io::Result<Data> {
    let DType::Plain(kind) = file.dtype() else {
        return Err(unsupported("records"));
    };
    Ok(match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 4) => Data::F32(values(file, shape)?),
        (TypeChar::Float, 8) => Data::F64(values(file, shape)?),
        (TypeChar::Int, 1) => Data::I8(values(file, shape)?),
        (TypeChar::Int, 2) => Data::I16(values(file, shape)?),
        (TypeChar::Int, 4) => Data::I32(values(file, shape)?),
        (TypeChar::Int, 8) => Data::I64(values(file, shape)?),
        (TypeChar::Uint, 1) => Data::U8(values(file, shape)?),
        (TypeChar::Uint, 2) => Data::U16(values(file, shape)?),
        (TypeChar::Uint, 4) => Data::U32(values(file, shape)?),
        (TypeChar::Uint, 8) => Data::U64(values(file, shape)?),
        (TypeChar::Bool, 1) => Data::Bool(values(file, shape)?),
        (TypeChar::UnicodeStr, _) => Data::Text(values(file, shape)?),
        _ => return Err(unsupported(&kind.to_string())),
    })
}

fn unsupported(kind: &str) -> io::Error {
    let known = "float32, float64, bool, integers and text (<U)";
    io::Error::other(format!("an array of {kind} cannot be used; known are {known}"))
}

/// All elements, row-major.
fn values<T: Deserialize + Clone, R: Read>(file: NpyFile<R>, shape: &[usize]) -> io::Result<Vec<T>> {
    let fortran = file.order() == Order::Fortran;
    let stored = file.into_vec::<T>()?;
    if !fortran || stored.is_empty() {
        return Ok(stored);
    }
    let mut index = vec![0; shape.len()];
    let mut ordered = Vec::with_capacity(stored.len());
    for _ in 0..stored.len() {
        let offset = index.iter().zip(shape).rev().fold(0, |offset, (i, axis)| offset * axis + i);
        ordered.push(stored[offset].clone());
        for (i, axis) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *axis {
                break;
            }
            *i = 0;
        }
    }
    Ok(ordered)
}

/// The header as bytes, refused when it is not what NumPy writes: its parser
/// allocates what the header announces, recurses as deep as it nests, and counts
/// the elements without looking for overflow.
fn preamble(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 8];
    source.read_exact(&mut bytes)?;
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err(io::Error::other("this is no NumPy array"));
    }
    let width = if bytes[6] == 1 { 2 } else { 4 };
    bytes.resize(8 + width, 0);
    source.read_exact(&mut bytes[8..])?;
    let length = bytes[8..].iter().rev().fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
    if length > HEADER {
        return Err(io::Error::other(format!("its header has more than {HEADER} bytes")));
    }
    let start = bytes.len();
    bytes.resize(start + length, 0);
    source.read_exact(&mut bytes[start..])?;
    let header = &bytes[start..];
    let nested = header.iter().filter(|byte| b"([{".contains(byte)).count();
    if nested > 8 || !countable(header) {
        return Err(io::Error::other("its header is not one that NumPy writes for an array"));
    }
    Ok(bytes)
}

/// Whether all numbers of a header, multiplied, are still a number.
fn countable(header: &[u8]) -> bool {
    let numbers = header.split(|byte| !byte.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let number = |digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
    numbers.map(number).try_fold(1u64, |product, next| product.checked_mul(next?.max(1))).is_some()
}

/// Reads every array of an `.npz` archive, in the order in which they are kept.
///
/// # Errors
/// `InputError` when it cannot be read, is no such archive, or is too large.
pub fn read_archive(path: &Path, limits: &Limits) -> Result<Vec<(String, Tensor)>, InputError> {
    let unreadable = |source| InputError::Io { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > limits.model_bytes {
        return Err(InputError::TooLarge { what: "bytes", size, limit: limits.model_bytes });
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut zip = ZipArchive::new(io::BufReader::new(file)).map_err(InputError::array)?;
    if zip.len() > ARRAYS {
        let (size, limit) = (zip.len() as u64, ARRAYS as u64);
        return Err(InputError::TooLarge { what: "arrays", size, limit });
    }
    (0..zip.len())
        .map(|index| {
            let file = zip.by_index(index).map_err(InputError::array)?;
            let name = file.name().strip_suffix(".npy").unwrap_or(file.name()).to_owned();
            Ok((name, read_array(file, limits)?))
        })
        .collect()
}

/// Writes an archive; the same arrays are always the same bytes.
///
/// # Errors
/// When the file cannot be written, or a text ends in NUL, which NumPy drops.
pub fn write_archive<'a>(path: &Path, arrays: impl Iterator<Item = (String, &'a Tensor)>) -> io::Result<()> {
    let mut writer = ZipWriter::new(io::BufWriter::new(File::create(path)?));
    for (name, tensor) in arrays {
        let kind = stored(&tensor.data)?;
        each!(&tensor.data, values => write_array(&mut writer, &name, &tensor.shape, &kind, values)?);
    }
    writer.finish()?.flush()
}

/// NumPy's name of the element type; text is as wide as its longest.
fn stored(data: &Data) -> io::Result<String> {
    Ok(match data {
        Data::F32(_) => "<f4".to_owned(),
        Data::F64(_) => "<f8".to_owned(),
        Data::I8(_) => "|i1".to_owned(),
        Data::I16(_) => "<i2".to_owned(),
        Data::I32(_) => "<i4".to_owned(),
        Data::I64(_) => "<i8".to_owned(),
        Data::U8(_) => "|u1".to_owned(),
        Data::U16(_) => "<u2".to_owned(),
        Data::U32(_) => "<u4".to_owned(),
        Data::U64(_) => "<u8".to_owned(),
        Data::Bool(_) => "|b1".to_owned(),
        Data::Text(texts) => {
            if let Some(text) = texts.iter().find(|text| text.ends_with('\0')) {
                return Err(io::Error::other(format!("{text:?} cannot be kept: it ends in NUL")));
            }
            let longest = texts.iter().map(|text| text.chars().count()).max();
            format!("<U{}", longest.unwrap_or(0).max(1))
        }
    })
}

fn write_array<T: Serialize + Clone, W: Write + io::Seek>(
    writer: &mut ZipWriter<W>,
    name: &str,
    shape: &[usize],
    kind: &str,
    values: &[T],
) -> io::Result<()> {
    // The default is the time of day, and compressed bytes may differ by version.
    let options =
        FileOptions::default().compression_method(CompressionMethod::Stored).last_modified_time(DateTime::default());
    let kind = DType::Plain(kind.parse().map_err(io::Error::other)?);
    let shape: Vec<u64> = shape.iter().map(|axis| *axis as u64).collect();
    writer.start_file(format!("{name}.npy"), options)?;
    let mut array = WriteOptions::<T>::new().dtype(kind).shape(&shape).writer(writer).begin_nd()?;
    array.extend(values.iter().cloned())?;
    array.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Tensor, String> {
        let limits = Limits { input_elements: 100, ..Limits::default() };
        read_array(bytes, &limits).map_err(|error| error.to_string())
    }

    #[test]
    fn arrays_of_either_order_are_read_row_major() {
        let rows = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }", &[1, 2, 3, 4, 5, 6]);
        let columns = npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }", &[1, 4, 2, 5, 3, 6]);
        let expected = Tensor::new(vec![2, 3], Data::U8(vec![1, 2, 3, 4, 5, 6])).unwrap();
        assert_eq!(read(&rows), Ok(expected.clone()));
        assert_eq!(read(&columns), Ok(expected));
    }

    #[test]
    fn integers_keep_their_width() {
        let array = npy("{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }", &[1, 0, 255, 255]);
        assert_eq!(read(&array).unwrap().data, Data::I16(vec![1, -1]));
        let scalar = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", &1.5f32.to_le_bytes());
        assert_eq!(read(&scalar).unwrap().data, Data::F32(vec![1.5]));
    }

    #[test]
    fn text_is_read_without_its_padding() {
        let data: Vec<u8> = "é\0ab".chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
        let array = npy("{'descr': '<U2', 'fortran_order': False, 'shape': (2,), }", &data);
        assert_eq!(read(&array).unwrap().data, Data::Text(vec!["é".to_owned(), "ab".to_owned()]));
    }

    #[test]
    fn text_that_would_not_come_back_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| {
            let tensor = Tensor::new(vec![1], Data::Text(vec![text.to_owned()])).unwrap();
            write_archive(&dir.path().join("a.npz"), [("x".to_owned(), &tensor)].into_iter())
        };
        assert!(write("").is_ok());
        assert!(write("a\0").unwrap_err().to_string().contains("NUL"));
    }

    #[test]
    fn what_is_no_array_is_refused_in_words() {
        let header = |kind: &str, shape: &str| {
            npy(&format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"), &[])
        };
        let mut long = b"\x93NUMPY\x02\x00".to_vec();
        long.extend(u32::MAX.to_le_bytes());
        let nested = npy(&"(".repeat(1500), &[]);
        for (bytes, expected) in [
            (b"not an array".to_vec(), "no NumPy array"),
            (header("|O", "(1,)"), "cannot be used"),
            (header("<f4", "(101,)"), "at most 100"),
            (header("<U4000000000", "(1,)"), "at most 100"),
            (header("<f4", "(18446744073709551615, 2)"), "header"),
            (header("<f4", "(99999999999999999999,)"), "header"),
            (header("<f4", "(3,)"), "fill"),
            (long, "header"),
            (nested, "header"),
        ] {
            let error = read(&bytes).unwrap_err();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }
}
