//! What people may say of a root that they make or change.

use crate::ceremony::Changes;
use crate::cli::keys::role_named;
use crate::fault::Fault;
use crate::keyfile;
use ed25519_dalek::VerifyingKey;
use std::path::{Path, PathBuf};
use trust::Role;

/// Thresholds, scopes and policy.
#[derive(Debug, clap::Args)]
pub(super) struct Terms {
    /// How many holders of a role must sign [may be repeated]
    #[arg(long, value_name = "ROLE=N", value_parser = threshold)]
    threshold: Vec<(Role, u32)>,
    /// Which streams a publisher signs, such as 'vib-*,digits'=keys/anna.pub [may be repeated]
    #[arg(long, value_name = "STREAMS=KEY", value_parser = scope)]
    scope: Vec<(String, String)>,
    /// Whether the director may send devices back to older releases above their floor
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    director_may_rollback: Option<bool>,
}

impl Terms {
    /// As changes of a root.
    ///
    /// # Errors
    /// When a key cannot be read.
    pub(super) fn changes(self) -> anyhow::Result<Changes> {
        let scopes = self.scope.into_iter().map(|(streams, key)| Ok((streams, key_id(&key)?)));
        Ok(Changes {
            thresholds: self.threshold,
            scopes: scopes.collect::<anyhow::Result<_>>()?,
            director_may_rollback: self.director_may_rollback,
            ..Changes::default()
        })
    }
}

/// The id of a key that is given as a file or by its id.
///
/// # Errors
/// When it is neither.
pub(in crate::cli) fn key_id(key: &str) -> anyhow::Result<String> {
    if key.parse::<trust::Digest>().is_ok() {
        return Ok(key.to_owned());
    }
    Ok(keyfile::id(&keyfile::read_public(Path::new(key))?))
}

/// The holders of roles, read from their files.
///
/// # Errors
/// When a key cannot be read.
pub(super) fn holders(named: Vec<(Role, PathBuf)>) -> anyhow::Result<Vec<(Role, VerifyingKey)>> {
    named.into_iter().map(|(role, path)| Ok((role, keyfile::read_public(&path)?))).collect()
}

/// `ROLE=FILE.pub`
pub(super) fn holder(text: &str) -> Result<(Role, PathBuf), String> {
    let (role, path) = text.split_once('=').ok_or("write ROLE=FILE.pub")?;
    Ok((role_named(role)?, path.into()))
}

/// `ROLE=N`
fn threshold(text: &str) -> Result<(Role, u32), String> {
    let (role, number) = text.split_once('=').ok_or("write ROLE=N, such as publisher=2")?;
    Ok((role_named(role)?, number.parse().map_err(|_| format!("`{number}` is no number"))?))
}

fn scope(text: &str) -> Result<(String, String), String> {
    let (streams, key) = text.rsplit_once('=').ok_or("write STREAMS=KEY, such as '*'=keys/publisher.pub")?;
    Ok((streams.to_owned(), key.to_owned()))
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("say yes or no".into()),
    }
}

/// Why nothing is done when nothing was asked for.
pub(super) fn nothing_to_do() -> Fault {
    Fault::new("nothing is changed").remedy("say what should be otherwise; `--help` lists it")
}
