//! The taps: what can be measured of a request, as columns, for whoever watches drift.
//!
//! Decides what a figure of a request is called and that each has a value for each answer. What is measured of an input
//! is decided by the processing that it goes through. Knows no baseline: whether a figure is unusual is decided elsewhere.

use crate::processing::{Answer, Class};
use crate::table::{Cells, Column};
use crate::tensor::{Data, Tensor};

/// The most values of one output that are figures: a longer one is no measure of anything by itself.
const OUTPUT_VALUES: usize = 16;
/// The most values of a row that are figures.
pub(crate) const INPUT_VALUES: usize = 4096;

/// What was measured of a request: columns of equal length, a cell for each answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Of what went in. A column without a name is known by its place: arrays name none.
    pub inputs: Vec<Column>,
    /// Of what came out: `answer.class`, `answer.score`, `answer.anomaly_score`, or `answer.` and an output's name.
    pub answers: Vec<Column>,
}

impl Observed {
    /// Both, where they have a cell for each answer.
    pub(crate) fn new(inputs: Vec<Column>, answer: &Answer) -> Self {
        let rows = answer.outputs.iter().map(|(_, tensor)| tensor.row_count()).max().unwrap_or(0);
        let whole = |column: &Column| column.cells.len() == rows;
        let inputs = if inputs.iter().all(whole) { inputs } else { Vec::new() };
        let answers = answers(answer).into_iter().filter(whole).collect();
        Self { inputs, answers }
    }

    /// Of an answer alone.
    pub fn of(answer: &Answer) -> Self {
        Self::new(Vec::new(), answer)
    }

    /// Adds the rows of another measure of the same figures.
    pub(crate) fn append(&mut self, other: Self) {
        for (mine, theirs) in [(&mut self.inputs, other.inputs), (&mut self.answers, other.answers)] {
            match mine.is_empty() {
                true => *mine = theirs,
                false => mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| mine.cells.append(theirs.cells)),
            }
        }
    }

    /// How many answers it is of.
    pub fn row_count(&self) -> usize {
        self.inputs.iter().chain(&self.answers).map(|column| column.cells.len()).max().unwrap_or(0)
    }
}

/// What a decision is known by; without one the outputs themselves.
fn answers(answer: &Answer) -> Vec<Column> {
    if let Some(rows) = &answer.anomalies {
        return vec![numbers("answer.anomaly_score", rows.iter().map(|row| row.score))];
    }
    if let Some(classes) = &answer.classes {
        let name = |class: &Class| class.label.clone().unwrap_or_else(|| class.index.to_string());
        let classes_of = Column { name: "answer.class".into(), cells: Cells::Text(classes.iter().map(name).collect()) };
        return vec![classes_of, numbers("answer.score", classes.iter().map(|class| class.score.into()))];
    }
    let columns = answer.outputs.iter().flat_map(|(name, tensor)| {
        let name = format!("answer.{name}");
        flat(tensor, OUTPUT_VALUES, |at, width| if width == 1 { name.clone() } else { format!("{name}.{at}") })
    });
    columns.collect()
}

pub(crate) fn numbers(name: impl Into<String>, values: impl Iterator<Item = f64>) -> Column {
    Column { name: name.into(), cells: Cells::Numbers(values.collect()) }
}

/// The values of each row as columns; none when there are more than `most`.
pub(crate) fn flat(tensor: &Tensor, most: usize, name: impl Fn(usize, usize) -> String) -> Vec<Column> {
    let width = tensor.len().checked_div(tensor.row_count()).unwrap_or(0);
    if width > most {
        return Vec::new();
    }
    let values = tensor.to_f64();
    let cells = |at: usize| match &tensor.data {
        Data::Text(texts) => Cells::Text(texts.iter().skip(at).step_by(width).cloned().collect()),
        _ => Cells::Numbers(values.iter().skip(at).step_by(width).copied().collect()),
    };
    (0..width).map(|at| Column { name: name(at, width), cells: cells(at) }).collect()
}

/// Mean and standard deviation of the population; of nothing 0.
pub(crate) fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / count;
    let variance = values.map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Load, floats};
    use crate::{Input, Limits, Table};

    fn named(columns: &[Column]) -> Vec<(&str, Vec<String>)> {
        columns.iter().map(|column| (column.name.as_str(), column.cells.texts())).collect()
    }

    fn texts<const N: usize>(values: [&str; N]) -> Vec<String> {
        values.map(str::to_owned).to_vec()
    }

    fn table(text: &str) -> Input {
        Input::Table(Table::parse(text.as_bytes(), &Limits::default()).unwrap())
    }

    fn array(shape: &[usize], values: &[f32]) -> Input {
        Input::Tensors(vec![(String::new(), floats(shape, values))])
    }

    #[test]
    fn columns_are_measured_as_they_were_before_any_step() {
        let pre = r#"{"version":1,"kind":"tabular","steps":[{"op":"select","columns":["b","a"]},
            {"op":"impute","values":5},{"op":"scale","offset":0,"factor":10}]}"#;
        let pipeline = testing::identity(&[None, Some(2)]).open(&[("pre.json", pre)]).unwrap();
        let (answer, observed) = pipeline.observe(&table("a,b,c\n1,2,x\n,4,y\n")).unwrap();
        assert_eq!(answer.outputs[0].1, floats(&[2, 2], &[20.0, 10.0, 40.0, 50.0]));
        assert_eq!(named(&observed.inputs), [("b", texts(["2", "4"])), ("a", texts(["1", ""]))]);
        assert_eq!(
            named(&observed.answers),
            [("answer.y.0", texts(["20", "40"])), ("answer.y.1", texts(["10", "50"]))]
        );
        let (_, array) = pipeline.observe(&array(&[2, 2], &[2.0, 1.0, 4.0, f32::NAN])).unwrap();
        assert_eq!(named(&array.inputs), named(&observed.inputs), "whichever way it came");
        assert_eq!(array.row_count(), 2);
    }

    #[test]
    fn an_array_without_a_selection_has_places_and_no_names() {
        let pipeline = testing::identity(&[None, Some(2)]).open(&[]).unwrap();
        let (_, observed) = pipeline.observe(&array(&[1, 2], &[1.0, 2.0])).unwrap();
        assert_eq!(named(&observed.inputs), [("", texts(["1"])), ("", texts(["2"]))]);
    }

    #[test]
    fn a_decision_is_measured_in_place_of_what_it_was_made_of() {
        let post = r#"{"version":1,"steps":[{"op":"softmax"},{"op":"argmax"},{"op":"labels"}]}"#;
        let files = [("post.json", post), ("labels.txt", "cat\ndog\n")];
        let pipeline = testing::identity(&[None, Some(2)]).open(&files).unwrap();
        let (_, observed) = pipeline.observe(&array(&[2, 2], &[0.0, 0.0, -900.0, 900.0])).unwrap();
        let expected = [("answer.class", texts(["cat", "dog"])), ("answer.score", texts(["0.5", "1"]))];
        assert_eq!(named(&observed.answers), expected);
    }

    #[cfg(feature = "image")]
    #[test]
    fn a_picture_is_measured_as_the_model_sees_it_whichever_way_it_comes() {
        let pre = r#"{"version":1,"kind":"image","steps":[{"op":"channels","order":"bgr"},
            {"op":"normalise","mean":[3,2,1],"std":[1,2,4]},{"op":"layout","order":"nhwc"}]}"#;
        let pipeline = testing::identity(&[None, None, None, Some(3)]).open(&[("pre.json", pre)]).unwrap();
        let picture = image::RgbImage::from_raw(1, 1, vec![51, 102, 204]).unwrap();
        let mut png = Vec::new();
        picture.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
        let input = Input::Image(png);
        let (_, observed) = pipeline.observe(&input).unwrap();
        let value = |name: &str| {
            let column = observed.inputs.iter().find(|column| column.name == format!("picture.{name}")).unwrap();
            column.cells.as_numbers().unwrap()[0]
        };
        assert!((value("brightness") - (0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.8)).abs() < 1e-6, "{observed:?}");
        assert!((value("saturation") - 0.75).abs() < 1e-6, "{observed:?}");
        let prepared = pipeline.prepare(&input).unwrap().remove(0);
        let (_, array) = pipeline.observe(&Input::Tensors(vec![(String::new(), prepared)])).unwrap();
        assert_eq!(array, observed);
    }

    #[test]
    fn a_window_is_measured_by_its_level_and_how_it_swings() {
        let pre = r#"{"version":1,"kind":"series","steps":[{"op":"select","columns":["x"]},
            {"op":"window","length":2,"stride":2},{"op":"zscore"},{"op":"layout","order":"flat"}]}"#;
        let pipeline = testing::identity(&[None, Some(2)]).open(&[("pre.json", pre)]).unwrap();
        let (_, observed) = pipeline.observe(&table("t,x\n0,1\n1,3\n2,10\n3,10\n")).unwrap();
        assert_eq!(named(&observed.inputs), [("x.mean", texts(["2", "10"])), ("x.deviation", texts(["1", "0"]))]);
        let (_, array) = pipeline.observe(&array(&[4, 1], &[1.0, 3.0, 10.0, 10.0])).unwrap();
        assert_eq!(array, observed);
    }

    #[test]
    fn what_is_too_wide_is_not_measured() {
        let wide = OUTPUT_VALUES + 1;
        let pipeline = testing::identity(&[None, Some(wide as i64)]).open(&[]).unwrap();
        let (_, observed) = pipeline.observe(&array(&[1, wide], &vec![1.0; wide])).unwrap();
        assert_eq!((observed.inputs.len(), observed.answers.len()), (wide, 0));
    }
}
