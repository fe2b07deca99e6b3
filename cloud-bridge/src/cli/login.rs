//! `petrel login`: keeps where the bridge is and what lets us in.

use super::Out;
use super::client::{Client, Context, Token};
use crate::fault::Fault;
use crate::service::view::StatusView;
use std::path::PathBuf;

/// Keep the address of a bridge and a token for the other commands
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  petrel login https://localhost:8443 --ca fleet/tls/ca.pem --token-file bridge-data/admin.token"
)]
pub(crate) struct Args {
    /// Where the bridge's REST API is, https://host:port
    url: String,
    /// The fleet's certificate authority, PEM
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// A file with the token; never given on the command line, where others could read it
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
}

impl Args {
    /// Tries the token before it is kept.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        if !self.url.starts_with("https://") {
            let fault = Fault::new(format!("`{}` is no address of a bridge", self.url));
            return Err(fault.remedy("give one with TLS, such as https://localhost:8443").into());
        }
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|e| {
                let fault = Fault::new(format!("cannot read {}", path.display())).because(e);
                fault.remedy("give the fleet's tls/ca.pem with --ca, and the bridge's admin.token with --token-file")
            })
        };
        let context = Context {
            url: self.url.trim_end_matches('/').to_owned(),
            ca: read(&self.ca)?,
            token: Token(read(&self.token_file)?.trim().to_owned()),
        };
        let status: StatusView = Client::new(context.clone())?.get("/status")?;
        let path = Context::path()?;
        context.save(&path)?;
        let people = format!(
            "logged in to {} ({} devices, {} releases)\nkept in {}",
            context.url,
            status.devices,
            status.releases,
            path.display()
        );
        out.result(&serde_json::json!({ "url": context.url, "context": path, "status": status }), people)
    }
}
