//! `petrel push`: hands a signed bundle to the bridge.

use super::client::Client;
use super::{Out, bytes};
use crate::bundle;
use crate::fault::Fault;
use crate::service::view::ReleaseView;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Hand a signed bundle to the bridge
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  petrel push digits-1.2.0/")]
pub(crate) struct Args {
    /// The bundle's folder, signed
    bundle: PathBuf,
}

impl Args {
    /// Packs the folder into a tar aside and sends it.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let progress = out.progress("pushing");
        let release = push(&Client::from_context()?, &self.bundle)?;
        progress.finish_and_clear();
        let people = format!(
            "pushed {} {} (release {}, {}, {})\nnext: petrel rollout start {}@{} --waves 1,100%",
            release.stream,
            release.version,
            release.release,
            bytes(release.total_size),
            &release.statement_sha256[..12],
            release.stream,
            release.version,
        );
        out.result(&release, people)
    }
}

/// Sends the bundle in `dir`.
pub(crate) fn push(client: &Client, dir: &Path) -> anyhow::Result<ReleaseView> {
    if bundle::existing_seal(dir)?.is_none() {
        let fault = Fault::new(format!("{} is not signed", dir.display()));
        return Err(fault.remedy(format!("run: petrel sign {} --key keys/publisher.pem", dir.display())).into());
    }
    let digest = bundle::describe(dir)?.digest();
    let aside = tempfile::tempdir()?;
    let archive = aside.path().join("bundle.tar");
    bundle::write_tar(dir, &archive)?;
    let mut file = File::open(&archive)?;
    let length = file.metadata()?.len();
    client.put(&format!("/bundles/{digest}"), &mut file, length)
}
