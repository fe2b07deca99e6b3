//! The manifest: the contract between a model and the devices that run it.

use crate::root::{Role, Root};
use crate::statement::Statement;
use crate::strict::{self, Time, U53};
use crate::{Code, MAX_DOCUMENT_BYTES, Refusal, Verified, dsse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// `manifest.json` of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the form: 1.
    pub spec: U53,
    /// The stream that it is a release of.
    pub stream: String,
    /// The version as people write it.
    pub version: String,
    /// The release: a number that only grows.
    pub release: U53,
    /// Once confirmed, a device accepts no release below.
    pub security_floor: U53,
    /// Where it may run; empty for everywhere.
    pub hardware: Vec<Hardware>,
    /// What the engine must offer.
    pub runtime: Runtime,
    /// The oldest agent that runs it, as a semantic version.
    pub min_agent: String,
    /// The files and what each is for, sorted by name; the manifest itself is not listed.
    pub files: Vec<ListedFile>,
    /// What it costs a device.
    pub resources_budget: Budget,
    /// How the golden vectors are compared.
    pub golden: GoldenTerms,
    /// The oldest root under which it may be installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_root_version: Option<U53>,
    /// After this it is not newly installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
}

/// One kind of hardware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// `aarch64`, `x86_64`, …
    pub arch: String,
    /// The class of boards; absent for every board of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Memory of the board, MiB.
    pub min_ram_mb: U53,
}

/// What the engine must offer, and the model's ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// ONNX operator set of the default domain.
    pub opset: U53,
    /// Operators in use, sorted.
    pub ops_used: Vec<String>,
    /// Inputs in order.
    pub inputs: Vec<ManifestPort>,
    /// Outputs in order.
    pub outputs: Vec<ManifestPort>,
    /// Rows that a device puts into one call at most; without it, as many as are asked at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<U53>,
}

/// A named tensor at the model's edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestPort {
    /// Its name in the graph.
    pub name: String,
    /// `FP32`, `INT64`, … as the Open Inference Protocol writes them.
    pub dtype: String,
    /// Dimensions; -1 for one that may vary.
    pub shape: Vec<i64>,
    /// The physical unit, where the packer named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// A file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedFile {
    /// Path within the bundle.
    pub name: String,
    /// What it is for.
    pub role: FileRole,
}

/// What a file of a bundle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileRole {
    /// The ONNX model.
    Model,
    /// Weights that the model keeps in a file beside it.
    ModelData,
    /// Processing of inputs.
    Pre,
    /// Processing of outputs.
    Post,
    /// Names of classes, one a line.
    Labels,
    /// How text is cut into tokens.
    Tokenizer,
    /// Golden vectors.
    Golden,
    /// The training baseline that drift is measured against.
    Drift,
    /// The bill of materials.
    Sbom,
    /// The chunk digests of all other files.
    ChunkIndex,
}

/// What a bundle costs a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Memory to load and to run, MiB, as measured at packing.
    pub ram_mb: U53,
    /// Bytes on disk.
    pub disk_bytes: U53,
}

/// How golden vectors are compared: |got - expected| <= max(abs, rel * |expected|).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenTerms {
    /// Absolute tolerance.
    pub tolerance_abs: f64,
    /// Relative tolerance.
    pub tolerance_rel: f64,
    /// Whether the expected values come from outside the engine that they check.
    pub from_reference: bool,
}

/// The release of a version when none is given: major * 10^6 + minor * 10^3 + patch, each below 1,000.
pub fn default_release(major: u64, minor: u64, patch: u64) -> Option<u64> {
    let small = |n: u64| n < 1_000;
    (small(major) && small(minor) && small(patch)).then_some(major * 1_000_000 + minor * 1_000 + patch)
}

/// Believes a manifest: its bytes are the signed ones, enough of the signers may sign for its
/// stream, and it lists exactly the signed files.
///
/// # Errors
/// A refusal when a byte, the form, the scope or the list is wrong.
pub fn verify_manifest(
    root: &Verified<Root>,
    statement: &Verified<Statement>,
    bytes: &[u8],
) -> Result<Verified<Manifest>, Refusal> {
    let manifest = known_manifest(statement, bytes)?;
    let in_scope = statement.signers().iter().filter(|key| root.in_scope(key, &manifest.stream)).count();
    if in_scope == 0 {
        let detail = format!("its publisher may not sign for stream `{}`", manifest.stream);
        return Err(Refusal::new(Code::Scope, detail));
    }
    dsse::enough("bundle envelope", in_scope, root.threshold(Role::Publisher))?;
    Ok(manifest)
}

/// The manifest that a believed statement signs; who may sign for its stream is not asked.
///
/// # Errors
/// A refusal when a byte, the form or the list of files is wrong.
pub fn known_manifest(statement: &Verified<Statement>, bytes: &[u8]) -> Result<Verified<Manifest>, Refusal> {
    strict::limit("manifest", bytes, MAX_DOCUMENT_BYTES)?;
    let missing = || Refusal::new(Code::Missing, "the statement lists no manifest.json");
    statement.resource("manifest.json").ok_or_else(missing)?.check_bytes(bytes)?;
    let manifest: Manifest = strict::parse_versioned("manifest", bytes)?;
    let listed: BTreeSet<&str> = manifest.files.iter().map(|f| f.name.as_str()).chain(["manifest.json"]).collect();
    let signed: BTreeSet<&str> = statement.resources().iter().map(|r| r.name.as_str()).collect();
    if listed != signed || listed.len() != manifest.files.len() + 1 {
        return Err(Refusal::new(Code::Statement, "the manifest does not list the files that were signed"));
    }
    Ok(Verified::new(manifest, bytes))
}
