//! A conformance case: what is given, what must come out, and when two answers are the same.
//!
//! Decides equality as ONNX's own runner does: shapes and types equal, numbers within the case's tolerance.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

use petrel_engine::{Data, Tensor};
use serde::Deserialize;
use tract_onnx::data_resolver::MmapDataResolver;
use tract_onnx::prelude::{DatumType, TDim, Tensor as Native, TractResult};
use tract_onnx::tensor::{load_tensor, proto_from_reader};
use tract_onnx::tract_hir::internal::f16;

/// `case.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) kind: String,
    /// With the domain, unless that is ONNX's own.
    pub(crate) operators: Vec<String>,
    rtol: f64,
    atol: f64,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    #[serde(skip)]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Value {
    name: String,
    /// None when it is no plain tensor.
    file: Option<String>,
}

/// Values as both sides can be asked for them.
#[derive(Debug, PartialEq)]
pub(crate) struct Plain {
    kind: String,
    shape: Vec<usize>,
    numbers: Vec<f64>,
    texts: Vec<String>,
}

impl Case {
    pub(crate) fn read(folder: &Path) -> Result<Case, Box<dyn Error>> {
        let mut case: Case = serde_json::from_slice(&std::fs::read(folder.join("case.json"))?)?;
        case.folder = folder.to_owned();
        Ok(case)
    }

    /// The inputs that the model (which may have some of them as weights) takes, by name.
    pub(crate) fn inputs(&self, taken: &[String]) -> Result<Vec<(String, Native)>, String> {
        let value = |name: &String| {
            let given = self.inputs.iter().find(|value| value.name == *name);
            self.native(given.ok_or_else(|| format!("the case does not give input {name:?}"))?)
        };
        taken.iter().map(value).collect()
    }

    pub(crate) fn outputs(&self) -> Result<Vec<(String, Native)>, String> {
        self.outputs.iter().map(|value| self.native(value)).collect()
    }

    fn native(&self, value: &Value) -> Result<(String, Native), String> {
        let file = value.file.as_ref().ok_or_else(|| format!("{:?} is no tensor", value.name))?;
        let read = || -> TractResult<Native> {
            let proto = proto_from_reader(File::open(self.folder.join(file))?)?;
            load_tensor(&MmapDataResolver, &proto, None)
        };
        Ok((value.name.clone(), read().map_err(|error| format!("{error:#}"))?))
    }

    /// How far numbers may be off, relative and absolute, by ONNX's own runner.
    pub(crate) fn tolerance(&self) -> (f64, f64) {
        (self.rtol, self.atol)
    }
}

impl Plain {
    /// Why an answer is wrong; none when it is right.
    pub(crate) fn differs(&self, got: &Plain, (rtol, atol): (f64, f64)) -> Option<String> {
        // The engine speaks of half precision in FP32.
        let half = self.kind == "FP16" && got.kind == "FP32";
        if self.kind != got.kind && !half {
            return Some(format!("type {} for {}", got.kind, self.kind));
        }
        if self.shape != got.shape {
            return Some(format!("shape {:?} for {:?}", got.shape, self.shape));
        }
        if self.texts != got.texts {
            return Some(format!("{:?} for {:?}", got.texts, self.texts));
        }
        let close = |want: f64, got: f64| match want.is_finite() && got.is_finite() {
            true => (want - got).abs() <= atol + rtol * want.abs(),
            false => want == got || (want.is_nan() && got.is_nan()),
        };
        let mut pairs = self.numbers.iter().zip(&got.numbers);
        let (want, got) = pairs.find(|(want, got)| !close(**want, **got))?;
        Some(format!("{got} for {want}"))
    }
}

impl From<&Tensor> for Plain {
    fn from(tensor: &Tensor) -> Plain {
        let texts = if let Data::Text(texts) = &tensor.data { texts.clone() } else { Vec::new() };
        let numbers = if texts.is_empty() { tensor.to_f64() } else { Vec::new() };
        Plain { kind: tensor.dtype().to_string(), shape: tensor.shape.clone(), numbers, texts }
    }
}

/// The library's own kind of whole number counts as INT64: it is what its other front ends give for it.
pub(crate) fn plain(tensor: &Native) -> Result<Plain, String> {
    let plain = Plain::from(&ours(tensor)?);
    Ok(if tensor.datum_type() == DatumType::F16 { Plain { kind: "FP16".to_owned(), ..plain } } else { plain })
}

/// The library's tensor as the engine's.
pub(crate) fn ours(tensor: &Native) -> Result<Tensor, String> {
    macro_rules! values {
        ($kind:ty) => {{
            let view = tensor.to_plain_array_view::<$kind>().map_err(|error| format!("{error:#}"))?;
            Data::from(view.iter().cloned().collect::<Vec<$kind>>())
        }};
    }
    let data = match tensor.datum_type() {
        DatumType::F16 => {
            let view = tensor.to_plain_array_view::<f16>().map_err(|error| format!("{error:#}"))?;
            Data::F32(view.iter().map(|value| value.to_f32()).collect())
        }
        DatumType::F32 => values!(f32),
        DatumType::F64 => values!(f64),
        DatumType::I8 => values!(i8),
        DatumType::I16 => values!(i16),
        DatumType::I32 => values!(i32),
        DatumType::I64 => values!(i64),
        DatumType::U8 => values!(u8),
        DatumType::U16 => values!(u16),
        DatumType::U32 => values!(u32),
        DatumType::U64 => values!(u64),
        DatumType::Bool => values!(bool),
        DatumType::String => values!(String),
        DatumType::TDim => {
            let view = tensor.to_plain_array_view::<TDim>().map_err(|error| format!("{error:#}"))?;
            let known: Result<Vec<i64>, _> = view.iter().map(TDim::to_i64).collect();
            Data::I64(known.map_err(|error| format!("{error:#}"))?)
        }
        other => return Err(format!("elements of type {other:?}")),
    };
    Tensor::new(tensor.shape().to_vec(), data).map_err(|error| error.to_string())
}
