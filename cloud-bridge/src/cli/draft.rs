//! What the commands that people sign with in turn have in common: the time, the keys, and how a
//! draft's standing is told.

use super::Out;
use super::keys::PassphraseArgs;
use crate::ceremony::{Draft, Standing};
use crate::keyfile;
use anyhow::Context;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use trust::{PayloadKind, Role, Root};

/// Secret keys that sign.
#[derive(Debug, clap::Args)]
pub(super) struct Signers {
    /// A secret key that signs at once; others sign later [may be repeated]
    #[arg(long, value_name = "FILE.pem")]
    key: Vec<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

impl Signers {
    /// Whether nobody signs.
    pub(super) fn is_empty(&self) -> bool {
        self.key.is_empty()
    }

    /// Signs with every key, each of which must hold `role` in one of `roots`.
    ///
    /// # Errors
    /// When a key cannot be read, or its signature would count for nothing.
    pub(super) fn sign(self, draft: &mut Draft, role: Role, roots: &[&Root]) -> anyhow::Result<()> {
        let passphrase = self.passphrase.source();
        for path in self.key {
            let key = keyfile::read_private(&path, &passphrase)?;
            draft.sign(&key, role, roots).with_context(|| format!("{} does not sign", path.display()))?;
        }
        Ok(())
    }
}

/// Seconds since 1970, by this machine's clock.
///
/// # Errors
/// When it was never set.
pub(crate) fn now() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("this machine's clock is before 1970")?.as_secs())
}

/// The draft that was begun at `path`, if there is one.
///
/// # Errors
/// When something else lies there.
pub(super) fn begun(kind: PayloadKind, path: &Path) -> anyhow::Result<Option<Draft>> {
    match path.symlink_metadata() {
        Ok(_) => Draft::read(kind, path).map(Some),
        Err(_) => Ok(None),
    }
}

/// How far it has come: for machines, and what people must still do (nothing when it is complete).
pub(super) fn told<T>(standing: &Standing<T>) -> (Value, String) {
    match standing {
        Standing::Complete(document) => {
            (json!({ "complete": true, "missing": [], "sha256": document.digest() }), String::new())
        }
        Standing::Waiting(needs) => {
            let line = |need: &crate::ceremony::Need| {
                format!(
                    "  waits for {} more of {}: {} of {} signed; may sign: {}\n",
                    need.threshold.saturating_sub(need.signed),
                    need.of,
                    need.signed,
                    need.threshold,
                    need.may_sign.join(", ")
                )
            };
            (json!({ "complete": false, "missing": needs }), needs.iter().map(line).collect())
        }
    }
}

/// Says what became of a draft that was written.
///
/// # Errors
/// When the result cannot be printed.
pub(super) fn report<T>(
    out: &Out,
    what: &str,
    path: &Path,
    draft: &Draft,
    standing: &Standing<T>,
    facts: Value,
) -> anyhow::Result<()> {
    let (mut machine, waits) = told(standing);
    merge(&mut machine, json!({ "file": path.display().to_string(), "signers": draft.signers() }));
    merge(&mut machine, facts);
    let end = if waits.is_empty() { "  complete: a device would take it\n".to_owned() } else { waits };
    let signers = draft.signers().iter().map(|id| format!("  signed by {id}\n")).collect::<String>();
    out.result(&machine, format!("{what} in {}\n{signers}{}", path.display(), end.trim_end()))
}

/// Adds the fields of `more` to an object.
pub(super) fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}
