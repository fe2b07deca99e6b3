//! Verifying a bundle as a device would: signatures, scope, files, chunk index, baseline, golden vectors.
//!
//! Decides the order, cheapest first. What is refused and under which code is decided by `trust`.

use super::read::read_bounded;
use super::seal::existing_model_signature;
use super::{DRIFT, GOLDEN, MANIFEST, MODEL, MODEL_SIG, SEAL, baseline, chunks, evidence, read};
use anyhow::Context;
use engine::{Agreement, Golden, Limits, Tolerance};
use std::path::Path;
use trust::{Code, DeviceKey, FileRole, MAX_DOCUMENT_BYTES, Manifest, Refusal, Root, Statement, Verified};

/// Believes the bundle in `dir` when enough publishers of `root` signed exactly these files.
///
/// # Errors
/// A [`Refusal`] (to be found by `downcast_ref`), or what the system said.
pub(crate) fn verify(root: &Verified<Root>, dir: &Path) -> anyhow::Result<(Verified<Statement>, Verified<Manifest>)> {
    let seal = dir.join(SEAL);
    if seal.symlink_metadata().is_err() {
        return Err(Refusal::new(Code::Threshold, format!("the bundle is not signed: it has no {SEAL}")).into());
    }
    let statement = trust::verify_statement(root, &read_bounded(&seal, MAX_DOCUMENT_BYTES as u64)?)?;
    let found = read(dir)?;
    statement.check_files(&found)?;
    let manifest = read_bounded(&dir.join(MANIFEST), MAX_DOCUMENT_BYTES as u64)?;
    let manifest = trust::verify_manifest(root, &statement, &manifest)?;
    chunks::check(dir, &found)?;
    if manifest.files.iter().any(|file| file.role == FileRole::Drift) {
        baseline::read(&dir.join(DRIFT))?;
    }
    Ok((statement, manifest))
}

/// What is known of a bundle's `model.sig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelSignature {
    /// There is none, and nobody asked for one.
    Absent,
    /// It is there; without its public key nobody can say whose it is.
    Unchecked,
    /// The holder of the key signed this very statement.
    Holds,
}

/// Checks `model.sig` in `dir` with its signer's key. A device does not look at it.
///
/// # Errors
/// A [`Refusal`]; `E_MISSING` when a key was given and there is no `model.sig`.
pub(crate) fn verify_model_signature(
    dir: &Path,
    statement: &Verified<Statement>,
    key: Option<&DeviceKey>,
) -> anyhow::Result<ModelSignature> {
    match (existing_model_signature(dir)?, key) {
        (None, None) => Ok(ModelSignature::Absent),
        (Some(_), None) => Ok(ModelSignature::Unchecked),
        (None, Some(_)) => Err(Refusal::new(Code::Missing, format!("the bundle has no {MODEL_SIG}")).into()),
        (Some(bytes), Some(key)) => {
            Statement::check_model_signature(statement, key, &bytes)?;
            Ok(ModelSignature::Holds)
        }
    }
}

/// Runs the model of the bundle in `dir` on its golden vectors.
///
/// # Errors
/// `E_MODEL` and `E_GOLDEN`, or what the system said.
pub(crate) fn probe(dir: &Path, manifest: &Manifest) -> anyhow::Result<Agreement> {
    let pipeline = evidence::open(dir, Path::new(MODEL))?;
    let golden = Golden::read(&dir.join(GOLDEN), &Limits::default()).with_context(|| format!("cannot use {GOLDEN}"))?;
    let tolerance = Tolerance { abs: manifest.golden.tolerance_abs, rel: manifest.golden.tolerance_rel };
    evidence::check(&golden, pipeline.model(), tolerance)
}
