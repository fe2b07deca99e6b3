//! `petrel rollout`: puts a release on devices wave by wave, and watches.

use super::Out;
use super::client::Client;
use super::table::{arriving, table};
use crate::fault::Fault;
use crate::service::rollouts::{NewRollout, NewShadow};
use crate::service::view::{ArrivingView, RolloutView};
use anyhow::Context;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How often `watch` asks.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Put a release on devices wave by wave
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  petrel rollout start digits@1.2.0 --waves 1,100%\n  petrel rollout start digits@1.2.0 --to edge-1,edge-2 --trial-answers 50\n  petrel rollout start digits@1.2.0 --shadow 500 --max-disagreement 2\n  petrel rollout watch 1"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Every rollout
    Ls,
    /// Start one
    Start(Start),
    /// Follow one to its end; exit code 1 when it is stopped
    Watch {
        /// The rollout's number
        id: u64,
    },
}

#[derive(Debug, clap::Args)]
struct Start {
    /// The release, as stream@version
    release: String,
    /// `all`, or the names of devices
    #[arg(long, value_delimiter = ',', default_value = "all")]
    to: Vec<String>,
    /// How many devices have it after each wave: counts or shares; the rest follows at the end
    #[arg(long, value_delimiter = ',', default_value = "1,100%")]
    waves: Vec<String>,
    /// Answers on trial after which a device confirms before the window ends
    #[arg(long, default_value_t = 20)]
    trial_answers: u64,
    /// Errors on trial that a device accepts; one more and it goes back
    #[arg(long, default_value_t = 0)]
    trial_errors: u64,
    /// The longest trial in seconds; what was seen by then decides
    #[arg(long, default_value_t = 600)]
    trial_window: u64,
    /// What an answer on trial may take on average, in percent of what it takes the release before on the same device;
    /// more and the device goes back. Without it an answer takes as long as it takes
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(100..))]
    trial_slowdown: Option<u64>,
    /// The memory that its process may hold on trial, in percent of what its manifest promises; more and the device goes
    /// back. Without it a process may take what a model's process may take
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..))]
    trial_memory: Option<u64>,
    /// Before its trial it is asked beside the release before, so many answers are compared, and nobody hears it
    #[arg(long, value_name = "ANSWERS", value_parser = clap::value_parser!(u64).range(1..))]
    shadow: Option<u64>,
    /// Of a hundred answers in the shadow so many may be others; more and the device goes back
    #[arg(long, value_name = "PERCENT", default_value_t = 5, requires = "shadow", value_parser = clap::value_parser!(u64).range(..=100))]
    max_disagreement: u64,
    /// Devices that may fail; one more stops the rollout and sends its devices back
    #[arg(long, default_value_t = 0)]
    max_failed: u64,
    /// Seconds after which a wave that is not done stops the rollout
    #[arg(long, default_value_t = 86_400)]
    deadline: u64,
    /// Devices that may be on their way to a verdict at a time; without it all of a wave are
    #[arg(long, value_name = "DEVICES", value_parser = clap::value_parser!(u64).range(1..))]
    at_once: Option<u64>,
    /// Follow it to its end
    #[arg(long)]
    watch: bool,
}

impl Args {
    /// Asks the bridge.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let client = Client::from_context()?;
        match self.command {
            Command::Ls => list(&client, out),
            Command::Start(start) => {
                let follow = start.watch;
                let rollout = start.begin(&client)?;
                if follow { watch(&client, out, rollout.id) } else { out.result(&rollout, begun(&rollout)) }
            }
            Command::Watch { id } => watch(&client, out, id),
        }
    }
}

impl Start {
    fn begin(self, client: &Client) -> anyhow::Result<RolloutView> {
        let (stream, version) = self.release.split_once('@').ok_or_else(|| {
            Fault::new(format!("`{}` names no release", self.release))
                .remedy("write it as stream@version, such as digits@1.2.0")
        })?;
        let all = self.to.iter().any(|t| t == "all");
        let new = NewRollout {
            stream: stream.into(),
            version: version.into(),
            devices: (!all).then_some(self.to),
            waves: self.waves,
            trial_answers: self.trial_answers,
            trial_errors: self.trial_errors,
            trial_window_s: self.trial_window,
            trial_slowdown: self.trial_slowdown,
            trial_memory: self.trial_memory,
            shadow: self.shadow.map(|answers| NewShadow { answers, max_disagreement: self.max_disagreement }),
            max_failed: self.max_failed,
            deadline_s: self.deadline,
            at_once: self.at_once,
        };
        client.post("/rollouts", &new)?.context("the bridge's answer was empty")
    }
}

fn begun(rollout: &RolloutView) -> String {
    let devices: Vec<String> = rollout.waves.iter().map(|w| w.devices.to_string()).collect();
    format!(
        "rollout {} of {} {} began: waves of {} device(s)\nnext: petrel rollout watch {}",
        rollout.id,
        rollout.stream,
        rollout.version,
        devices.join(", "),
        rollout.id
    )
}

fn list(client: &Client, out: &Out) -> anyhow::Result<()> {
    let rollouts: Vec<RolloutView> = client.list("/rollouts")?;
    let row = |r: &RolloutView| {
        let all: u64 = r.waves.iter().map(|w| w.devices).sum();
        let confirmed: u64 = r.waves.iter().map(|w| w.confirmed).sum();
        let wave = format!("{}/{}", r.wave, r.waves.len());
        let release = format!("{}@{}", r.stream, r.version);
        [
            r.id.to_string(),
            release,
            r.state.clone(),
            wave,
            format!("{confirmed}/{all}"),
            r.reason.clone().unwrap_or_default(),
        ]
    };
    let people = if rollouts.is_empty() {
        "no rollout yet\nstart one with: petrel rollout start STREAM@VERSION".to_owned()
    } else {
        table(["ROLLOUT", "RELEASE", "STATE", "WAVE", "CONFIRMED", "WHY"], rollouts.iter().map(row)).to_string()
    };
    out.result(&rollouts, people)
}

/// Follows a rollout: redrawn on a terminal, else a line for each change.
fn watch(client: &Client, out: &Out, id: u64) -> anyhow::Result<()> {
    let mut shown = String::new();
    let redraw = std::io::stderr().is_terminal();
    loop {
        let rollout: RolloutView = client.get(&format!("/rollouts/{id}"))?;
        let ended = rollout.state != "rolling";
        // Each line that is not redrawn says something new of the rollout itself.
        let now = if redraw { moving(&rollout) } else { progress(&rollout) };
        if now != shown && !out.is_json() {
            let mut err = std::io::stderr().lock();
            let _ = if redraw && !ended {
                write!(err, "\r\x1b[2K{now}")
            } else if redraw {
                write!(err, "\r\x1b[2K")
            } else {
                writeln!(err, "{now}")
            };
            let _ = err.flush();
            shown = now;
        }
        if ended {
            out.result(&rollout, outcome(&rollout))?;
            anyhow::ensure!(
                rollout.state == "completed",
                Fault::new(format!("rollout {id} was stopped")).because(rollout.reason.unwrap_or_default())
            );
            return Ok(());
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// The same, with what is arriving.
fn moving(rollout: &RolloutView) -> String {
    let getting = |of: &ArrivingView| format!("; {} getting it: {}", of.devices, arriving(of));
    progress(rollout) + &rollout.arriving.as_ref().map_or(String::new(), getting)
}

fn progress(rollout: &RolloutView) -> String {
    let at = (rollout.wave as usize).saturating_sub(1).min(rollout.waves.len().saturating_sub(1));
    match rollout.waves.get(at) {
        Some(w) => format!(
            "{} {} wave {}/{}: {} of {} confirmed, {} failed",
            rollout.stream,
            rollout.version,
            rollout.wave,
            rollout.waves.len(),
            w.confirmed,
            w.devices,
            w.failed
        ),
        None => format!("{} {}", rollout.stream, rollout.version),
    }
}

fn outcome(rollout: &RolloutView) -> String {
    let rows = rollout.results.iter().map(|r| {
        let why = r.code.as_ref().map(|c| format!("{c}: {}", r.detail.clone().unwrap_or_default()));
        [r.device.clone(), r.outcome.clone(), r.answers.to_string(), r.errors.to_string(), why.unwrap_or_default()]
    });
    let reason = rollout.reason.as_ref().map(|r| format!("\nwhy: {r}")).unwrap_or_default();
    format!(
        "rollout {} of {} {}: {}, {} device(s) had it{reason}\n\n{}",
        rollout.id,
        rollout.stream,
        rollout.version,
        rollout.state,
        rollout.hit,
        table(["DEVICE", "OUTCOME", "ANSWERS", "ERRORS", "WHY"], rows)
    )
}
