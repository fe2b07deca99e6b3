//! What is asked of many devices at once, and what came of it.

use super::Out;
use super::client::Client;
use super::command::why;
use super::table::{ago, table};
use crate::fault::Fault;
use crate::service::commands::CommandView;
use crate::service::fan_outs::{AnswersView, FanOutView, NewFanOut};
use crate::service::unix_millis;
use crate::service::view::List;
use anyhow::Context;
use comfy_table::Table;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// How often it is asked how many answers came.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Devices that are named of those that did not do it.
const NAMED: usize = 20;

/// Asks, and waits until every device answered or its time is over.
pub(super) fn ask(client: &Client, out: &Out, new: &NewFanOut, timeout: Duration) -> anyhow::Result<()> {
    let mut seen: FanOutView = client.post("/fan-outs", new)?.context("the bridge's answer was empty")?;
    let (began, progress) = (Instant::now(), out.progress("waiting for answers"));
    while seen.answers.as_ref().is_some_and(|answers| answers.waiting > 0) && began.elapsed() <= timeout {
        let waiting = seen.answers.as_ref().map_or(0, |answers| answers.waiting);
        progress.set_message(format!("{} of {} devices answered", seen.given.saturating_sub(waiting), seen.given));
        std::thread::sleep(ASK_EVERY);
        seen = client.get(&format!("/fan-outs/{}", seen.id))?;
    }
    progress.finish_and_clear();
    tell(client, out, &seen)?;
    let done = seen.answers.as_ref().map_or(0, |answers| answers.done);
    if done < seen.given {
        let fault = Fault::new(format!("{} of {} devices have not done it", seen.given - done, seen.given));
        return Err(fault.remedy(format!("see what came later: petrel devices fan-outs {}", seen.id)).into());
    }
    Ok(())
}

/// One, with those that did not do it.
pub(super) fn show(client: &Client, out: &Out, id: u64) -> anyhow::Result<()> {
    tell(client, out, &client.get(&format!("/fan-outs/{id}"))?)
}

fn tell(client: &Client, out: &Out, seen: &FanOutView) -> anyhow::Result<()> {
    if out.is_json() {
        return out.result(seen, "");
    }
    let FanOutView { id, to, request, by, given, left_out, .. } = seen;
    let mut people = format!(
        "fan-out {id} of {by}, {}\n{request} to {to}\n{given} devices were asked, {left_out} were not there\n",
        ago(seen.at, unix_millis())
    );
    if let Some(AnswersView { waiting, done, refused, failed, silent }) = &seen.answers {
        let counts =
            [("done", done), ("failed", failed), ("refused", refused), ("silent", silent), ("waiting", waiting)];
        let gone = given.saturating_sub(waiting + done + refused + failed + silent);
        let rows = counts.into_iter().chain([("not kept any more", &gone)]).filter(|(_, count)| **count > 0);
        write!(people, "\n{}", table(["STATE", "DEVICES"], rows.map(|(state, n)| [state.to_owned(), n.to_string()])))?;
        let mut others = Vec::new();
        for (state, _) in counts.iter().filter(|(state, count)| *state != "done" && **count > 0) {
            let left = NAMED.saturating_sub(others.len());
            if left == 0 {
                break;
            }
            let path = format!("/fan-outs/{id}/commands?state={state}&limit={left}");
            others.extend(client.get::<List<CommandView>>(&path)?.items);
        }
        if !others.is_empty() {
            write!(people, "\n\n{}", commands_table(&others))?;
        }
        if waiting + refused + failed + silent > others.len() as u64 {
            write!(people, "\nall of them: petrel devices fan-outs {id} --commands")?;
        }
    }
    out.result(seen, people)
}

/// The commands of one, and what came of each.
pub(super) fn commands(client: &Client, out: &Out, id: u64) -> anyhow::Result<()> {
    let commands: Vec<CommandView> = client.list(&format!("/fan-outs/{id}/commands"))?;
    out.result(&commands, commands_table(&commands))
}

fn commands_table(commands: &[CommandView]) -> Table {
    let row = |command: &CommandView| [command.device.clone(), command.state.clone(), why(command)];
    table(["DEVICE", "STATE", "WHY"], commands.iter().map(row))
}

/// The latest.
pub(super) fn list(client: &Client, out: &Out) -> anyhow::Result<()> {
    let all: Vec<FanOutView> = client.list("/fan-outs")?;
    let now = unix_millis();
    let row = |f: &FanOutView| {
        [
            f.id.to_string(),
            ago(f.at, now),
            f.by.clone(),
            f.to.clone(),
            f.request.to_string(),
            f.given.to_string(),
            f.left_out.to_string(),
        ]
    };
    let people = match all.is_empty() {
        true => "nobody asked anything of many devices lately\nask with: petrel devices command -l site=plant-3 report"
            .into(),
        false => {
            let header = ["FAN-OUT", "WHEN", "BY", "TO", "REQUEST", "ASKED", "NOT THERE"];
            table(header, all.iter().map(row)).to_string()
        }
    };
    out.result(&all, people)
}
