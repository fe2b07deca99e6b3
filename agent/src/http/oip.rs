//! The Open Inference Protocol, version 2, as JSON: requests become inputs, answers become responses.
//!
//! Decides the form only. Which model answers, and what its fault is, is decided by the worker.

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
}

#[derive(Debug, Deserialize)]
struct RequestInput {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Flat,
}

#[derive(Debug, Deserialize)]
struct RequestOutput {
    name: String,
}

/// A response.
#[derive(Debug, Serialize)]
pub(crate) struct InferResponse {
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
    data: Values,
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
    /// Reads a request.
    ///
    /// # Errors
    /// In words, for the one who asked.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| format!("the body is no inference request: {e}"))
    }

    /// The input for the engine.
    ///
    /// # Errors
    /// In words, for the one who asked.
    pub(crate) fn input(&mut self) -> Result<Input, String> {
        let tensors = std::mem::take(&mut self.inputs).into_iter().map(RequestInput::tensor);
        Ok(Input::Tensors(tensors.collect::<Result<_, _>>()?))
    }

    /// The response.
    ///
    /// # Errors
    /// When an output was asked for that there is not.
    pub(crate) fn respond(self, model: &str, answered: Answered) -> Result<InferResponse, String> {
        let Answered { by, answer } = answered;
        let mut outputs = outputs(answer);
        if !self.outputs.is_empty() {
            let all = outputs.iter().map(|o| o.name.clone()).collect::<Vec<_>>().join(", ");
            let mut asked = Vec::new();
            for RequestOutput { name } in self.outputs {
                let found = outputs.iter().position(|output| output.name == name);
                let at = found.ok_or_else(|| {
                    format!("there is no output `{name}`, or it was asked for twice; there are: {all}")
                })?;
                asked.push(outputs.swap_remove(at));
            }
            outputs = asked;
        }
        Ok(InferResponse {
            model_name: model.to_owned(),
            model_version: by.release.to_string(),
            id: self.id,
            outputs,
            parameters: Parameters { release: by.release },
        })
    }
}

/// Every output of the model, then the classes or anomalies where it tells them.
fn outputs(answer: Answer) -> Vec<ResponseOutput> {
    let output = |(name, tensor): (String, Tensor)| ResponseOutput {
        name,
        datatype: tensor.dtype().to_string(),
        shape: tensor.shape,
        data: tensor.data.into(),
    };
    let mut outputs: Vec<ResponseOutput> = answer.outputs.into_iter().map(output).collect();
    let mut add = |name: &str, datatype: &str, data: Values, count: usize| {
        if outputs.iter().all(|output| output.name != name) {
            outputs.push(ResponseOutput { name: name.into(), datatype: datatype.into(), shape: vec![count], data });
        }
    };
    if let Some(classes) = answer.classes {
        let count = classes.len();
        let index = |class: &Class| i64::try_from(class.index).unwrap_or(i64::MAX);
        add("class", "INT64", Values::I64(classes.iter().map(index).collect()), count);
        let labels: Option<Vec<String>> = classes.into_iter().map(|Class { label, .. }| label).collect();
        if let Some(labels) = labels {
            add("label", "BYTES", Values::Text(labels), count);
        }
    }
    if let Some(rows) = answer.anomalies {
        add("anomaly_score", "FP64", Values::F64(rows.iter().map(|row| row.score).collect()), rows.len());
        add("anomaly", "BOOL", Values::Bool(rows.iter().map(|row| row.anomaly).collect()), rows.len());
    }
    outputs
}

impl ModelMetadata {
    /// Of a model and the releases of it that serve; the ports are those of the first.
    pub(crate) fn of(name: &str, loaded: &[&Loaded]) -> Self {
        let model = loaded.first().map(|loaded| loaded.pipeline.model());
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
    fn tensor(self) -> Result<(String, Tensor), String> {
        let Self { name, shape, datatype, data: Flat(values) } = self;
        let told = |why: String| format!("input `{name}`: {why}");
        let dtype = Dtype::from_str(&datatype).map_err(|e| told(e.to_string()))?;
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
        let Input::Tensors(mut tensors) = InferRequest::parse(body.as_bytes())?.input()? else {
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
