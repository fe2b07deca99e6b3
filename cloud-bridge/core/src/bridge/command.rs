//! Commands: what a person asks of one device now, or of many.
//!
//! Decides whether a device can be asked at all. A command answers the device's latest hello, so that only who said it takes
//! it, and counts for a short time; nothing of it is said twice. What came of it, the hands keep.

use super::{Bridge, no_device};
use crate::audit::Deed;
use crate::{Answer, CommandDraft, Effect, Now, Numbers, Record, Rejection, Status, Target, UnixMillis};
use protocol::DeviceId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trust::Request;

/// A command counts so long at most, in milliseconds.
pub const LONGEST_COMMAND: UnixMillis = 3_600_000;
/// The most devices that are asked at once, or within a minute: what land has to say waits in a queue that is longer.
pub const MOST_AT_ONCE: u64 = 20_000;
/// The time in which so many are at most.
const LATELY: UnixMillis = 60_000;
/// Fan-outs that are remembered.
const REMEMBERED: usize = 200;

/// What was asked of many devices at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOut {
    /// Its number.
    pub id: u64,
    /// Which devices were meant.
    pub to: Target,
    /// What was asked.
    pub request: Request,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: UnixMillis,
    /// Until when it counts.
    pub deadline: UnixMillis,
    /// So many devices were asked.
    pub given: u64,
    /// So many were meant, and not there.
    pub left_out: u64,
}

/// What a person asks of many devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FanOutWish {
    /// Which devices are meant.
    pub to: Target,
    /// What is asked.
    pub request: Request,
    /// For how long it counts, in milliseconds.
    pub good_for: UnixMillis,
    /// Who asks.
    pub by: String,
}

/// What commands have in common that are given in one step.
#[derive(Clone, Copy)]
struct Terms {
    issued: UnixMillis,
    deadline: UnixMillis,
    numbers: Numbers,
    fan_out: Option<u64>,
}

impl Bridge {
    /// What was asked of many devices, by its number.
    pub fn fan_outs(&self) -> &BTreeMap<u64, FanOut> {
        &self.fan_outs
    }

    pub(super) fn command(
        &mut self,
        now: Now,
        id: &DeviceId,
        request: Request,
        good_for: UnixMillis,
    ) -> Result<Answer, Rejection> {
        let terms = self.terms(now, good_for)?;
        let draft = self.give(id, request, terms)?;
        Ok(Answer::Commanded { seq: draft.seq, draft: Some(Box::new(draft)) })
    }

    /// Asks whoever is meant and there, in one.
    pub(super) fn fan_out(&mut self, now: Now, wish: FanOutWish) -> Result<Answer, Rejection> {
        let FanOutWish { to, request, good_for, by } = wish;
        let conflict = |why: String| Err(Rejection::Conflict(why));
        let what = match &request {
            Request::Report {} | Request::Restart { .. } | Request::LogLevel { .. } => None,
            Request::Diagnostics {} => Some("diagnostics are large, and asked of one device"),
            Request::Labels { .. } => Some("labels are of one device's answers"),
            Request::Samples { .. } => Some("inputs are given for a request that somebody approved"),
        };
        if let Some(why) = what {
            return Err(Rejection::Invalid(format!("{why}: of many, a report, a restart or a log level can be asked")));
        }
        let id = self.fan_outs.keys().next_back().map_or(1, |last| last + 1);
        let terms = Terms { fan_out: Some(id), ..self.terms(now, good_for)? };
        let meant = self.devices.values().filter(|device| device.is_approved() && to.holds(device));
        let (there, away): (Vec<_>, Vec<_>) = meant.partition(|device| device.online && device.greeted.is_some());
        let (given, left_out) = (there.len() as u64, away.len() as u64);
        let there: Vec<DeviceId> = there.into_iter().map(|device| device.id.clone()).collect();
        match (given, left_out) {
            (0, 0) => return conflict(format!("no device of the fleet is meant by `{to}`")),
            (0, _) => return conflict(format!("none of the {left_out} devices that `{to}` means is there now")),
            _ => {}
        }
        // Also those of a time that the clock has gone back to are over.
        self.asked_lately.retain(|(at, _)| (*at..at.saturating_add(LATELY)).contains(&now.unix));
        let lately: u64 = self.asked_lately.iter().map(|(_, given)| given).sum();
        if lately + given > MOST_AT_ONCE {
            let more = if lately > 0 { format!(", beside the {lately} of the last minute") } else { String::new() };
            return conflict(format!(
                "{given} devices would be asked{more}, and {MOST_AT_ONCE} are in a minute: name fewer, or wait"
            ));
        }
        self.asked_lately.push((now.unix, given));
        for id in &there {
            self.give(id, request.clone(), terms)?;
        }
        let Terms { issued: at, deadline, .. } = terms;
        let fan_out = FanOut { id, to, request, by, at, deadline, given, left_out };
        // Behind the line of who asked, which does not know that.
        let subject = format!("{id}: {given} devices asked, {left_out} not there");
        self.records.push(Record::Deed(Box::new(Deed::new("director", "device.fan_out", &subject, "done"))));
        self.records.push(Record::FanOut(Box::new(fan_out.clone())));
        self.fan_outs.insert(id, fan_out);
        while self.fan_outs.len() > REMEMBERED
            && let Some((fan_out, _)) = self.fan_outs.pop_first()
        {
            self.records.push(Record::NoFanOut { fan_out });
        }
        Ok(Answer::FannedOut { fan_out: id })
    }

    fn terms(&self, now: Now, good_for: UnixMillis) -> Result<Terms, Rejection> {
        if !(1_000..=LONGEST_COMMAND).contains(&good_for) {
            let most = LONGEST_COMMAND / 1_000;
            return Err(Rejection::Invalid(format!("a command counts for 1 to {most} seconds")));
        }
        let numbers = self.documents.numbers();
        let numbers = numbers.ok_or_else(|| Rejection::Conflict("the fleet has no root yet".into()))?;
        Ok(Terms { issued: now.unix, deadline: now.unix.saturating_add(good_for), numbers, fan_out: None })
    }

    fn give(&mut self, id: &DeviceId, request: Request, terms: Terms) -> Result<CommandDraft, Rejection> {
        let conflict = |why: String| Err(Rejection::Conflict(why));
        let device = self.devices.get_mut(id).ok_or_else(|| no_device(id))?;
        if device.status != Status::Approved {
            return conflict(format!("device `{id}` is {}", device.status));
        }
        if !device.online {
            return conflict(format!("device `{id}` is offline, and a command is for one that is there"));
        }
        let Some(greeted) = device.greeted.clone() else {
            return conflict(format!("device `{id}` has said no hello to this bridge yet: it does when it connects"));
        };
        device.commands += 1;
        let Terms { issued, deadline, numbers, fan_out } = terms;
        let draft = CommandDraft {
            device: id.clone(),
            seq: device.commands,
            issued,
            deadline,
            nonce: greeted.nonce,
            heard: greeted.at,
            numbers,
            request,
            fan_out,
        };
        self.changed_devices.insert(id.clone());
        self.records.push(Record::Command(Box::new(draft.clone())));
        self.effects.push(Effect::PublishCommand(draft.clone()));
        Ok(draft)
    }
}
