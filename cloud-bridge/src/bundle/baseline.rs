//! The training rows as columns, and the baseline measured on them.
//!
//! Decides what a row of an array is called. The arithmetic is decided by `drift`.

use super::columnar;
use super::read::read_bounded;
use super::rows::Values;
use crate::fault::Fault;
use drift::{Baseline, Column};
use engine::{Input, Limits, Observed, Pipeline, RunError};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use trust::{Code, Refusal};

/// How a `.npz` begins: it is a zip.
const ARCHIVE: &[u8] = b"PK\x03\x04";
/// The most bytes of `drift.json`: a device keeps it in memory.
const MAX_BYTES: u64 = 8 << 20;

/// Reads rows: a table (.csv or Parquet), an array with one row on each index of its first axis (.npy), or one for each
/// input of the model (.npz).
///
/// # Errors
/// When it cannot be read, or is an image.
pub(crate) fn read_rows(path: &Path) -> anyhow::Result<Input> {
    let unusable = || Fault::new(format!("the training data {} cannot be used", path.display()));
    let limits = Limits::default();
    let mut start = Vec::new();
    let begun = File::open(path).and_then(|file| file.take(4).read_to_end(&mut start));
    begun.map_err(|why| unusable().because(why).remedy("give a .csv, .parquet, .npy or .npz file"))?;
    if start == columnar::MAGIC {
        let table = columnar::read(path, &limits).map_err(|why| unusable().because(why))?;
        return Ok(Input::Table(table));
    }
    if start == ARCHIVE {
        let arrays = engine::read_archive(path, &limits).map_err(|why| unusable().because(why))?;
        let rows = arrays.first().map_or(0, |(_, tensor)| tensor.row_count());
        if rows == 0 || arrays.iter().any(|(_, tensor)| tensor.row_count() != rows) {
            let fault = unusable().because("its arrays have no rows, or not equally many");
            return Err(fault.remedy("give an array for each input of the model, by its name").into());
        }
        return Ok(Input::Tensors(arrays));
    }
    match engine::read_input(path, &limits) {
        Ok(Input::Image(_)) => {
            let fault = unusable()
                .because("it is one image")
                .remedy("give a table (.csv, .parquet) or an array (.npy) of rows");
            Err(fault.into())
        }
        Ok(rows) => Ok(rows),
        Err(error) => Err(unusable().because(error).remedy("give numbers only, without the target").into()),
    }
}

/// Measures what the device will measure: the input's columns by name, an array's as `f0`, `f1`, …, and the answers. Says
/// why, where the answers have no baseline.
///
/// # Errors
/// When the rows do not fit the model, there is nothing to measure, there are too many columns, or two have one name.
pub(crate) fn measure(pipeline: &Pipeline, rows: &Input) -> anyhow::Result<(Baseline, Option<RunError>)> {
    let unusable = || Fault::new("the training data give no baseline");
    let (observed, unanswered) = match pipeline.observe_rows(rows) {
        Ok(observed) => (observed, None),
        Err(why) => {
            let inputs = pipeline.observe_inputs(rows).map_err(|e| unusable().because(e))?;
            (Observed { inputs, answers: Vec::new() }, Some(why))
        }
    };
    let name = |(at, name): (usize, String)| if name.is_empty() { format!("f{at}") } else { name };
    let inputs = observed.inputs.into_iter().enumerate();
    let inputs = inputs.map(|(at, column)| (name((at, column.name)), Values::of(column.cells)));
    // The name of a class is a word, though it may look like a number.
    let answers = observed.answers.into_iter().map(|column| (column.name, Values::of_answer(column.cells)));
    let columns: Vec<(String, Values)> = inputs.chain(answers).collect();
    let categories: Vec<_> = columns.iter().map(|(_, values)| values.categories()).collect();
    let columns = columns.iter().zip(&categories).map(|((name, values), categories)| {
        let numbers = values.numbers.as_deref().unwrap_or_default();
        (
            name.as_str(),
            categories
                .as_deref()
                .filter(|_| values.numbers.is_none())
                .map_or(Column::Numbers(numbers), Column::Categories),
        )
    });
    Ok((Baseline::measure_columns(columns).map_err(|e| unusable().because(e))?, unanswered))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn models() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models")
    }

    fn measured(model: &str, rows: &Input) -> Baseline {
        let pipeline = Pipeline::open(&models().join(model), &Limits::default()).unwrap();
        let (baseline, unanswered) = measure(&pipeline, rows).unwrap();
        assert_eq!(unanswered, None);
        baseline
    }

    fn names(baseline: &Baseline) -> Vec<&str> {
        baseline.features.iter().map(|feature| feature.name.as_str()).collect()
    }

    /// Digits, which are pictures, as the training table has them; and classes whose names look like numbers.
    #[test]
    fn pictures_are_measured_by_six_figures_and_answers_by_class_and_score() {
        let rows = read_rows(&models().join("digits/train.csv")).unwrap();
        let baseline = measured("digits", &rows);
        let pictures = ["brightness", "contrast", "sharpness", "noise", "edges"].map(|name| format!("picture.{name}"));
        assert_eq!(names(&baseline)[..5], pictures);
        assert_eq!(names(&baseline)[5..], ["answer.class", "answer.score"]);
        let class = &baseline.features[5];
        assert_eq!((class.categories.len(), class.count, baseline.version), (10, rows.row_count() as u64, 2));
    }

    #[test]
    fn a_table_is_measured_by_its_columns_before_any_step() {
        let rows = read_rows(&models().join("diabetes/train.csv")).unwrap();
        let baseline = measured("diabetes", &rows);
        let expected = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"];
        assert_eq!(names(&baseline)[..10], expected);
        assert!(names(&baseline)[10].starts_with("answer."), "{:?}", names(&baseline));
        assert!(baseline.features[0].spread.unwrap().mean > 40.0, "years, and not deviations");
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
}
