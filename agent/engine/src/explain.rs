//! What a model is made of, and what would have to change where this engine cannot run it.
//!
//! Decides the nearest remedy for an operator that is missing. It needs no model that loads: most questions
//! are asked of one that does not. Knows no bundle; measures nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

use crate::Limits;
use crate::error::LoadError;
use crate::external;
use crate::model::Model;
use crate::onnx::{inventory, opset};
use crate::ops::library;
use crate::port::Port;

/// What is found in a model file.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The version of ONNX's own operator set; 0 when the file names none.
    pub opset: u64,
    /// Nodes of the graph, those of its subgraphs included.
    pub nodes: usize,
    /// Its operators, the most used first.
    pub operators: Vec<Usage>,
    /// Bytes of all weights.
    pub weights_bytes: u64,
    /// Bytes of the largest other tensor that is known before anything runs; a free axis counts as 1.
    pub largest_bytes: u64,
    /// Files beside the model that hold its weights.
    pub data_files: Vec<String>,
    /// How it is quantised.
    pub quantised: Quantised,
    /// What it takes; empty when it does not load.
    pub inputs: Vec<Port>,
    /// What it gives; empty when it does not load.
    pub outputs: Vec<Port>,
    /// How it is run; `None` when it does not load.
    pub plan: Option<PlanFacts>,
    /// Why it does not load.
    pub problem: Option<String>,
}

/// An operator in a model.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Its name; with the domain unless that is ONNX's own.
    pub operator: String,
    /// Nodes.
    pub count: usize,
    /// Whether the engine has it.
    pub known: bool,
    /// What to do about it.
    pub remedy: Option<&'static str>,
}

/// How a model computes with small integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantised {
    /// It does not.
    No,
    /// Between pairs of QuantizeLinear and DequantizeLinear.
    Qdq,
    /// By operators of their own, such as QLinearConv.
    Operators,
}

/// How a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PlanFacts {
    /// Whether the plan is the optimised one, or the graph as it was exported.
    pub optimised: bool,
    /// Steps of the plan.
    pub steps: usize,
}

/// Operators that quantise by themselves, beside all that begin with QLinear.
const QUANTISED: [&str; 4] = ["ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QGemm"];

const FUSED: &str = "export again without ONNX Runtime's optimisation of the graph: it fuses operators into its own";
const QDQ: &str = "quantise again in the QDQ format (QuantFormat.QDQ), or pack the float model";
const SEQUENCE: &str = "export with tensors in place of sequences: a fixed number of inputs and outputs";
const STRINGS: &str = "do it before the model: the tokenizer or the encoding belongs into pre.json";
const SPECTRUM: &str = "compute the spectrum before the model, and export the network alone";
const DETECTION: &str = "cut the model before it, and do it with the answers";

/// What to do about an operator that the engine cannot run, by the nearest way.
pub fn remedy(operator: &str) -> &'static str {
    let (domain, name) = operator.rsplit_once('.').unwrap_or(("", operator));
    if quantises(name) {
        return QDQ;
    }
    match name {
        "Loop" | "Scan" | "If" => "unroll it: export with a fixed length, and without branches that depend on data",
        "NonMaxSuppression" | "RoiAlign" | "MaxRoiPool" => DETECTION,
        "DFT" | "STFT" | "MelWeightMatrix" => SPECTRUM,
        "ZipMap" => "export with the option zipmap=False: the probabilities are then a plain tensor",
        "CastMap" | "DictVectorizer" | "FeatureVectorizer" => "give the model one tensor of numbers, columns in order",
        "TfIdfVectorizer" | "RegexFullMatch" | "StringNormalizer" | "StringConcat" | "StringSplit" => STRINGS,
        "SplitToSequence" | "ConcatFromSequence" => SEQUENCE,
        name if name.starts_with("Sequence") || name.starts_with("Optional") => SEQUENCE,
        "Dropout" | "Gradient" | "Momentum" | "Adam" | "Adagrad" => "export for inference, not for training",
        "Attention" | "MultiHeadAttention" | "RotaryEmbedding" if domain.is_empty() => {
            "export with opset 18: attention is then written out in plain operators"
        }
        _ if domain == "com.microsoft" || domain == "com.microsoft.nchwc" => FUSED,
        _ if domain.is_empty() || domain == "ai.onnx.ml" => {
            "write that layer with other operators and export again, or cut the model before it"
        }
        _ => "it is nobody's standard: export again as plain ONNX",
    }
}

/// Whether an operator computes with small integers by itself, instead of between QuantizeLinear and
/// DequantizeLinear.
pub fn quantises(operator: &str) -> bool {
    let name = operator.rsplit('.').next().unwrap_or(operator);
    QUANTISED.contains(&name) || name.starts_with("QLinear")
}

/// Explains a model file, whether or not it can be run.
///
/// # Errors
/// `Io`, `NotOnnx` and `TooLarge` for what is no model at all, or more than may be looked at.
pub fn explain(path: &Path, limits: &Limits) -> Result<Explanation, LoadError> {
    let proto = read(path, limits)?;
    let found = inventory(&proto, &library().op_register, limits)?;
    let (model, mut problem) = match Model::load(path, limits) {
        Ok(model) => (Some(model), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let usage = |(operator, count): (&String, &usize)| {
        let known = !found.unknown.contains(operator);
        // Some of these are known, but a model of them hardly ever loads.
        let bad = !known || (model.is_none() && quantises(operator));
        Usage { operator: operator.clone(), count: *count, known, remedy: bad.then(|| remedy(operator)) }
    };
    let mut operators: Vec<Usage> = found.operators.iter().map(usage).collect();
    operators.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.operator.cmp(&b.operator)));
    let data_files = external::names(&proto).unwrap_or_else(|error| {
        problem.get_or_insert(error.to_string());
        Default::default()
    });
    Ok(Explanation {
        opset: opset(&proto),
        nodes: found.nodes,
        quantised: quantised(found.operators.keys()),
        operators,
        weights_bytes: found.weights,
        largest_bytes: found.largest,
        data_files: data_files.into_iter().collect(),
        inputs: model.as_ref().map_or(Vec::new(), |model| model.inputs().to_vec()),
        outputs: model.as_ref().map_or(Vec::new(), |model| model.outputs().to_vec()),
        plan: model.as_ref().map(Model::plan_facts),
        problem,
    })
}

/// The names of the files beside a model that hold its weights.
///
/// # Errors
/// `LoadError` when the file is no model, or names a place that is no plain file beside it.
pub fn data_files(path: &Path, limits: &Limits) -> Result<Vec<String>, LoadError> {
    Ok(external::names(&read(path, limits)?)?.into_iter().collect())
}

impl Model {
    /// How it computes with small integers.
    pub fn quantised(&self) -> Quantised {
        quantised(self.operators().iter())
    }
}

/// How a model with these operators is quantised.
fn quantised<'a>(operators: impl Iterator<Item = &'a String>) -> Quantised {
    let operators: BTreeSet<&str> = operators.map(String::as_str).collect();
    let uses = |name: &str| operators.contains(name);
    if operators.iter().any(|name| quantises(name)) {
        Quantised::Operators
    } else if uses("QuantizeLinear") && uses("DequantizeLinear") {
        Quantised::Qdq
    } else {
        Quantised::No
    }
}

fn read(path: &Path, limits: &Limits) -> Result<ModelProto, LoadError> {
    let unreadable = |source| LoadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    if size > limits.model_bytes {
        let what = "bytes of the model file".to_owned();
        return Err(LoadError::TooLarge { what, size, limit: limits.model_bytes });
    }
    let source = &mut file.take(limits.model_bytes);
    library().proto_model_for_read(source).map_err(|error| LoadError::NotOnnx { reason: format!("{error:#}") })
}
