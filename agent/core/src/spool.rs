//! The spool: telemetry that waits until the broker has it, within a bound.
//!
//! Decides what is kept, what is merged, what is dropped and counted, when all of it goes to the disk, and
//! how fast it leaves. Of what a device has to say, telemetry matters least, so it alone is merged and dropped;
//! verdicts never come here: they are in the ledger until they are heard. There is no disk here and no connection.
//!
//! Land knows a message by its run and number and takes it once. So what land may have heard is said again as it
//! was: it is never merged, and the disk knows of it before the first of it is said.

use crate::Millis;
use protocol::{MAX_STREAM_ROWS, SpoolState, StreamTelemetry, Telemetry, encode_cbor};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

const HOUR_S: u64 = 3_600;
/// How much one message may cover, in seconds, each in its turn as there is no room.
const WIDTHS_S: [u64; 5] = [HOUR_S, 6 * HOUR_S, 24 * HOUR_S, 7 * 24 * HOUR_S, u64::MAX];
/// Flash wears out: the disk is written this seldom, and a power cut costs no more than this.
const SAVE_PAUSE: Millis = 15 * 60_000;
/// Messages under way at once.
const WINDOW: usize = 4;
/// Between two messages: a fleet that comes back must fit into the queue that a broker holds for land.
const SAY_PAUSE: Millis = 250;
/// What a file holds besides the messages, at most.
const FRAME_BYTES: u64 = 256;
/// The longest name of a stream.
const NAME_BYTES: usize = 64;

/// What is on the disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spooled {
    /// This many of the oldest messages may have been heard by land.
    said: usize,
    merged: u64,
    dropped: u64,
    damaged: u64,
    /// The oldest first.
    messages: VecDeque<Box<Telemetry>>,
}

impl Spooled {
    /// What is left when that which lay on the disk could not be read: nothing, which is counted.
    pub fn damaged() -> Self {
        Self { damaged: 1, ..Self::default() }
    }
}

/// Telemetry that waits.
#[derive(Debug)]
pub struct Spool {
    limit: u64,
    bytes: u64,
    spooled: Spooled,
    /// This many of the oldest are under way.
    flying: usize,
    online: bool,
    /// The broker refused one: nothing more is said before the next measurement.
    refused: bool,
    /// Nothing is said before this.
    say_at: Millis,
    /// The disk holds messages.
    on_disk: bool,
    /// And it holds some of them as never said.
    unsaid_on_disk: bool,
    /// When the disk should be written.
    save_at: Option<Millis>,
}

impl Spool {
    /// With what was on the disk; never more than `limit` bytes, on the disk or in memory.
    pub fn new(limit: u64, spooled: Spooled) -> Self {
        let said = spooled.said.min(spooled.messages.len());
        let (on_disk, unsaid_on_disk) = (!spooled.messages.is_empty(), said < spooled.messages.len());
        let bytes = spooled.messages.iter().map(|t| weight(t)).sum();
        let spooled = Spooled { said, ..spooled };
        let mut spool = Self {
            limit,
            bytes,
            spooled,
            flying: 0,
            online: false,
            refused: false,
            say_at: 0,
            on_disk,
            unsaid_on_disk,
            save_at: None,
        };
        spool.make_room();
        spool
    }

    /// What is kept, for the disk.
    pub fn spooled(&self) -> &Spooled {
        &self.spooled
    }

    /// What waits, and what was lost.
    pub fn state(&self) -> SpoolState {
        let Spooled { merged, dropped, damaged, ref messages, .. } = self.spooled;
        let waiting = (messages.len() - self.flying) as u64;
        SpoolState { waiting, bytes: self.bytes, merged, dropped, damaged }
    }

    /// Takes a measurement. `now` counts from the start of the run.
    pub fn put(&mut self, now: Millis, measured: Telemetry) {
        let run = measured.run;
        self.bytes += weight(&measured);
        self.spooled.messages.push_back(Box::new(measured));
        self.refused = false;
        self.save_at.get_or_insert(now + SAVE_PAUSE);
        if self.online {
            self.spooled.said = self.spooled.messages.len();
        }
        // What an earlier run measured is at least as old as this one.
        let uptime = now / 1_000;
        let old = |t: &Telemetry| uptime.saturating_sub(if t.run == run { t.uptime_s } else { 0 }) >= HOUR_S;
        while self.merge_oldest(HOUR_S, old) {}
        self.make_room();
    }

    /// There is a connection.
    pub fn connected(&mut self) {
        self.online = true;
        self.refused = false;
        self.spooled.said = self.spooled.messages.len();
    }

    /// There is none. What was under way is said again.
    pub fn disconnected(&mut self) {
        self.online = false;
        self.flying = 0;
    }

    /// What is to be said next, if it may be now.
    pub fn next(&mut self, now: Millis) -> Option<Telemetry> {
        if !self.may_say() || now < self.say_at {
            return None;
        }
        let message = Telemetry::clone(self.spooled.messages.get(self.flying)?);
        self.flying += 1;
        self.say_at = now + SAY_PAUSE;
        Some(Telemetry { spool: self.state(), ..message })
    }

    /// The broker has a message.
    pub fn delivered(&mut self, now: Millis, run: u64, seq: u64) {
        let mut said = self.spooled.messages.range(..self.spooled.said);
        let Some(at) = said.position(|t| t.run == run && t.seq == seq) else { return };
        self.remove(at);
        if self.on_disk {
            self.save_at.get_or_insert(now + SAVE_PAUSE);
        } else if self.spooled.messages.is_empty() {
            self.save_at = None;
        }
    }

    /// A message did not go out, or the broker refused it: it is tried again after the next measurement.
    pub fn refused(&mut self) {
        self.refused = true;
        self.flying = 0;
    }

    /// Whether the disk should be written now.
    pub fn is_save_due(&self, now: Millis) -> bool {
        self.must_mark() || self.save_at.is_some_and(|at| now >= at)
    }

    /// The disk was written, or was asked to and refused: then it is asked again later. That is no reason to
    /// be silent, although land may now count twice what is merged after a power cut.
    pub fn saved(&mut self, now: Millis, done: bool) {
        if done {
            self.on_disk = !self.spooled.messages.is_empty();
            self.unsaid_on_disk = self.spooled.said < self.spooled.messages.len();
            self.save_at = None;
        } else {
            self.unsaid_on_disk &= !self.online;
            self.save_at = Some(now + SAVE_PAUSE);
        }
    }

    /// Whether something would be lost if the agent ended now.
    pub fn is_unsaved(&self) -> bool {
        self.save_at.is_some()
    }

    /// When something is to be done: saved, or said.
    pub fn deadline(&self) -> Option<Millis> {
        if self.must_mark() {
            return Some(0);
        }
        let say = (self.may_say() && self.flying < self.spooled.messages.len()).then_some(self.say_at);
        [say, self.save_at].into_iter().flatten().min()
    }

    fn may_say(&self) -> bool {
        self.online && !self.refused && !self.unsaid_on_disk && self.flying < WINDOW
    }

    /// What is about to be said must not be merged after a restart.
    fn must_mark(&self) -> bool {
        self.online && self.unsaid_on_disk
    }

    /// Merges, wider and wider, and then drops the oldest, until the rest fits.
    fn make_room(&mut self) {
        while self.bytes + FRAME_BYTES > self.limit {
            if WIDTHS_S.iter().any(|width| self.merge_oldest(*width, |_| true)) {
                continue;
            }
            let Some(oldest) = self.remove(0) else { return };
            self.spooled.dropped = self.spooled.dropped.saturating_add(oldest.measured);
        }
    }

    /// Merges the oldest two neighbours that may be one message of at most `width` seconds.
    fn merge_oldest(&mut self, width: u64, old: impl Fn(&Telemetry) -> bool) -> bool {
        let messages = &self.spooled.messages;
        let fits = |at: &usize| {
            let (a, b) = (&messages[*at], &messages[*at + 1]);
            a.run == b.run && a.span_s.saturating_add(b.span_s) <= width && old(b) && rows_together(a, b)
        };
        let Some(at) = (self.spooled.said..messages.len().saturating_sub(1)).find(fits) else { return false };
        let Some(older) = self.remove(at) else { return false };
        let newer = &mut self.spooled.messages[at];
        self.bytes -= weight(newer);
        merge(&older, newer);
        self.bytes += weight(newer);
        self.spooled.merged += 1;
        true
    }

    fn remove(&mut self, at: usize) -> Option<Box<Telemetry>> {
        let removed = self.spooled.messages.remove(at)?;
        self.bytes -= weight(&removed);
        self.spooled.said -= usize::from(at < self.spooled.said);
        self.flying -= usize::from(at < self.flying);
        Some(removed)
    }
}

/// What a message costs, where it costs more: on the disk or in memory.
fn weight(message: &Telemetry) -> u64 {
    let rows = message.streams.len() * (size_of::<StreamTelemetry>() + NAME_BYTES);
    let memory = size_of::<Telemetry>() + NAME_BYTES + rows + size_of_val(message.arriving.as_slice());
    memory.max(encode_cbor(message).len()) as u64
}

/// Whether both fit into one message.
fn rows_together(a: &Telemetry, b: &Telemetry) -> bool {
    let new = a.streams.iter().filter(|row| !b.streams.iter().any(|other| same(row, other))).count();
    b.streams.len() + new <= MAX_STREAM_ROWS
}

fn same(a: &StreamTelemetry, b: &StreamTelemetry) -> bool {
    a.stream == b.stream && a.release == b.release
}

/// Counts add up; of each measure the worst is kept; what was on its way then is of no use now.
fn merge(older: &Telemetry, newer: &mut Telemetry) {
    newer.span_s = newer.span_s.saturating_add(older.span_s);
    newer.measured = newer.measured.saturating_add(older.measured);
    newer.cpu_percent = newer.cpu_percent.max(older.cpu_percent);
    newer.memory_used_mb = newer.memory_used_mb.max(older.memory_used_mb);
    newer.agent_memory_mb = newer.agent_memory_mb.max(older.agent_memory_mb);
    newer.disk_free_mb = newer.disk_free_mb.min(older.disk_free_mb);
    newer.temperature_c = newer.temperature_c.into_iter().chain(older.temperature_c).reduce(f32::max);
    newer.arriving.clear();
    for row in &older.streams {
        match newer.streams.iter_mut().find(|other| same(row, other)) {
            Some(sum) => {
                sum.answers = sum.answers.saturating_add(row.answers);
                sum.errors = sum.errors.saturating_add(row.errors);
                sum.latency.iter_mut().zip(row.latency).for_each(|(sum, n)| *sum = sum.saturating_add(n));
            }
            None => newer.streams.push(row.clone()),
        }
    }
    newer.streams.shrink_to_fit();
}
