//! `petrel root show`: who holds what in a root, and how a chain of roots holds together.

use crate::authority;
use crate::ceremony::{self, Draft};
use crate::cli::table::table;
use crate::cli::{Out, draft};
use serde_json::{Value, json};
use std::path::PathBuf;
use trust::{PayloadKind, Role, Root, Verified};

/// Show a root, or a chain of roots in order; a draft as well
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel root show fleet/root.json
  petrel root show root.json root-2.json root-3.json")]
pub(super) struct Show {
    /// Roots, each following the one before it
    #[arg(required = true, value_name = "root.json")]
    files: Vec<PathBuf>,
}

impl Show {
    pub(super) fn run(self, out: &Out) -> anyhow::Result<()> {
        let mut trusted: Option<Verified<Root>> = None;
        let (mut machine, mut people) = (Vec::new(), Vec::new());
        let last = self.files.len() - 1;
        for (at, path) in self.files.iter().enumerate() {
            let read = Draft::read(PayloadKind::Root, path)?;
            let root: Root = read.says()?;
            let standing = ceremony::root_standing(trusted.as_ref(), &read)?;
            let (mut value, waits) = draft::told(&standing);
            draft::merge(&mut value, json!({ "root": root, "signers": read.signers() }));
            machine.push(value);
            people.push(told(&root, &waits));
            // The next one must follow this one, complete.
            if at < last {
                trusted = Some(match trusted {
                    None => authority::read_root(path)?,
                    Some(before) => trust::next_root(&before, &authority::read_document(path)?)?,
                });
            }
        }
        out.result(&Value::Array(machine), people.join("\n\n"))
    }
}

fn told(root: &Root, waits: &str) -> String {
    let row = |role: &Role| {
        let held = &root.roles[role.as_str()];
        let ids: Vec<String> = held.keyids.iter().cloned().collect();
        let threshold = format!("{} of {}", held.threshold, ids.len());
        [role.to_string(), threshold, held.role_epoch.to_string(), ids.join("\n")]
    };
    let roles = table(["ROLE", "MUST SIGN", "EPOCH", "KEYS"], Role::ALL.iter().map(row));
    let scope = |scope: &trust::Scope| {
        let ids: Vec<String> = scope.keyids.iter().cloned().collect();
        [scope.streams.join(", "), ids.join("\n")]
    };
    let scopes = table(["STREAMS", "PUBLISHERS"], root.publisher_scopes.iter().map(scope));
    let yes = |value: bool| if value { "yes" } else { "no" };
    let policy = &root.policy;
    let state = if waits.is_empty() { "complete\n" } else { waits };
    format!(
        "root {} of fleet {}, issued {}, until {}: {}\n\n{}\n\n{}\n\n\
         the director may go back {}, sideloading {}, only with the bridge's word {}, when signers are revoked {:?}",
        root.version,
        root.fleet,
        root.issued,
        root.expires,
        state.trim(),
        roles.trim_fmt(),
        scopes.trim_fmt(),
        yes(policy.director_may_rollback),
        yes(policy.sideload),
        yes(policy.require_fresh_install),
        policy.on_active_revoked,
    )
}
