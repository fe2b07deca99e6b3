//! `petrel keys`: keys of the roles.

use super::Out;
use crate::keyfile;
use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;
use std::path::PathBuf;
use trust::Role;

/// Make keys
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a new key pair: ROLE.pem, which is secret, and ROLE.pub
    #[command(after_help = "Example:\n  petrel keys new --role publisher --out keys/")]
    New {
        /// What the key will sign
        #[arg(long, value_parser = roles())]
        role: Role,
        /// The folder to write to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

impl Args {
    /// Makes the keys.
    ///
    /// # Errors
    /// When a file is there already, or cannot be written.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let Action::New { role, out: dir } = self.action;
        let key = keyfile::generate()?;
        let (private, public) = keyfile::write_pair(&dir, role.as_str(), &key)?;
        let id = keyfile::id(&key.verifying_key());
        let machine = json!({ "role": role.as_str(), "key_id": id, "private": private.display().to_string(), "public": public.display().to_string() });
        let people = format!(
            "{role} key {id}\n  secret  {}   keep it to yourself\n  public  {}   give it to who makes the root",
            private.display(),
            public.display(),
        );
        out.result(&machine, people)
    }
}

fn roles() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::as_str)).try_map(|name| {
        Role::ALL.into_iter().find(|role| role.as_str() == name).ok_or_else(|| format!("`{name}` is no role"))
    })
}
