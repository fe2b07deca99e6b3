//! Packing: from a model and what is known of it to a bundle's folder.
//!
//! Decides the content of the manifest and in which order the files come to be. The same inputs give
//! the same bytes: no time, no path and no random number goes in.

use super::evidence::{self, Tested};
use super::read::read;
use super::seal::{Described, describe};
use super::{CHUNKS, DRIFT, GOLDEN, LABELS, MANIFEST, MAX_FILE_BYTES, MODEL, POST, PRE, RESERVED, SBOM, TOKENIZER};
use super::{GoldenSource, Staging, baseline, chunks, measure, sbom};
use crate::fault::Fault;
use crate::keyfile::write_new;
use anyhow::Context;
use engine::{Agreement, Limits, Port, Quantised, Tolerance};
use protocol::StreamName;
use semver::Version;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use trust::{
    Budget, Code, FileRole, GoldenTerms, Hardware, ListedFile, Manifest, ManifestPort, Refusal, Resource, Runtime,
    SPEC, U53,
};

/// Rows below which a baseline is too coarse to tell a small drift.
const ADVISED_ROWS: usize = 5_000;

/// What people know of models in small integers before they pack one; docs/models.md has the figures.
const INT8_COST: &str = "the model computes in int8 (QDQ): it is smaller, and not faster here than in float32 \
    (1.3 to 2.1 times slower where we measured); pack the float model where time matters";

/// How many rows a device should run at once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Batch {
    /// Nothing is said.
    Unsaid,
    /// So many.
    Rows(u16),
    /// What runs best on this machine.
    Measured,
}

/// What to pack.
#[derive(Debug)]
pub(crate) struct PackRequest {
    /// The ONNX file.
    pub(crate) model: PathBuf,
    /// `pre.json`, `post.json`, `labels.txt`, `tokenizer.json`: by the name that they get in the bundle.
    pub(crate) declarations: BTreeMap<&'static str, PathBuf>,
    /// Training rows.
    pub(crate) data: Option<PathBuf>,
    /// Where golden vectors come from.
    pub(crate) golden: GoldenSource,
    /// How far the engine may be from them.
    pub(crate) tolerance: Tolerance,
    /// How many rows a device should run at once.
    pub(crate) batch: Batch,
    /// The line of releases.
    pub(crate) stream: StreamName,
    /// The version as people write it.
    pub(crate) version: Version,
    /// The release; by default from the version.
    pub(crate) release: Option<u64>,
    /// Once confirmed, a device takes no release below.
    pub(crate) security_floor: u64,
    /// Where it may run; empty for everywhere.
    pub(crate) hardware: Vec<Hardware>,
    /// The oldest agent that runs it.
    pub(crate) min_agent: Version,
    /// Physical units by the names of inputs and outputs.
    pub(crate) units: BTreeMap<String, String>,
    /// The folder to make.
    pub(crate) target: PathBuf,
}

/// What was packed.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The bundle as it lies there.
    pub(crate) described: Described,
    /// How well the model agreed with its golden vectors.
    pub(crate) agreement: Agreement,
    /// Features and rows of the baseline.
    pub(crate) baseline: Option<(usize, usize)>,
    /// What a person should know.
    pub(crate) notes: Vec<String>,
}

/// Makes a bundle's folder: all of it or nothing. `stage` hears what is being done.
///
/// # Errors
/// `E_MODEL` and `E_GOLDEN` for the model; a fault for what was given, or what the system said.
pub(crate) fn pack(request: &PackRequest, stage: impl Fn(&'static str)) -> anyhow::Result<Packed> {
    let release = release(request)?;
    let staging = Staging::beside(&request.target)?;
    let dir = staging.path();
    copy_in(&request.model, dir, MODEL)?;
    let data_files = copy_data(&request.model, dir)?;
    for (name, source) in &request.declarations {
        copy_in(source, dir, name)?;
    }
    stage("reading the training data");
    let rows = request.data.as_deref().map(baseline::read_rows).transpose()?;
    stage("running the model on its golden vectors");
    let data = request.data.as_deref().zip(rows.as_ref());
    let test = || evidence::test(dir, &request.model, &request.golden, data, request.tolerance);
    let (tested, peak) = measure::peak(test);
    let tested = tested?;
    tested.golden.write(&dir.join(GOLDEN)).context("cannot write the golden vectors")?;
    let mut notes = Vec::new();
    if tested.quantised == Quantised::Qdq {
        notes.push(INT8_COST.to_owned());
    }
    let batch = batch(request.batch, &tested, &stage, &mut notes)?;
    if !tested.from_reference {
        notes.push(
            "without --golden only differences between machines are seen: \
             the expected answers come from this engine itself"
                .to_owned(),
        );
    }
    let baseline = match &rows {
        Some(rows) => {
            stage("measuring the baseline");
            let (baseline, unanswered) = baseline::measure(&tested.pipeline, rows)?;
            write_new(&dir.join(DRIFT), &serde_json::to_vec(&baseline)?, 0o644)?;
            let count = rows.row_count();
            if count < ADVISED_ROWS {
                notes.push(format!("the baseline has {count} rows; with {ADVISED_ROWS} or more it tells small drifts"));
            }
            if let Some(why) = unanswered {
                notes.push(format!("the answers have no baseline, only the inputs do: {why}"));
            }
            Some((baseline.features.len(), count))
        }
        None => {
            notes.push("without --data there is no baseline: drift will not be seen".to_owned());
            None
        }
    };
    if request.declarations.contains_key(LABELS) && !request.golden.checks_answers() {
        notes.push("without --golden-answers nobody has checked the order of labels.txt".to_owned());
    }
    stage("writing manifest, bill of materials and chunk index");
    let ram_mb = measure::budget_mib(peak);
    let facts = Facts { release, tested: &tested, data_files: &data_files, batch, ram_mb };
    finish(request, &facts, dir)?;
    let described = describe(dir)?;
    staging.commit()?;
    Ok(Packed { described, agreement: tested.agreement, baseline, notes })
}

/// What packing found out, for the manifest.
struct Facts<'a> {
    release: U53,
    tested: &'a Tested,
    data_files: &'a [String],
    batch: Option<U53>,
    ram_mb: u32,
}

/// Rows per call for the manifest; what is measured here may be another figure tomorrow, so a note says how
/// to keep it.
fn batch(
    asked: Batch,
    tested: &Tested,
    stage: impl Fn(&'static str),
    notes: &mut Vec<String>,
) -> anyhow::Result<Option<U53>> {
    let model = tested.pipeline.model();
    let inputs = model.arrange(&tested.golden.inputs)?;
    let rows = match asked {
        Batch::Unsaid => return Ok(None),
        Batch::Rows(rows) if engine::rows_stand_alone(model, &inputs)? => usize::from(rows),
        Batch::Rows(_) => {
            let fault = Fault::new("the model's rows cannot be put together or apart")
                .because("their number is fixed, or a row's answer depends on the rows beside it");
            return Err(fault.remedy("leave --batch out, or export with a free batch axis in front").into());
        }
        Batch::Measured => {
            stage("measuring batches");
            let Some(rows) = engine::measure_batch(model, &inputs)? else {
                notes.push("--batch auto: its rows cannot be put together or apart, so nothing is said".to_owned());
                return Ok(None);
            };
            notes.push(format!(
                "{rows} rows at once run best on this machine; --batch {rows} says so without measuring"
            ));
            rows
        }
    };
    number(rows as u64).map(Some)
}

fn release(request: &PackRequest) -> anyhow::Result<U53> {
    let version = &request.version;
    let by_default = || match version.pre.is_empty() {
        true => trust::default_release(version.major, version.minor, version.patch),
        false => None,
    };
    let Some(release) = request.release.or_else(by_default) else {
        let fault = Fault::new(format!("version {version} gives no release number by itself"))
            .because("that needs major, minor and patch below 1,000, and no pre-release")
            .remedy("give --release N, greater than that of every release before");
        return Err(fault.into());
    };
    if request.security_floor > release {
        let fault = Fault::new(format!("the security floor {} is above the release {release}", request.security_floor))
            .because("the bundle would outlaw itself")
            .remedy("give --security-floor a release that devices may still go back to");
        return Err(fault.into());
    }
    number(release)
}

/// The files that are made of the others: bill of materials, manifest, chunk index.
fn finish(request: &PackRequest, facts: &Facts, dir: &Path) -> anyhow::Result<()> {
    let files = read(dir)?;
    let (model, others): (Vec<Resource>, Vec<Resource>) = files.into_iter().partition(|f| f.name == MODEL);
    let model = model.first().context("the model is not in the folder")?;
    let bill = sbom::bill(request.stream.as_str(), &request.version.to_string(), model, &others);
    write_new(&dir.join(SBOM), &serde_json::to_vec_pretty(&bill)?, 0o644)?;

    let files = read(dir)?;
    let mut manifest = manifest(request, facts, &files)?;
    // The manifest tells the size of the chunk index, which tells the chunks of the manifest: begin
    // with one chunk; a manifest that needs more then grows by a digit at most.
    let chunks_before: u64 = files.iter().map(|f| protocol::chunks_in(f.size.get())).sum();
    let size_before: u64 = files.iter().map(|f| f.size.get()).sum();
    let mut own_chunks = 1;
    let bytes = loop {
        let index = (chunks_before + own_chunks) * chunks::DIGEST_BYTES;
        manifest.resources_budget.disk_bytes = number(size_before + index)?;
        let bytes = serde_json::to_vec_pretty(&manifest)?;
        match protocol::chunks_in(bytes.len() as u64) {
            needed if needed > own_chunks => own_chunks = needed,
            _ => break bytes,
        }
    };
    write_new(&dir.join(MANIFEST), &bytes, 0o644)?;
    write_new(&dir.join(CHUNKS), &chunks::index(dir, &read(dir)?)?, 0o644)
}

fn manifest(request: &PackRequest, facts: &Facts, files: &[Resource]) -> anyhow::Result<Manifest> {
    let model = facts.tested.pipeline.model();
    let known = || model.inputs().iter().chain(model.outputs()).map(|port| port.name.as_str());
    if let Some(unknown) = request.units.keys().find(|unit| !known().any(|name| name == unit.as_str())) {
        let fault = Fault::new(format!("the model has no input or output `{unknown}` to have a unit"))
            .remedy(format!("its inputs and outputs are: {}", known().collect::<Vec<_>>().join(", ")));
        return Err(fault.into());
    }
    let ports = |ports: &[Port]| ports.iter().map(|port| manifest_port(port, &request.units)).collect();
    let names = files.iter().map(|f| f.name.as_str()).chain([CHUNKS]);
    let mut listed: Vec<ListedFile> =
        names.map(|name| listed(name, facts.data_files)).collect::<anyhow::Result<_>>()?;
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Manifest {
        spec: number(SPEC)?,
        stream: request.stream.to_string(),
        version: request.version.to_string(),
        release: facts.release,
        security_floor: number(request.security_floor)?,
        hardware: request.hardware.clone(),
        runtime: Runtime {
            opset: number(model.opset())?,
            ops_used: model.operators().iter().cloned().collect(),
            inputs: ports(model.inputs()),
            outputs: ports(model.outputs()),
            batch: facts.batch,
        },
        min_agent: request.min_agent.to_string(),
        files: listed,
        resources_budget: Budget { ram_mb: U53::from(facts.ram_mb), disk_bytes: U53::default() },
        golden: GoldenTerms {
            tolerance_abs: request.tolerance.abs,
            tolerance_rel: request.tolerance.rel,
            from_reference: facts.tested.from_reference,
        },
        min_root_version: None,
        expires: None,
    })
}

fn manifest_port(port: &Port, units: &BTreeMap<String, String>) -> ManifestPort {
    let axis = |axis: &Option<usize>| axis.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
    ManifestPort {
        name: port.name.clone(),
        dtype: port.dtype.to_string(),
        shape: port.shape.iter().map(axis).collect(),
        unit: units.get(&port.name).cloned(),
    }
}

fn listed(name: &str, data_files: &[String]) -> anyhow::Result<ListedFile> {
    let role = match name {
        MODEL => FileRole::Model,
        PRE => FileRole::Pre,
        POST => FileRole::Post,
        LABELS => FileRole::Labels,
        TOKENIZER => FileRole::Tokenizer,
        GOLDEN => FileRole::Golden,
        DRIFT => FileRole::Drift,
        SBOM => FileRole::Sbom,
        CHUNKS => FileRole::ChunkIndex,
        other if data_files.iter().any(|name| name == other) => FileRole::ModelData,
        other => anyhow::bail!("`{other}` has no role in a bundle"),
    };
    Ok(ListedFile { name: name.to_owned(), role })
}

/// Copies the files beside the model that hold its weights, and tells their names.
fn copy_data(model: &Path, dir: &Path) -> anyhow::Result<Vec<String>> {
    // What is no model at all is refused where it is opened, and told better there.
    let Ok(names) = engine::data_files(&dir.join(MODEL), &Limits::default()) else { return Ok(Vec::new()) };
    for name in &names {
        if RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            let fault =
                Fault::new(format!("the model keeps weights in `{name}`, which a bundle uses for something else"));
            return Err(fault.remedy("save the model again with another name for its data file").into());
        }
        let source = model.with_file_name(name);
        let is_link = fs::symlink_metadata(&source).is_ok_and(|found| found.is_symlink());
        if is_link {
            let refusal =
                Refusal::new(Code::Model, format!("its data file `{name}` is a link, which may lead anywhere"));
            let fault = Fault::new(format!("the engine cannot run {}", model.display())).because(refusal);
            return Err(fault.remedy("put the file itself beside the model").into());
        }
        copy_in(&source, dir, name)?;
    }
    Ok(names)
}

/// Copies a file that a person named into the bundle.
fn copy_in(source: &Path, dir: &Path, name: &str) -> anyhow::Result<()> {
    let unreadable = |e: io::Error| {
        Fault::new(format!("cannot read {}", source.display()))
            .because(e)
            .remedy(format!("give the path of the file that becomes {name}"))
    };
    let size = fs::metadata(source).and_then(|found| match found.is_file() {
        true => Ok(found.len()),
        false => Err(io::Error::other("it is no file")),
    });
    if size.map_err(unreadable)? > MAX_FILE_BYTES {
        let fault = Fault::new(format!("{} has more than {MAX_FILE_BYTES} bytes", source.display()));
        return Err(fault.remedy("give a smaller file: devices would not take it").into());
    }
    let mut from = File::open(source).map_err(unreadable)?.take(MAX_FILE_BYTES);
    write_new(&dir.join(name), &[], 0o644)?;
    let copied =
        File::create(dir.join(name)).and_then(|mut to| io::copy(&mut from, &mut to).and_then(|_| to.sync_all()));
    copied.with_context(|| format!("cannot copy {}", source.display()))
}

fn number(value: u64) -> anyhow::Result<U53> {
    U53::try_from(value).map_err(|e| Fault::new("a number is too large for a manifest").because(e).into())
}
