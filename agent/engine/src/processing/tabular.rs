//! Tables: which columns become which input of the model, and what is done to them
//! on the way.
//!
//! Decides what each tabular step does, as scikit-learn does it. Knows no file.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{PRE, STEPS, unfit, within, wrong};
use crate::Limits;
use crate::error::{LoadError, RunError};
use crate::input::Input;
use crate::observed::{INPUT_VALUES, flat};
use crate::port::Port;
use crate::table::{Cells, Column, Table, number};
use crate::tensor::{Data, Dtype, Tensor, elements};

/// Steps by the name of the model's input; the empty name is a model's only input.
#[derive(Debug, Default)]
pub(crate) struct Tabular(BTreeMap<String, Vec<Step>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    steps: Option<Vec<Step>>,
    inputs: Option<BTreeMap<String, Vec<Step>>>,
}

/// One step; `columns` are those that it acts on, or all.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    Rename { columns: BTreeMap<String, String> },
    Select { columns: Vec<String> },
    Impute { columns: Option<Vec<String>>, values: Each<Value> },
    Standardise { columns: Option<Vec<String>>, mean: Each<f64>, std: Each<f64> },
    Minmax { columns: Option<Vec<String>>, min: Each<f64>, max: Each<f64> },
    Scale { columns: Option<Vec<String>>, offset: Each<f64>, factor: Each<f64> },
    Clip { columns: Option<Vec<String>>, min: Each<f64>, max: Each<f64> },
    Onehot { column: String, categories: Vec<Value> },
}

/// One value for all columns, or one for each.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Each<T> {
    All(T),
    Of(Vec<T>),
}

/// What a cell may be.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Value {
    Number(f64),
    Text(String),
}

impl<T> Each<T> {
    fn at(&self, index: usize) -> Option<&T> {
        match self {
            Each::All(value) => Some(value),
            Each::Of(values) => values.get(index),
        }
    }

    fn len(&self) -> Option<usize> {
        match self {
            Each::All(_) => None,
            Each::Of(values) => Some(values.len()),
        }
    }
}

impl Tabular {
    pub(super) fn read(fields: Fields, ports: &[Port]) -> Result<Tabular, LoadError> {
        let inputs = match (fields.steps, fields.inputs) {
            (Some(steps), None) => {
                super::lone(ports)?;
                BTreeMap::from([(String::new(), steps)])
            }
            (None, Some(inputs)) => inputs,
            _ => return Err(wrong(PRE, "it must have either \"steps\" or \"inputs\"")),
        };
        for (name, steps) in &inputs {
            let port = match &ports {
                [port] if name.is_empty() => Some(port),
                _ => ports.iter().find(|port| port.name == *name),
            };
            let port = port.ok_or_else(|| wrong(PRE, format!("the model has no input {name:?}")))?;
            check(steps, port).map_err(|reason| wrong(PRE, reason))?;
        }
        Ok(Tabular(inputs))
    }

    fn steps(&self, port: &Port) -> &[Step] {
        self.0.get(&port.name).or_else(|| self.0.get("")).map_or(&[], Vec::as_slice)
    }

    /// A table as the model's inputs: by the selected columns, or by the inputs' names.
    /// Without a selection the columns, all of them, fill a model's only input.
    pub(super) fn table(
        &self,
        table: &Table,
        ports: &[Port],
        limits: &Limits,
    ) -> Result<Vec<(String, Tensor)>, RunError> {
        let input = |port: &Port| {
            let steps = self.steps(port);
            let columns = columns(table, steps, port, ports.len() == 1, limits)?;
            Ok((port.name.clone(), tensor(port, apply(steps, columns, limits)?, limits)?))
        };
        ports.iter().map(input).collect()
    }

    /// The steps on tensors: the axes after the first are the selected columns.
    pub(super) fn tensors(
        &self,
        named: &[(String, Tensor)],
        ports: &[Port],
        limits: &Limits,
    ) -> Result<Vec<(String, Tensor)>, RunError> {
        let input = |(name, tensor): &(String, Tensor)| {
            let port = ports.iter().find(|port| port.name == *name || (name.is_empty() && ports.len() == 1));
            let engineered = match port.map(|port| (port, self.steps(port))) {
                Some((port, steps)) if !steps.is_empty() => engineer(steps, tensor, port, limits)?,
                _ => tensor.clone(),
            };
            Ok((name.clone(), engineered))
        };
        named.iter().map(input).collect()
    }
}

impl Tabular {
    /// The columns as they were before any step; an array's are named where they were selected, or where each input is one.
    pub(super) fn observe(&self, input: &Input, ports: &[Port], limits: &Limits) -> Result<Vec<Column>, RunError> {
        let of_port = |port: &Port| match input {
            Input::Table(table) => columns(table, self.steps(port), port, ports.len() == 1, limits),
            Input::Tensors(named) => {
                let mine = |(name, _): &&(String, Tensor)| *name == port.name || (name.is_empty() && ports.len() == 1);
                let Some((_, tensor)) = named.iter().find(mine) else { return Ok(Vec::new()) };
                let names = selected(self.steps(port)).unwrap_or_default();
                Ok(flat(tensor, INPUT_VALUES, |at, width| match names.get(at) {
                    Some(name) => name.clone(),
                    None if ports.len() == 1 => String::new(),
                    None if width == 1 => port.name.clone(),
                    None => format!("{}.{at}", port.name),
                }))
            }
            Input::Image(_) => Ok(Vec::new()),
        };
        let mut all: Vec<Column> = Vec::new();
        for port in ports {
            // One column may go into two inputs.
            let new = of_port(port)?.into_iter();
            let new: Vec<_> =
                new.filter(|c| c.name.is_empty() || all.iter().all(|known| known.name != c.name)).collect();
            all.extend(new);
        }
        Ok(all)
    }
}

/// How many values a row of this input has, where that is fixed.
fn features(port: &Port) -> Option<usize> {
    let rest: Option<Vec<usize>> = port.shape.iter().skip(1).copied().collect();
    elements(&rest?)
}

fn selected(steps: &[Step]) -> Option<&[String]> {
    steps.iter().find_map(|step| match step {
        Step::Select { columns } => Some(columns.as_slice()),
        _ => None,
    })
}

/// The columns of a table that the steps begin with.
fn columns(table: &Table, steps: &[Step], port: &Port, lone: bool, limits: &Limits) -> Result<Vec<Column>, RunError> {
    let renamed = |name: &str| match steps.first() {
        // The table's name for a column, from the name that it gets.
        Some(Step::Rename { columns }) => {
            columns.iter().find(|(_, to)| *to == name).map_or(name, |(from, _)| from).to_owned()
        }
        _ => name.to_owned(),
    };
    let names: Vec<String> = match (selected(steps), lone) {
        (Some(names), _) => names.to_vec(),
        (None, true) => return Ok(table.columns.clone()),
        (None, false) => match features(port) {
            Some(1) | None => vec![port.name.clone()],
            Some(features) => {
                let (name, file) = (&port.name, PRE);
                return Err(unfit(format!(
                    "input {name:?} takes {features} features: {file} must select their columns"
                )));
            }
        },
    };
    within(&[names.len(), table.row_count()], limits)?;
    let column = |name: &String| Ok(Column { name: name.clone(), cells: table.column(&renamed(name))?.cells.clone() });
    names.iter().map(column).collect()
}

/// Columns side by side as a tensor of the input's rank.
fn tensor(port: &Port, columns: Vec<Column>, limits: &Limits) -> Result<Tensor, RunError> {
    let (rows, width) = (columns.first().map_or(0, |column| column.cells.len()), columns.len());
    if columns.iter().any(|column| column.cells.len() != rows) {
        return Err(unfit("the columns of the table differ in length"));
    }
    let count = within(&[rows, width], limits)?;
    let rest: Option<Vec<usize>> = port.shape.iter().skip(1).copied().collect();
    let shape = match rest.filter(|rest| elements(rest) == Some(width)) {
        Some(rest) => [vec![rows], rest].concat(),
        None => vec![rows, width],
    };
    let data = if port.dtype == Dtype::Text {
        let texts: Vec<Vec<String>> = columns.iter().map(|column| column.cells.texts()).collect();
        Data::Text((0..count).map(|at| texts[at % width][at / width].clone()).collect())
    } else {
        let numbers = columns.iter().map(|column| column.cells.numbers(&column.name));
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        Data::F64((0..count).map(|at| numbers[at % width][at / width]).collect())
    };
    let made = Tensor { shape, data };
    match port.dtype {
        Dtype::F32 | Dtype::F64 | Dtype::Bool | Dtype::Text => Ok(made),
        whole if made.cast(whole).is_some() => Ok(made),
        whole => Err(misfit(whole, &made, &columns)),
    }
}

/// The first cell that is no whole number, or one too large for the type.
fn misfit(whole: Dtype, made: &Tensor, columns: &[Column]) -> RunError {
    let values = made.to_f64();
    let fits = |x: f64| Tensor { shape: vec![1], data: Data::F64(vec![x]) }.cast(whole).is_some();
    let at = values.iter().position(|x| !fits(*x)).unwrap_or(0);
    let (row, column) = (at / columns.len(), &columns[at % columns.len()]);
    let (column, value) = (column.name.clone(), column.cells.shown(row));
    RunError::CellType { row, column, value, expected: whole }
}

/// The steps on a tensor whose axes after the first are the features.
fn engineer(steps: &[Step], given: &Tensor, port: &Port, limits: &Limits) -> Result<Tensor, RunError> {
    let name = || port.name.clone();
    given.check().map_err(|source| RunError::Tensor { name: name(), source })?;
    let raw = selected(steps).map(<[String]>::len).or_else(|| features(port));
    let rows = given.row_count();
    let width = given.len().checked_div(rows).unwrap_or(0);
    let widened = steps.iter().any(|step| matches!(step, Step::Onehot { .. }));
    let fits = if widened { given.shape.len() == 2 && raw == Some(width) } else { port.fits_rows(&given.shape) };
    if !fits {
        let expected = if widened { vec![None, raw] } else { port.shape.clone() };
        return Err(RunError::Shape { name: name(), expected, got: given.shape.clone() });
    }
    let values = given.to_f64();
    let column = |at: usize| Column {
        name: selected(steps).and_then(|names| names.get(at)).cloned().unwrap_or_else(|| format!("{at}")),
        cells: match &given.data {
            Data::Text(texts) => Cells::Text(texts.iter().skip(at).step_by(width).cloned().collect()),
            _ => Cells::Numbers(values.iter().skip(at).step_by(width).copied().collect()),
        },
    };
    tensor(port, apply(steps, (0..width).map(column).collect(), limits)?, limits)
}

fn apply(steps: &[Step], mut columns: Vec<Column>, limits: &Limits) -> Result<Vec<Column>, RunError> {
    for step in steps {
        match step {
            Step::Rename { .. } | Step::Select { .. } => {}
            Step::Impute { columns: only, values } => {
                for (column, value) in chosen(&mut columns, only, |at| values.at(at)) {
                    impute(column, value)?;
                }
            }
            Step::Standardise { columns: only, mean, std } => {
                for (column, (mean, std)) in chosen(&mut columns, only, |at| mean.at(at).zip(std.at(at))) {
                    each_number(column, |x| (x - mean) / std)?;
                }
            }
            Step::Minmax { columns: only, min, max } => {
                for (column, (min, max)) in chosen(&mut columns, only, |at| min.at(at).zip(max.at(at))) {
                    each_number(column, |x| (x - min) / (max - min))?;
                }
            }
            Step::Scale { columns: only, offset, factor } => {
                for (column, (offset, factor)) in chosen(&mut columns, only, |at| offset.at(at).zip(factor.at(at))) {
                    each_number(column, |x| (x - offset) * factor)?;
                }
            }
            Step::Clip { columns: only, min, max } => {
                for (column, (min, max)) in chosen(&mut columns, only, |at| min.at(at).zip(max.at(at))) {
                    each_number(column, |x| {
                        if x < *min {
                            *min
                        } else if x > *max {
                            *max
                        } else {
                            x
                        }
                    })?;
                }
            }
            Step::Onehot { column, categories } => one_hot(&mut columns, column, categories, limits)?,
        }
    }
    Ok(columns)
}

/// The columns that a step acts on, each with its value.
fn chosen<'a, T>(
    columns: &'a mut [Column],
    only: &Option<Vec<String>>,
    value: impl Fn(usize) -> Option<T>,
) -> impl Iterator<Item = (&'a mut Column, T)> {
    let at = |(index, column): (usize, &mut Column)| match only {
        Some(names) => names.iter().position(|name| *name == column.name),
        None => Some(index),
    };
    let places: Vec<Option<usize>> = columns.iter_mut().enumerate().map(at).collect();
    columns.iter_mut().zip(places).filter_map(move |(column, place)| Some((column, value(place?)?)))
}

fn each_number(column: &mut Column, change: impl Fn(f64) -> f64) -> Result<(), RunError> {
    match &mut column.cells {
        Cells::Numbers(values) => values.iter_mut().for_each(|x| *x = change(*x)),
        text @ Cells::Text(_) => {
            *text = Cells::Numbers(text.numbers(&column.name)?.iter().map(|x| change(*x)).collect())
        }
    }
    Ok(())
}

fn impute(column: &mut Column, value: &Value) -> Result<(), RunError> {
    match (&mut column.cells, value) {
        (_, Value::Number(value)) => return each_number(column, |x| if x.is_nan() { *value } else { x }),
        (Cells::Text(texts), Value::Text(value)) => {
            texts.iter_mut().filter(|text| text.is_empty()).for_each(|text| text.clone_from(value));
        }
        (numbers @ Cells::Numbers(_), Value::Text(value)) => {
            let text = |text: String| if text.is_empty() { value.clone() } else { text };
            *numbers = Cells::Text(numbers.texts().into_iter().map(text).collect());
        }
    }
    Ok(())
}

/// A column for each category, in its place: 1 where the cell is that category.
fn one_hot(columns: &mut Vec<Column>, name: &str, categories: &[Value], limits: &Limits) -> Result<(), RunError> {
    let Some(at) = columns.iter().position(|column| column.name == name) else { return Ok(()) };
    let rows = columns[at].cells.len();
    within(&[rows, columns.len() - 1 + categories.len()], limits)?;
    let old = columns.remove(at);
    let hot = |category: &Value| {
        let cells: Vec<f64> = match (&old.cells, category) {
            (Cells::Numbers(values), Value::Number(number)) => values.iter().map(|x| flag(x == number)).collect(),
            (Cells::Text(texts), Value::Text(text)) => texts.iter().map(|x| flag(x == text)).collect(),
            (Cells::Text(texts), Value::Number(category)) => {
                texts.iter().map(|x| flag(number(x).is_some_and(|x| x == *category))).collect()
            }
            (numbers, Value::Text(text)) => numbers.texts().iter().map(|x| flag(x == text)).collect(),
        };
        Column { name: hot_name(name, category), cells: Cells::Numbers(cells) }
    };
    let new: Vec<Column> = categories.iter().map(hot).collect();
    columns.splice(at..at, new);
    Ok(())
}

fn flag(truth: bool) -> f64 {
    f64::from(u8::from(truth))
}

fn hot_name(column: &str, category: &Value) -> String {
    match category {
        Value::Number(number) => format!("{column}={number}"),
        Value::Text(text) => format!("{column}={text}"),
    }
}

/// Goes through the steps with names alone: whether each can be done, and whether
/// they make as many features as the input takes.
fn check(steps: &[Step], port: &Port) -> Result<(), String> {
    if steps.len() > STEPS {
        return Err(format!("{} steps are too many; at most {STEPS} are allowed", steps.len()));
    }
    let features = features(port);
    let mut names: Option<Vec<String>> = None;
    let mut width = match selected(steps) {
        Some(_) => None,
        None => features,
    };
    for (place, step) in steps.iter().enumerate() {
        match step {
            Step::Rename { .. } if place == 0 => {}
            Step::Rename { .. } => return Err("rename comes before all other steps".to_owned()),
            Step::Select { columns } => {
                if !steps[..place].iter().all(|step| matches!(step, Step::Rename { .. })) {
                    return Err("select comes before all other steps but rename".to_owned());
                }
                width = Some(columns.len());
                names = Some(columns.clone());
            }
            Step::Onehot { column, categories } => {
                let known = names.as_mut().ok_or("onehot needs a select before it")?;
                let at = known.iter().position(|name| name == column);
                let at = at.ok_or_else(|| format!("onehot: there is no column {column:?}"))?;
                known.splice(at..=at, categories.iter().map(|category| hot_name(column, category)));
                width = Some(known.len());
            }
            Step::Impute { columns, values } => {
                lists("impute", columns, &[("values", values.len())], &names, &mut width)?;
            }
            Step::Standardise { columns, mean, std } => {
                let given = [("mean", mean.len()), ("std", std.len())];
                lists("standardise", columns, &given, &names, &mut width)?;
                above("standardise: std", std, |_| 0.0)?;
            }
            Step::Minmax { columns, min, max } => {
                lists("minmax", columns, &[("min", min.len()), ("max", max.len())], &names, &mut width)?;
                above("minmax: max", max, |at| min.at(at).copied().unwrap_or(f64::NAN))?;
            }
            Step::Scale { columns, offset, factor } => {
                let given = [("offset", offset.len()), ("factor", factor.len())];
                lists("scale", columns, &given, &names, &mut width)?;
            }
            Step::Clip { columns, min, max } => {
                lists("clip", columns, &[("min", min.len()), ("max", max.len())], &names, &mut width)?;
            }
        }
    }
    match (width, features) {
        (Some(made), Some(takes)) if made != takes => {
            Err(format!("it makes {made} features, and input {:?} takes {takes}", port.name))
        }
        _ => Ok(()),
    }
}

/// Whether each list of a step has a value for each column that the step acts on.
fn lists(
    step: &str,
    only: &Option<Vec<String>>,
    given: &[(&str, Option<usize>)],
    names: &Option<Vec<String>>,
    width: &mut Option<usize>,
) -> Result<(), String> {
    let acts_on = match only {
        Some(only) => {
            let known = names.as_ref().ok_or_else(|| format!("{step}: columns need a select before it"))?;
            if let Some(unknown) = only.iter().find(|name| !known.contains(name)) {
                return Err(format!("{step}: there is no column {unknown:?}"));
            }
            Some(only.len())
        }
        // Where nothing else tells how many features there are, the first list does.
        None => {
            *width = width.or_else(|| given.iter().find_map(|(_, length)| *length));
            *width
        }
    };
    for (field, length) in given {
        if let (Some(length), Some(expected)) = (length, acts_on)
            && *length != expected
        {
            return Err(format!("{step}: {field} has {length} values for {expected} features"));
        }
    }
    Ok(())
}

/// Whether every value is above its floor.
fn above(what: &str, values: &Each<f64>, floor: impl Fn(usize) -> f64) -> Result<(), String> {
    for at in 0..values.len().unwrap_or(1) {
        let (value, floor) = (values.at(at).copied().unwrap_or(f64::NAN), floor(at));
        if value.partial_cmp(&floor) != Some(std::cmp::Ordering::Greater) {
            return Err(format!("{what} {at} is {value}, not above {floor}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
