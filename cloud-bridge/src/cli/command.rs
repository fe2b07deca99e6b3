//! `petrel devices command`: asks something of a device, or of many, and waits for what came of it.

use super::client::Client;
use super::table::{ago, table};
use super::target::Meant;
use super::token::duration;
use super::{Out, fan_outs};
use crate::fault::Fault;
use crate::service::commands::{CommandView, DiagnosticsView, NewCommand};
use crate::service::fan_outs::NewFanOut;
use crate::service::view::DeviceView;
use anyhow::Context;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trust::{LogLevel, Request, U53};

/// How often it is asked whether an answer came.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How often it is asked whether the device is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Ask something of a device that is there, or of many, and wait for the answer
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel devices command edge-1 diagnostics --out edge-1.json
  petrel devices command edge-1 restart digits
  petrel devices command edge-1 log-level debug --for 10m
  petrel devices command edge-1 report --wait            # as soon as it is there
  petrel devices command -l site=plant-3 report          # of every device with that label
  petrel devices command --to 'board=rpi4 and ram_mb<1024' restart digits

Of many devices a report, a restart or a log level can be asked; those that are not there are left
out, and counted.

Exit codes: 0 done, 1 refused, failed or not answered")]
pub(crate) struct Args {
    /// The device's name
    #[arg(required_unless_present_any = ["labels", "to"], conflicts_with_all = ["labels", "to"])]
    id: Option<String>,
    #[command(flatten)]
    meant: Meant,
    #[command(subcommand)]
    what: What,
    /// For how long it counts, and how long an answer is waited for
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Wait until the device is there, however long that takes
    #[arg(long, global = true)]
    wait: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Its log, its status and its configuration, without secrets
    Diagnostics {
        /// Write it to a file, as JSON
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// A new process for a stream's model; the old one answers until it is up
    Restart {
        /// The stream
        stream: String,
    },
    /// Its report and its telemetry, again
    Report,
    /// Log more, or less, for a time
    LogLevel {
        /// error, warn, info, debug or trace
        #[arg(value_parser = level)]
        level: LogLevel,
        /// When it goes back by itself
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = duration)]
        period: Duration,
    },
}

fn level(text: &str) -> Result<LogLevel, String> {
    use LogLevel::*;
    let known = [Error, Warn, Info, Debug, Trace].into_iter().find(|level| level.as_str() == text);
    known.ok_or_else(|| "it is one of error, warn, info, debug, trace".to_owned())
}

impl Args {
    /// Asks the bridge.
    pub(super) fn run(self, client: &Client, out: &Out) -> anyhow::Result<()> {
        let request = serde_json::to_value(self.what.request()?)?;
        let good_for_s = self.timeout.as_secs().clamp(1, bridge_core::LONGEST_COMMAND / 1_000);
        let id = match (&self.id, self.meant.expression()) {
            (Some(id), _) => id,
            (None, _) if self.wait => {
                let one = Fault::new("--wait is for one device: of many, those that are there are asked");
                return Err(one.remedy("ask without it, or each by its name").into());
            }
            (None, to) => {
                let new = NewFanOut { to: to.context("no device is named")?, request, good_for_s };
                return fan_outs::ask(client, out, &new, self.timeout);
            }
        };
        if self.wait {
            wait_for(client, out, id)?;
        }
        let new = NewCommand { request, good_for_s };
        let path = format!("/devices/{id}/commands");
        let given: CommandView = client.post(&path, &new)?.context("the bridge's answer was empty")?;
        let began = Instant::now();
        let progress = out.progress("waiting for the device's answer");
        let answer = loop {
            let seen: CommandView = client.get(&format!("{path}/{}", given.seq))?;
            if seen.answered.is_some() || began.elapsed() > self.timeout {
                break seen;
            }
            std::thread::sleep(ASK_EVERY);
        };
        progress.finish_and_clear();
        self.tell(out, id, &answer)
    }

    fn tell(&self, out: &Out, id: &str, answer: &CommandView) -> anyhow::Result<()> {
        match answer.state.as_str() {
            "done" => {}
            "refused" | "failed" => {
                let fault = Fault::new(format!("{id} answered: {}", answer.state)).because(why(answer));
                return Err(fault.remedy(format!("see how it is doing: petrel devices show {id}")).into());
            }
            _ => {
                let fault = Fault::new(format!("{id} did not answer within {} s", self.timeout.as_secs()));
                let next = format!(
                    "see whether it is there: petrel devices show {id}; what came later: petrel devices commands {id}"
                );
                return Err(fault.because("it was online when it was asked").remedy(next).into());
            }
        }
        let people = match (&self.what, &answer.diagnostics) {
            (What::Diagnostics { out: Some(file) }, Some(diagnostics)) => {
                let cannot = || format!("cannot write {}", file.display());
                std::fs::write(file, serde_json::to_string_pretty(diagnostics)? + "\n").with_context(cannot)?;
                format!("the diagnostics of {id} are in {}: {} lines of its log", file.display(), diagnostics.log.len())
            }
            (What::Diagnostics { .. }, Some(diagnostics)) => shown(diagnostics)?,
            (What::Diagnostics { .. }, None) => format!("{id} answered without diagnostics"),
            (What::Report, _) => format!("{id} has sent its report and telemetry again"),
            (What::Restart { stream }, _) => format!("a new process answers for {stream} on {id}"),
            (What::LogLevel { level, period }, _) => {
                let minutes = indicatif::HumanDuration(*period);
                format!("{id} logs from {} on for {minutes}, then as before", level.as_str())
            }
        };
        out.result(answer, people)
    }
}

/// Why a device did not do it, in its words.
pub(super) fn why(answer: &CommandView) -> String {
    let CommandView { code, detail, .. } = answer;
    [code.clone(), detail.clone()].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

impl What {
    fn request(&self) -> anyhow::Result<Request> {
        Ok(match self {
            What::Diagnostics { .. } => Request::Diagnostics {},
            What::Restart { stream } => Request::Restart { stream: stream.clone() },
            What::Report => Request::Report {},
            What::LogLevel { level, period } => {
                Request::LogLevel { level: *level, for_s: U53::try_from(period.as_secs()).map_err(anyhow::Error::msg)? }
            }
        })
    }
}

/// The configuration as the agent's own command shows it, the status, and the log at the end.
fn shown(diagnostics: &DiagnosticsView) -> anyhow::Result<String> {
    let rows = diagnostics.config.iter().map(|s| [s.key.clone(), s.value.clone(), s.from.clone()]);
    let left_out = match diagnostics.log_left_out {
        0 => String::new(),
        count => format!("\n({count} lines before these are not kept)"),
    };
    Ok(format!(
        "{}\n\n{}\n{left_out}\n{}",
        table(["KEY", "VALUE", "FROM"], rows),
        serde_json::to_string_pretty(&diagnostics.status)?,
        diagnostics.log.join("\n")
    ))
}

fn wait_for(client: &Client, out: &Out, id: &str) -> anyhow::Result<()> {
    let progress = out.progress("waiting until the device is there");
    while !client.get::<DeviceView>(&format!("/devices/{id}"))?.online {
        std::thread::sleep(LOOK_EVERY);
    }
    progress.finish_and_clear();
    Ok(())
}

/// The latest commands of a device.
pub(super) fn list(client: &Client, out: &Out, id: &str) -> anyhow::Result<()> {
    let commands: Vec<CommandView> = client.list(&format!("/devices/{id}/commands"))?;
    let now = crate::service::unix_millis();
    let row = |c: &CommandView| [c.seq.to_string(), ago(c.at, now), c.request.to_string(), c.state.clone(), why(c)];
    let people = match commands.is_empty() {
        true => format!("nobody asked anything of {id} lately\nask with: petrel devices command {id} report"),
        false => table(["COMMAND", "WHEN", "REQUEST", "STATE", "WHY"], commands.iter().map(row)).to_string(),
    };
    out.result(&commands, people)
}
