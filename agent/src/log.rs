//! The log: for people or for machines, on standard error.
//!
//! Decides its form only. What is worth a line is decided where it happens; every line carries the
//! device through the span that the driver and its threads enter.

use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What is wrong with a filter, if anything.
///
/// # Errors
/// In words.
pub(crate) fn check(filter: &str) -> Result<(), String> {
    EnvFilter::builder().parse(filter).map(drop).map_err(|e| e.to_string())
}

/// Begins to log. A second call changes nothing.
pub(crate) fn start(format: Format, filter: &str) {
    // The client library repeats what the driver says better.
    let filter = EnvFilter::new(format!("rumqttc=error,{filter}"));
    let registry = tracing_subscriber::registry().with(filter);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let _ = match format {
        Format::Human => registry.with(lines.with_target(false)).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init(),
    };
}
