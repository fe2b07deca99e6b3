//! Two files of raw rows, column by column, as they are compared.
//!
//! Decides what a cell is: a number, infinite ones too, or missing; or, where a column of the baseline holds a word,
//! a category. The arithmetic is decided by `drift`.

use super::baseline::{columns, read_rows};
use crate::fault::Fault;
use drift::{Column, Comparison, Pair};
use engine::{Cells, Input};
use std::path::{Path, PathBuf};

/// The columns of one file.
pub(crate) struct Rows {
    path: PathBuf,
    columns: Vec<(String, Values)>,
}

/// A column as its file has it.
enum Values {
    Numbers(Vec<f32>),
    Texts(Vec<String>),
}

impl Values {
    fn of(cells: Cells) -> Self {
        let texts = match cells {
            Cells::Numbers(values) => return Self::Numbers(values.into_iter().map(|x| x as f32).collect()),
            Cells::Text(texts) => texts,
        };
        let numbers = texts.iter().map(|text| number(text)).collect::<Option<Vec<f32>>>();
        numbers.map_or(Self::Texts(texts), Self::Numbers)
    }

    /// As categories; an empty cell is a missing one. Of numbers there are none.
    fn texts(&self) -> Vec<Option<&str>> {
        match self {
            Values::Texts(texts) => {
                texts.iter().map(|text| Some(text.as_str()).filter(|text| !text.is_empty())).collect()
            }
            Values::Numbers(values) => vec![None; values.len()],
        }
    }
}

/// A number, NaN where it is missing.
fn number(text: &str) -> Option<f32> {
    if text.is_empty() || text == "NA" { Some(f32::NAN) } else { text.parse::<f64>().ok().map(|x| x as f32) }
}

impl Rows {
    /// Reads a table, or an array with one row on each index of its first axis.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let columns = match read_rows(path)? {
            Input::Table(table) => {
                table.columns.into_iter().map(|column| (column.name, Values::of(column.cells))).collect()
            }
            array => columns(&array).into_iter().map(|(name, values)| (name, Values::Numbers(values))).collect(),
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
        let texts = compared.iter().map(|(name, before)| {
            let now = window.column(name).ok_or_else(|| window.lacks(name))?;
            Ok((before.texts(), now.texts()))
        });
        let texts = texts.collect::<Result<Vec<_>, Fault>>()?;
        let mut pairs = Vec::with_capacity(compared.len());
        for ((name, before), (texts_before, texts_now)) in compared.iter().zip(&texts) {
            let now = window.column(name).ok_or_else(|| window.lacks(name))?;
            let (baseline, window) = match (before, now) {
                (Values::Numbers(before), Values::Numbers(now)) => (Column::Numbers(before), Column::Numbers(now)),
                (Values::Numbers(_), Values::Texts(_)) => return Err(window.is_words(name).into()),
                (Values::Texts(_), Values::Numbers(now)) if now.iter().any(|x| !x.is_nan()) => {
                    return Err(window.is_numbers(name).into());
                }
                (Values::Texts(_), _) => (Column::Categories(texts_before), Column::Categories(texts_now)),
            };
            pairs.push(Pair { name, baseline, window });
        }
        Ok(drift::compare(&pairs)?)
    }

    fn lacks(&self, name: &str) -> Fault {
        Fault::new(format!("{} has no column {name:?}", self.path.display()))
            .because(format!("it has {}", self.names()))
            .remedy("give both files the same columns, or leave it out with --ignore")
    }

    fn is_numbers(&self, name: &str) -> Fault {
        Fault::new(format!("column {name:?} of {} holds numbers", self.path.display()))
            .because("it holds words in the baseline")
            .remedy("mend it, or leave it out with --ignore")
    }

    fn is_words(&self, name: &str) -> Fault {
        Fault::new(format!("column {name:?} of {} holds words", self.path.display()))
            .because("it holds numbers in the baseline")
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
        found.map_err(|error| told(error.as_ref()))
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
            ("a\nx\n", "a\n1\n", &[], "holds numbers"),
            ("a\n1\n", "a\n1\n", &["z"], "there is no column \"z\""),
            ("a\n1\n", "a\n1\n", &["a"], "no baseline"),
        ] {
            let error = compared(before, now, ignored).unwrap_err();
            assert!(error.contains(part), "{part} is not in {error}");
        }
        assert!(compared("a,b\n1,2\n", "a\n1\n", &["b"]).is_ok());
    }
}
