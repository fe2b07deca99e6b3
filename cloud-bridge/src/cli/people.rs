//! `petrel people`: who may use the bridge.

use super::Out;
use super::client::Client;
use super::table::{ago, ends, table};
use crate::fault::Fault;
use crate::keyfile;
use crate::service::people::{MadePerson, NewPerson, PersonView};
use crate::service::unix_millis;
use anyhow::Context;
use bridge_core::access::Role;
use serde_json::json;
use std::path::PathBuf;

/// Let people use the bridge, each with a token of their own
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  petrel people new bert --role approver --out bert.token    # bert: petrel login https://land:8443 --ca ca.pem --token-file bert.token"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token for somebody; it is shown this once
    New {
        /// Their name, as the audit log will have it
        name: String,
        /// What for: viewer, publisher (releases), operator (devices and rollouts), approver (of others' rollouts) or admin
        #[arg(long)]
        role: Role,
        /// A stream whose releases and rollouts it holds for, and nothing beside them; repeat it for more
        #[arg(long = "stream", value_name = "STREAM")]
        streams: Vec<String>,
        /// Days after which it ends
        #[arg(long)]
        days: Option<u32>,
        /// The file to write, for its owner alone
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Everybody who is let in
    Ls,
    /// Take somebody's token back
    Revoke {
        /// Their name
        name: String,
    },
}

impl Args {
    /// Asks the bridge.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let client = Client::from_context()?;
        match self.command {
            Command::New { name, role, streams, days, out: file } => {
                if file.symlink_metadata().is_ok() {
                    return Err(Fault::new(format!("{} is there already", file.display()))
                        .remedy("name another file")
                        .into());
                }
                let answer: Option<MadePerson> = client.post("/people", &NewPerson { name, role, streams, days })?;
                let made = answer.context("the bridge's answer was empty")?;
                keyfile::write_new(&file, made.token.as_bytes(), 0o600)?;
                let people =
                    format!("{} is let in by {}: bring it to them, and keep no copy", made.name, file.display());
                out.result(&json!({ "name": made.name, "file": file }), people)
            }
            Command::Ls => {
                let people: Vec<PersonView> = client.list("/people")?;
                let now = unix_millis();
                let row = |p: &PersonView| {
                    let scope = if p.streams.is_empty() { "everything".into() } else { p.streams.join(", ") };
                    let ends = p.until.map_or_else(|| "never".into(), |until| ends(until, now));
                    [p.name.clone(), p.role.to_string(), scope, ago(p.created, now), ends]
                };
                out.result(&people, table(["NAME", "ROLE", "FOR", "SINCE", "ENDS"], people.iter().map(row)))
            }
            Command::Revoke { name } => {
                let _: Option<serde_json::Value> = client.post(&format!("/people/{name}/revoke"), &json!({}))?;
                out.result(&json!({ "revoked": name }), format!("the token of {name} counts no more"))
            }
        }
    }
}
