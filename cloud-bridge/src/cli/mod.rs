//! The command line: one room for each command, and the one place where anything is printed.
//!
//! Decides how results, notes and errors look to people and to machines. Knows no bundle and no key.

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod breakglass;
pub(crate) mod bridge;
pub(crate) mod broker;
pub(crate) mod client;
mod command;
pub(crate) mod devices;
pub(crate) mod draft;
pub(crate) mod drift;
pub(crate) mod explain;
mod fan_outs;
pub(crate) mod inspect;
mod judgement;
pub(crate) mod keys;
pub(crate) mod labels;
pub(crate) mod login;
pub(crate) mod pack;
pub(crate) mod people;
pub(crate) mod publish;
pub(crate) mod push;
pub(crate) mod revoke;
pub(crate) mod rollout;
pub(crate) mod root;
pub(crate) mod samples;
pub(crate) mod sign;
pub(crate) mod status;
pub(crate) mod streams;
pub(crate) mod table;
mod target;
mod token;
pub(crate) mod verify;
pub(crate) mod webhooks;

use crate::fault::Fault;
use indicatif::ProgressBar;
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::Duration;
use trust::Refusal;

/// What `petrel --help` ends with.
pub(crate) const FIRST_STEPS: &str = "\
First steps:
  petrel keys new --role publisher --out keys/
  petrel root init --fleet plant-3 --out fleet/ --publisher keys/publisher.pub
  petrel pack model.onnx --stream digits --version 1.2.0 --data train.csv -o digits-1.2.0/
  petrel sign digits-1.2.0/ --key keys/publisher.pem

Exit codes: 0 done, 1 refused or failed, 2 wrong usage";

/// Where commands speak: results on stdout, everything else on stderr.
#[derive(Debug)]
pub(crate) struct Out {
    json: bool,
    colour: bool,
}

impl Out {
    /// For machines when `json`, else for people.
    pub(crate) fn new(json: bool) -> Self {
        let colour = !json && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour }
    }

    /// The result of a command: `machine` as JSON, or `people` as text.
    pub(crate) fn result(&self, machine: &impl Serialize, people: impl Display) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(machine)? } else { printable(&people.to_string()) };
        print(&mut io::stdout().lock(), &text)?;
        Ok(())
    }

    /// The result as one line of JSON, for whoever reads the last line; or as text.
    pub(crate) fn line(&self, machine: &impl Serialize, people: impl Display) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string(machine)? } else { printable(&people.to_string()) };
        print(&mut io::stdout().lock(), &text)?;
        Ok(())
    }

    /// Whether a machine reads.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A line on the way, for people only.
    pub(crate) fn say(&self, text: impl Display) {
        if !self.json {
            // A reader who has gone away misses nothing that matters.
            let _ = print(&mut io::stderr().lock(), &text.to_string());
        }
    }

    /// Something that a person should know; machines find it in the result.
    pub(crate) fn note(&self, note: impl Display) -> anyhow::Result<()> {
        if !self.json {
            print(&mut io::stderr().lock(), &format!("{} {note}", self.paint("33", "note:")))?;
        }
        Ok(())
    }

    /// Shows that work goes on, on a terminal only, until it is dropped or finished.
    pub(crate) fn progress(&self, work: &'static str) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        // It hides itself when stderr is no terminal.
        let bar = ProgressBar::new_spinner().with_message(work);
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// What went wrong, why, and what to do.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let code = error.chain().find_map(|e| e.downcast_ref::<Refusal>()).map(|r| r.code.as_str());
        let advice = error.downcast_ref::<Fault>().and_then(Fault::advice);
        let mut chain = error.chain().map(ToString::to_string);
        let text = if self.json {
            let message = chain.collect::<Vec<_>>().join(": ");
            let mut body = serde_json::json!({ "message": message });
            for (key, value) in [("code", code), ("remedy", advice)] {
                if let Some(value) = value {
                    body[key] = value.into();
                }
            }
            serde_json::json!({ "error": body }).to_string()
        } else {
            let what = chain.next().unwrap_or_default();
            let rest = chain.chain(advice.map(str::to_owned));
            let lines = rest.map(|line| format!("\n  {}", line.replace('\n', "\n  ")));
            let told = printable(&format!("{what}{}", lines.collect::<String>()));
            format!("{} {told}", self.paint("1;31", "error:"))
        };
        // There is nobody left to tell that stderr is gone.
        let _ = print(&mut io::stderr().lock(), &text);
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// What others wrote (a file's name, a stranger's document) must not control the terminal.
fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && !['\n', '\t'].contains(&c), "\u{fffd}")
}

/// Writes one line or more. A reader who has gone away (`petrel … | head`) has seen enough.
fn print(to: &mut impl Write, text: &str) -> io::Result<()> {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// A number of bytes, for a person's eye.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_who_left_is_no_failure() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(print(&mut Gone, "x").is_ok());
    }
}
