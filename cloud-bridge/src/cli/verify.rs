//! `petrel verify`: everything that a device checks before it takes a bundle.

use super::judgement::Known;
use super::{Out, bytes};
use crate::bundle::ModelSignature;
use crate::keyfile::p256;
use crate::{authority, bundle};
use serde_json::json;
use std::path::PathBuf;

/// Check a bundle as a device does
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel verify digits-1.2.0/ --root fleet/root.json
  petrel verify digits-1.2.0/ --root fleet/root.json --p256-public keys/publisher-p256.pub
  petrel verify digits-1.2.0/ --root fleet/root.json --explain --revocation revocation-2.json --active 1002000")]
pub(crate) struct Args {
    /// The bundle's folder, or its tar
    bundle: PathBuf,
    /// The fleet's root of trust
    #[arg(long, value_name = "root.json")]
    root: PathBuf,
    /// The public P-256 key of who signed model.sig; without it, model.sig is not checked
    #[arg(long, value_name = "FILE.pub")]
    p256_public: Option<PathBuf>,
    /// Show every rule of an installation: pass, the code of a refusal, or what is not known here
    #[arg(long, conflicts_with = "p256_public")]
    explain: bool,
    #[command(flatten)]
    known: Known,
}

impl Args {
    /// Verifies.
    ///
    /// # Errors
    /// A refusal with its code.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        if self.explain {
            let opened = bundle::Opened::at(&self.bundle)?;
            return self.known.explain(&self.root, opened.path(), out);
        }
        let root = authority::read_root(&self.root)?;
        let p256 = self.p256_public.as_deref().map(p256::read_public).transpose()?;
        let opened = bundle::Opened::at(&self.bundle)?;
        let progress = out.progress("checking signatures and files");
        let (statement, manifest) = bundle::verify(&root, opened.path())?;
        let model_sig = bundle::verify_model_signature(opened.path(), &statement, p256.as_ref())?;
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
            "model_sig": match model_sig {
                ModelSignature::Absent => "absent",
                ModelSignature::Unchecked => "unchecked",
                ModelSignature::Holds => "holds",
            },
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
{}\
             ok  files      {files} files, {}, none changed, none missing, none more\n\
             ok  golden     {} rows, worst error {:.1e}\n\n\
             {} {} (release {}) is what its publisher signed, and runs here: {}",
            root.version,
            root.fleet,
            root.expires,
            statement.signers().join(", "),
            manifest.stream,
            match model_sig {
                ModelSignature::Absent => "",
                ModelSignature::Unchecked => "-   model.sig  not checked: give --p256-public\n",
                ModelSignature::Holds => "ok  model.sig  on the same statement\n",
            },
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
