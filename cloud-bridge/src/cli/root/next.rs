//! `petrel root rotate | add-key | remove-key | sign`: the next root, by several people in turn.

use super::change::{self, Terms};
use crate::authority;
use crate::ceremony::{self, Changes, Draft};
use crate::cli::Out;
use crate::cli::draft::{self, Signers};
use crate::cli::keys::roles;
use crate::fault::Fault;
use crate::keyfile;
use serde_json::json;
use std::path::{Path, PathBuf};
use trust::{PayloadKind, Role, Root};

/// Where from and where to.
#[derive(Debug, clap::Args)]
struct Place {
    /// The root that devices trust now
    #[arg(long, value_name = "root.json")]
    root: PathBuf,
    /// The next root: made, or changed further where it is there already
    #[arg(long, value_name = "root-N.json")]
    out: PathBuf,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    signers: Signers,
}

/// Make the next root: a new end, other thresholds, scopes, policy or epochs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel root rotate --root root.json --out root-2.json --expires-days 3650 --key safe/root.pem
  petrel root rotate --root root.json --out root-2.json --new-epoch director --clock-reset
  petrel root rotate --root root.json --out root-2.json --threshold publisher=2 --scope 'vib-*'=keys/anna.pub")]
pub(super) struct Rotate {
    #[command(flatten)]
    place: Place,
    /// Days from now until it expires
    #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    expires_days: u32,
    /// Begin the counters of a role again, though its keys stay [may be repeated]
    #[arg(long, value_name = "ROLE", value_parser = roles())]
    new_epoch: Vec<Role>,
    /// Let devices forget the time that they were told: after a beacon key was stolen
    #[arg(long)]
    clock_reset: bool,
}

/// Give a role to a key, in the next root
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel root add-key --role root --holder bert.pub --root root.json --out root-2.json --threshold root=2
  petrel root add-key --role publisher --holder anna.pub --scope 'vib-*'=anna.pub --root root.json --out root-2.json")]
pub(super) struct AddKey {
    /// Which role
    #[arg(long, value_parser = roles())]
    role: Role,
    /// The public key
    #[arg(long, value_name = "FILE.pub")]
    holder: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// Take a role from a key, in the next root
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  petrel root remove-key --role publisher --holder anna.pub --root root.json --out root-2.json")]
pub(super) struct RemoveKey {
    /// Which role
    #[arg(long, value_parser = roles())]
    role: Role,
    /// The public key, or its id
    #[arg(long, value_name = "FILE.pub|KEYID")]
    holder: String,
    #[command(flatten)]
    place: Place,
}

/// Sign a root that was made; when enough have, it is complete
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel root sign root-2.json --root root.json --key safe/root.pem
  petrel root sign fleet/root.json --key anna.pem     # a first root, which follows none")]
pub(super) struct Sign {
    /// The root to sign
    file: PathBuf,
    /// The root that it follows; none for version 1
    #[arg(long, value_name = "root.json")]
    root: Option<PathBuf>,
    #[command(flatten)]
    signers: Signers,
}

impl Rotate {
    pub(super) fn run(self, out: &Out) -> anyhow::Result<()> {
        let more = Changes {
            expires_days: Some(self.expires_days),
            new_epochs: self.new_epoch,
            clock_reset: self.clock_reset,
            ..Changes::default()
        };
        self.place.make(more, out)
    }
}

impl AddKey {
    pub(super) fn run(self, out: &Out) -> anyhow::Result<()> {
        let add = vec![(self.role, keyfile::read_public(&self.holder)?)];
        self.place.make(Changes { add, ..Changes::default() }, out)
    }
}

impl RemoveKey {
    pub(super) fn run(self, out: &Out) -> anyhow::Result<()> {
        let remove = vec![(self.role, change::key_id(&self.holder)?)];
        self.place.make(Changes { remove, ..Changes::default() }, out)
    }
}

impl Place {
    /// Makes the next root or changes the one that was begun, and signs it.
    fn make(self, more: Changes, out: &Out) -> anyhow::Result<()> {
        let trusted = authority::read_root(&self.root)?;
        let begun = draft::begun(PayloadKind::Root, &self.out)?;
        let terms = self.terms.changes()?;
        let changes = Changes {
            thresholds: terms.thresholds,
            scopes: terms.scopes,
            director_may_rollback: terms.director_may_rollback,
            ..more
        };
        let said: Option<Root> = begun.as_ref().map(Draft::says).transpose()?;
        let next = ceremony::next_root(&trusted, said, &changes, draft::now()?)?;
        let payload = serde_json::to_vec(&next)?;
        let mut draft = begun.unwrap_or_else(|| Draft::new(PayloadKind::Root, Vec::new()));
        let dropped = draft.say(payload);
        self.signers.sign(&mut draft, Role::Root, &[&trusted, &next])?;
        let standing = ceremony::root_standing(Some(&trusted), &draft)?;
        draft.write(&self.out)?;
        if dropped > 0 {
            out.note(format!("it was changed: {dropped} signatures on what it said before are gone"))?;
        }
        let epochs: Vec<Role> =
            Role::ALL.into_iter().filter(|role| next.role_epoch(*role) > trusted.role_epoch(*role)).collect();
        if epochs.contains(&Role::Revocation) {
            out.note("the revocation role begins a new epoch: sign the revocation anew, or devices keep the old one")?;
        }
        let names: Vec<&str> = epochs.iter().map(|role| role.as_str()).collect();
        let facts = json!({ "version": next.version, "expires": next.expires, "new_epochs": names });
        draft::report(out, &format!("root {}", next.version), &self.out, &draft, &standing, facts)
    }
}

impl Sign {
    pub(super) fn run(self, out: &Out) -> anyhow::Result<()> {
        let trusted = self.root.as_deref().map(authority::read_root).transpose()?;
        let mut draft = Draft::read(PayloadKind::Root, &self.file)?;
        let root: Root = draft.says()?;
        if trusted.is_none() && root.version.get() > 1 {
            let fault = Fault::new(format!("root {} follows another root", root.version));
            return Err(fault.remedy("give the root that it follows with --root").into());
        }
        // What would be refused anyway is not signed.
        ceremony::root_standing(trusted.as_ref(), &draft)?;
        if self.signers.is_empty() {
            return Err(change::nothing_to_do().into());
        }
        let roots: Vec<&Root> = trusted.as_deref().into_iter().chain([&root]).collect();
        self.signers.sign(&mut draft, Role::Root, &roots)?;
        let standing = ceremony::root_standing(trusted.as_ref(), &draft)?;
        draft.write(&self.file)?;
        let facts = json!({ "version": root.version, "expires": root.expires });
        draft::report(out, &format!("root {}", root.version), Path::new(&self.file), &draft, &standing, facts)
    }
}
