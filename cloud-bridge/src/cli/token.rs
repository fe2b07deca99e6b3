//! `petrel devices token`: what lets a device in, once.

use super::Out;
use super::client::Client;
use super::table::table;
use crate::fault::Fault;
use crate::keyfile;
use crate::service::tokens::{MadeToken, NewToken, TokenView};
use anyhow::Context;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Make, list and revoke the one-time tokens that let devices in
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  petrel devices token new edge-1 --out edge-1.join")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a join file for a device: where the bridge and the broker are, whom to believe, and a token
    #[command(after_help = "\
Examples:
  petrel devices token new edge-1 --out edge-1.join
  petrel devices token new edge-1 --ttl 7d --pending --out edge-1.join   # a person decides again

Bring the file to the device: petrel-agent enrol edge-1.join
It holds a secret until it was used, which is shown this once.")]
    New {
        /// The device's name
        device: String,
        /// How long it may wait to be used: a number and m, h or d
        #[arg(long, default_value = "24h", value_parser = duration)]
        ttl: Duration,
        /// The device waits for `petrel devices approve` after it has used it
        #[arg(long)]
        pending: bool,
        /// The file to write, for its owner alone [default: print it]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Every token of the last month, without its secret
    Ls,
    /// Take a token back that was not used
    Revoke {
        /// Its id, as `petrel devices token ls` shows it
        id: String,
    },
}

impl Args {
    /// Asks the bridge.
    pub(crate) fn run(self, client: &Client, out: &Out) -> anyhow::Result<()> {
        match self.command {
            Command::New { device, ttl, pending, out: file } => {
                if let Some(taken) = file.as_ref().filter(|path| path.symlink_metadata().is_ok()) {
                    let fault = Fault::new(format!("{} is there already", taken.display()))
                        .because("a join file is not written over: nobody may have used it yet");
                    return Err(fault.remedy("choose another file, or remove this one").into());
                }
                let new = NewToken { device, ttl_s: ttl.as_secs(), pending };
                let made: MadeToken = client.post("/join-tokens", &new)?.context("the bridge's answer was empty")?;
                give(made, file, out)
            }
            Command::Ls => list(client, out),
            Command::Revoke { id } => {
                client.post::<serde_json::Value>(&format!("/join-tokens/{id}/revoke"), &serde_json::Map::new())?;
                out.result(&serde_json::json!({ "id": id, "status": "revoked" }), format!("{id} lets nobody in"))
            }
        }
    }
}

fn give(made: MadeToken, file: Option<PathBuf>, out: &Out) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&made.join)? + "\n";
    let Some(path) = file else { return out.result(&made.join, text.trim_end()) };
    // A token that nobody has is of no use to anybody: the bridge forgets it when its time is over.
    keyfile::write_new(&path, text.as_bytes(), 0o600).map_err(|e| {
        Fault::new(format!("cannot write the join file {}", path.display()))
            .because(e.root_cause().to_string())
            .remedy(format!("choose another file; nobody can use the token {} any more", made.token.id))
    })?;
    let device = &made.token.device;
    let machine = serde_json::json!({ "token": made.token, "file": path });
    let after = if made.token.pending { format!("\nthen: petrel devices approve {device}") } else { String::new() };
    let file = path.display();
    out.result(&machine, format!("{file} lets {device} in, once\non the device: petrel-agent enrol {file}{after}"))
}

fn list(client: &Client, out: &Out) -> anyhow::Result<()> {
    let tokens: Vec<TokenView> = client.list("/join-tokens")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let row = |t: &TokenView| {
        let state = match (t.used, t.until > now) {
            (true, _) => "used".to_owned(),
            (false, true) => format!("waits, {} h left", (t.until - now) / 3_600_000),
            (false, false) => "expired".to_owned(),
        };
        [t.id.clone(), t.device.clone(), state, if t.pending { "asks a person" } else { "approves" }.to_owned()]
    };
    let people = if tokens.is_empty() {
        "no token was made in the last month\nmake one with: petrel devices token new DEVICE --out FILE".to_owned()
    } else {
        table(["TOKEN", "DEVICE", "STATE", "WHEN USED"], tokens.iter().map(row)).to_string()
    };
    out.result(&tokens, people)
}

/// `30s`, `90m`, `24h`, `7d`
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    text.parse().map(|span: bridge_core::Span| Duration::from_millis(span.0))
}
