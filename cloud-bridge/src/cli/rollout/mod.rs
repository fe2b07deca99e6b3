//! `petrel rollout`: puts a release on devices wave by wave, watches it, and takes it back.

mod plan;
mod show;
mod wanted;

use super::Out;
use super::client::Client;
use super::table::table;
use crate::fault::Fault;
use crate::service::rollouts::TurnedRollout;
use crate::service::view::{PlanView, RolloutView};
use anyhow::Context;
pub(crate) use show::judged;
use show::{outcome, watched};
use std::io::{IsTerminal, Write};
use std::time::Duration;
use wanted::Wanted;

/// How often `watch` asks.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Put a release on devices wave by wave
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  petrel rollout plan digits@1.2.0 --to 'site=plant-3 and board in (rpi4, rpi5)' --policy canary.toml\n  petrel rollout start digits@1.2.0 --waves 1,100%\n  petrel rollout start digits@1.2.0 --to edge-1,edge-2 --trial-answers 50\n  petrel rollout start digits@1.2.0 --shadow 500 --max-disagreement 2\n  petrel rollout watch 1\n  petrel rollout undo 1"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Every rollout
    Ls,
    /// Say who would get a release, who not and why, and what it costs; nothing begins
    Plan(Wanted),
    /// Start one
    Start(Start),
    /// Follow one to its end; exit code 1 when it is stopped
    Watch {
        /// The rollout's number
        id: u64,
    },
    /// One rollout, with the judgement and its numbers
    Show {
        /// The rollout's number
        id: u64,
    },
    /// Begin one that is a draft
    Begin {
        /// The rollout's number
        id: u64,
    },
    /// Let the wave go on that waits for approval; whoever started it cannot
    Approve {
        /// The rollout's number
        id: u64,
    },
    /// Assign it to nobody else for now
    Pause {
        /// The rollout's number
        id: u64,
    },
    /// Go on, with this wave in spite of what paused it
    Resume {
        /// The rollout's number
        id: u64,
    },
    /// End it, and send back the devices that have it
    Abort {
        /// The rollout's number
        id: u64,
        /// The devices keep what they have
        #[arg(long)]
        keep: bool,
    },
    /// Send back the devices that have it, after its end
    Undo {
        /// The rollout's number
        id: u64,
    },
}

#[derive(Debug, clap::Args)]
struct Start {
    #[command(flatten)]
    wanted: Wanted,
    /// Write it down only: `petrel rollout begin` begins it
    #[arg(long, conflicts_with = "watch")]
    draft: bool,
    /// Follow it to its end
    #[arg(long)]
    watch: bool,
}

impl Args {
    /// Asks the bridge.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let client = Client::from_context()?;
        let turn = |id: u64, wish: &str, keep: bool| -> anyhow::Result<()> {
            let wish = TurnedRollout { wish: wish.into(), keep };
            let answer: Option<RolloutView> = client.post(&format!("/rollouts/{id}"), &wish)?;
            let rollout = answer.context("the bridge's answer was empty")?;
            out.result(&rollout, turned(&rollout))
        };
        match self.command {
            Command::Ls => list(&client, out),
            Command::Plan(wanted) => {
                let answer: Option<PlanView> = client.post("/rollouts/plan", &wanted.request(false)?)?;
                let plan = answer.context("the bridge's answer was empty")?;
                out.result(&plan, plan::people(&plan))
            }
            Command::Start(start) => {
                let answer: Option<RolloutView> = client.post("/rollouts", &start.wanted.request(start.draft)?)?;
                let rollout = answer.context("the bridge's answer was empty")?;
                if start.watch { watch(&client, out, rollout.id) } else { out.result(&rollout, begun(&rollout)) }
            }
            Command::Watch { id } => watch(&client, out, id),
            Command::Show { id } => {
                let rollout: RolloutView = client.get(&format!("/rollouts/{id}"))?;
                out.result(&rollout, outcome(&rollout))
            }
            Command::Begin { id } => turn(id, "begin", false),
            Command::Approve { id } => turn(id, "approve", false),
            Command::Pause { id } => turn(id, "pause", false),
            Command::Resume { id } => turn(id, "resume", false),
            Command::Abort { id, keep } => turn(id, "abort", keep),
            Command::Undo { id } => turn(id, "undo", false),
        }
    }
}

fn begun(rollout: &RolloutView) -> String {
    let devices: Vec<String> = rollout.waves.iter().map(|w| w.devices.to_string()).collect();
    let RolloutView { id, stream, version, state, .. } = rollout;
    let (what, next) = match state.as_str() {
        "draft" => ("is a draft", "begin"),
        "approval" => ("waits for somebody else's approval", "approve"),
        _ => ("began", "watch"),
    };
    let waves = devices.join(", ");
    format!("rollout {id} of {stream} {version} {what}: waves of {waves} device(s)\nnext: petrel rollout {next} {id}")
}

fn turned(rollout: &RolloutView) -> String {
    let why = rollout.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("rollout {} of {} {} is {}{why}", rollout.id, rollout.stream, rollout.version, rollout.state)
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
        let ended = rollout.has_ended();
        // Each line that is not redrawn says something new of the rollout itself.
        let now = if redraw { watched(&rollout) } else { show::progress(&rollout) };
        if now != shown && !out.is_json() {
            let mut err = std::io::stderr().lock();
            if redraw {
                // Up over what was drawn, and everything below goes.
                let lines = shown.lines().count();
                let up = if lines > 0 { format!("\x1b[{lines}F") } else { String::new() };
                let _ = write!(err, "{up}\x1b[J");
            }
            if !(redraw && ended) {
                let _ = writeln!(err, "{now}");
            }
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
        if rollout.state == "draft" {
            return Err(Fault::new(format!("rollout {id} is a draft"))
                .remedy(format!("petrel rollout begin {id}"))
                .into());
        }
        std::thread::sleep(ASK_EVERY);
    }
}
