//! `petrel broker`: configuration for brokers that are not ours.

use super::Out;
use crate::fault::Fault;
use crate::service::{BridgeConfig, mosquitto};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Write what another broker needs to know
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Config(Config),
}

/// Write a broker's configuration, access rules and certificates
#[derive(Debug, clap::Args)]
struct Config {
    #[command(subcommand)]
    broker: Broker,
}

#[derive(Debug, clap::Subcommand)]
enum Broker {
    /// Mosquitto 2: mutual TLS, names from certificates, one rule for all devices, withdrawn certificates
    #[command(after_help = "\
Example:
  petrel broker config mosquitto --config fleet/bridge.toml --out mosquitto/
  mosquitto -c mosquitto/mosquitto.conf
  # add the printed lines to bridge.toml, then: petrel bridge --config fleet/bridge.toml")]
    Mosquitto {
        /// The bridge's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The folder to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Where it listens
        #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8883")]
        listen: SocketAddr,
        /// The user that it runs as, when it is started by root
        #[arg(long, value_name = "NAME", default_value = "mosquitto")]
        user: String,
    },
}

impl Args {
    /// Writes the files.
    ///
    /// # Errors
    /// When the configuration cannot be read or a file not be written.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let Command::Config(Config { broker: Broker::Mosquitto { config, out: dir, listen, user } }) = self.command;
        if user.is_empty() || !user.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return Err(Fault::new(format!("`{user}` is no user")).remedy("give a name of letters and digits").into());
        }
        let config = BridgeConfig::read(&config, None)?;
        let written = mosquitto::write(&config, &dir, listen, &user)?;
        let lines = format!(
            "broker = \"mqtts://{}\"\ncrl = \"{}\"\nbroker_reload = [\"pkill\", \"-HUP\", \"-x\", \"mosquitto\"]",
            written.address,
            written.crl.display()
        );
        let machine = serde_json::json!({ "config": written.config, "acl": written.acl, "crl": written.crl, "bridge_toml": lines });
        let people = format!(
            "{}\nstart it with: mosquitto -c {}\nin bridge.toml, in place of broker_listen:\n\n{lines}",
            dir.display(),
            written.config.display()
        );
        out.result(&machine, people)
    }
}
