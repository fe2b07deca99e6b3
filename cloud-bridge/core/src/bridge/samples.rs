//! Requests for inputs that devices keep: what a person asks of a stream on some devices, and somebody else approves.
//!
//! Decides who is asked, when, and until when, and what of an answer counts. A device that is there is asked when a request is
//! approved; one that comes later some minutes after it came, since by then it keeps something; and again and again until it
//! gave something or the request ends. What came is the hands' to keep.

use super::{Bridge, no_device};
use crate::audit::Deed;
use crate::{Answer, Now, Record, Rejection, UnixMillis};
use protocol::{CommandOutcome, CommandResult, DeviceId, Sample, SampledInput, StreamName, encode_json};
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
/// How often devices are asked that gave nothing so far, and how long after its hello one is asked.
const AGAIN: UnixMillis = 10 * 60_000;
/// Requests that are remembered when they are over.
const REMEMBERED: usize = 200;
/// How PNG and JPEG files begin, in base64.
const PICTURES: [&str; 2] = ["iVBORw0KGgo", "/9j/"];
/// Characters that turn a line around for whoever reads it.
const TURNING: [std::ops::RangeInclusive<char>; 2] = ['\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}'];

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
    /// Asked by a command, and silent so far.
    By {
        /// Its number.
        seq: u64,
        /// Until when it counts.
        until: UnixMillis,
    },
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
        if self.ended.is_some() {
            SampleState::Over
        } else if self.approved.is_some() && self.devices.values().all(has_answered) {
            SampleState::Answered
        } else if now >= self.until {
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
        if reason.is_empty() || reason.chars().count() > MOST_REASON || !reason.chars().all(is_plain) {
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
        // Devices may remember numbers that land forgot when it was put back.
        let last = self.sample_requests.keys().next_back().copied().max(self.put_back).unwrap_or(0);
        let id = last + 1;
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
        let over = |(_, request): &(&u64, &SampleRequest)| {
            matches!(request.state(now.unix), SampleState::Answered | SampleState::Over)
        };
        let over: Vec<u64> = self.sample_requests.iter().filter(over).map(|(id, _)| *id).collect();
        for id in over.iter().take(over.len().saturating_sub(REMEMBERED)) {
            self.sample_requests.remove(id);
            self.records.push(Record::NoSamples { request: *id });
        }
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
        self.keep_request(request);
        if turn == SampleTurn::Approve {
            self.ask_for_samples(now, id, 0);
            self.samples_due = Some(self.samples_due.map_or(now.unix + AGAIN, |due| due.min(now.unix + AGAIN)));
        }
        Ok(Answer::Done)
    }

    /// Asks again whoever gave nothing so far, and is there long enough.
    pub(super) fn ask_again(&mut self, now: Now) {
        if self.samples_due.take_if(|due| *due <= now.unix).is_none() {
            return;
        }
        let is_open = |request: &&SampleRequest| request.state(now.unix) == SampleState::Open;
        let open: Vec<u64> = self.sample_requests.values().filter(is_open).map(|request| request.id).collect();
        if !open.is_empty() {
            self.samples_due = Some(now.unix + AGAIN);
        }
        open.into_iter().for_each(|id| self.ask_for_samples(now, id, AGAIN));
    }

    /// Asks each device of an open request that gave nothing, if it said hello so long ago.
    fn ask_for_samples(&mut self, now: Now, id: u64, since_hello: UnixMillis) {
        let Some(mut request) = self.sample_requests.get(&id).cloned() else { return };
        let left = request.until.saturating_sub(now.unix);
        let number = |number: u64| U53::try_from(number).ok();
        let numbers = [request.id, request.count, request.bytes].map(number);
        let ([Some(number), Some(count), Some(bytes)], 1_000..) = (numbers, left) else { return };
        let waits = |(device, asked): (&DeviceId, &Asked)| {
            let is_silent = matches!(asked, Asked::No) || matches!(asked, Asked::By { until, .. } if *until < now.unix);
            let greeted = self.devices.get(device).and_then(|known| known.greeted.as_ref());
            let is_there = greeted.is_some_and(|hello| hello.at + since_hello <= now.unix);
            (is_silent && is_there).then(|| device.clone())
        };
        let waiting: Vec<DeviceId> = request.devices.iter().filter_map(waits).collect();
        let good_for = left.min(super::LONGEST_COMMAND).min(AGAIN);
        let mut asked_some = false;
        for device in waiting {
            let asked = Request::Samples {
                stream: request.stream.to_string(),
                request: number,
                count,
                bytes,
                by: request.by.clone(),
                approved: request.approved.clone().unwrap_or_default(),
            };
            // One that is not there is asked when it has come.
            let Ok(Answer::Commanded { seq, .. }) = self.command(now, &device, asked, good_for) else { continue };
            request.devices.insert(device, Asked::By { seq, until: now.unix + good_for });
            asked_some = true;
        }
        if asked_some {
            self.keep_request(request);
        }
    }

    /// Takes the inputs out of what a device says of a command, and gives those that are to be kept, with the number of their
    /// request: what came unasked or after the end is not, nor is more than was asked for.
    pub fn samples_to_keep(&self, now: Now, result: &mut CommandResult) -> Option<(u64, Vec<Sample>)> {
        let samples = result.samples.take()?;
        let request = self.asked_by(&result.device_id, result.seq)?;
        let counts = result.outcome == CommandOutcome::Done && request.state(now.unix) == SampleState::Open;
        let samples = counts.then(|| fitting(samples, request.count, request.bytes))?;
        (!samples.is_empty()).then_some((request.id, samples))
    }

    fn asked_by(&self, device: &DeviceId, by: u64) -> Option<&SampleRequest> {
        let is_it = |asked: &&Asked| matches!(asked, Asked::By { seq, .. } if *seq == by);
        self.sample_requests.values().find(|request| request.devices.get(device).filter(is_it).is_some())
    }

    /// What a device said of the command by which it was asked.
    pub(super) fn take_samples(&mut self, now: Now, device: &DeviceId, seq: u64, outcome: CommandOutcome, said: Said) {
        let Some(mut request) = self.asked_by(device, seq).cloned() else { return };
        if request.state(now.unix) != SampleState::Open {
            return;
        }
        let Said { code, detail, samples } = said;
        let passing = [Code::Rate, Code::Expired, Code::Replay].map(Code::as_str);
        let asked = match outcome {
            // It keeps nothing yet.
            CommandOutcome::Done if samples == 0 => Asked::No,
            CommandOutcome::Done => Asked::Gave(samples),
            // Not now: it is asked again.
            CommandOutcome::Refused if code.as_deref().is_some_and(|code| passing.contains(&code)) => Asked::No,
            CommandOutcome::Refused | CommandOutcome::Failed => {
                let why = [code, detail].into_iter().flatten().collect::<Vec<_>>().join(": ");
                Asked::Refused(why.chars().map(|c| if is_plain(c) { c } else { ' ' }).take(MOST_REASON).collect())
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

fn is_plain(c: char) -> bool {
    !c.is_control() && !TURNING.iter().any(|turning| turning.contains(&c))
}

/// No more than was asked for, and pictures that are some.
fn fitting(samples: Vec<Sample>, count: u64, bytes: u64) -> Vec<Sample> {
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    let fits = |sample: &Sample| {
        let rest = left.checked_sub(encode_json(sample).len());
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    let is_picture = |text: &str| {
        let of_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        PICTURES.iter().any(|start| text.starts_with(start))
            && text.len().is_multiple_of(4)
            && text.bytes().all(of_base64)
    };
    let is_right = |sample: &Sample| match &sample.input {
        SampledInput::Image(text) => is_picture(text),
        SampledInput::Fields(_) | SampledInput::Arrays(_) => true,
    };
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    samples.into_iter().take(most).filter(is_right).take_while(fits).collect()
}
