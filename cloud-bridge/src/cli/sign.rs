//! `petrel sign`: a publisher's signature on a bundle.

use super::Out;
use super::keys::PassphraseArgs;
use crate::bundle::{self, Sealed};
use crate::keyfile::{self, p256};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Sign a bundle as its publisher
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel sign digits-1.2.0/ --key keys/publisher.pem
  petrel sign digits-1.2.0/ --key keys/publisher.pem --tar digits-1.2.0.tar

Other publishers sign the same folder in turn, until enough of them have. A P-256 key signs model.sig, for
  model_signing verify key digits-1.2.0/ --signature digits-1.2.0/model.sig --public_key publisher-p256.pub \\
      --ignore-paths digits-1.2.0/bundle.dsse.json")]
pub(crate) struct Args {
    /// The bundle's folder
    dir: PathBuf,
    /// The publisher's secret key
    #[arg(long, value_name = "FILE.pem")]
    key: PathBuf,
    /// The publisher's secret P-256 key, for model.sig [default: NAME-p256.pem beside NAME.pem, if it is there]
    #[arg(long, value_name = "FILE.pem")]
    p256_key: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Write the signed bundle as a tar too, for a USB stick
    #[arg(long, value_name = "FILE.tar")]
    tar: Option<PathBuf>,
}

impl Args {
    /// Signs.
    ///
    /// # Errors
    /// When the key cannot be read, or the folder is not what `pack` left.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let passphrase = self.passphrase.source();
        let key = keyfile::read_private(&self.key, &passphrase)?;
        let p256 = self.p256_key.or_else(|| beside(&self.key));
        let p256 = p256.map(|path| p256::read_private(&path, &passphrase)).transpose()?;
        let Sealed { digest, key_id, signatures, model_sig } = bundle::seal(&self.dir, &key, p256.as_ref())?;
        if let Some(tar) = &self.tar {
            bundle::write_tar(&self.dir, tar)?;
        }
        let tar = self.tar.as_ref().map(|tar| tar.display().to_string());
        let machine = json!({ "statement_sha256": digest, "key_id": key_id, "signatures": signatures,
            "model_sig": model_sig, "tar": tar });
        let dir = self.dir.display();
        let mut people = format!("signed {dir} as {key_id}\n  statement   {digest}\n  signatures  {signatures}");
        if model_sig {
            people.push_str("\n  model.sig   on the same statement, for other people's tools");
        }
        if let Some(tar) = tar {
            people.push_str(&format!("\n  tar         {tar}"));
        }
        people.push_str(&format!("\n\nNext: petrel verify {dir} --root root.json"));
        out.result(&machine, people)
    }
}

/// `NAME-p256.pem` beside `NAME.pem`, where it is there.
fn beside(key: &Path) -> Option<PathBuf> {
    let name = key.file_stem()?.to_str()?;
    Some(key.with_file_name(format!("{name}-p256.pem"))).filter(|path| path.exists())
}
