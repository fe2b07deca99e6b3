//! `petrel root`: a fleet's root of trust.

mod change;
mod next;
mod show;

pub(super) use change::key_id;

use super::{Out, draft};
use crate::authority::{self, NewFleet};
use change::Terms;
use clap::Subcommand;
use protocol::FleetId;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use trust::{Digest, Role};

/// Make a fleet's root of trust, change it, sign it, show it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make root.json, a key for each role, and the fleet's certificates
    #[command(after_help = "\
Example:
  petrel root init --fleet plant-3 --out fleet/ --publisher keys/publisher.pub \\
      --host bridge.plant-3.example
  petrel root init --fleet plant-3 --out fleet/ --holder root=anna.pub --holder root=bert.pub \\
      --threshold root=2     # then both: petrel root sign fleet/root.json --key …")]
    Init {
        /// The fleet's name
        #[arg(long)]
        fleet: FleetId,
        /// The folder to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// A publisher's public key: the same as --holder publisher=FILE.pub [may be repeated]
        #[arg(long, value_name = "FILE.pub")]
        publisher: Vec<PathBuf>,
        /// Who holds a role; for a role without anybody a key is made [may be repeated]
        #[arg(long, value_name = "ROLE=FILE.pub", value_parser = change::holder)]
        holder: Vec<(Role, PathBuf)>,
        #[command(flatten)]
        terms: Terms,
        /// A name or address of the bridge, besides those of its own machine [may be repeated]
        #[arg(long, value_name = "NAME_OR_IP")]
        host: Vec<String>,
        /// Days until the root and the certificate authority expire
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        expires_days: u32,
    },
    Rotate(next::Rotate),
    AddKey(next::AddKey),
    RemoveKey(next::RemoveKey),
    Sign(next::Sign),
    Show(show::Show),
}

impl Args {
    /// Does it.
    ///
    /// # Errors
    /// When a file cannot be read or written, or what would be made is refused.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        match self.action {
            Action::Rotate(args) => args.run(out),
            Action::AddKey(args) => args.run(out),
            Action::RemoveKey(args) => args.run(out),
            Action::Sign(args) => args.run(out),
            Action::Show(args) => args.run(out),
            Action::Init { fleet, out: dir, publisher, holder, terms, host, expires_days } => {
                let publishers = publisher.into_iter().map(|path| (Role::Publisher, path));
                let holders = change::holders(publishers.chain(holder).collect())?;
                let (changes, now) = (terms.changes()?, draft::now()?);
                let new = NewFleet { fleet, holders, changes, hosts: host, now, days: expires_days };
                init(&new, dir, out)
            }
        }
    }
}

fn init(new: &NewFleet, dir: PathBuf, out: &Out) -> anyhow::Result<()> {
    let made = authority::init(new, &dir)?;
    let at = |name: &str| dir.join(name).display().to_string();
    let keys: BTreeMap<_, _> = made.keys.iter().map(|(role, path)| (*role, path.display().to_string())).collect();
    let (mut machine, waits) = draft::told(&made.standing);
    let facts = json!({
        "fleet": made.root.fleet,
        "root": at("root.json"),
        "root_sha256": Digest::of(&serde_json::to_vec(&made.root)?),
        "expires": made.root.expires,
        "keys": keys,
        "tls": at("tls"),
    });
    draft::merge(&mut machine, facts);
    let signing = match waits.is_empty() {
        true => String::new(),
        false => {
            format!(
                "\x20 root.json   petrel root sign {} --key KEY.pem: it is good for nothing before\n",
                at("root.json")
            )
        }
    };
    let people = format!(
        "fleet {} has its root, version {}, until {}\n{waits}\n\
         Next:\n{signing}\
         \x20 the bridge  petrel bridge --config {}\n\
         \x20 devices     petrel devices token new DEVICE --out DEVICE.join, when the bridge runs and you are logged in\n\
         \x20 a safe      takes keys/root.pem, keys/revocation.pem, keys/breakglass.pem and tls/ca.key: move them off this machine",
        made.root.fleet,
        made.root.version,
        made.root.expires,
        at("bridge.toml"),
    );
    out.result(&machine, people)
}
