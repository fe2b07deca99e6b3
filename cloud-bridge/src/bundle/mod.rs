//! A bundle's folder: made, sealed, opened, checked, carried.
//!
//! Decides which files a bundle has and how they are told apart. What a signature is worth is
//! decided by `trust`; whether a model runs, by `engine`.

mod baseline;
mod chunks;
mod columnar;
mod evidence;
mod explain;
mod measure;
mod pack;
mod read;
mod reference;
mod rows;
mod sbom;
mod seal;
mod staging;
mod tar;
mod verify;

pub(crate) use baseline::read as read_baseline;
pub(crate) use evidence::GoldenSource;
pub(crate) use explain::explain;
pub(crate) use pack::{Batch, PackRequest, Packed, pack};
pub(crate) use read::{Opened, read, read_bounded};
pub(crate) use rows::Rows;
pub(crate) use seal::{Sealed, describe, existing_seal, seal};
pub(crate) use staging::Staging;
pub(crate) use tar::{unpack, write as write_tar};
pub(crate) use verify::{ModelSignature, probe, verify, verify_model_signature};

/// The contract between the model and the devices.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The network itself.
pub(crate) const MODEL: &str = "model.onnx";
/// Processing of inputs.
pub(crate) const PRE: &str = "pre.json";
/// Processing of outputs.
pub(crate) const POST: &str = "post.json";
/// Names of classes.
pub(crate) const LABELS: &str = "labels.txt";
/// How text is cut into tokens.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// Golden vectors.
pub(crate) const GOLDEN: &str = "golden.npz";
/// The training baseline.
pub(crate) const DRIFT: &str = "drift.json";
/// The bill of materials.
pub(crate) const SBOM: &str = "sbom.cdx.json";
/// The chunk digests of all other signed files.
pub(crate) const CHUNKS: &str = "chunks.bin";
/// The publishers' signatures, outside of what is signed.
pub(crate) const SEAL: &str = "bundle.dsse.json";
/// A signature on the same bytes for other people's tools (OpenSSF Model Signing).
pub(crate) const MODEL_SIG: &str = "model.sig";

/// All names that have a meaning of their own.
pub(crate) const RESERVED: [&str; 12] =
    [MANIFEST, MODEL, PRE, POST, LABELS, TOKENIZER, GOLDEN, DRIFT, SBOM, CHUNKS, SEAL, MODEL_SIG];

/// The most files of a bundle.
pub(crate) const MAX_FILES: usize = 1024;
/// The most bytes of one file.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 30;
