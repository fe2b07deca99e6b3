//! The log: for people or for machines, on standard error.
//!
//! Decides its form, and how much of it is kept in memory for land to ask for. What is worth a line is decided where it
//! happens; every line carries the device through the span that the driver and its threads enter.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::{EnvFilter, Registry, fmt, prelude::*, reload};

/// The bytes of lines that are kept.
const KEPT_BYTES: usize = 96 * 1024;
/// The most bytes of one of them.
const LINE_BYTES: usize = 2 * 1024;

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

/// The log of a running agent.
#[derive(Debug)]
pub(crate) struct Log {
    configured: String,
    filter: reload::Handle<EnvFilter, Registry>,
    /// Its latest lines.
    pub(crate) lines: Arc<Lines>,
}

/// Begins to log. Where something logs already, that goes on.
pub(crate) fn start(format: Format, filter: &str) -> Log {
    let (layer, handle) = reload::Layer::new(meant(filter));
    let log = Log { configured: filter.to_owned(), filter: handle, lines: Arc::default() };
    let registry = tracing_subscriber::registry().with(layer);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    // As JSON in any case: the parts of a line that layers share are written by the first of each form.
    let kept = fmt::layer().json().flatten_event(true).with_span_list(false).with_ansi(false);
    let registry = registry.with(kept.with_writer(log.lines.clone()));
    let _ = match format {
        Format::Human => registry.with(lines.with_target(false)).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init(),
    };
    log
}

/// The client library repeats what the driver says better.
fn meant(filter: &str) -> EnvFilter {
    EnvFilter::new(format!("rumqttc=error,{filter}"))
}

impl Log {
    /// Logs what is of this level or graver; without one, what the configuration says.
    pub(crate) fn set(&self, level: Option<&str>) {
        let filter = level.unwrap_or(&self.configured);
        match self.filter.reload(meant(filter)) {
            Ok(()) => tracing::info!(filter, "what is logged has changed"),
            Err(why) => tracing::error!("what is logged cannot be changed: {why}"),
        }
    }
}

/// The latest lines of the log.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
    left_out: u64,
}

impl Lines {
    /// What is kept, the oldest first, and how many were there before.
    pub(crate) fn latest(&self) -> (Vec<String>, u64) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.lines.iter().cloned().collect(), kept.left_out)
    }

    fn keep(&self, line: &[u8]) {
        let cut = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES)]).trim_end().to_owned();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += cut.len();
        kept.lines.push_back(cut);
        while kept.bytes > KEPT_BYTES {
            let oldest = kept.lines.pop_front().map_or(0, |line| line.len());
            kept.bytes -= oldest;
            kept.left_out += 1;
        }
    }
}

/// A line at a time, as the layer writes them.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.keep(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_lines_are_kept_within_their_bound() {
        let lines = Lines::default();
        for n in 0..3_000 {
            (&lines).write_all(format!("{n} {}\n", "é".repeat(n % 1_500)).as_bytes()).unwrap();
        }
        let (kept, left_out) = lines.latest();
        assert_eq!(kept.len() as u64 + left_out, 3_000);
        assert!(kept.iter().map(String::len).sum::<usize>() <= KEPT_BYTES && kept.len() > 40, "{}", kept.len());
        // Half a letter at the cut becomes the sign for one.
        assert!(kept.iter().all(|line| line.len() <= LINE_BYTES + 3) && kept.last().unwrap().starts_with("2999 é"));
    }
}
