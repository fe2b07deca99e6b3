//! `petrel verify`: everything that a device checks before it takes a bundle.

use super::{Out, bytes};
use crate::{authority, bundle};
use serde_json::json;
use std::path::PathBuf;

/// Check a bundle as a device does
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  petrel verify digits-1.2.0/ --root fleet/root.json")]
pub(crate) struct Args {
    /// The bundle's folder, or its tar
    bundle: PathBuf,
    /// The fleet's root of trust
    #[arg(long, value_name = "root.json")]
    root: PathBuf,
}

impl Args {
    /// Verifies.
    ///
    /// # Errors
    /// A refusal with its code.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let root = authority::read_root(&self.root)?;
        let opened = bundle::Opened::at(&self.bundle)?;
        let progress = out.progress("checking signatures and files");
        let (statement, manifest) = bundle::verify(&root, opened.path())?;
        progress.set_message("running the model on its golden vectors");
        let agreement = bundle::probe(opened.path(), &manifest)?;
        progress.finish_and_clear();
        let (files, size) = (statement.resources().len(), statement.total_size());
        let machine = json!({
            "fleet": root.fleet,
            "stream": manifest.stream,
            "version": manifest.version,
            "release": manifest.release,
            "statement_sha256": statement.digest(),
            "signers": statement.signers(),
            "files": files,
            "bytes": size,
            "golden": {
                "rows": agreement.rows,
                "worst_abs": agreement.worst_abs,
                "worst_rel": agreement.worst_rel,
                "from_reference": manifest.golden.from_reference,
            },
        });
        let people = format!(
            "ok  root       version {} of fleet {}, until {}\n\
             ok  signature  {}\n\
             ok  scope      they may sign for stream {}\n\
             ok  files      {files} files, {}, none changed, none missing, none more\n\
             ok  golden     {} rows, worst error {:.1e}\n\n\
             {} {} (release {}) is what its publisher signed, and runs here: {}",
            root.version,
            root.fleet,
            root.expires,
            statement.signers().join(", "),
            manifest.stream,
            bytes(size),
            agreement.rows,
            agreement.worst_abs,
            manifest.stream,
            manifest.version,
            manifest.release,
            statement.digest(),
        );
        out.result(&machine, people)
    }
}
