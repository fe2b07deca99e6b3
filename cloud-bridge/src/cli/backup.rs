//! `petrel backup` and `petrel restore`: all that a bridge has decided and holds, in one file and back.

use super::table::ago;
use super::{Out, bytes};
use crate::service::backup::{self, Index};
use crate::service::{BridgeConfig, unix_millis};
use serde_json::json;
use std::path::PathBuf;

/// Write all that a bridge has decided and holds into one file, while it runs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  petrel backup --config fleet/bridge.toml --out \"$(date +%F).petrel\"\n\nOn the bridge's machine, as its user. Keys and certificates are not in it: keep those where keys are kept."
)]
pub(crate) struct Args {
    /// The bridge's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The file to write, for its owner alone
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Make a bridge's data folder from a backup
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  systemctl stop petrel-bridge && mv data data.old\n  petrel restore 2026-11-28.petrel --config fleet/bridge.toml\n\nRollouts that were under way wait for a person. A device is told nothing before it was heard again, and is left with what it runs."
)]
pub(crate) struct RestoreArgs {
    /// What `petrel backup` wrote
    file: PathBuf,
    /// The bridge's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Args {
    /// Beside a running bridge or without one.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let config = BridgeConfig::read(&self.config, None)?;
        let index = wait(backup::make(&config, &self.out))?;
        let people = format!(
            "{}: {} files, {}, {} lines of the audit log; no keys",
            self.out.display(),
            index.files.len(),
            bytes(index.bytes()),
            index.audit
        );
        out.result(&told(&index, &self.out), people)
    }
}

impl RestoreArgs {
    /// While no bridge runs.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let config = BridgeConfig::read(&self.config, None)?;
        let index = wait(backup::put(&config, &self.file))?;
        let people = format!(
            "the bridge of fleet {} is as it was {}. What it has forgotten since, and cannot learn from devices:\n  \
             - tokens and certificates that were taken back count again: see `petrel people ls`, `petrel devices ls`\n  \
             - devices that enrolled or renewed their keys are not known: enrol them again\n  \
             - releases, roots and revocations: push and publish them again; a device that has one says so (`petrel devices show`)\n  \
             - lines of the audit log: a checkpoint that was made since fails with it\n\
             Start the bridge; rollouts that were under way wait for `petrel rollout resume`.",
            index.fleet,
            ago(index.made, unix_millis())
        );
        out.result(&told(&index, &self.file), people)
    }
}

fn told(index: &Index, file: &std::path::Path) -> serde_json::Value {
    let Index { fleet, made, audit, files, .. } = index;
    json!({ "file": file, "fleet": fleet, "made": made, "audit": audit, "files": files.len(), "bytes": index.bytes() })
}

fn wait<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}
