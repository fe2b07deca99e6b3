//! From what a request showed to rows for the watch on drift, inside of a model's process.
//!
//! Decides which figure is which feature of the baseline: by its name, or, where a request names none of them, by its
//! place. A feature that a request does not show is missing in its rows.

use super::wire::MAX_MEASURED;
use drift::{Baseline, Feature};
use engine::{Cells, Column, Observed};

/// What a baseline calls an answer begins with this.
const ANSWER: &str = "answer.";

/// The features of a baseline, in its order.
#[derive(Debug)]
pub(super) struct Tap {
    features: Vec<Feature>,
}

impl Tap {
    pub(super) fn new(baseline: Baseline) -> Self {
        Self { features: baseline.features }
    }

    /// A value for each feature, row after row; of a request with very many rows some of them, evenly.
    pub(super) fn rows(&self, observed: &Observed) -> Vec<f32> {
        let Observed { inputs, answers } = observed;
        let is_input = |feature: &Feature| !feature.name.starts_with(ANSWER);
        let named = self.features.iter().filter(|f| is_input(f)).any(|f| inputs.iter().any(|c| c.name == f.name));
        let by_place = !named && self.features.iter().filter(|f| is_input(f)).count() == inputs.len();
        let mut places = inputs.iter();
        let columns: Vec<Option<&Column>> = self
            .features
            .iter()
            .map(|feature| match is_input(feature) && by_place {
                true => places.next(),
                false => inputs.iter().chain(answers).find(|column| column.name == feature.name),
            })
            .collect();
        if columns.iter().all(Option::is_none) {
            return Vec::new();
        }
        let (rows, most) = (observed.row_count(), (MAX_MEASURED / self.features.len().max(1)).max(1));
        let step = rows.div_ceil(most).max(1);
        let cell = |(feature, column): (&Feature, &Option<&Column>), row: usize| match column.map(|c| &c.cells) {
            None => f32::NAN,
            Some(Cells::Text(texts)) if feature.is_categorical() => {
                feature.code(texts.get(row).and_then(|text| there(text)))
            }
            Some(Cells::Text(texts)) => texts.get(row).map_or(f32::NAN, |text| text.parse().unwrap_or(f32::NAN)),
            Some(Cells::Numbers(numbers)) => match numbers.get(row) {
                Some(number) if feature.is_categorical() && !number.is_nan() => feature.code(Some(&number.to_string())),
                Some(number) => *number as f32,
                None => f32::NAN,
            },
        };
        let row = |row: usize| self.features.iter().zip(&columns).map(move |pair| cell(pair, row));
        (0..rows).step_by(step).flat_map(row).collect()
    }
}

/// An empty cell is a missing one.
fn there(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap() -> Tap {
        let colours = [Some("red"), Some("blue"), Some("red")];
        let baseline = Baseline::measure_columns([
            ("a", drift::Column::Numbers(&[1.0, 2.0])),
            ("b", drift::Column::Categories(&colours)),
            ("answer.y", drift::Column::Numbers(&[5.0])),
        ]);
        Tap::new(baseline.unwrap())
    }

    fn texts(name: &str, cells: &[&str]) -> Column {
        Column { name: name.into(), cells: Cells::Text(cells.iter().map(|cell| (*cell).to_owned()).collect()) }
    }

    fn numbers(name: &str, cells: &[f64]) -> Column {
        Column { name: name.into(), cells: Cells::Numbers(cells.to_vec()) }
    }

    fn rows(inputs: Vec<Column>, answers: Vec<Column>) -> String {
        format!("{:?}", tap().rows(&Observed { inputs, answers }))
    }

    #[test]
    fn features_are_found_by_name_in_whatever_order_they_come() {
        let inputs = vec![texts("b", &["blue", ""]), texts("more", &["1", "2"]), texts("a", &["1.5", "none"])];
        let answers = vec![numbers("answer.y", &[7.0, 8.0])];
        assert_eq!(rows(inputs, answers), "[1.5, 1.0, 7.0, NaN, NaN, 8.0]");
    }

    #[test]
    fn where_nothing_has_a_name_the_place_counts() {
        let inputs = || vec![numbers("", &[3.0]), numbers("", &[4.0])];
        assert_eq!(rows(inputs(), Vec::new()), "[3.0, 2.0, NaN]", "4 is a colour that nobody knows");
        let one_more = [inputs(), vec![numbers("", &[9.0])]].concat();
        assert_eq!(rows(one_more, Vec::new()), "[]", "then nothing is known");
    }

    #[test]
    fn of_many_rows_some_are_measured_from_the_first_to_the_last() {
        let many: Vec<f64> = (0..100_000).map(f64::from).collect();
        let rows = tap().rows(&Observed { inputs: vec![numbers("a", &many)], answers: Vec::new() });
        assert!(rows.len() <= MAX_MEASURED && rows.len() > MAX_MEASURED / 2, "{}", rows.len());
        assert_eq!((rows[0], rows[rows.len() - 3]), (0.0, 99_999.0 - 99_999.0 % 5.0));
    }
}
