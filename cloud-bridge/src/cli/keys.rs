//! `petrel keys`: keys of the roles.

use super::Out;
use crate::keyfile::{self, Passphrase, p256};
use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;
use std::path::{Path, PathBuf};
use trust::Role;

/// Make keys
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a new key pair: ROLE.pem, which is secret, and ROLE.pub; for a publisher also ROLE-p256.pem
    /// and ROLE-p256.pub, which sign for the tools of others
    #[command(after_help = "\
Examples:
  petrel keys new --role publisher --out keys/
  petrel keys new --role root --name root-anna --out keys/ --encrypt
  petrel keys new --role root --out keys/ --encrypt --passphrase-file /dev/fd/3 3< <(pass show petrel)

A passphrase is never taken from arguments or the environment, which others can read.")]
    New {
        /// What the key will sign
        #[arg(long, value_parser = roles())]
        role: Role,
        /// The folder to write to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The files' name, where several people hold keys of one role [default: the role]
        #[arg(long, value_parser = file_name)]
        name: Option<String>,
        /// Encrypt the secret keys with a passphrase, asked for at the terminal
        #[arg(long)]
        encrypt: bool,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
}

impl Args {
    /// Makes the keys.
    ///
    /// # Errors
    /// When a file is there already, or cannot be written.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let Action::New { role, out: dir, name, encrypt, passphrase } = self.action;
        let passphrase = passphrase.source();
        let lock = encrypt.then_some(&passphrase);
        let name = name.as_deref().unwrap_or(role.as_str());
        let key = keyfile::generate()?;
        let (private, public) = keyfile::write_pair(&dir, name, &key, lock)?;
        let id = keyfile::id(&key.verifying_key());
        let shown = |path: &Path| path.display().to_string();
        let mut machine = json!({ "role": role.as_str(), "key_id": id, "private": shown(&private),
            "public": shown(&public), "encrypted": encrypt });
        let mut people = format!(
            "{role} key {id}\n  secret  {}   keep it to yourself\n  public  {}   give it to who makes the root",
            private.display(),
            public.display(),
        );
        if role == Role::Publisher {
            let (key, private, public) = p256::write_new_pair(&dir, &format!("{name}-p256"), lock)?;
            machine["p256"] =
                json!({ "key_id": key.id(), "hint": key.hint(), "private": shown(&private), "public": shown(&public) });
            people.push_str(&format!(
                "\nP-256 key {}\n  secret  {}   signs model.sig\n  public  {}   give it to who checks with model_signing",
                key.id(),
                private.display(),
                public.display(),
            ));
        }
        out.result(&machine, people)
    }
}

/// Where the passphrase of an encrypted key comes from.
#[derive(Debug, clap::Args)]
pub(crate) struct PassphraseArgs {
    /// Read the passphrase from the first line of this file, in place of the terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    /// The passphrase, which is read when the first key needs it.
    pub(crate) fn source(self) -> Passphrase {
        Passphrase::from(self.passphrase_file)
    }
}

/// A name of files that stays in its folder.
fn file_name(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let good = !name.is_empty() && name.len() <= 64 && name.chars().all(plain);
    if good { Ok(name.to_owned()) } else { Err("use letters, digits, `-` and `_`, 64 at most".into()) }
}

/// The roles, by name.
pub(super) fn roles() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::as_str)).try_map(|name| role_named(&name))
}

/// The role of this name.
pub(super) fn role_named(name: &str) -> Result<Role, String> {
    let known = Role::ALL.map(Role::as_str).join(", ");
    let role = Role::ALL.into_iter().find(|role| role.as_str() == name);
    role.ok_or_else(|| format!("`{name}` is no role: known are {known}"))
}
