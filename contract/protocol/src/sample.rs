//! Inputs that a device keeps for people, and gives where that was asked for and approved.
//!
//! JSON, inside of what came of the command that asked ([`crate::CommandResult`]). What a device may keep and give is for
//! its own configuration to say.

use serde::{Deserialize, Serialize};

/// One input of a model and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// When it was answered, milliseconds since 1970 as the device knows the time.
    pub at: u64,
    /// Which release answered.
    pub release: u64,
    /// The id of its request, if it had one: labels name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why it was kept.
    pub chosen: Chosen,
    /// What went in, without what may not leave the device.
    pub input: SampledInput,
    /// What came out: `class` and `score`, `anomaly_score`, or outputs by their names.
    pub answer: Vec<Cell>,
}

/// A value by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Of which column or output.
    pub name: String,
    /// As text; empty where it is missing.
    pub value: String,
}

/// Why an input was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chosen {
    /// By lot: every input was as likely as every other.
    Drawn,
    /// The model was less sure of few others.
    Doubtful,
}

impl Chosen {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Chosen::Drawn => "drawn",
            Chosen::Doubtful => "doubtful",
        }
    }
}

/// What went into a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampledInput {
    /// A cell of each column that may leave the device; of a hashed one `hashed:` and 16 hexadecimal digits.
    Fields(Vec<Cell>),
    /// A PNG or JPEG file, base64.
    Image(String),
    /// Arrays, by the name of the model's input.
    Arrays(Vec<SampledArray>),
}

/// An array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampledArray {
    /// The model's input; empty where the model has one.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its values in C order, as text.
    pub values: Vec<String>,
}
