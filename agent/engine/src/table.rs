//! Tables: named columns of numbers or of text, as a CSV file holds them.
//!
//! Decides what counts as a number and what as missing. Knows no model: whether a cell is
//! read as a number or as a text is decided by whoever takes it, never by the other rows.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Limits;
use crate::error::RunError;
use crate::input::InputError;

/// Named columns of equal length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// At least one, in file order.
    pub columns: Vec<Column>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, unlike every other's.
    pub name: String,
    /// A value for each row.
    pub cells: Cells,
}

/// The values of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Cells {
    /// What was computed; a missing one is NaN.
    Numbers(Vec<f64>),
    /// What a file holds, without the spaces around it; a missing one is empty.
    Text(Vec<String>),
}

impl Table {
    /// Reads a CSV file whose first line names the columns.
    ///
    /// # Errors
    /// `InputError`, with the line where there is one.
    pub fn read(path: &Path, limits: &Limits) -> Result<Table, InputError> {
        let file = File::open(path);
        let file = file.map_err(|source| InputError::Io { path: path.to_owned(), source })?;
        Table::parse(file, limits)
    }

    /// Reads CSV whose first line names the columns. Cells keep their text.
    ///
    /// # Errors
    /// `InputError`, with the line where there is one.
    pub fn parse(source: impl Read, limits: &Limits) -> Result<Table, InputError> {
        let bytes = within(source, limits)?;
        let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(&bytes[..]);
        let names = columns(&mut reader)?;
        let (width, most) = (names.len(), limits.input_elements / names.len());
        let mut cells = vec![Vec::new(); width];
        for (row, record) in reader.records().enumerate() {
            let record = record.map_err(broken)?;
            if row == most {
                return Err(InputError::TooLarge { what: "rows or more", size: most as u64 + 1, limit: most as u64 });
            }
            if record.len() != width {
                let line = record.position().map_or(0, csv::Position::line);
                let reason = format!("{} cells where the header names {width} columns", record.len());
                return Err(InputError::Line { line, reason });
            }
            record.iter().zip(&mut cells).for_each(|(text, cells)| cells.push(text.to_owned()));
        }
        if cells.iter().all(Vec::is_empty) {
            return Err(InputError::Line { line: 2, reason: "there are no rows".to_owned() });
        }
        let column = |(name, cells)| Column { name, cells: Cells::Text(cells) };
        Ok(Table { columns: names.into_iter().zip(cells).map(column).collect() })
    }

    /// Lines of text as a table of one column, `text`; an empty line is an empty text.
    ///
    /// # Errors
    /// `InputError` when there is no line, or it is no UTF-8.
    pub fn parse_lines(source: impl Read, limits: &Limits) -> Result<Table, InputError> {
        let bytes = within(source, limits)?;
        let mut lines = Vec::new();
        for (at, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if at == limits.input_elements {
                let limit = limits.input_elements as u64;
                return Err(InputError::TooLarge { what: "lines or more", size: limit + 1, limit });
            }
            let broken = |error| InputError::Line { line: at as u64 + 1, reason: format!("this is no text: {error}") };
            let line = std::str::from_utf8(line).map_err(broken)?;
            lines.push(line.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']).to_owned());
        }
        match lines.is_empty() {
            true => Err(InputError::Line { line: 1, reason: "there is no text".to_owned() }),
            false => Ok(Table { columns: vec![Column { name: "text".to_owned(), cells: Cells::Text(lines) }] }),
        }
    }

    /// How many rows there are.
    pub fn row_count(&self) -> usize {
        self.columns.first().map_or(0, |column| column.cells.len())
    }

    /// Some of the rows, as far as there are.
    pub fn rows(&self, range: Range<usize>) -> Table {
        let part = |column: &Column| Column { name: column.name.clone(), cells: column.cells.part(range.clone()) };
        Table { columns: self.columns.iter().map(part).collect() }
    }

    pub(crate) fn column(&self, name: &str) -> Result<&Column, RunError> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| RunError::MissingColumn {
            name: name.to_owned(),
            given: self.columns.iter().map(|column| column.name.clone()).collect(),
        })
    }
}

impl Cells {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Cells::Numbers(values) => values.len(),
            Cells::Text(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn part(&self, range: Range<usize>) -> Cells {
        let end = range.end.min(self.len());
        let range = range.start.min(end)..end;
        match self {
            Cells::Numbers(values) => Cells::Numbers(values[range].to_vec()),
            Cells::Text(values) => Cells::Text(values[range].to_vec()),
        }
    }

    /// Adds cells; numbers and texts together are texts.
    pub(crate) fn append(&mut self, mut more: Cells) {
        match (&mut *self, &mut more) {
            (Cells::Numbers(values), Cells::Numbers(more)) => values.append(more),
            (mine, more) => {
                let mut texts = mine.texts();
                texts.append(&mut more.texts());
                *self = Cells::Text(texts);
            }
        }
    }

    /// The numbers, where every cell is one or missing (empty, `NA`, `nan`: NaN).
    pub fn as_numbers(&self) -> Option<Cow<'_, [f64]>> {
        match self {
            Cells::Numbers(values) => Some(Cow::Borrowed(values)),
            Cells::Text(texts) => texts.iter().map(|text| number(text)).collect(),
        }
    }

    /// As `as_numbers`; the first cell that is none is the error.
    pub(crate) fn numbers(&self, column: &str) -> Result<Cow<'_, [f64]>, RunError> {
        self.as_numbers().ok_or_else(|| {
            let none = |at: &usize| matches!(self, Cells::Text(texts) if number(&texts[*at]).is_none());
            let first = (0..self.len()).find(none).unwrap_or(0);
            RunError::Cell { line: first + 2, column: column.to_owned(), value: self.shown(first) }
        })
    }

    /// A cell as an error tells it.
    pub(crate) fn shown(&self, row: usize) -> String {
        match self {
            Cells::Numbers(values) => values.get(row).map(f64::to_string).unwrap_or_default(),
            Cells::Text(texts) => texts.get(row).map(|text| text.chars().take(40).collect()).unwrap_or_default(),
        }
    }

    /// The texts: a file's as they are, `NA` too; a computed number is written as short as it can be read again, a missing one is empty.
    pub fn texts(&self) -> Vec<String> {
        let text = |x: &f64| if x.is_nan() { String::new() } else { x.to_string() };
        match self {
            Cells::Numbers(values) => values.iter().map(text).collect(),
            Cells::Text(texts) => texts.clone(),
        }
    }
}

/// All bytes, as many as the elements allow. One byte more shows that it was cut.
fn within(source: impl Read, limits: &Limits) -> Result<Vec<u8>, InputError> {
    let limit = (limits.input_elements as u64).saturating_mul(16);
    let mut bytes = Vec::new();
    let read = source.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| InputError::Line { line: 0, reason: error.to_string() })?;
    match bytes.len() as u64 > limit {
        true => Err(InputError::TooLarge { what: "bytes or more", size: limit + 1, limit }),
        false => Ok(bytes),
    }
}

fn columns<R: Read>(reader: &mut csv::Reader<R>) -> Result<Vec<String>, InputError> {
    let header = |reason: String| InputError::Line { line: 1, reason };
    let names = reader.headers().map_err(broken)?;
    // Spreadsheets put a byte order mark before the first name.
    let name = |name: &str| name.trim_start_matches('\u{feff}').to_owned();
    let names: Vec<String> = names.iter().map(name).collect();
    if names.iter().all(|name| number(name).is_some()) {
        return Err(header("it must name the columns, but holds no names".to_owned()));
    }
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(header(format!("two columns are named {twice:?}"))),
        None => Ok(names),
    }
}

/// A number that is finite as FP32 too, or NaN for what is missing.
pub(crate) fn number(text: &str) -> Option<f64> {
    if text.is_empty() || text == "NA" || text.eq_ignore_ascii_case("nan") {
        return Some(f64::NAN);
    }
    text.parse::<f64>().ok().filter(|number| (*number as f32).is_finite())
}

fn broken(error: csv::Error) -> InputError {
    let line = error.position().map_or(0, csv::Position::line);
    InputError::Line { line, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Table, String> {
        let limits = Limits { input_elements: 8, ..Limits::default() };
        Table::parse(text.as_bytes(), &limits).map_err(|error| error.to_string())
    }

    fn numbers(table: &Table, name: &str) -> Vec<f64> {
        table.column(name).unwrap().cells.numbers(name).unwrap().into_owned()
    }

    #[test]
    fn a_table_is_never_cut_silently() {
        // 8 elements allow 128 bytes: padded cells reach that before there are too many rows.
        let padded = format!("age\n1{}\n2\n", " ".repeat(200));
        assert!(parse(&padded).unwrap_err().contains("bytes"), "{:?}", parse(&padded));
    }

    #[test]
    fn missing_values_are_nan() {
        let table = parse("\u{feff}age, bmi\n1,2.5\n,NA\nnan,-1e3\n").unwrap();
        assert_eq!((table.columns.len(), table.row_count()), (2, 3));
        let (age, bmi) = (numbers(&table, "age"), numbers(&table, "bmi"));
        assert_eq!((age[0], bmi[0], bmi[2]), (1.0, 2.5, -1000.0));
        assert!(age[1].is_nan() && age[2].is_nan() && bmi[1].is_nan());
        assert_eq!(numbers(&table.rows(0..1), "bmi"), [2.5]);
    }

    #[test]
    fn a_column_with_a_word_in_it_is_text() {
        let table = parse("a,b\n1,2\n,x\n-0.50,\n").unwrap();
        assert_eq!(table.columns[1].cells, Cells::Text(["2", "x", ""].map(str::to_owned).to_vec()));
        assert_eq!(table.columns[0].cells.texts(), ["1", "", "-0.50"]);
        assert!(table.columns[0].cells.as_numbers().is_some() && table.columns[1].cells.as_numbers().is_none());
        let error = table.columns[1].cells.numbers("b").unwrap_err().to_string();
        assert!(error.contains("line 3, column \"b\": \"x\" is no number"), "{error}");
        for text in ["inf", "1e99"] {
            let table = parse(&format!("a\n{text}\n")).unwrap();
            assert!(table.columns[0].cells.numbers("a").is_err(), "{text}");
        }
    }

    #[test]
    fn a_cell_is_what_it_is_whatever_the_others_are() {
        for others in ["", "7\n", "x\n"] {
            let table = parse(&format!("a\n 01234 \n1.0\nNA\n{others}")).unwrap();
            assert_eq!(table.columns[0].cells.texts()[..3], ["01234", "1.0", "NA"]);
        }
    }

    #[test]
    fn errors_name_the_line() {
        for (text, expected) in [
            ("a,b\n1\n", "line 2: 1 cells where the header names 2 columns"),
            ("a,a\n1,2\n", "line 1: two columns are named \"a\""),
            ("1,2\n3,4\n", "line 1: it must name the columns"),
            ("", "line 1: it must name the columns"),
            ("a,b\n", "line 2: there are no rows"),
            ("a,b\n1,1\n1,1\n1,1\n1,1\n1,1\n", "at most 4 are allowed"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let error = Table::parse(&b"a,b\n1,\xff\n"[..], &Limits::default()).unwrap_err();
        assert!(matches!(error, InputError::Line { line: 2, .. }), "{error}");
        let error = Table::parse_lines(&b"one\n\xff\n"[..], &Limits::default()).unwrap_err();
        assert!(matches!(error, InputError::Line { line: 2, .. }), "{error}");
        assert!(Table::parse_lines(&b""[..], &Limits::default()).is_err());
    }

    #[test]
    fn lines_become_a_column_of_text() {
        let table = Table::parse_lines("\u{feff}a, b\r\n\n7".as_bytes(), &Limits::default()).unwrap();
        assert_eq!(table.columns[0].cells, Cells::Text(["a, b", "", "7"].map(str::to_owned).to_vec()));
    }
}
