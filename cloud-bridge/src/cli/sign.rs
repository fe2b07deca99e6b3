//! `petrel sign`: a publisher's signature on a bundle.

use super::Out;
use crate::bundle::{self, Sealed};
use crate::keyfile;
use serde_json::json;
use std::path::PathBuf;

/// Sign a bundle as its publisher
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel sign digits-1.2.0/ --key keys/publisher.pem
  petrel sign digits-1.2.0/ --key keys/publisher.pem --tar digits-1.2.0.tar")]
pub(crate) struct Args {
    /// The bundle's folder
    dir: PathBuf,
    /// The publisher's secret key
    #[arg(long, value_name = "FILE.pem")]
    key: PathBuf,
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
        let key = keyfile::read_private(&self.key)?;
        let Sealed { digest, key_id, signatures } = bundle::seal(&self.dir, &key)?;
        if let Some(tar) = &self.tar {
            bundle::write_tar(&self.dir, tar)?;
        }
        let tar = self.tar.as_ref().map(|tar| tar.display().to_string());
        let machine = json!({ "statement_sha256": digest, "key_id": key_id, "signatures": signatures, "tar": tar });
        let dir = self.dir.display();
        let mut people = format!("signed {dir} as {key_id}\n  statement   {digest}\n  signatures  {signatures}");
        if let Some(tar) = tar {
            people.push_str(&format!("\n  tar         {tar}"));
        }
        people.push_str(&format!("\n\nNext: petrel verify {dir} --root root.json"));
        out.result(&machine, people)
    }
}
