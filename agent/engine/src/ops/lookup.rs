//! Operators that look values up: LabelEncoder, CategoryMapper, OneHotEncoder and
//! ArrayFeatureExtractor.
//!
//! Decides which values are keys, what equals a key, and what stands for one that is
//! not found. Knows no numbers beyond that.

use std::collections::HashMap;
use std::hash::Hash;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, area, only, operator, tensor, values};

/// Where each key stands in its list.
#[derive(Debug)]
enum Index {
    Whole(HashMap<i64, usize>),
    /// By the bits of the wider float, so that what is no number can be a key.
    Real(HashMap<u64, usize>),
    Text(HashMap<String, usize>),
}

/// Which place of a key counts that is there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Twice {
    First,
    Last,
}

fn positions<K: Eq + Hash>(keys: impl IntoIterator<Item = K>, twice: Twice) -> HashMap<K, usize> {
    let mut positions = HashMap::new();
    for (position, key) in keys.into_iter().enumerate() {
        let place = positions.entry(key).or_insert(position);
        if twice == Twice::Last {
            *place = position;
        }
    }
    positions
}

/// All that is no number is the same key, and so are both zeros.
fn bits(real: f64) -> u64 {
    if real.is_nan() { f64::NAN.to_bits() } else { (real + 0.0).to_bits() }
}

impl Index {
    fn of(keys: &Tensor, twice: Twice) -> TractResult<Index> {
        Ok(match keys.datum_type() {
            DatumType::String => Index::Text(positions(values::<String>(keys)?.iter().cloned(), twice)),
            DatumType::F32 | DatumType::F64 => {
                let keys = keys.cast_to::<f64>()?;
                Index::Real(positions(values::<f64>(&keys)?.iter().map(|key| bits(*key)), twice))
            }
            DatumType::I64 | DatumType::I32 | DatumType::I16 => {
                let keys = keys.cast_to::<i64>()?;
                Index::Whole(positions(values::<i64>(&keys)?.iter().copied(), twice))
            }
            other => bail!("keys cannot be {other:?}"),
        })
    }

    /// Where each value stands among the keys, if it does.
    fn find(&self, input: &Tensor) -> TractResult<Vec<Option<usize>>> {
        Ok(match self {
            Index::Text(keys) => values::<String>(input)?.iter().map(|text| keys.get(text).copied()).collect(),
            Index::Real(keys) => {
                let input = input.cast_to::<f64>()?;
                values::<f64>(&input)?.iter().map(|real| keys.get(&bits(*real)).copied()).collect()
            }
            Index::Whole(keys) if input.datum_type().is_float() => {
                let input = input.cast_to::<f64>()?;
                // Cut off after the point, by the specification; what is no number is no category.
                let whole = |real: &f64| (!real.is_nan()).then(|| keys.get(&(*real as i64)).copied()).flatten();
                values::<f64>(&input)?.iter().map(whole).collect()
            }
            Index::Whole(keys) => {
                let input = input.cast_to::<i64>()?;
                values::<i64>(&input)?.iter().map(|whole| keys.get(whole).copied()).collect()
            }
        })
    }
}

/// The elements at these positions.
fn pick(source: &Tensor, positions: &[usize], shape: &[usize]) -> TractResult<Tensor> {
    fn typed<T: Datum>(source: &Tensor, positions: &[usize], shape: &[usize]) -> TractResult<Tensor> {
        let source = values::<T>(source)?;
        tensor(shape, positions.iter().map(|position| source[*position].clone()).collect())
    }
    match source.datum_type() {
        DatumType::F32 => typed::<f32>(source, positions, shape),
        DatumType::F64 => typed::<f64>(source, positions, shape),
        DatumType::I64 => typed::<i64>(source, positions, shape),
        DatumType::I32 => typed::<i32>(source, positions, shape),
        DatumType::I16 => typed::<i16>(source, positions, shape),
        DatumType::String => typed::<String>(source, positions, shape),
        other => bail!("values cannot be {other:?}"),
    }
}

/// From the value at a key to the value at the same place of another list.
#[derive(Debug)]
struct Mapping {
    takes: DatumType,
    index: Index,
    /// The values, and after them the one for what is not found.
    values: Tensor,
}

impl Mapping {
    fn new(keys: &Tensor, values: Tensor, fallback: &Tensor) -> TractResult<Mapping> {
        let (count, given) = (keys.len(), values.len());
        ensure!(count == given, "{count} keys for {given} values; there must be as many");
        let (kind, default) = (values.datum_type(), fallback.datum_type());
        ensure!(kind == default && fallback.len() == 1, "the default must be one {kind:?}");
        let lists = [values.into_shape(&[given])?, fallback.clone().into_shape(&[1])?];
        let values = Tensor::stack_tensors(0, &lists)?;
        pick(&values, &[0], &[1])?;
        Ok(Mapping { takes: keys.datum_type(), index: Index::of(keys, Twice::First)?, values })
    }
}

impl Kernel for Mapping {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        let (takes, given) = (self.takes, input.datum_type);
        ensure!(takes == given, "its keys are {takes:?}, and the input is {given:?}");
        Ok(tvec!(self.values.datum_type().fact(input.shape.clone())))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        let fallback = self.values.len() - 1;
        let found: Vec<usize> = self.index.find(input)?.into_iter().map(|place| place.unwrap_or(fallback)).collect();
        Ok(tvec!(pick(&self.values, &found, input.shape())?))
    }
}

/// A tensor of an attribute; text is not kept in raw bytes, by the specification.
fn load(context: &ParsingContext, proto: &TensorProto) -> TractResult<Tensor> {
    let text = proto.data_type == DataType::String as i32;
    ensure!(!text || proto.raw_data.is_empty(), "a tensor of text cannot be raw bytes");
    context.load_tensor(proto)
}

/// The one list that a node has under these names, of any type.
fn list(context: &ParsingContext, node: &NodeProto, kind: &str) -> TractResult<Tensor> {
    let mut found = Vec::new();
    found.extend(node.get_attr_opt_vec::<i64>(&format!("{kind}_int64s"))?.map(|list| tensor1(&list)));
    found.extend(node.get_attr_opt_vec::<f32>(&format!("{kind}_floats"))?.map(|list| tensor1(&list)));
    found.extend(node.get_attr_opt_vec::<String>(&format!("{kind}_strings"))?.map(|list| tensor1(&list)));
    if let Some(proto) = node.get_attr_opt(&format!("{kind}_tensor"))? {
        found.push(load(context, proto)?);
    }
    found.retain(|list| list.len() > 0);
    match found.pop() {
        Some(list) if found.is_empty() => Ok(list),
        Some(_) => bail!("{}: it has several lists of {kind}", node.op_type),
        None => bail!("{}: it has no {kind}", node.op_type),
    }
}

/// What stands for what is not found, in the type of the values.
fn fallback(context: &ParsingContext, node: &NodeProto, kind: DatumType) -> TractResult<Tensor> {
    if let Some(proto) = node.get_attr_opt("default_tensor")? {
        return load(context, proto);
    }
    Ok(match kind {
        DatumType::String => tensor0(node.get_attr_opt("default_string")?.unwrap_or_else(|| "_Unused".to_owned())),
        DatumType::F32 | DatumType::F64 => tensor0(node.get_attr_opt("default_float")?.unwrap_or(-0.0f32)),
        _ => tensor0(node.get_attr_opt("default_int64")?.unwrap_or(-1i64)),
    })
}

pub(super) fn label_encoder(context: &ParsingContext, node: &NodeProto) -> Built {
    // The first version knows only text and its place in a list.
    if let Some(classes) = node.get_attr_opt_vec::<String>("classes_strings")? {
        let places: Vec<i64> = (0..classes.len() as i64).collect();
        return either_way(context, node, tensor1(&classes), tensor1(&places));
    }
    let (keys, values) = (list(context, node, "keys")?, list(context, node, "values")?);
    let kind = values.datum_type();
    let fallback = fallback(context, node, kind)?;
    let fallback = if kind == DatumType::String { fallback } else { fallback.cast_to_dt(kind)?.into_owned() };
    operator(node, Mapping::new(&keys, values, &fallback).with_context(|| node.op_type.clone())?)
}

pub(super) fn category_mapper(context: &ParsingContext, node: &NodeProto) -> Built {
    let texts = node.get_attr_vec::<String>("cats_strings")?;
    let ints = node.get_attr_vec::<i64>("cats_int64s")?;
    either_way(context, node, tensor1(&texts), tensor1(&ints))
}

/// From text to whole numbers or back, as the input is.
fn either_way(context: &ParsingContext, node: &NodeProto, texts: Tensor, ints: Tensor) -> Built {
    let unknown = |kind| fallback(context, node, kind);
    let to_int = Mapping::new(&texts, ints.clone(), &unknown(DatumType::I64)?)?;
    operator(node, EitherWay { to_int, to_text: Mapping::new(&ints, texts, &unknown(DatumType::String)?)? })
}

#[derive(Debug)]
struct EitherWay {
    to_int: Mapping,
    to_text: Mapping,
}

impl EitherWay {
    fn way(&self, input: DatumType) -> &Mapping {
        if input == DatumType::String { &self.to_int } else { &self.to_text }
    }
}

impl Kernel for EitherWay {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.way(only(inputs)?.datum_type).facts(inputs)
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        self.way(only(inputs)?.datum_type()).run(inputs)
    }
}

/// A new last axis with a 1 at the category's place.
#[derive(Debug)]
struct OneHot {
    index: Index,
    categories: usize,
    /// Whether what is no category is all zeros, or an error.
    zeros: bool,
}

pub(super) fn one_hot_encoder(context: &ParsingContext, node: &NodeProto) -> Built {
    let categories = list(context, node, "cats")?;
    let zeros = node.get_attr_opt::<i64>("zeros")?.unwrap_or(1) != 0;
    // As in ONNX Runtime, of a category that is there twice the last place is hot; of an encoder's key the first counts.
    let index = Index::of(&categories, Twice::Last)?;
    operator(node, OneHot { index, categories: categories.len(), zeros })
}

impl Kernel for OneHot {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        let known = match (&self.index, input.datum_type) {
            (Index::Text(_), kind) => kind == DatumType::String,
            (_, kind) => super::kernel::numeric(kind).is_ok(),
        };
        ensure!(known, "its categories are no {:?}, which the input is", input.datum_type);
        let shape = input.shape.iter().cloned().chain([self.categories.to_dim()]);
        Ok(tvec!(f32::fact(shape.collect::<TVec<_>>())))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        let size = area(input.len(), self.categories)?;
        let mut hot = vec![0f32; size];
        for (element, place) in self.index.find(input)?.into_iter().enumerate() {
            match place {
                Some(place) => hot[element * self.categories + place] = 1.0,
                None => ensure!(self.zeros, "element {element} of its input is no known category"),
            }
        }
        let shape: Vec<usize> = input.shape().iter().copied().chain([self.categories]).collect();
        Ok(tvec!(tensor(&shape, hot)?))
    }
}

/// The columns at these places of the last axis.
#[derive(Debug)]
struct Columns;

pub(super) fn array_feature_extractor(_: &ParsingContext, node: &NodeProto) -> Built {
    operator(node, Columns)
}

/// The shape of the answer: a list counts as one row.
fn columns_shape<D: Clone>(shape: &[D], count: D, one: D) -> TractResult<TVec<D>> {
    let (_, rest) = shape.split_last().context("it takes from the last axis, and the input has none")?;
    let rows = if rest.is_empty() { tvec!(one) } else { rest.into() };
    Ok(rows.into_iter().chain([count]).collect())
}

impl Kernel for Columns {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [input, places] = inputs else { bail!("it takes data and places, not {} inputs", inputs.len()) };
        ensure!(places.datum_type == DatumType::I64, "its places must be int64, not {:?}", places.datum_type);
        pick(&Tensor::zero_dt(input.datum_type, &[0])?, &[], &[0])?;
        let shape = columns_shape(&input.shape, places.shape.iter().product(), 1.to_dim())?;
        Ok(tvec!(input.datum_type.fact(shape)))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let [input, places] = inputs else { bail!("it takes data and places, not {} inputs", inputs.len()) };
        let width = input.shape().last().copied().unwrap_or(0);
        let place = |place: &i64| usize::try_from(*place).ok().filter(|place| *place < width);
        let columns: Option<Vec<usize>> = values::<i64>(places)?.iter().map(place).collect();
        let columns = columns.with_context(|| format!("a place is none of the {width} of its input"))?;
        let rows = input.len().checked_div(width).unwrap_or(0);
        area(rows, columns.len())?;
        let all: Vec<usize> = (0..rows).flat_map(|row| columns.iter().map(move |place| row * width + place)).collect();
        Ok(tvec!(pick(input, &all, &columns_shape(input.shape(), columns.len(), 1)?)?))
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::tensor_proto::DataType;

    use crate::ops::testing::{close, ints, operator, refusal, row, run, texts};
    use crate::tensor::{Data, Tensor};
    use crate::testing::{Load, attribute, floats, graph, node, port, weights};

    #[test]
    fn labels_are_mapped_between_all_types() {
        let keys = [
            (attribute("keys_strings", vec!["b", "a"]), texts(&[1, 3], &["a", "b", "z"])),
            (attribute("keys_int64s", vec![2i64, 1]), ints(&[1, 3], &[1, 2, 9])),
            (attribute("keys_floats", vec![f32::NAN, 0.0]), floats(&[1, 3], &[-0.0, f32::NAN, 9.0])),
        ];
        let values = [
            (attribute("values_strings", vec!["x", "y"]), texts(&[1, 3], &["y", "x", "_Unused"])),
            (attribute("values_int64s", vec![5i64, 6]), ints(&[1, 3], &[6, 5, -1])),
            (attribute("values_floats", vec![0.5f32, 1.5]), floats(&[1, 3], &[1.5, 0.5, -0.0])),
        ];
        for (key, input) in &keys {
            for (value, expected) in &values {
                let got = run("LabelEncoder", 1, input.clone(), vec![key.clone(), value.clone()]);
                assert_eq!(got, std::slice::from_ref(expected));
            }
        }
    }

    #[test]
    fn tensors_may_be_keys_and_values() {
        let tensor = |values: &[i32]| {
            let kind = DataType::Int32 as i32;
            let mut tensor = weights("", &[values.len() as i64], &[]);
            (tensor.data_type, tensor.int32_data) = (kind, values.to_vec());
            tensor
        };
        let mut names = weights("", &[2], &[]);
        (names.data_type, names.string_data) = (DataType::String as i32, vec![b"x".to_vec(), b"y".to_vec()]);
        let mut other = weights("", &[1], &[]);
        (other.data_type, other.string_data) = (DataType::String as i32, vec![b"?".to_vec()]);
        let attributes = vec![
            attribute("keys_tensor", tensor(&[3, 4])),
            attribute("values_tensor", names),
            attribute("default_tensor", other),
        ];
        let input = Tensor::new(vec![3], Data::I32(vec![4, 5, 3])).unwrap();
        assert_eq!(run("LabelEncoder", 1, input, attributes), [texts(&[3], &["y", "?", "x"])]);
    }

    #[test]
    fn categories_are_mapped_either_way() {
        let attributes = || vec![attribute("cats_strings", vec!["a", "b"]), attribute("cats_int64s", vec![4i64, 5])];
        let got = run("CategoryMapper", 1, texts(&[2], &["b", "z"]), attributes());
        assert_eq!(got, [ints(&[2], &[5, -1])]);
        let got = run("CategoryMapper", 1, ints(&[2], &[4, 9]), attributes());
        assert_eq!(got, [texts(&[2], &["a", "_Unused"])]);
    }

    #[test]
    fn a_category_is_one_among_zeros() {
        let attributes = || vec![attribute("cats_int64s", vec![3i64, 0])];
        let hot = [0.0, 1.0, 1.0, 0.0, 0.0, 0.0];
        close(&run("OneHotEncoder", 1, ints(&[1, 3], &[0, 3, 9]), attributes())[0], &[1, 3, 2], &hot);
        close(&run("OneHotEncoder", 1, row(&[0.9, 3.2, f32::NAN]), attributes())[0], &[1, 3, 2], &hot);
        let twice = vec![attribute("cats_int64s", vec![1i64, 2, 1])];
        close(&run("OneHotEncoder", 1, ints(&[1, 1], &[1]), twice)[0], &[1, 1, 3], &[0.0, 0.0, 1.0]);
        let strict = vec![attribute("cats_strings", vec!["a"]), attribute("zeros", 0i64)];
        let input = texts(&[1, 2], &["a", "b"]);
        let error = operator("OneHotEncoder", 1, &input, strict).load().unwrap().run(&[input]).unwrap_err();
        assert!(error.to_string().contains("element 1"), "{error}");
    }

    #[test]
    fn columns_are_taken_from_the_last_axis() {
        let taking = |places: &[i64]| {
            let mut list = weights("p", &[1, places.len() as i64], &[]);
            (list.data_type, list.int64_data) = (DataType::Int64 as i32, places.to_vec());
            let mut proto = graph(vec![node("ArrayFeatureExtractor", &["x", "p"], &["y"])], vec![list]);
            proto.graph.as_mut().unwrap().input[0] = port("x", DataType::Float, &[None, Some(3)]);
            proto.load()
        };
        let got = taking(&[2, 0]).unwrap().run(&[floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])]).unwrap();
        close(&got[0], &[2, 2], &[3.0, 1.0, 6.0, 4.0]);
        for places in [[0, 3], [-1, 0]] {
            let error = taking(&places).unwrap().run(&[row(&[1.0, 2.0, 3.0])]).unwrap_err();
            assert!(error.to_string().contains("none of the 3"), "{error}");
        }
    }

    #[test]
    fn attributes_that_cannot_be_meant_are_refused() {
        let keys = || attribute("keys_int64s", vec![1i64, 2]);
        let mut raw = weights("", &[1], &[]);
        (raw.data_type, raw.raw_data) = (DataType::String as i32, b"abcd".to_vec());
        for (name, attributes, why) in [
            ("LabelEncoder", vec![attribute("keys_tensor", raw)], "cannot be raw bytes"),
            ("LabelEncoder", vec![keys()], "no values"),
            ("LabelEncoder", vec![attribute("values_int64s", vec![1i64])], "no keys"),
            ("LabelEncoder", vec![keys(), attribute("values_int64s", vec![1i64])], "2 keys for 1 values"),
            ("LabelEncoder", vec![keys(), attribute("keys_floats", vec![1f32])], "several lists of keys"),
            ("LabelEncoder", vec![keys(), attribute("values_int64s", vec![1i64, 2])], "keys are I64"),
            ("OneHotEncoder", vec![], "no cats"),
            ("OneHotEncoder", vec![attribute("cats_strings", vec!["a"])], "no F32"),
            ("CategoryMapper", vec![attribute("cats_strings", vec!["a"])], "cats_int64s"),
        ] {
            let reason = refusal(name, row(&[0.0, 0.0]), attributes);
            assert!(reason.contains(why), "{reason:?} does not say {why:?}");
        }
    }
}
