//! The demo's story from its beginning to its end, and how it is told.

use super::attack;
use super::fleet::{self, Fleet};
use super::measure::{self, Measures};
use super::model::{self, BAD, GOOD, HeldOut, SLY, STREAM};
use super::process::{interrupted, listen_for_signals};
use super::traffic::{self, Count, Traffic};
use super::weather::{self, Drifted};
use crate::cli::Out;
use crate::cli::push::push;
use crate::cli::table::table;
use crate::fault::Fault;
use crate::service::view::{DeviceView, RolloutView};
use anyhow::Context;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Images in one request when the accuracy is measured.
const BATCH: usize = 50;

/// How long the canary of the release that only looks good is looked at; the evidence comes sooner.
const SOAK: Duration = Duration::from_secs(90);

/// Show the whole loop on this machine: a good release reaches every device, bad ones are caught and taken back
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  petrel demo\n  petrel demo --attack\n  petrel demo --keep\n  petrel demo --json")]
pub(crate) struct Args {
    /// How many agents
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=50))]
    devices: u8,
    /// Show seven attacks by whoever holds the broker or the bridge, and what a device says to each
    #[arg(long, conflicts_with_all = ["keep", "measure"])]
    attack: bool,
    /// Leave everything running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// The agent's binary [default: petrel-agent beside this one]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Measure as well: what `cargo xtask bench loop` asks for
    #[arg(long, hide = true)]
    measure: bool,
}

/// What the demo saw.
struct Seen {
    devices: usize,
    held_out: usize,
    equal_to_python: usize,
    right: usize,
    python_right: usize,
    good: RolloutView,
    bad: RolloutView,
    /// Not where only the loop is measured.
    sly: Option<RolloutView>,
    during_bad: Vec<(String, Count)>,
    after_bad: Vec<DeviceView>,
    drifted: Option<Drifted>,
    measures: Option<Measures>,
    seconds: f64,
}

impl Args {
    /// Plays the story; every process is ended at its end.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        listen_for_signals()?;
        let dir = tempfile::Builder::new().prefix("petrel-demo-").tempdir()?;
        let begun = Instant::now();
        let program = self.program()?;
        if self.attack {
            return attack::play(out, dir.path(), program, self.devices.into(), begun);
        }
        let (mut fleet, traffic, mut seen) = self.play(out, dir.path(), program, begun)?;
        seen.seconds = begun.elapsed().as_secs_f64();
        seen.tell(out)?;
        if self.keep {
            keep(&mut fleet, dir.path(), out)?;
        }
        drop(traffic);
        drop(fleet);
        seen.check()
    }

    fn program(&self) -> anyhow::Result<PathBuf> {
        let beside = std::env::current_exe()?.with_file_name("petrel-agent");
        let program = self.agent.clone().unwrap_or(beside);
        if !program.is_file() {
            let fault = Fault::new(format!("there is no agent at {}", program.display()));
            return Err(fault.remedy("build it with `cargo build --workspace`, or give its path with --agent").into());
        }
        Ok(program)
    }

    fn play(
        &self,
        out: &Out,
        dir: &Path,
        program: PathBuf,
        begun: Instant,
    ) -> anyhow::Result<(Fleet, Vec<Traffic>, Seen)> {
        let step = |text: &str| {
            out.say(format_args!("{:6.1} s  {text}", begun.elapsed().as_secs_f64()));
        };
        step("making a root of trust, keys and certificates");
        let key = fleet::found(dir)?;
        let heldout = Arc::new(model::unpack(dir)?);
        step(&format!("packing and signing {STREAM} {GOOD}, {BAD} and {SLY}"));
        let good = model::make(dir, GOOD, &key)?;
        let bad = model::make(dir, BAD, &key)?;
        let sly = model::make(dir, SLY, &key)?;

        step("starting the bridge with its broker");
        let mut fleet = Fleet::start(dir, program)?;
        step(&format!("enrolling {} devices and starting their agents", self.devices));
        fleet.enlist(self.devices.into())?;
        let traffic: Vec<Traffic> =
            fleet.agents.iter().map(|d| Traffic::start(d.address.clone(), heldout.clone())).collect();

        step(&format!("rolling out {STREAM} {GOOD}: one canary, then all"));
        push(&fleet.client, &good)?;
        let rolled_out = Instant::now();
        let good = fleet.roll_out(GOOD, Duration::ZERO, out)?;
        let rollout_seconds = rolled_out.elapsed().as_secs_f64();
        step(&format!(
            "{} of {} devices confirmed it; asking each for all held-out digits",
            good.results.len(),
            self.devices
        ));
        let (classes, releases) = classify(&fleet, &heldout)?;
        anyhow::ensure!(releases.iter().all(|r| *r == good.release), "an agent answered with another release");

        step(&format!("rolling out {STREAM} {BAD}, which fails on a third of the images"));
        push(&fleet.client, &bad)?;
        let before: Vec<Count> = traffic.iter().map(|t| t.tally.count()).collect();
        let bad = fleet.roll_out(BAD, Duration::ZERO, out)?;
        step("the canary caught it; waiting until every device runs the old release again");
        let mut after_bad = Vec::new();
        for number in 0..fleet.agents.len() {
            let id = fleet.agents[number].id.clone();
            let settled =
                |d: &DeviceView| d.streams.iter().all(|s| s.converged && s.trial.is_none()) && !d.streams.is_empty();
            after_bad.push(fleet.wait_for_device(&id, "the return to the old release", settled)?);
        }
        let during_bad = fleet.agents.iter().zip(traffic.iter().zip(before));
        let during_bad = during_bad.map(|(d, (t, before))| (d.id.clone(), t.tally.count().since(&before))).collect();
        let (traffic, sly, drifted, measures) = if self.measure {
            drop(traffic);
            (Vec::new(), None, None, Some(measure::take(&mut fleet, dir, &heldout, rollout_seconds)?))
        } else {
            step(&format!(
                "rolling out {STREAM} {SLY}, which installs well, answers everything, and sees too many eights"
            ));
            push(&fleet.client, &sly)?;
            let sly = fleet.roll_out(SLY, SOAK, out)?;
            step("its answers were held against those of before; it is back");
            let drifted = weather::change(&mut fleet, &traffic, step)?;
            (traffic, Some(sly), Some(drifted), None)
        };
        let python_right = equal(&heldout.python, &heldout.truth);
        let seen = Seen {
            devices: fleet.agents.len(),
            held_out: heldout.images.len(),
            equal_to_python: classes.iter().map(|c| equal(c, &heldout.python)).sum(),
            right: classes.iter().map(|c| equal(c, &heldout.truth)).sum(),
            python_right,
            good,
            bad,
            sly,
            during_bad,
            after_bad,
            drifted,
            measures,
            seconds: 0.0,
        };
        Ok((fleet, traffic, seen))
    }
}

/// What became of the release that only looks good, and why, in numbers.
fn judged(sly: &RolloutView) -> String {
    let numbers = sly.judgement.as_ref().map(crate::cli::rollout::judged).unwrap_or_default();
    format!(
        "{STREAM} {SLY}  {}: {} device hit, {} back on {GOOD}; it passed its trial\n{numbers}\n\n",
        sly.state, sly.hit, sly.returned
    )
}

fn equal(some: &[i64], others: &[i64]) -> usize {
    some.iter().zip(others).filter(|(a, b)| a == b).count()
}

/// The classes that each agent gives to all held-out images, and the releases that gave them.
fn classify(fleet: &Fleet, heldout: &HeldOut) -> anyhow::Result<(Vec<Vec<i64>>, Vec<u64>)> {
    let client = traffic::client();
    let mut all = Vec::new();
    let mut releases = Vec::new();
    for device in &fleet.agents {
        let mut classes = Vec::new();
        for batch in heldout.images.chunks(BATCH) {
            let answers = traffic::ask(&client, &device.address, batch)?.context("an agent serves no model")?;
            classes.extend(answers.classes);
            releases.push(answers.release);
        }
        all.push(classes);
    }
    Ok((all, releases))
}

fn keep(fleet: &mut Fleet, dir: &Path, out: &Out) -> anyhow::Result<()> {
    let token = dir.join("bridge").join(crate::service::ADMIN_TOKEN);
    let ca = dir.join("fleet/tls/ca.pem");
    let mut lines = vec![
        String::new(),
        format!("bridge  {}   broker {}", fleet.addresses.api, fleet.addresses.broker),
        format!("        petrel login {} --ca {} --token-file {}", fleet.addresses.api, ca.display(), token.display()),
    ];
    lines.extend(fleet.agents.iter().map(|d| format!("{}  http://{}/v2/models/{STREAM}", d.id, d.address)));
    lines.push("running until Ctrl-C".into());
    out.say(lines.join("\n"));
    while !interrupted() {
        fleet.check()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

impl Seen {
    fn old_model_answered_throughout(&self) -> bool {
        self.during_bad.iter().all(|(_, c)| c.failed == 0 && c.other_class == 0 && c.asked > 0)
            && self.after_bad.iter().all(|d| d.streams.iter().any(|s| s.active == Some(self.good.release)))
    }

    fn accuracy(&self) -> f64 {
        self.right as f64 / (self.devices * self.held_out) as f64
    }

    fn python_accuracy(&self) -> f64 {
        self.python_right as f64 / self.held_out as f64
    }

    fn tell(&self, out: &Out) -> anyhow::Result<()> {
        let rollout = |r: &RolloutView| json!({ "release": format!("{}@{}", r.stream, r.version), "state": r.state, "hit": r.hit, "returned": r.returned, "reason": r.reason, "judgement": r.judgement, "results": r.results });
        let rollouts: Vec<_> = [&self.good, &self.bad].into_iter().chain(&self.sly).map(rollout).collect();
        let mut machine = json!({
            "devices": self.devices,
            "accuracy": {
                "held_out_rows": self.held_out,
                "answers": self.devices * self.held_out,
                "equal_to_python": self.equal_to_python,
                "all_equal_to_python": self.equal_to_python == self.devices * self.held_out,
                "petrel": self.accuracy(),
                "python": self.python_accuracy(),
            },
            "rollouts": rollouts,
            "old_model_answered_throughout": self.old_model_answered_throughout(),
            "seconds": (self.seconds * 10.0).round() / 10.0,
        });
        if let Some(drifted) = &self.drifted {
            machine["drift"] = serde_json::to_value(drifted)?;
            machine["drift"]["named_rightly"] = drifted.is_right().into();
        }
        if let Some(measures) = &self.measures {
            machine["measures"] = serde_json::to_value(measures)?;
        }
        out.line(&machine, self.people())
    }

    fn people(&self) -> String {
        let rows = self.during_bad.iter().map(|(id, count)| {
            let result = self.bad.results.iter().find(|r| r.device == *id);
            let bad = result.map_or("never saw it".into(), |r| format!("{} after {} errors", r.outcome, r.errors));
            let runs = self.after_bad.iter().find(|d| d.id == *id).and_then(|d| d.streams.first()?.active);
            let runs = runs.map_or("-".into(), |r| r.to_string());
            [id.clone(), bad, count.asked.to_string(), count.failed.to_string(), runs]
        });
        format!(
            "\n{STREAM} {GOOD}  {}: {} devices, accuracy {:.1} % (Python {:.1} %), {} of {} answers equal to Python's\n\
             {STREAM} {BAD}  {}: {} device hit; {}\n\n{}\n\n{}{}{} in {:.1} s",
            self.good.state,
            self.good.hit,
            100.0 * self.accuracy(),
            100.0 * self.python_accuracy(),
            self.equal_to_python,
            self.devices * self.held_out,
            self.bad.state,
            self.bad.hit,
            self.bad.reason.as_deref().unwrap_or_default(),
            table(["DEVICE", "BAD RELEASE", "REQUESTS MEANWHILE", "UNANSWERED", "RUNS"], rows),
            self.sly.as_ref().map(judged).unwrap_or_default(),
            self.drifted.as_ref().map(|drifted| drifted.told() + "\n\n").unwrap_or_default(),
            if self.old_model_answered_throughout() {
                "the old model answered throughout"
            } else {
                "requests went unanswered"
            },
            self.seconds,
        )
    }

    /// Fails unless the story went as promised.
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.good.state == "completed", "the good release was {}", self.good.state);
        anyhow::ensure!(self.equal_to_python == self.devices * self.held_out, "some answers differ from Python's");
        anyhow::ensure!(
            self.bad.state == "stopped" && self.bad.hit == 1,
            "the bad release was {} after {} devices",
            self.bad.state,
            self.bad.hit
        );
        if let Some(sly) = &self.sly {
            let (state, hit, reason) = (&sly.state, sly.hit, sly.reason.clone().unwrap_or_default());
            let caught = state == "stopped" && hit == 1 && sly.returned == 1 && reason.starts_with("drift");
            anyhow::ensure!(caught, "the release that only looks good was {state} after {hit} devices: {reason}");
        }
        anyhow::ensure!(
            self.old_model_answered_throughout(),
            "requests went unanswered while the bad release was tried"
        );
        let drifted = self.drifted.as_ref();
        anyhow::ensure!(drifted.is_none_or(Drifted::is_right), "the change of light was not told rightly: {drifted:?}");
        Ok(())
    }
}
