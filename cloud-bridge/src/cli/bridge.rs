//! `petrel bridge`: runs the service.

use super::Out;
use crate::fault::Fault;
use crate::service::{self, BridgeConfig};
use std::io::IsTerminal;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Run the bridge: the REST API, rollouts, and a broker unless one is named
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  petrel bridge --config fleet/bridge.toml\n  petrel bridge --config fleet/bridge.toml --broker mqtts://broker.example:8883"
)]
pub(crate) struct Args {
    /// The configuration, as `petrel root init` writes it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Another broker in place of the one inside: any MQTT 5 broker with TLS, mqtts://host:port
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Levels by module, such as `info` or `warn,petrel=debug`
    #[arg(long, value_name = "FILTER", env = "PETREL_LOG", default_value = "warn,petrel=info,audit=info,rmqtt=error")]
    log: String,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// For people
    Human,
    /// For machines
    Json,
}

impl Args {
    /// Runs until a signal ends it.
    pub(crate) fn run(self, _out: &Out) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(&self.log).map_err(|e| {
            Fault::new(format!("`{}` is no log filter", self.log))
                .because(e)
                .remedy("use a level such as info, or module=level")
        })?;
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        match self.log_format {
            LogFormat::Human => lines.init(),
            LogFormat::Json => lines.json().init(),
        }
        let config = BridgeConfig::read(&self.config, self.broker)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(service::run(config))
    }
}
