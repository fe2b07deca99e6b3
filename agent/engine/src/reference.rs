//! The files in which people keep what a framework answered.
//!
//! Decides how an array, an archive or a table becomes named tensors for a model's ports. Whether the model
//! agrees with them is decided by `golden`.

use std::path::Path;

use crate::Limits;
use crate::input::InputError;
use crate::npy::{self, read_array};
use crate::port::Port;
use crate::table::{Cells, Column, Table};
use crate::tensor::{Data, Tensor, elements};

/// Reads tensors by the names of ports: an `.npz` archive holds one for each under its name, an `.npy` array
/// and a `.csv` table are for the only port, under the empty name. A table's columns fill the axes of that
/// port after the first.
///
/// # Errors
/// `InputError` when the file cannot be read, is none of these, or is too large.
pub fn read_reference(path: &Path, ports: &[Port], limits: &Limits) -> Result<Vec<(String, Tensor)>, InputError> {
    let named = |end: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(end));
    if named("npz") {
        npy::read_archive(path, limits)
    } else if named("csv") {
        let tensor = matrix(&Table::read(path, limits)?)?;
        Ok(vec![(String::new(), ports.first().map_or(tensor.clone(), |port| shaped(tensor, port)))])
    } else if named("npy") {
        let file = std::fs::File::open(path);
        let file = file.map_err(|source| InputError::Io { path: path.to_owned(), source })?;
        Ok(vec![(String::new(), read_array(std::io::BufReader::new(file), limits)?)])
    } else {
        Err(InputError::Unknown { path: path.to_owned() })
    }
}

/// A table as [rows, columns]: of numbers, or of text where it has only one column.
fn matrix(table: &Table) -> Result<Tensor, InputError> {
    let shape = vec![table.row_count(), table.columns.len()];
    if let [Column { cells: cells @ Cells::Text(words), .. }] = &table.columns[..]
        && cells.as_numbers().is_none()
    {
        return Ok(Tensor { shape, data: Data::Text(words.clone()) });
    }
    let mut values = vec![0.0; shape[0] * shape[1]];
    for (at, column) in table.columns.iter().enumerate() {
        let Some(numbers) = column.cells.as_numbers() else {
            let name = &column.name;
            return Err(InputError::array(format!("column {name:?} holds words; save a reference of both as .npz")));
        };
        numbers.iter().enumerate().for_each(|(row, number)| values[row * shape[1] + at] = *number as f32);
    }
    Ok(Tensor { shape, data: Data::F32(values) })
}

/// A matrix in the port's shape, where its columns fill the axes after the first.
fn shaped(matrix: Tensor, port: &Port) -> Tensor {
    let rest: Option<Vec<usize>> = port.shape.iter().skip(1).copied().collect();
    match rest {
        Some(rest) if !port.shape.is_empty() && elements(&rest) == matrix.shape.get(1).copied() => {
            let rows = matrix.row_count();
            Tensor { shape: [rows].into_iter().chain(rest).collect(), ..matrix }
        }
        _ => matrix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;
    use crate::testing::floats;

    #[test]
    fn a_table_takes_the_shape_of_its_port() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        std::fs::write(&path, "a,b,c,d\n1,2,3,4\n5,6,7,8\n").unwrap();
        let read = |shape: &[Option<usize>]| {
            let port = Port { name: "x".to_owned(), dtype: Dtype::F32, shape: shape.to_vec() };
            read_reference(&path, &[port], &Limits::default()).unwrap().remove(0).1
        };
        let values: Vec<f32> = (1u8..=8).map(f32::from).collect();
        for (port, expected) in [
            (vec![None, Some(4)], vec![2, 4]),
            (vec![None, Some(1), Some(2), Some(2)], vec![2, 1, 2, 2]),
            (vec![None, None], vec![2, 4]),
            (vec![None, Some(3)], vec![2, 4]),
        ] {
            assert_eq!(read(&port), floats(&expected, &values));
        }
        std::fs::write(&path, "y\n1\n5\n").unwrap();
        assert_eq!(read(&[None]), floats(&[2], &[1.0, 5.0]));
    }

    #[test]
    fn an_archive_brings_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npz");
        let (a, b) = (floats(&[1], &[1.0]), floats(&[1], &[2.0]));
        npy::write_archive(&path, [("a".to_owned(), &a), ("b".to_owned(), &b)].into_iter()).unwrap();
        let read = read_reference(&path, &[], &Limits::default()).unwrap();
        assert_eq!(read, [("a".to_owned(), a), ("b".to_owned(), b)]);
        let error = read_reference(Path::new("x.txt"), &[], &Limits::default()).unwrap_err();
        assert!(matches!(error, InputError::Unknown { .. }));
    }
}
