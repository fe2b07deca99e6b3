//! Two files of raw rows, column by column, as they are compared.
//!
//! Decides what a cell is: a number, infinite ones too, or missing; or, where a column of the baseline holds a word,
//! a category. The arithmetic is decided by `drift`.

use crate::fault::Fault;
use drift::{Column, Comparison, Pair};
use engine::{Cells, Input, Limits};
use std::path::{Path, PathBuf};

/// The columns of one file.
pub(crate) struct Rows {
    path: PathBuf,
    columns: Vec<(String, Values)>,
}

/// A column: what the file has, and the numbers if every cell is one.
pub(super) struct Values {
    texts: Option<Vec<String>>,
    pub(super) numbers: Option<Vec<f32>>,
}

impl Values {
    pub(super) fn of(cells: Cells) -> Self {
        match cells {
            Cells::Numbers(values) => Self::array(values.into_iter().map(|x| x as f32).collect()),
            Cells::Text(texts) => {
                let numbers = texts.iter().map(|text| number(text)).collect();
                Self { texts: Some(texts), numbers }
            }
        }
    }

    /// Of an answer: what is a text is a category, whatever it looks like.
    pub(super) fn of_answer(cells: Cells) -> Self {
        match cells {
            Cells::Text(texts) => Self { texts: Some(texts), numbers: None },
            numbers => Self::of(numbers),
        }
    }

    fn array(numbers: Vec<f32>) -> Self {
        Self { texts: None, numbers: Some(numbers) }
    }

    /// As categories, where the file has texts; an empty cell is a missing one.
    pub(super) fn categories(&self) -> Option<Vec<Option<&str>>> {
        let texts = self.texts.as_ref()?;
        Some(texts.iter().map(|text| Some(text.as_str()).filter(|text| !text.is_empty())).collect())
    }
}

/// A number, NaN where it is missing.
fn number(text: &str) -> Option<f32> {
    if text.is_empty() || text == "NA" { Some(f32::NAN) } else { text.parse::<f64>().ok().map(|x| x as f32) }
}

/// Columns of an array: `f0`, `f1`, …
fn columns(rows: &Input) -> Vec<(String, Vec<f32>)> {
    let Input::Tensors(tensors) = rows else { return Vec::new() };
    let Some((_, tensor)) = tensors.first() else { return Vec::new() };
    let width = tensor.len().checked_div(tensor.row_count()).unwrap_or(0);
    let values = tensor.as_f32();
    let column = |index: usize| values.iter().skip(index).step_by(width.max(1)).copied().collect();
    (0..width).map(|index| (format!("f{index}"), column(index))).collect()
}

impl Rows {
    /// Reads a table, or an array with one row on each index of its first axis.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let unusable = || Fault::new(format!("{} cannot be compared", path.display()));
        let read = engine::read_input(path, &Limits::default());
        let columns = match read.map_err(|error| unusable().because(error))? {
            Input::Table(table) => {
                table.columns.into_iter().map(|column| (column.name, Values::of(column.cells))).collect()
            }
            Input::Image(_) => return Err(unusable().because("it is one image: give rows (.csv or .npy)").into()),
            array => columns(&array).into_iter().map(|(name, values)| (name, Values::array(values))).collect(),
        };
        Ok(Self { path: path.to_owned(), columns })
    }

    /// Compares another file's rows with these, but for some columns.
    ///
    /// # Errors
    /// When the other lacks a column, or has words where these have numbers.
    pub(crate) fn compare(&self, window: &Self, ignored: &[String]) -> anyhow::Result<Comparison> {
        if let Some(unknown) = ignored.iter().find(|name| self.column(name).is_none()) {
            let fault = Fault::new(format!("there is no column {unknown:?} to leave out"));
            return Err(fault.because(format!("{} has {}", self.path.display(), self.names())).into());
        }
        let compared: Vec<&(String, Values)> =
            self.columns.iter().filter(|(name, _)| !ignored.contains(name)).collect();
        let mut columns = Vec::with_capacity(compared.len());
        for (name, before) in &compared {
            let now = window.column(name).ok_or_else(|| window.lacks(name))?;
            columns.push((name.as_str(), before, now, before.categories(), now.categories()));
        }
        let mut pairs = Vec::with_capacity(columns.len());
        for (name, before, now, texts_before, texts_now) in &columns {
            // What the baseline is, the window must be.
            let (baseline, window) = match (&before.numbers, &now.numbers, texts_before, texts_now) {
                (Some(before), Some(now), ..) => (Column::Numbers(before), Column::Numbers(now)),
                (Some(_), None, ..) => return Err(window.is_other(name, "words", "numbers").into()),
                (None, _, Some(before), Some(now)) => (Column::Categories(before), Column::Categories(now)),
                (None, ..) => return Err(window.is_other(name, "numbers", "words").into()),
            };
            pairs.push(Pair { name, baseline, window });
        }
        let found = drift::compare(&pairs);
        Ok(found.map_err(|error| Fault::new("the two tables cannot be compared").because(error))?)
    }

    fn lacks(&self, name: &str) -> Fault {
        Fault::new(format!("{} has no column {name:?}", self.path.display()))
            .because(format!("it has {}", self.names()))
            .remedy("give both files the same columns, or leave it out with --ignore")
    }

    fn is_other(&self, name: &str, here: &str, baseline: &str) -> Fault {
        Fault::new(format!("column {name:?} of {} holds {here}", self.path.display()))
            .because(format!("it holds {baseline} in the baseline"))
            .remedy("mend it, or leave it out with --ignore")
    }

    fn column(&self, name: &str) -> Option<&Values> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, values)| values)
    }

    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::told;

    fn rows(name: &str, text: &str) -> Rows {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Rows::read(&path).unwrap()
    }

    fn compared(before: &str, now: &str, ignored: &[&str]) -> Result<Comparison, String> {
        let ignored: Vec<String> = ignored.iter().map(|name| (*name).to_owned()).collect();
        let found = rows("before.csv", before).compare(&rows("now.csv", now), &ignored);
        found.map_err(|error| told(&*error))
    }

    #[test]
    fn a_cell_may_be_missing_infinite_or_a_word() {
        let found = compared("a,c\n1,red\ninf,\n,red\n", "c,a,more\nblue,-inf\u{20},1\n,nan,2\n", &[]).unwrap();
        let (a, c) = (&found.features[0], &found.features[1]);
        assert_eq!((a.baseline.plus_inf, a.baseline.missing, a.window.minus_inf, a.window.missing), (1, 1, 1, 1));
        assert_eq!((c.categories.as_slice(), c.window.counts.as_slice()), (&["red".to_owned()][..], &[0, 1][..]));
        assert_eq!((c.baseline.missing, c.window.missing), (1, 1));
    }

    #[test]
    fn files_that_do_not_suit_each_other_say_why() {
        for (before, now, ignored, part) in [
            ("a,b\n1,2\n", "a\n1\n", &[][..], "now.csv has no column \"b\""),
            ("a\n1\n", "a\nx\n", &[], "holds words"),
            ("a\n1\n", "a\n1\n", &["z"], "there is no column \"z\""),
            ("a\n1\n", "a\n1\n", &["a"], "no baseline"),
        ] {
            let error = compared(before, now, ignored).unwrap_err();
            assert!(error.contains(part), "{part} is not in {error}");
        }
        assert!(compared("a,b\n1,2\n", "a\n1\n", &["b"]).is_ok());
    }

    #[test]
    fn a_category_may_look_like_a_number() {
        let found = compared("a\n1\n1\nx\n", "a\n1\n1.0\n", &[]).unwrap();
        assert_eq!((found.features[0].categorical, found.features[0].window.counts.as_slice()), (true, &[1, 0, 1][..]));
    }
}
