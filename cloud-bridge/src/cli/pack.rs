//! `petrel pack`: from a model file to a bundle.

use super::{Out, bytes, explain, inspect};
use crate::bundle::{self, Batch, GoldenSource, LABELS, POST, PRE, PackRequest, Packed, TOKENIZER};
use crate::fault::Fault;
use clap::ArgGroup;
use engine::Tolerance;
use protocol::StreamName;
use semver::Version;
use serde_json::json;
use std::path::{Path, PathBuf};
use trust::{Hardware, U53};

/// Pack a model into a bundle that devices can run
#[derive(Debug, clap::Args)]
#[command(
    group(ArgGroup::new("evidence").args(["data", "golden", "golden_raw", "explain"]).required(true).multiple(true)),
    after_help = "\
Example:
  petrel pack model.onnx --stream digits --version 1.2.0 --data validation.csv --golden X.npy y.npy \\
      --labels labels.txt --pre pre.json --post post.json -o digits-1.2.0/
  petrel pack model.onnx --explain"
)]
pub(crate) struct Args {
    /// The model, an ONNX file; files beside it that hold its weights are packed too
    model: PathBuf,
    /// Pack nothing: show what is in the model, and what to do where it cannot be run
    #[arg(long, conflicts_with_all = ["output", "stream", "version", "data", "golden", "golden_raw"])]
    explain: bool,
    /// The line of releases that it belongs to
    #[arg(long, required_unless_present = "explain")]
    stream: Option<StreamName>,
    /// Its version, for people
    #[arg(long, required_unless_present = "explain")]
    version: Option<Version>,
    /// Its release, a number that only grows [default: from the version, 1.2.3 is 1002003]
    #[arg(long, value_name = "N")]
    release: Option<u64>,
    /// Once confirmed, devices take no release below this one
    #[arg(long, value_name = "N", default_value_t = 0)]
    security_floor: u64,
    /// Rows without the target (.csv, .parquet, .npy, .npz) that drift is told from: best such as the model has not learned from
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// What the model itself takes, after any processing, and what a reference answered before post.json:
    /// .npy, .npz (arrays by name) or .csv each; or one .npz with arrays `in:NAME` and `out:NAME`
    #[arg(long, num_args = 1..=2, value_names = ["X", "Y"])]
    golden: Vec<PathBuf>,
    /// As --golden, with inputs as people have them, in the data's own units: they pass pre.json first. X may
    /// also be a picture, or a folder of pictures
    #[arg(long, num_args = 2, value_names = ["X", "Y"], conflicts_with = "golden")]
    golden_raw: Vec<PathBuf>,
    /// The reference's final answer to each golden row, after post.json and labels.txt: a class's name or
    /// number, one a line (.txt) or as an array (.npy)
    #[arg(long, value_name = "FILE")]
    golden_answers: Option<PathBuf>,
    /// Rows that a device should run at once, or `auto` to measure it here [default: nothing is said]
    #[arg(long, value_name = "N|auto", value_parser = batch)]
    batch: Option<Batch>,
    /// Names of the classes, one a line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// How text is cut into tokens: tokenizer.json, as Python's `tokenizers` saves it
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Processing of inputs
    #[arg(long, value_name = "FILE")]
    pre: Option<PathBuf>,
    /// Processing of outputs
    #[arg(long, value_name = "FILE")]
    post: Option<PathBuf>,
    /// How far an output may be from the reference, in its own unit
    #[arg(long, value_name = "X", default_value_t = 1e-4, value_parser = tolerance)]
    tolerance_abs: f64,
    /// How far an output may be from the reference, as a share of it
    #[arg(long, value_name = "X", default_value_t = 1e-4, value_parser = tolerance)]
    tolerance_rel: f64,
    /// Hardware that it may run on, with the board's memory in MiB [default: any; may be repeated]
    #[arg(long, value_name = "ARCH:MIB", value_parser = hardware)]
    hardware: Vec<Hardware>,
    /// The oldest agent that may run it
    #[arg(long, value_name = "VERSION", default_value = "0.1.0")]
    min_agent: Version,
    /// The physical unit of an input or output [may be repeated]
    #[arg(long, value_name = "NAME=UNIT", value_parser = unit)]
    unit: Vec<(String, String)>,
    /// The folder to make
    #[arg(short, long, value_name = "DIR", required_unless_present = "explain")]
    output: Option<PathBuf>,
}

impl Args {
    /// Packs.
    ///
    /// # Errors
    /// When the model cannot be run, does not answer as its reference, or a file is wrong.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        if self.explain {
            return explain::show(&self.model, out);
        }
        let request = self.request()?;
        let progress = out.progress("reading the model");
        let packed = bundle::pack(&request, |stage| progress.set_message(stage))?;
        progress.finish_and_clear();
        for note in &packed.notes {
            out.note(note)?;
        }
        let machine = json!({
            "bundle": request.target.display().to_string(),
            "statement_sha256": packed.described.digest(),
            "manifest": packed.described.manifest,
            "golden": {
                "rows": packed.agreement.rows,
                "worst_abs": packed.agreement.worst_abs,
                "worst_rel": packed.agreement.worst_rel,
            },
            "baseline": packed.baseline.map(|(features, rows)| json!({ "features": features, "rows": rows })),
            "notes": packed.notes,
        });
        out.result(&machine, summary(&packed, &request.target))
    }

    fn request(self) -> anyhow::Result<PackRequest> {
        let declarations = [(PRE, self.pre), (POST, self.post), (LABELS, self.labels), (TOKENIZER, self.tokenizer)];
        let raw = !self.golden_raw.is_empty();
        let mut golden = self.golden.into_iter().chain(self.golden_raw);
        let answers = self.golden_answers;
        let golden = match (golden.next(), golden.next()) {
            (Some(x), Some(y)) => GoldenSource::Files { x, y, raw, answers },
            (Some(path), None) if path.extension().is_some_and(|end| end == "npz") => {
                GoldenSource::Archive { path, answers }
            }
            (Some(x), None) => {
                let fault = Fault::new(format!("--golden {} has no outputs beside it", x.display()))
                    .remedy("give both: --golden X.npy Y.npy; or one .npz archive");
                return Err(fault.into());
            }
            (None, _) if answers.is_some() => {
                let fault = Fault::new("--golden-answers has no golden rows that it answers");
                return Err(fault.remedy("give --golden X Y or --golden-raw X Y too").into());
            }
            (None, _) => GoldenSource::Engine,
        };
        let (Some(stream), Some(version), Some(target)) = (self.stream, self.version, self.output) else {
            return Err(Fault::new("--stream, --version and --output are needed to pack").into());
        };
        Ok(PackRequest {
            model: self.model,
            declarations: declarations.into_iter().filter_map(|(name, path)| Some((name, path?))).collect(),
            data: self.data,
            golden,
            tolerance: Tolerance { abs: self.tolerance_abs, rel: self.tolerance_rel },
            batch: self.batch.unwrap_or(Batch::Unsaid),
            stream,
            version,
            release: self.release,
            security_floor: self.security_floor,
            hardware: self.hardware,
            min_agent: self.min_agent,
            units: self.unit.into_iter().collect(),
            target,
        })
    }
}

fn summary(packed: &Packed, target: &Path) -> String {
    let manifest = &packed.described.manifest;
    let runtime = &manifest.runtime;
    let budget = &manifest.resources_budget;
    let source = if manifest.golden.from_reference { "the reference" } else { "this engine itself" };
    let baseline = match packed.baseline {
        Some((features, rows)) => format!("{features} features of {rows} rows"),
        None => "none".to_owned(),
    };
    let target = target.display();
    format!(
        "packed {} {} (release {}) into {target}\n\n\
         \x20 inputs     {}\n\
         \x20 outputs    {}\n\
         \x20 operators  {} (opset {})\n\
         \x20 needs      {} MiB of memory, {} on disk\n\
         \x20 golden     {} rows agree with {source}, worst error {:.1e}\n\
         \x20 baseline   {baseline}\n\
         \x20 statement  {}\n\n\
         Next: petrel sign {target} --key keys/publisher.pem",
        manifest.stream,
        manifest.version,
        manifest.release,
        inspect::ports(&runtime.inputs),
        inspect::ports(&runtime.outputs),
        runtime.ops_used.join(", "),
        runtime.opset,
        budget.ram_mb,
        bytes(budget.disk_bytes.get()),
        packed.agreement.rows,
        packed.agreement.worst_abs,
        packed.described.digest(),
    )
}

fn batch(text: &str) -> Result<Batch, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Batch::Measured),
        (_, Ok(rows @ 1..=1024)) => Ok(Batch::Rows(rows)),
        _ => Err("write a number from 1 to 1024, or auto".to_owned()),
    }
}

fn tolerance(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "this is no number".to_owned())?;
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err("a tolerance is 0 or more".to_owned()) }
}

fn hardware(text: &str) -> Result<Hardware, String> {
    let fault = || "write it as ARCH:MIB, such as aarch64:512".to_owned();
    let (arch, ram) = text.split_once(':').ok_or_else(fault)?;
    let word = !arch.is_empty() && arch.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let ram: u32 = ram.parse().map_err(|_| fault())?;
    if word { Ok(Hardware { arch: arch.to_owned(), class: None, min_ram_mb: U53::from(ram) }) } else { Err(fault()) }
}

fn unit(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((name, unit)) if !name.is_empty() && !unit.is_empty() && unit.len() <= 64 => {
            Ok((name.to_owned(), unit.to_owned()))
        }
        _ => Err("write it as NAME=UNIT, such as temperature=degC".to_owned()),
    }
}
