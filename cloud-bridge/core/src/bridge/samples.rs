//! Requests for inputs that devices keep: what a person asks of a stream on some devices, and somebody else approves.
//!
//! Decides who is asked, when, and until when. Each device of a request that was approved is asked when it is there, and once it
//! has given nothing more of it. What came is the hands' to keep.

use super::{Bridge, no_device};
use crate::audit::Deed;
use crate::{Answer, Now, Record, Rejection, UnixMillis};
use protocol::{CommandOutcome, DeviceId, StreamName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use trust::{Code, MAX_SAMPLES, MAX_SAMPLES_BYTES, Request, U53};

/// The most devices of one request.
pub const MOST_ASKED: usize = 100;
/// The most requests that are not over.
const MOST_OPEN: usize = 100;
/// The most characters of why somebody asks.
const MOST_REASON: usize = 500;
/// How long a request is open, in milliseconds.
const OPEN: std::ops::RangeInclusive<UnixMillis> = 60_000..=30 * 24 * 3_600_000;

/// A request for inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRequest {
    /// Its number.
    pub id: u64,
    /// Of which stream.
    pub stream: StreamName,
    /// The devices, and what became of each.
    pub devices: BTreeMap<DeviceId, Asked>,
    /// At most so many inputs of each.
    pub count: u64,
    /// In at most so many bytes.
    pub bytes: u64,
    /// What for, in words.
    pub reason: String,
    /// Who asks.
    pub by: String,
    /// When.
    pub made: UnixMillis,
    /// Nobody is asked any more from then on.
    pub until: UnixMillis,
    /// Who approved it.
    pub approved: Option<String>,
    /// Who ended it before its time.
    pub ended: Option<String>,
}

/// What became of a request at one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Asked {
    /// Not asked yet.
    No,
    /// Asked by this command, and silent so far.
    By(u64),
    /// It gave so many.
    Gave(u64),
    /// It would not or could not, in its words.
    Refused(String),
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleState {
    /// It waits for somebody else's approval.
    Approval,
    /// Devices that come are asked.
    Open,
    /// Every device has answered.
    Answered,
    /// Its time is over, or a person ended it.
    Over,
}

impl SampleState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SampleState::Approval => "approval",
            SampleState::Open => "open",
            SampleState::Answered => "answered",
            SampleState::Over => "over",
        }
    }
}

/// What a person asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleWish {
    /// Of which stream.
    pub stream: StreamName,
    /// Of which devices.
    pub devices: BTreeSet<DeviceId>,
    /// At most so many inputs of each.
    pub count: u64,
    /// In at most so many bytes.
    pub bytes: u64,
    /// What for.
    pub reason: String,
    /// For how long, in milliseconds.
    pub good_for: UnixMillis,
    /// Who asks.
    pub by: String,
}

/// What a person wants of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleTurn {
    /// That devices are asked.
    Approve,
    /// That nobody is asked any more.
    End,
}

impl SampleTurn {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SampleTurn::Approve => "approve",
            SampleTurn::End => "end",
        }
    }
}

impl SampleRequest {
    /// How far it is.
    pub fn state(&self, now: UnixMillis) -> SampleState {
        let has_answered = |asked: &Asked| matches!(asked, Asked::Gave(_) | Asked::Refused(_));
        if self.approved.is_some() && self.devices.values().all(has_answered) {
            SampleState::Answered
        } else if self.ended.is_some() || now >= self.until {
            SampleState::Over
        } else if self.approved.is_some() {
            SampleState::Open
        } else {
            SampleState::Approval
        }
    }
}

impl Bridge {
    /// Every request for inputs.
    pub fn sample_requests(&self) -> &BTreeMap<u64, SampleRequest> {
        &self.sample_requests
    }

    pub(super) fn want_samples(&mut self, now: Now, wish: SampleWish) -> Result<Answer, Rejection> {
        let SampleWish { stream, devices, count, bytes, reason, good_for, by } = wish;
        let invalid = |why: String| Err(Rejection::Invalid(why));
        if !(1..=MOST_ASKED).contains(&devices.len()) {
            return invalid(format!("1 to {MOST_ASKED} devices are asked at a time"));
        }
        if !(1..=MAX_SAMPLES).contains(&count) || !(1..=MAX_SAMPLES_BYTES).contains(&bytes) {
            return invalid(format!("a device gives 1 to {MAX_SAMPLES} inputs in 1 to {MAX_SAMPLES_BYTES} bytes"));
        }
        if !OPEN.contains(&good_for) {
            return invalid("a request is open for a minute to 30 days".into());
        }
        let reason = reason.trim();
        if reason.is_empty() || reason.chars().count() > MOST_REASON || reason.contains(char::is_control) {
            return invalid(format!("say what for, in one line of at most {MOST_REASON} characters"));
        }
        if let Some(unknown) = devices.iter().find(|id| !self.devices.get(*id).is_some_and(|d| d.is_approved())) {
            return Err(no_device(unknown));
        }
        let is_open =
            |request: &&SampleRequest| matches!(request.state(now.unix), SampleState::Approval | SampleState::Open);
        if self.sample_requests.values().filter(is_open).count() >= MOST_OPEN {
            return Err(Rejection::Conflict(format!("{MOST_OPEN} requests are open already: end one of them")));
        }
        let id = self.sample_requests.keys().next_back().map_or(1, |last| last + 1);
        let request = SampleRequest {
            id,
            stream,
            devices: devices.into_iter().map(|device| (device, Asked::No)).collect(),
            count,
            bytes,
            reason: reason.to_owned(),
            by,
            made: now.unix,
            until: now.unix.saturating_add(good_for),
            approved: None,
            ended: None,
        };
        self.keep_request(request);
        Ok(Answer::Wanted { request: id })
    }

    pub(super) fn turn_samples(
        &mut self,
        now: Now,
        id: u64,
        (by, since): (&str, UnixMillis),
        turn: SampleTurn,
    ) -> Result<Answer, Rejection> {
        let conflict = |why: String| Err(Rejection::Conflict(why));
        let known = self.sample_requests.get(&id);
        let mut request = known.ok_or_else(|| Rejection::NotFound(format!("request for samples {id}")))?.clone();
        let state = request.state(now.unix);
        match (turn, state) {
            (SampleTurn::Approve, SampleState::Approval) if request.by == by => {
                return conflict(format!("request {id} is of `{by}`: somebody else must approve it"));
            }
            // Or else whoever asked makes a token for somebody else, and approves.
            (SampleTurn::Approve, SampleState::Approval) if since > request.made => {
                return conflict(format!(
                    "`{by}` was let in after request {id} was made: somebody who was there before must approve it"
                ));
            }
            (SampleTurn::Approve, SampleState::Approval) => request.approved = Some(by.to_owned()),
            (SampleTurn::End, SampleState::Approval | SampleState::Open) => request.ended = Some(by.to_owned()),
            (SampleTurn::Approve | SampleTurn::End, state) => {
                let (state, turn) = (state.as_str(), turn.as_str());
                return conflict(format!("request {id} is {state}: it cannot be asked to {turn}"));
            }
        }
        let devices: Vec<DeviceId> = request.devices.keys().cloned().collect();
        self.keep_request(request);
        devices.iter().for_each(|device| self.ask_for_samples(now, device));
        Ok(Answer::Done)
    }

    /// A device is there: it is asked for what was approved and it has not answered. A command of an earlier hello counts no
    /// more.
    pub(super) fn ask_for_samples(&mut self, now: Now, device: &DeviceId) {
        let waits = |request: &&SampleRequest| {
            let asked = request.devices.get(device);
            request.state(now.unix) == SampleState::Open && matches!(asked, Some(Asked::No | Asked::By(_)))
        };
        let waiting: Vec<SampleRequest> = self.sample_requests.values().filter(waits).cloned().collect();
        for mut request in waiting {
            let good_for = request.until.saturating_sub(now.unix).clamp(1_000, super::LONGEST_COMMAND);
            let number = |number: u64| U53::try_from(number).ok();
            let [Some(id), Some(count), Some(bytes)] = [request.id, request.count, request.bytes].map(number) else {
                continue;
            };
            let asked = Request::Samples {
                stream: request.stream.to_string(),
                request: id,
                count,
                bytes,
                by: request.by.clone(),
                approved: request.approved.clone().unwrap_or_default(),
            };
            // One that is not there is asked when it comes.
            let Ok(Answer::Commanded { seq }) = self.command(now, device, asked, good_for) else { continue };
            request.devices.insert(device.clone(), Asked::By(seq));
            self.keep_request(request);
        }
    }

    /// What a device said of the command by which it was asked.
    pub(super) fn take_samples(&mut self, device: &DeviceId, seq: u64, outcome: CommandOutcome, said: Said) {
        let by_it = |request: &&SampleRequest| request.devices.get(device) == Some(&Asked::By(seq));
        let Some(mut request) = self.sample_requests.values().find(by_it).cloned() else { return };
        let Said { code, detail, samples } = said;
        let asked = match outcome {
            CommandOutcome::Done => Asked::Gave(samples),
            // It takes only so many commands at a time: it is asked again when it says hello.
            CommandOutcome::Refused if code.as_deref() == Some(Code::Rate.as_str()) => Asked::No,
            CommandOutcome::Refused | CommandOutcome::Failed => {
                let why = [code, detail].into_iter().flatten().collect::<Vec<_>>().join(": ");
                Asked::Refused(why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_REASON).collect())
            }
        };
        if let Asked::Gave(samples) = asked {
            let subject = format!("{} {device}: {samples} of {}", request.id, request.stream);
            self.records.push(Record::Deed(Box::new(Deed::new("bridge", "samples.given", &subject, "done"))));
        }
        request.devices.insert(device.clone(), asked);
        self.keep_request(request);
    }

    fn keep_request(&mut self, request: SampleRequest) {
        self.records.push(Record::Samples(Box::new(request.clone())));
        self.sample_requests.insert(request.id, request);
    }
}

/// What a device said beside the outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The stable code of a refusal.
    pub code: Option<String>,
    /// Why, in words.
    pub detail: Option<String>,
    /// How many inputs it gave.
    pub samples: u64,
}
