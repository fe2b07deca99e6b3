//! Rows from Parquet files, as pandas and polars write them.
//!
//! Decides what a value is to a model: numbers, truth values and words; what is none of these is refused by its column.

use engine::{Cells, Column, Limits, Table};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use std::fs::File;
use std::path::Path;

/// How a file of this kind begins.
pub(super) const MAGIC: &[u8] = b"PAR1";

/// A cell of a column.
enum Value {
    Number(f64),
    Text(String),
    Missing,
}

/// Reads all rows.
///
/// # Errors
/// In words: when it cannot be read, is too large, or a column holds neither numbers nor words.
pub(super) fn read(path: &Path, limits: &Limits) -> Result<Table, String> {
    let told = |why: parquet::errors::ParquetError| {
        format!(
            "{why}; files that are compressed otherwise than by Snappy must be written again with compression=\"snappy\""
        )
    };
    let file = File::open(path).map_err(|why| why.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(|why| why.to_string())?;
    let about = reader.metadata().file_metadata();
    let names: Vec<String> = about.schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
    let count = usize::try_from(about.num_rows()).unwrap_or(usize::MAX);
    if names.is_empty() || count == 0 {
        return Err("it has no rows".into());
    }
    if count.checked_mul(names.len()).is_none_or(|elements| elements > limits.input_elements) {
        return Err(format!(
            "it has {count} rows of {} columns, more than {} values",
            names.len(),
            limits.input_elements
        ));
    }
    let mut columns: Vec<Vec<Value>> = names.iter().map(|_| Vec::with_capacity(count)).collect();
    for row in reader.get_row_iter(None).map_err(told)? {
        let row = row.map_err(told)?;
        for ((name, field), column) in row.get_column_iter().zip(&mut columns) {
            column.push(value(name, field)?);
        }
    }
    let column = |(name, values): (String, Vec<Value>)| Column { name, cells: cells(values) };
    Ok(Table { columns: names.into_iter().zip(columns).map(column).collect() })
}

fn value(name: &str, field: &Field) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Missing,
        Field::Bool(x) => Value::Number(f64::from(u8::from(*x))),
        Field::Byte(x) => Value::Number((*x).into()),
        Field::Short(x) => Value::Number((*x).into()),
        Field::Int(x) => Value::Number((*x).into()),
        Field::Long(x) => Value::Number(*x as f64),
        Field::UByte(x) => Value::Number((*x).into()),
        Field::UShort(x) => Value::Number((*x).into()),
        Field::UInt(x) => Value::Number((*x).into()),
        Field::ULong(x) => Value::Number(*x as f64),
        Field::Float16(x) => Value::Number(x.to_f64()),
        Field::Float(x) => Value::Number((*x).into()),
        Field::Double(x) => Value::Number(*x),
        Field::Str(text) => Value::Text(text.clone()),
        other => {
            let other = other.to_string().chars().take(40).collect::<String>();
            return Err(format!("column {name:?} holds {other}, which is neither a number nor a word: leave it out"));
        }
    })
}

/// Words where there is one, numbers else; what is missing is so in both.
fn cells(values: Vec<Value>) -> Cells {
    if values.iter().any(|value| matches!(value, Value::Text(_))) {
        let text = |value| match value {
            Value::Text(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Missing => String::new(),
        };
        return Cells::Text(values.into_iter().map(text).collect());
    }
    let number = |value| if let Value::Number(number) = value { number } else { f64::NAN };
    Cells::Numbers(values.into_iter().map(number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::basic::Compression;
    use parquet::data_type::{ByteArrayType, DoubleType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    const SCHEMA: &str = "message rows { OPTIONAL DOUBLE a; REQUIRED INT64 n; OPTIONAL BINARY word (UTF8); }";

    fn write(path: &Path) {
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[1.5, -2.0], Some(&[1, 0, 1]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[1, 2, 3], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&["red".into()], Some(&[0, 1, 0]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn numbers_words_and_what_is_missing_are_read_from_parquet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.parquet");
        write(&path);
        let table = read(&path, &Limits::default()).unwrap();
        let told: Vec<_> = table.columns.iter().map(|c| (c.name.as_str(), c.cells.texts().join(","))).collect();
        assert_eq!(told, [("a", "1.5,,-2".to_owned()), ("n", "1,2,3".into()), ("word", ",red,".into())]);
        let small = Limits { input_elements: 8, ..Limits::default() };
        assert!(read(&path, &small).unwrap_err().contains("3 rows of 3 columns"));
        let whole = std::fs::read(&path).unwrap();
        for cut in (0..whole.len()).step_by(7) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(read(&path, &Limits::default()).is_err(), "cut at {cut}");
        }
    }
}
