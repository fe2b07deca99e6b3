//! The Open Inference Protocol, version 2: requests become inputs, answers become responses.
//!
//! Decides the form only. Which model answers, and what its fault is, is decided by the worker.

use super::binary;
use crate::values::Values;
use crate::worker::{Answered, Loaded};
use engine::{Answer, Class, Data, Dtype, Input, Port, Tensor};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;

/// A request for inference; members that are not known here are passed over, as the protocol wants.
#[derive(Debug, Deserialize)]
pub(crate) struct InferRequest {
    id: Option<String>,
    inputs: Vec<RequestInput>,
    #[serde(default)]
    outputs: Vec<RequestOutput>,
    #[serde(default)]
    parameters: RequestParameters,
}

#[derive(Debug, Default, Deserialize)]
struct RequestParameters {
    /// Every output that does not say otherwise is given as bytes.
    #[serde(default)]
    binary_data_output: bool,
}

#[derive(Debug, Deserialize)]
struct RequestInput {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Option<Flat>,
    #[serde(default)]
    parameters: InputParameters,
}

#[derive(Debug, Default, Deserialize)]
struct InputParameters {
    /// The values are so many of the bytes behind the JSON.
    binary_data_size: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct RequestOutput {
    name: String,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Debug, Default, Deserialize)]
struct OutputParameters {
    binary_data: Option<bool>,
}

/// A response: its JSON, and the bytes behind it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// All of it.
    pub(crate) body: Vec<u8>,
    /// How long the JSON is, where bytes follow.
    pub(crate) json_length: Option<usize>,
}

#[derive(Debug, Serialize)]
struct InferResponse {
    model_name: String,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<ResponseOutput>,
    parameters: Parameters,
}

#[derive(Debug, Serialize)]
struct Parameters {
    /// The release that gave the answer.
    release: u64,
}

#[derive(Debug, Serialize)]
struct ResponseOutput {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Values>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
}

#[derive(Debug, Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

/// What a model takes and gives.
#[derive(Debug, Serialize)]
pub(crate) struct ModelMetadata {
    name: String,
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<PortMetadata>,
    outputs: Vec<PortMetadata>,
}

#[derive(Debug, Serialize)]
struct PortMetadata {
    name: String,
    datatype: String,
    /// -1 where any length will do.
    shape: Vec<i64>,
}

/// One value of a tensor, as JSON writes it.
#[derive(Debug)]
enum Scalar {
    Whole(i64),
    Number(f64),
    Truth(bool),
    Text(String),
}

/// The values of a tensor, from an array or from arrays in arrays.
#[derive(Debug, Default)]
struct Flat(Vec<Scalar>);

impl InferRequest {
    /// The id that the client gave it.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Reads the JSON of a request.
    ///
    /// # Errors
    /// In words, for the one who asked.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|e| format!("the body is no inference request: {e}"))
    }

    /// The input for the engine; `bytes` are those behind the JSON.
    ///
    /// # Errors
    /// In words, for the one who asked.
    pub(crate) fn input(&mut self, mut bytes: &[u8]) -> Result<Input, String> {
        let mut tensors = Vec::new();
        for input in std::mem::take(&mut self.inputs) {
            let own = match input.parameters.binary_data_size {
                None => None,
                Some(size) => {
                    let short =
                        || format!("input `{}` has {size} bytes, and {} follow the JSON", input.name, bytes.len());
                    let (own, rest) = bytes.split_at_checked(size).ok_or_else(short)?;
                    bytes = rest;
                    Some(own)
                }
            };
            tensors.push(input.tensor(own)?);
        }
        match bytes.len() {
            0 => Ok(Input::Tensors(tensors)),
            more => Err(format!("{more} bytes behind the JSON belong to no input")),
        }
    }

    /// The response.
    ///
    /// # Errors
    /// When an output was asked for that there is not.
    pub(crate) fn respond(self, model: &str, answered: Answered) -> Result<Written, String> {
        let Answered { by, answer } = answered;
        let mut outputs: Vec<(String, Tensor, bool)> = outputs(answer)
            .into_iter()
            .map(|(name, tensor)| (name, tensor, self.parameters.binary_data_output))
            .collect();
        if !self.outputs.is_empty() {
            let all = outputs.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>().join(", ");
            let mut asked = Vec::new();
            for RequestOutput { name, parameters } in self.outputs {
                let found = outputs.iter().position(|(output, ..)| *output == name);
                let at = found.ok_or_else(|| {
                    format!("there is no output `{name}`, or it was asked for twice; there are: {all}")
                })?;
                let (name, tensor, binary) = outputs.swap_remove(at);
                asked.push((name, tensor, parameters.binary_data.unwrap_or(binary)));
            }
            outputs = asked;
        }
        let mut bytes = Vec::new();
        let mut response = InferResponse {
            model_name: model.to_owned(),
            model_version: by.release.to_string(),
            id: self.id,
            outputs: Vec::new(),
            parameters: Parameters { release: by.release },
        };
        let mut in_bytes = false;
        for (name, tensor, binary) in outputs {
            let datatype = tensor.dtype().to_string();
            let (data, parameters) = if binary {
                let before = bytes.len();
                binary::write(&tensor.data, &mut bytes);
                in_bytes = true;
                (None, Some(BinarySize { binary_data_size: bytes.len() - before }))
            } else {
                (Some(tensor.data.into()), None)
            };
            response.outputs.push(ResponseOutput { name, datatype, shape: tensor.shape, data, parameters });
        }
        let mut body = serde_json::to_vec(&response).map_err(|e| format!("the answer cannot be written: {e}"))?;
        let json_length = in_bytes.then_some(body.len());
        body.append(&mut bytes);
        Ok(Written { body, json_length })
    }
}

/// Every output of the model, then the classes or anomalies where it tells them.
fn outputs(answer: Answer) -> Vec<(String, Tensor)> {
    let mut outputs = answer.outputs;
    let mut add = |name: &str, data: Data| {
        if outputs.iter().all(|(output, _)| output != name) {
            outputs.push((name.to_owned(), Tensor { shape: vec![data.len()], data }));
        }
    };
    if let Some(classes) = answer.classes {
        let index = |class: &Class| i64::try_from(class.index).unwrap_or(i64::MAX);
        add("class", Data::I64(classes.iter().map(index).collect()));
        let labels: Option<Vec<String>> = classes.into_iter().map(|Class { label, .. }| label).collect();
        if let Some(labels) = labels {
            add("label", Data::Text(labels));
        }
    }
    if let Some(rows) = answer.anomalies {
        add("anomaly_score", Data::F64(rows.iter().map(|row| row.score).collect()));
        add("anomaly", Data::Bool(rows.iter().map(|row| row.anomaly).collect()));
    }
    outputs
}

impl ModelMetadata {
    /// Of a model and the releases of it that serve; the ports are those of the first.
    pub(crate) fn of(name: &str, loaded: &[&Loaded]) -> Self {
        let model = loaded.first();
        let ports = |ports: &[Port]| ports.iter().map(PortMetadata::from).collect::<Vec<_>>();
        Self {
            name: name.to_owned(),
            versions: loaded.iter().map(|l| l.release.to_string()).collect(),
            platform: "onnx_onnxv1",
            inputs: model.map(|m| ports(m.inputs())).unwrap_or_default(),
            outputs: model.map(|m| ports(m.outputs())).unwrap_or_default(),
        }
    }
}

impl From<&Port> for PortMetadata {
    fn from(port: &Port) -> Self {
        let length = |axis: &Option<usize>| axis.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
        let shape = port.shape.iter().map(length).collect();
        Self { name: port.name.clone(), datatype: port.dtype.to_string(), shape }
    }
}

impl RequestInput {
    /// The tensor, of the bytes that are its own or of what the JSON holds.
    fn tensor(self, bytes: Option<&[u8]>) -> Result<(String, Tensor), String> {
        let Self { name, shape, datatype, data, .. } = self;
        let told = |why: String| format!("input `{name}`: {why}");
        let dtype = Dtype::from_str(&datatype).map_err(|e| told(e.to_string()))?;
        let values = match (bytes, data) {
            (Some(bytes), None) => {
                let tensor = Tensor::new(shape, binary::read(dtype, bytes).map_err(told)?);
                return Ok((name.clone(), tensor.map_err(|e| told(e.to_string()))?));
            }
            (None, Some(Flat(values))) => values,
            (Some(_), Some(_)) => {
                return Err(told("it has `data` and `binary_data_size`: one of them is enough".into()));
            }
            (None, None) => return Err(told("it has neither `data` nor `binary_data_size`".into())),
        };
        let misfit = |at: usize| told(format!("value {at} is no {dtype}"));
        let data = match dtype {
            Dtype::F32 => each(&values, |v| v.float().map(|x| x as f32).filter(|x| x.is_finite())).map(Data::F32),
            Dtype::F64 => each(&values, Scalar::float).map(Data::F64),
            Dtype::I8 => each(&values, |v| v.whole()?.try_into().ok()).map(Data::I8),
            Dtype::I16 => each(&values, |v| v.whole()?.try_into().ok()).map(Data::I16),
            Dtype::I32 => each(&values, |v| v.whole()?.try_into().ok()).map(Data::I32),
            Dtype::I64 => each(&values, Scalar::whole).map(Data::I64),
            Dtype::U8 => each(&values, |v| v.whole()?.try_into().ok()).map(Data::U8),
            Dtype::U16 => each(&values, |v| v.whole()?.try_into().ok()).map(Data::U16),
            Dtype::U32 => each(&values, |v| v.whole()?.try_into().ok()).map(Data::U32),
            Dtype::U64 => each(&values, |v| v.whole()?.try_into().ok()).map(Data::U64),
            Dtype::Bool => each(&values, Scalar::truth).map(Data::Bool),
            Dtype::Text => each(&values, Scalar::text).map(Data::Text),
        };
        let tensor = Tensor::new(shape, data.map_err(misfit)?).map_err(|e| told(e.to_string()))?;
        Ok((name, tensor))
    }
}

/// Every value as another type, or the place of the first that cannot be one.
fn each<T>(values: &[Scalar], convert: impl Fn(&Scalar) -> Option<T>) -> Result<Vec<T>, usize> {
    values.iter().enumerate().map(|(at, value)| convert(value).ok_or(at)).collect()
}

impl Scalar {
    fn float(&self) -> Option<f64> {
        match self {
            Scalar::Whole(n) => Some(*n as f64),
            Scalar::Number(x) => Some(*x),
            Scalar::Truth(_) | Scalar::Text(_) => None,
        }
    }

    fn whole(&self) -> Option<i64> {
        match self {
            Scalar::Whole(n) => Some(*n),
            Scalar::Number(_) | Scalar::Truth(_) | Scalar::Text(_) => None,
        }
    }

    fn truth(&self) -> Option<bool> {
        match self {
            Scalar::Truth(truth) => Some(*truth),
            Scalar::Whole(_) | Scalar::Number(_) | Scalar::Text(_) => None,
        }
    }

    fn text(&self) -> Option<String> {
        match self {
            Scalar::Text(text) => Some(text.clone()),
            Scalar::Whole(_) | Scalar::Number(_) | Scalar::Truth(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut flat = Flat::default();
        Gather(&mut flat.0).deserialize_into(deserializer)?;
        Ok(flat)
    }
}

/// Appends a value, or all values of an array, to a list.
struct Gather<'a>(&'a mut Vec<Scalar>);

impl<'de> Gather<'_> {
    fn deserialize_into<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> de::DeserializeSeed<'de> for Gather<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize_into(deserializer)
    }
}

impl<'de> Visitor<'de> for Gather<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, truth values, text, or arrays of them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.0.push(Scalar::Text(text.to_owned()));
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<(), E> {
        self.0.push(Scalar::Truth(truth));
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<(), E> {
        self.0.push(Scalar::Whole(n));
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<(), E> {
        self.0.push(i64::try_from(n).map_or(Scalar::Number(n as f64), Scalar::Whole));
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, x: f64) -> Result<(), E> {
        self.0.push(Scalar::Number(x));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(Gather(self.0))?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(datatype: &str, shape: &str, data: &str) -> Result<Tensor, String> {
        let body = format!(
            r#"{{"id":"7","inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data},"parameters":{{}}}}]}}"#
        );
        let Input::Tensors(mut tensors) = InferRequest::parse(body.as_bytes())?.input(&[])? else {
            return Err("no tensors".into());
        };
        Ok(tensors.remove(0).1)
    }

    #[test]
    fn data_are_flat_or_nested() {
        let expected = Tensor::new(vec![2, 2], Data::F32(vec![1.0, 2.5, -3.0, 4.0])).unwrap();
        for data in ["[1,2.5,-3,4]", "[[1,2.5],[-3,4]]", "[[[1],[2.5]],[[-3],[4]]]"] {
            assert_eq!(input("FP32", "[2,2]", data).as_ref(), Ok(&expected), "{data}");
        }
        let large = Data::I64(vec![i64::MAX, i64::MIN]);
        assert_eq!(input("INT64", "[2]", &format!("[{},{}]", i64::MAX, i64::MIN)).unwrap().data, large);
        assert_eq!(input("BOOL", "[2]", "[true,false]").unwrap().data, Data::Bool(vec![true, false]));
        assert_eq!(input("UINT8", "[1]", "[255]").unwrap().data, Data::U8(vec![255]));
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_input_and_the_place() {
        let cases = [
            ("FP32", "[2]", "[1]", "holds 2 elements"),
            ("FP32", "[2]", "[1,true]", "value 1 is no FP32"),
            ("FP32", "[1]", "[1e39]", "value 0 is no FP32"),
            ("INT32", "[1]", "[1.5]", "value 0 is no INT32"),
            ("UINT8", "[2]", "[0,256]", "value 1 is no UINT8"),
            ("BOOL", "[1]", "[1]", "value 0 is no BOOL"),
            ("FP32", "[1]", "[\"1\"]", "value 0 is no FP32"),
            ("FP32", "[1]", "\"AAAA\"", "value 0 is no FP32"),
            ("FP16", "[1]", "[1]", "no element type"),
            ("FP32", "[18446744073709551615,2]", "[1]", "too large"),
        ];
        for (datatype, shape, data, expected) in cases {
            let fault = input(datatype, shape, data).unwrap_err();
            assert!(fault.contains(expected) && fault.contains("`x`"), "{datatype} {data}: {fault}");
        }
        for data in ["[null]", "{}"] {
            let fault = input("FP32", "[1]", data).unwrap_err();
            assert!(fault.contains("no inference request"), "{data}: {fault}");
        }
        assert!(InferRequest::parse(b"[1,").is_err());
    }

    #[test]
    fn an_array_that_is_nested_without_end_is_refused() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(input("FP32", "[0]", &deep).unwrap_err().contains("recursion"));
    }
}
