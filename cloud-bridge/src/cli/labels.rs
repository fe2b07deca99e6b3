//! `petrel labels`: what came true, brought to the devices that remember their answers.

use super::Out;
use super::client::Client;
use super::table::table;
use super::token::duration;
use crate::fault::Fault;
use crate::service::commands::{CommandView, NewCommand};
use anyhow::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use trust::{Labelled, MAX_LABELS, Request};

/// How often it is asked whether an answer came.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// A device takes so many commands at once, and then one every few seconds.
const TOO_SOON: &str = "E_RATE";
const PAUSE: Duration = Duration::from_secs(6);

/// Tell devices what was right, so that land hears how right their models are
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Bring labels to the devices that gave the answers
    #[command(after_help = "\
Example:
  petrel labels push digits labels.csv

The file has the columns device, id and label: the id that the request had (of the Nth of several
rows ID#N; of a file in a folder feed its name), and a class by its name or number, or a value.
A device remembers its latest 4,096 answers; `petrel drift STREAM` tells what came of it.")]
    Push(Push),
}

#[derive(Debug, clap::Args)]
struct Push {
    /// The stream
    stream: String,
    /// Labels, a .csv with the columns device, id and label
    file: PathBuf,
    /// How long each device's answer is waited for
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    timeout: Duration,
}

/// What became of one device's labels.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    joined: u64,
    unknown: u64,
    failed: Option<String>,
}

impl Args {
    /// Brings them.
    ///
    /// # Errors
    /// When the file cannot be used, or a device did not take its labels.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let Command::Push(push) = self.command;
        push.run(&Client::from_context()?, out)
    }
}

impl Push {
    fn run(&self, client: &Client, out: &Out) -> anyhow::Result<()> {
        let by_device = read(&self.file)?;
        let progress = out.progress("bringing labels to their devices");
        let mut outcomes: BTreeMap<&str, Outcome> = BTreeMap::new();
        for (device, labels) in &by_device {
            let outcome = outcomes.entry(device).or_default();
            for labels in labels.chunks(MAX_LABELS) {
                if let Err(why) = self.bring(client, device, labels, outcome) {
                    outcome.failed = Some(why.to_string());
                    break;
                }
            }
        }
        progress.finish_and_clear();
        let row = |(device, outcome): (&&str, &Outcome)| {
            let failed = outcome.failed.clone().unwrap_or_else(|| "-".into());
            [(*device).to_owned(), outcome.joined.to_string(), outcome.unknown.to_string(), failed]
        };
        out.result(&outcomes, table(["DEVICE", "JOINED", "NOT REMEMBERED", "FAILED"], outcomes.iter().map(row)))?;
        let failed = outcomes.values().filter(|outcome| outcome.failed.is_some()).count();
        if failed > 0 {
            let fault = Fault::new(format!("{failed} of {} devices did not take all of their labels", outcomes.len()));
            return Err(fault.remedy("push the file again when they are there: each label counts once").into());
        }
        Ok(())
    }

    /// One command, given again where it came too soon after others.
    fn bring(&self, client: &Client, device: &str, labels: &[Labelled], outcome: &mut Outcome) -> anyhow::Result<()> {
        let request = Request::Labels { stream: self.stream.clone(), labels: labels.to_vec() };
        let good_for_s = self.timeout.as_secs().clamp(1, bridge_core::LONGEST_COMMAND / 1_000);
        let new = NewCommand { request: serde_json::to_value(request)?, good_for_s };
        let path = format!("/devices/{device}/commands");
        let began = Instant::now();
        loop {
            let given: CommandView = client.post(&path, &new)?.context("the bridge's answer was empty")?;
            let answer = loop {
                let seen: CommandView = client.get(&format!("{path}/{}", given.seq))?;
                if seen.answered.is_some() {
                    break seen;
                }
                anyhow::ensure!(
                    began.elapsed() < self.timeout,
                    "it did not answer within {} s",
                    self.timeout.as_secs()
                );
                std::thread::sleep(ASK_EVERY);
            };
            if answer.code.as_deref() == Some(TOO_SOON) && began.elapsed() + PAUSE < self.timeout {
                std::thread::sleep(PAUSE);
                continue;
            }
            let Some(joined) = answer.labels else {
                anyhow::bail!(answer.detail.unwrap_or(answer.state));
            };
            outcome.joined += joined.joined;
            outcome.unknown += joined.unknown;
            return Ok(());
        }
    }
}

fn read(path: &Path) -> anyhow::Result<BTreeMap<String, Vec<Labelled>>> {
    let unusable = || Fault::new(format!("the labels {} cannot be used", path.display()));
    let remedy = "give a .csv with the columns device, id and label";
    let table = match engine::read_input(path, &engine::Limits::default()) {
        Ok(engine::Input::Table(table)) => table,
        Ok(_) => return Err(unusable().because("it is no table").remedy(remedy).into()),
        Err(why) => return Err(unusable().because(why).remedy(remedy).into()),
    };
    let column = |name: &str| {
        let found = table.columns.iter().find(|column| column.name == name);
        found
            .map(|column| column.cells.texts())
            .ok_or_else(|| unusable().because(format!("it has no column {name:?}")).remedy(remedy))
    };
    let (devices, ids, labels) = (column("device")?, column("id")?, column("label")?);
    let mut by_device: BTreeMap<String, Vec<Labelled>> = BTreeMap::new();
    for ((device, id), label) in devices.into_iter().zip(ids).zip(labels) {
        by_device.entry(device).or_default().push(Labelled { id, label });
    }
    Ok(by_device)
}
