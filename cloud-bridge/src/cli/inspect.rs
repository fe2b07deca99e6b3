//! `petrel inspect`: what a bundle says of itself. Nothing is verified here.

use super::table::table;
use super::{Out, bytes};
use crate::bundle;
use comfy_table::{Table, presets};
use serde_json::json;
use std::path::PathBuf;
use trust::{Envelope, Manifest, ManifestPort, Resource};

/// Show what is in a bundle, signed or not
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  petrel inspect digits-1.2.0/")]
pub(crate) struct Args {
    /// The bundle's folder, or its tar
    bundle: PathBuf,
}

impl Args {
    /// Inspects.
    ///
    /// # Errors
    /// When there is no bundle that can be read.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let opened = bundle::Opened::at(&self.bundle)?;
        let described = bundle::describe(opened.path())?;
        let seal = bundle::existing_seal(opened.path())?;
        let signatures = signatures(seal.as_ref(), &described.payload);
        let machine = json!({
            "statement_sha256": described.digest(),
            "signatures": seal.as_ref().map_or(vec![], key_ids),
            "signatures_are_on_these_files": seal.as_ref().map(|e| e.payload == described.payload),
            "manifest": described.manifest,
            "files": described.files,
        });
        let mut facts = facts(&described.manifest);
        facts.push(("statement", described.digest().to_string()));
        facts.push(("signatures", signatures));
        let mut sheet = Table::new();
        sheet.load_style(presets::NOTHING).add_rows(facts.into_iter().map(|(name, value)| [name.to_owned(), value]));
        let files = files(&described.manifest, &described.files);
        let people = format!(
            "{}\n\n{}\n\nNothing is verified here: petrel verify {} --root root.json",
            sheet.trim_fmt(),
            files.trim_fmt(),
            self.bundle.display(),
        );
        out.result(&machine, people)
    }
}

fn facts(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let hardware = manifest.hardware.iter().map(|h| format!("{} with {} MiB", h.arch, h.min_ram_mb));
    let hardware: Vec<String> = hardware.collect();
    let budget = &manifest.resources_budget;
    let source = if manifest.golden.from_reference { "a reference" } else { "the engine itself" };
    vec![
        ("stream", manifest.stream.clone()),
        ("version", format!("{} (release {})", manifest.version, manifest.release)),
        ("security floor", manifest.security_floor.to_string()),
        ("inputs", ports(&manifest.runtime.inputs)),
        ("outputs", ports(&manifest.runtime.outputs)),
        ("operators", format!("{} (opset {})", manifest.runtime.ops_used.join(", "), manifest.runtime.opset)),
        ("needs", format!("{} MiB of memory, {} on disk", budget.ram_mb, bytes(budget.disk_bytes.get()))),
        ("batch", manifest.runtime.batch.map_or("as rows come".to_owned(), |rows| format!("{rows} rows in a call"))),
        ("hardware", if hardware.is_empty() { "any".to_owned() } else { hardware.join(", ") }),
        ("agent", format!("{} or newer", manifest.min_agent)),
        (
            "golden",
            format!(
                "from {source}; an error is at most {:e}, or {:e} of the value",
                manifest.golden.tolerance_abs, manifest.golden.tolerance_rel
            ),
        ),
    ]
}

fn files(manifest: &Manifest, files: &[Resource]) -> Table {
    let role = |name: &str| {
        let listed = manifest.files.iter().find(|file| file.name == name).map(|file| format!("{:?}", file.role));
        listed.unwrap_or_else(|| if name == bundle::MANIFEST { "Manifest".into() } else { "not listed".into() })
    };
    let row = |f: &Resource| [f.name.clone(), role(&f.name), bytes(f.size.get()), f.digest.short()];
    table(["file", "role", "size", "sha256"], files.iter().map(row))
}

fn signatures(seal: Option<&Envelope>, payload: &[u8]) -> String {
    match seal {
        None => "none".to_owned(),
        Some(envelope) if envelope.payload == payload => key_ids(envelope).join(", "),
        Some(_) => "on other files: the bundle was changed after it was signed".to_owned(),
    }
}

fn key_ids(envelope: &Envelope) -> Vec<String> {
    envelope.signatures.iter().map(|s| s.key_id.clone()).collect()
}

/// The ports of a model in one line each.
pub(super) fn ports(ports: &[ManifestPort]) -> String {
    let axis = |n: &i64| if *n < 0 { "?".to_owned() } else { n.to_string() };
    let port = |port: &ManifestPort| {
        let shape: Vec<String> = port.shape.iter().map(axis).collect();
        let unit = port.unit.as_ref().map(|unit| format!(" in {unit}")).unwrap_or_default();
        format!("{} {} [{}]{unit}", port.name, port.dtype, shape.join(", "))
    };
    ports.iter().map(port).collect::<Vec<_>>().join(", ")
}
