//! `petrel bridge`: runs the service.

use super::Out;
use super::table::table;
use crate::fault::Fault;
use crate::service::{self, BridgeConfig, Traces};
use serde_json::Value;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// How long the end waits for what is under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// Run the bridge: the REST API, rollouts, and a broker unless one is named
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  petrel bridge --config fleet/bridge.toml\n  petrel bridge --config fleet/bridge.toml --broker mqtts://broker.example:8883\n  petrel bridge --config fleet/bridge.toml --explain"
)]
pub(crate) struct Args {
    /// The configuration, as `petrel root init` writes it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Another broker in place of the one inside: any MQTT 5 broker with TLS, mqtts://host:port
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Show each key of the configuration with its value and where that is from, and run nothing
    #[arg(long)]
    explain: bool,
    /// Levels by module, such as `info` or `warn,petrel=debug`
    #[arg(long, value_name = "FILTER", env = "PETREL_LOG", default_value = "warn,petrel=info,audit=info,rmqtt=error")]
    log: String,
    /// Send traces to this collector of OpenTelemetry: OTLP over HTTP, http://127.0.0.1:4318/v1/traces
    #[arg(long, value_name = "URL", env = "PETREL_TRACES")]
    traces: Option<String>,
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
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        if self.explain {
            return explain(&self.config, self.broker, out);
        }
        let filter = EnvFilter::try_new(&self.log).map_err(|e| {
            Fault::new(format!("`{}` is no log filter", self.log))
                .because(e)
                .remedy("use a level such as info, or module=level")
        })?;
        let traces = self.traces.as_deref().map(Traces::to).transpose().map_err(|e| {
            Fault::new("traces cannot be sent").because(e).remedy(
                "give the URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces",
            )
        })?;
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        let lines = match self.log_format {
            LogFormat::Human => lines.boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        let spans = traces.as_ref().map(Traces::layer);
        tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).init();
        let config = BridgeConfig::read(&self.config, self.broker)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let ended = runtime.block_on(service::run(config));
        // A thread that waits for a database which is silent waits for ever.
        runtime.shutdown_timeout(PATIENCE);
        if let Some(traces) = traces {
            traces.end();
        }
        ended
    }
}

fn explain(path: &Path, broker: Option<String>, out: &Out) -> anyhow::Result<()> {
    let keys = BridgeConfig::explain(path, broker)?;
    let value = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let rows = keys.iter().map(|of| [of.key.clone(), value(&of.value), of.from.to_owned()]);
    out.result(&keys, table(["KEY", "VALUE", "FROM"], rows).trim_fmt())
}
