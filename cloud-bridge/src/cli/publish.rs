//! `petrel publish`: hands documents that people signed to the bridge, which tells every device.

use super::Out;
use super::client::Client;
use super::table::table;
use crate::authority;
use crate::service::view::DocumentView;
use std::path::PathBuf;

/// Publish signed roots, a revocation or a breakglass to every device of the fleet
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel publish root-2.json root-3.json      # every version in turn: a device that was away reads them all
  petrel publish revocation-1.json
  petrel publish                              # what was published so far")]
pub(crate) struct Args {
    /// Complete documents, the oldest first; none lists what the bridge has
    #[arg(value_name = "FILE.json")]
    files: Vec<PathBuf>,
}

impl Args {
    /// Asks the bridge.
    ///
    /// # Errors
    /// When a file cannot be read or a document is not believed; those before it are published.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let client = Client::from_context()?;
        if self.files.is_empty() {
            let published: Vec<DocumentView> = client.list("/documents")?;
            let rows = published.iter().map(|d| [d.kind.clone(), d.number.to_string(), d.sha256.clone()]);
            return out.result(&published, table(["DOCUMENT", "VERSION", "SHA-256"], rows));
        }
        let mut published = Vec::new();
        for path in &self.files {
            let document = publish(&client, &authority::read_document(path)?)?;
            let news = if document.new { "published" } else { "was published before" };
            out.say(format!("{}: {} {} {news}", path.display(), document.kind, document.number));
            published.push(document);
        }
        out.result(&published, "devices hear of it at once, those that are away when they connect")
    }
}

/// Hands one document to the bridge.
///
/// # Errors
/// The bridge's refusal.
pub(crate) fn publish(client: &Client, document: &[u8]) -> anyhow::Result<DocumentView> {
    client.post_bytes("/documents", document)
}
