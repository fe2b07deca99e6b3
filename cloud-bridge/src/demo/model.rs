//! The models of the demo: handwritten digits, and a release of it that is broken.
//!
//! They are part of the binary, so that the demo needs no file beside it. How they were trained is
//! in tests/models.

use crate::bundle::{self, Batch, GoldenSource, LABELS, POST, PRE, PackRequest};
use anyhow::Context;
use ed25519_dalek::SigningKey;
use engine::{Limits, Tolerance};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The stream's name.
pub(crate) const STREAM: &str = "digits";
/// A version from before, which works as well.
pub(crate) const OLD: &str = "0.9.0";
/// The version that works.
pub(crate) const GOOD: &str = "1.0.0";
/// The version that gives no number on a third of the images.
pub(crate) const BAD: &str = "1.1.0";
/// The version that installs well, answers everything, and sees eights where there are none.
pub(crate) const SLY: &str = "1.2.0";

macro_rules! file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../tests/models/", $name)).as_slice())
    };
}

const FILES: [(&str, &[u8]); 15] = [
    file!("digits/model.onnx"),
    file!("digits/pre.json"),
    file!("digits/post.json"),
    file!("digits/labels.txt"),
    file!("digits/golden_x.npy"),
    file!("digits/golden_y.npy"),
    file!("digits/heldout_x.npy"),
    file!("digits/heldout_class.npy"),
    file!("digits/truth.npy"),
    file!("digits-bad/model.onnx"),
    file!("digits-bad/golden_x.npy"),
    file!("digits-bad/golden_y.npy"),
    file!("digits-eights/model.onnx"),
    file!("digits-eights/golden_x.npy"),
    file!("digits-eights/golden_y.npy"),
];

/// What the models were never trained on.
#[derive(Debug)]
pub(crate) struct HeldOut {
    /// Images of 8 x 8 values from 0 to 16, row by row.
    pub(crate) images: Vec<Vec<f32>>,
    /// The class that Python gave.
    pub(crate) python: Vec<i64>,
    /// The digit that it is.
    pub(crate) truth: Vec<i64>,
}

/// Writes the models' files to `DIR/files`, and reads what they were never trained on.
pub(crate) fn unpack(dir: &Path) -> anyhow::Result<HeldOut> {
    let files = dir.join("files");
    for (name, content) in FILES {
        let path = files.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&files))?;
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let read = |name: &str| engine::read_npy(&files.join("digits").join(name), &Limits::default());
    let images = read("heldout_x.npy")?;
    let rows = images.row_count().max(1);
    let whole = |tensor: engine::Tensor| tensor.to_f64().iter().map(|v| *v as i64).collect();
    Ok(HeldOut {
        images: images.as_f32().chunks(images.len() / rows).map(<[f32]>::to_vec).collect(),
        python: whole(read("heldout_class.npy")?),
        truth: whole(read("truth.npy")?),
    })
}

/// Packs and signs one version as `DIR/digits-VERSION`, from the files of [`unpack`].
pub(crate) fn make(dir: &Path, version: &str, key: &SigningKey) -> anyhow::Result<PathBuf> {
    let network = match version {
        BAD => "digits-bad",
        SLY => "digits-eights",
        _ => "digits",
    };
    let of = |folder: &str, name: &str| dir.join("files").join(folder).join(name);
    let declared = [(PRE, "pre.json"), (POST, "post.json"), (LABELS, "labels.txt")];
    let target = dir.join(format!("{STREAM}-{version}"));
    let request = PackRequest {
        model: of(network, "model.onnx"),
        declarations: declared.map(|(name, file)| (name, of("digits", file))).into(),
        // Of what it was trained on a model is surer than of anything else that it will see.
        data: Some(of("digits", "heldout_x.npy")),
        golden: GoldenSource::Files {
            x: of(network, "golden_x.npy"),
            y: of(network, "golden_y.npy"),
            raw: false,
            answers: None,
        },
        tolerance: Tolerance { abs: 1e-4, rel: 1e-4 },
        batch: Batch::Unsaid,
        stream: STREAM.parse()?,
        version: version.parse()?,
        release: None,
        security_floor: 0,
        hardware: Vec::new(),
        min_agent: semver::Version::new(0, 1, 0),
        units: BTreeMap::new(),
        target: target.clone(),
    };
    bundle::pack(&request, |_| {})?;
    bundle::seal(&target, key, None)?;
    Ok(target)
}
