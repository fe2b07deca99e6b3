//! The engine: what a model file is, what goes into it and what comes out.
//!
//! Decides how a bundle's folder becomes an answer: load, pre-process, infer,
//! post-process, and whether the answers agree with a reference. It is the only
//! room that knows the inference library, and deliberately knows no network, no
//! clock, no signature and no drift: whoever calls it has already decided that
//! the files may be believed, and watches what it is told by the tap `observe`.

mod batch;
mod error;
mod exchange;
mod explain;
mod external;
pub mod golden;
mod growth;
mod guard;
mod input;
mod model;
mod npy;
mod observed;
mod onnx;
mod ops;
#[cfg(feature = "image")]
mod picture;
mod pipeline;
mod plan;
mod port;
mod processing;
mod profile;
mod reference;
mod shapes;
#[cfg(feature = "image")]
mod statistics;
mod stream;
mod suspect;
mod table;
mod tensor;
#[cfg(test)]
mod testing;
mod warm;

pub use batch::{measure_batch, rows_stand_alone};
pub use error::{LoadError, RunError};
pub use explain::{Explanation, PlanFacts, Quantised, Usage, data_files, explain, quantises, remedy};
pub use golden::{Agreement, Golden, GoldenError, Tolerance};
pub use input::{Input, InputError, read_input, read_npy};
pub use model::Model;
pub use npy::{read_archive, write_archive};
pub use observed::Observed;
pub use pipeline::Pipeline;
pub use port::Port;
pub use processing::{Anomaly, Answer, Class};
pub use profile::{Profile, Share};
pub use reference::read_reference;
pub use table::{Cells, Column, Table};
pub use tensor::{Data, Dtype, Tensor, TensorError};

/// How much a file may ask for, checked before the work is done.
///
/// Memory that a hostile graph takes while it is being optimised is outside
/// these limits: that is what the worker's own memory limit is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Size of a model file, of its data files together, and of a golden archive, in bytes.
    pub model_bytes: u64,
    /// Nodes in a model's graph, those of its subgraphs included.
    pub nodes: usize,
    /// Graphs inside one another: the branches of an If, the body of a Loop.
    pub depth: usize,
    /// Elements of any one tensor that a model declares, or makes from constants.
    pub tensor_elements: usize,
    /// Weights and the largest other tensor that is known before anything runs, in bytes.
    pub memory_bytes: u64,
    /// Elements of one input: of an array, of a table's cells, of an image's pixels.
    pub input_elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            model_bytes: 256 << 20,
            nodes: 20_000,
            depth: 16,
            tensor_elements: 1 << 28,
            memory_bytes: 1 << 30,
            input_elements: 1 << 24,
        }
    }
}
