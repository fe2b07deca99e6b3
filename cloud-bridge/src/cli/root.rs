//! `petrel root`: a fleet's root of trust.

use super::Out;
use crate::authority::{self, NewFleet};
use crate::keyfile;
use anyhow::Context;
use clap::Subcommand;
use protocol::FleetId;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Make a fleet's root of trust
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
      --host bridge.plant-3.example")]
    Init {
        /// The fleet's name
        #[arg(long)]
        fleet: FleetId,
        /// The folder to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// A publisher's public key; without one, a key is made [may be repeated]
        #[arg(long, value_name = "FILE.pub")]
        publisher: Vec<PathBuf>,
        /// A name or address of the bridge, besides those of its own machine [may be repeated]
        #[arg(long, value_name = "NAME_OR_IP")]
        host: Vec<String>,
        /// Days until the root and the certificate authority expire
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        expires_days: u32,
    },
}

impl Args {
    /// Makes the root.
    ///
    /// # Errors
    /// When the folder holds anything already, or cannot be written.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let Action::Init { fleet, out: dir, publisher, host, expires_days } = self.action;
        let publishers = publisher.iter().map(|path| keyfile::read_public(path)).collect::<anyhow::Result<_>>()?;
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).context("this machine's clock is before 1970")?.as_secs();
        let new = NewFleet { fleet, publishers, hosts: host, now, days: expires_days };
        let made = authority::init(&new, &dir)?;
        let at = |name: &str| dir.join(name).display().to_string();
        let keys: BTreeMap<_, _> = made.keys.iter().map(|(role, path)| (*role, path.display().to_string())).collect();
        let machine = json!({
            "fleet": made.root.fleet,
            "root": at("root.json"),
            "root_sha256": made.root.digest(),
            "expires": made.root.expires,
            "keys": keys,
            "tls": at("tls"),
        });
        let people = format!(
            "fleet {} has its root, version {}, until {}\n\n\
             Next:\n\
             \x20 the bridge  petrel bridge --config {}\n\
             \x20 devices     take {} and {}; agent.toml is a configuration for a first one\n\
             \x20 a safe      takes keys/root.pem, keys/revocation.pem and keys/breakglass.pem: move them off this machine",
            made.root.fleet,
            made.root.version,
            made.root.expires,
            at("bridge.toml"),
            at("root.json"),
            at("tls/ca.pem"),
        );
        out.result(&machine, people)
    }
}
