//! The training rows as columns, and the baseline measured on them.
//!
//! Decides what a row of an array is called. The arithmetic is decided by `drift`.

use super::read::read_bounded;
use crate::fault::Fault;
use drift::Baseline;
use engine::{Column, Input, Limits};
use std::path::Path;
use trust::{Code, Refusal};

/// The most bytes of `drift.json`: a device keeps it in memory.
const MAX_BYTES: u64 = 8 << 20;

/// Reads training rows: a table, or an array with one row on each index of its first axis.
///
/// # Errors
/// When it cannot be read, or is an image.
pub(crate) fn read_rows(path: &Path) -> anyhow::Result<Input> {
    let unusable = || Fault::new(format!("the training data {} cannot be used", path.display()));
    match engine::read_input(path, &Limits::default()) {
        Ok(Input::Image(_)) => {
            let fault = unusable().because("it is one image").remedy("give a .csv table or a .npy array of rows");
            Err(fault.into())
        }
        Ok(rows) => Ok(rows),
        Err(error) => Err(unusable().because(error).remedy("give numbers only, without the target").into()),
    }
}

/// How many rows there are.
pub(crate) fn row_count(rows: &Input) -> usize {
    match rows {
        Input::Table(table) => table.row_count(),
        Input::Tensors(tensors) => tensors.first().map_or(0, |(_, tensor)| tensor.row_count()),
        Input::Image(_) => 0,
    }
}

/// The columns that have no baseline because they are text.
pub(crate) fn texts(rows: &Input) -> Vec<&str> {
    let text = |column: &&Column| column.cells.as_numbers().is_none();
    match rows {
        Input::Table(table) => table.columns.iter().filter(text).map(|column| column.name.as_str()).collect(),
        Input::Tensors(_) | Input::Image(_) => Vec::new(),
    }
}

/// Measures the raw features: a table's columns of numbers by name, an array's as `f0`, `f1`, …
///
/// # Errors
/// When there are too many, or two have one name.
pub(crate) fn measure(rows: &Input) -> anyhow::Result<Baseline> {
    let columns = columns(rows);
    let baseline = Baseline::measure(columns.iter().map(|(name, values)| (name.as_str(), values.as_slice())));
    Ok(baseline.map_err(|e| Fault::new("the training data give no baseline").because(e))?)
}

/// Refuses a baseline that contradicts itself.
///
/// # Errors
/// `E_BASELINE` and `E_LIMIT`, or what the system said.
pub(crate) fn read(path: &Path) -> anyhow::Result<Baseline> {
    let bytes = read_bounded(path, MAX_BYTES)?;
    let baseline: Result<Baseline, _> = serde_json::from_slice(&bytes);
    let unusable = |reason: String| Refusal::new(Code::Baseline, format!("the baseline is malformed: {reason}"));
    let baseline = baseline.map_err(|e| unusable(e.to_string()))?;
    baseline.validate().map_err(|e| unusable(e.to_string()))?;
    Ok(baseline)
}

/// Columns of numbers: a table's by name, an array's as `f0`, `f1`, …
pub(super) fn columns(rows: &Input) -> Vec<(String, Vec<f32>)> {
    match rows {
        Input::Table(table) => {
            let numbers = |column: &Column| {
                let values = column.cells.as_numbers()?;
                Some((column.name.clone(), values.iter().map(|x| *x as f32).collect()))
            };
            table.columns.iter().filter_map(numbers).collect()
        }
        Input::Tensors(tensors) => {
            let Some((_, tensor)) = tensors.first() else { return Vec::new() };
            let width = tensor.len().checked_div(tensor.row_count()).unwrap_or(0);
            let values = tensor.as_f32();
            let column = |index: usize| values.iter().skip(index).step_by(width.max(1)).copied().collect();
            (0..width).map(|index| (format!("f{index}"), column(index))).collect()
        }
        Input::Image(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Data, Table, Tensor};

    #[test]
    fn an_array_is_flattened_behind_its_first_axis() {
        let tensor = Tensor::new(vec![2, 1, 3], Data::I64(vec![1, 2, 3, 4, 5, 6])).unwrap();
        let rows = Input::Tensors(vec![(String::new(), tensor)]);
        assert_eq!(row_count(&rows), 2);
        let expected = [("f0", [1.0, 4.0]), ("f1", [2.0, 5.0]), ("f2", [3.0, 6.0])];
        assert_eq!(columns(&rows), expected.map(|(name, values)| (name.to_owned(), values.to_vec())));
    }

    #[test]
    fn a_table_keeps_its_names() {
        let table = Table::parse("a,note,b\n1,hums,2\n3,,\n".as_bytes(), &Limits::default()).unwrap();
        let rows = Input::Table(table);
        let baseline = measure(&rows).unwrap();
        assert_eq!((baseline.features[1].name.as_str(), baseline.features[1].missing), ("b", 1));
        assert_eq!((row_count(&rows), texts(&rows)), (2, vec!["note"]));
    }

    /// T58: no number, one that no float can hold, nothing at all, and numbers that contradict each other.
    #[test]
    fn a_baseline_that_nothing_can_be_measured_against_is_refused() {
        let honest = Baseline::measure([("a", &[1.0_f32, 2.0, 3.0][..])]).unwrap();
        let honest = serde_json::to_string(&honest).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drift.json");
        let with = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path).map_err(|error| error.downcast_ref::<Refusal>().map(|refusal| refusal.code))
        };
        assert!(with(&honest).is_ok());
        let count = honest.find("\"count\":").expect("a feature counts its rows");
        let spoil = |value: &str| {
            let end = count + honest[count..].find([',', '}']).unwrap();
            [&honest[..count], "\"count\":", value, &honest[end..]].concat()
        };
        assert!(with(&spoil("3")).is_ok());
        for value in ["NaN", "Infinity", "-Infinity", "1e400", "-1", "4", "null", "\"3\""] {
            assert_eq!(with(&spoil(value)), Err(Some(Code::Baseline)), "{value}");
        }
        for text in ["", "{}", "[]", "{\"version\":1,\"features\":[]}"] {
            assert_eq!(with(text), Err(Some(Code::Baseline)), "{text}");
        }
    }

    #[test]
    fn wide_data_are_refused() {
        let tensor = Tensor::new(vec![1, 5000], Data::U8(vec![0; 5000])).unwrap();
        assert!(measure(&Input::Tensors(vec![(String::new(), tensor)])).is_err());
    }
}
