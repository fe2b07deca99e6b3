//! `petrel-agent`: the agent of a device, and the commands of a person beside it.
//!
//! Decides which commands there are, and how errors look. What they do lives in rooms that know no
//! command line.

mod arrivals;
mod config;
mod driver;
mod fault;
mod feed;
mod fetch;
#[cfg(test)]
mod fuzzed;
mod hardware;
mod http;
mod identity;
mod infer;
mod keeper;
mod log;
mod mqtt;
mod profile;
mod self_test;
mod settings;
mod source;
mod status;
mod store;
mod telemetry;
#[cfg(test)]
mod testing;
mod values;
mod watchdog;
mod worker;

use clap::{Parser, Subcommand};
use comfy_table::{Table, presets};
use config::Config;
use fault::Fault;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const FIRST_STEPS: &str = "\
First steps:
  petrel-agent enrol press-7.join
  petrel-agent run --config /etc/petrel/agent.toml
  petrel-agent status
  petrel-agent infer digits-1.2.0/ --input x.csv
  petrel-agent install /media/usb/digits-1.2.0.tar

Exit codes: 0 done, 1 refused or failed, 2 wrong usage";

const EXAMPLE: &str = "\
Example of a configuration, as `petrel-agent enrol` writes it; the last eight keys show their defaults:
  fleet = \"plant-3\"
  device = \"press-7\"
  broker = \"mqtts://bridge.example:8883\"   # TLS; mqtt://localhost:1883 for one on this device
  bridge = \"https://bridge.example:8443\"  # where newer certificates come from
  ca = \"ca.pem\"                            # the fleet's certificate authority
  root = \"root.json\"                       # the fleet's root of trust
  state = \"/var/lib/petrel\"                # what the agent keeps
  board = \"generic\"
  listen = \"127.0.0.1:8787\"                # the local API; loopback only
  telemetry_s = 60
  spool_bytes = 1048576                    # the most telemetry that waits while nobody hears it
  window = 32                              # the most chunk subscriptions at a time
  sources = [\"mqtt\"]                       # where bundles come from, in this order: mqtt, https
  # metered = { most = 1000000 }           # a link that costs by the byte; what is dearer waits for a stick
  log = \"human\"                            # or json
  log_filter = \"info\"

  [[feed]]                                 # a picture or .csv that appears in a folder is answered
  kind = \"folder\"
  model = \"digits\"
  path = \"/var/spool/petrel/in\"
  out = \"/var/spool/petrel/out.jsonl\"

  [[feed]]                                 # as is a message to a broker on this device
  kind = \"mqtt\"
  model = \"digits\"
  broker = \"mqtt://localhost:1883\"
  in = \"sensors/+/digits\"
  out = \"answers/digits\"
Relative paths are relative to the file.";

/// Runs models on a small device, keeps them honest there, and tells land whether they still work.
#[derive(Debug, Parser)]
#[command(name = "petrel-agent", version, arg_required_else_help = true, after_help = FIRST_STEPS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A model's process, as `run` starts it
    #[command(hide = true)]
    Worker,
    /// Run the agent until it is told to stop
    #[command(after_help = EXAMPLE)]
    Run {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
        /// How the log is written, in place of the key `log`
        #[arg(long, value_name = "FORMAT")]
        log_format: Option<log::Format>,
        /// What is logged, in place of the key `log_filter`: a level, or targets as info,petrel_agent=debug
        #[arg(long, value_name = "FILTER", value_parser = filter)]
        log: Option<String>,
        /// A value above that of the file and of the environment
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// The configuration as it counts: a profile, the file, the environment and flags, the later over the earlier
    #[command(
        after_help = "Every key may be said in the environment as PETREL_AGENT_<KEY>, and with --set.\nExamples:\n  petrel-agent config --explain\n  petrel-agent config --explain --set window=8 --config /etc/petrel/agent.toml"
    )]
    Config {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
        /// A value above all others
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Say where each value comes from
        #[arg(long)]
        explain: bool,
        /// Print JSON, for machines
        #[arg(long)]
        json: bool,
    },
    Enrol(identity::EnrolArgs),
    Infer(infer::Args),
    Install(source::InstallArgs),
    SelfTest(self_test::SelfTestArgs),
    /// What the agent on this device is doing
    #[command(
        after_help = "Examples:\n  petrel-agent status\n  petrel-agent status --watch --config /etc/petrel/agent.toml"
    )]
    Status {
        /// The configuration of the running agent
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
        /// Go on and tell what changes, until it is interrupted; with --json a line each time
        #[arg(long)]
        watch: bool,
        /// Print JSON, for machines
        #[arg(long)]
        json: bool,
    },
}

fn filter(text: &str) -> Result<String, String> {
    log::check(text).map(|()| text.to_owned())
}

impl Command {
    /// Whether a machine reads.
    fn is_json(&self) -> bool {
        match self {
            Command::Worker | Command::Run { .. } | Command::Enrol(_) => false,
            Command::Infer(args) => args.is_json(),
            Command::Install(args) => args.json,
            Command::SelfTest(args) => args.json,
            Command::Status { json, .. } | Command::Config { json, .. } => *json,
        }
    }

    /// Does it; what it returns is to be printed.
    fn run(self) -> anyhow::Result<String> {
        match self {
            Command::Worker => worker::run().map(|()| String::new()),
            Command::Config { config, set, explain, json } => explained(&config, &set, explain, json),
            Command::Run { config, log_format, log, set } => {
                let settings = Config::explain(&config, &set)?;
                let config = Config::read_with(&config, &set)?;
                let filter = log.as_deref().unwrap_or(&config.log_filter);
                let log = log::start(log_format.unwrap_or(config.log), filter);
                driver::run(config, settings, log)?;
                Ok(String::new())
            }
            Command::Enrol(args) => identity::enrol(&args),
            Command::Infer(args) => infer::run(&args),
            Command::Install(args) => source::install(&args),
            Command::SelfTest(args) => args.run(),
            Command::Status { config, watch: true, json } => {
                status::watch(&config, json, print).map(|()| String::new())
            }
            Command::Status { config, watch: false, json } => {
                let status = status::ask(&config)?;
                Ok(if json { serde_json::to_string_pretty(&status)? } else { status.to_string() })
            }
        }
    }
}

/// Each key and its value, as TOML has them; where each was said, when it was asked for.
fn explained(path: &Path, set: &[String], explain: bool, json: bool) -> anyhow::Result<String> {
    let values = Config::explain(path, set)?;
    if json {
        let value = |(key, value, origin): (String, toml::Value, settings::Origin)| {
            (key, serde_json::json!({ "value": value, "from": origin.to_string() }))
        };
        let all: BTreeMap<String, serde_json::Value> = values.into_iter().map(value).collect();
        return Ok(serde_json::to_string_pretty(&all)?);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if explain {
        table.set_header(["KEY", "VALUE", "FROM"]);
    }
    for (key, value, origin) in values {
        table.add_row(match explain {
            true => vec![key, value.to_string(), origin.to_string()],
            false => vec![key, format!("= {value}")],
        });
    }
    Ok(table.to_string())
}

fn main() -> ExitCode {
    // Only a provider that is there already makes this fail, and that would do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let command = Cli::parse().command;
    let json = command.is_json();
    match command.run().and_then(|text| print(&text)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error, json);
            ExitCode::FAILURE
        }
    }
}

/// Results go to standard output; whoever stopped reading has enough. Gives whether somebody reads.
fn print(text: &str) -> anyhow::Result<bool> {
    if text.is_empty() {
        return Ok(true);
    }
    match writeln!(io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        done => Ok(done.map(|()| true)?),
    }
}

/// What happened, why, and what to do, to people or to machines; the one place where errors are printed.
fn complain(error: &anyhow::Error, json: bool) {
    let advice = error.downcast_ref::<Fault>().and_then(Fault::advice);
    let text = if json { for_machines(error, advice) } else { for_people(error, advice) };
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn for_people(error: &anyhow::Error, advice: Option<&str>) -> String {
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  why: {cause}\n"));
    }
    if let Some(advice) = advice {
        text.push_str(&format!("  what to do: {advice}\n"));
    }
    // What others wrote (a file's name, a stranger's document) must not control the terminal.
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

/// One line, as `petrel --json` has it.
fn for_machines(error: &anyhow::Error, advice: Option<&str>) -> String {
    let code = error.chain().find_map(|e| e.downcast_ref::<trust::Refusal>()).map(|refusal| refusal.code.as_str());
    let message = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let mut body = serde_json::json!({ "message": message });
    for (key, value) in [("code", code), ("remedy", advice)] {
        if let Some(value) = value {
            body[key] = value.into();
        }
    }
    format!("{}\n", serde_json::json!({ "error": body }))
}
