//! The spool: telemetry and windows of drift that wait until the broker has them, within a bound.
//!
//! Decides what is kept, what is merged, what is dropped and counted, when all of it goes to the disk, and
//! how fast it leaves. Of what a device has to say, these matter least, so they alone are merged and dropped;
//! verdicts never come here: they are in the ledger until they are heard. There is no disk here and no connection.
//!
//! Land knows a message by its run and number and takes it once. So what land may have heard is said again as it
//! was: it is never merged, and the disk knows of it before the first of it is said.

mod waiting;

pub use waiting::Waiting;

use crate::Millis;
use protocol::{SpoolState, Telemetry};
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
    messages: VecDeque<Waiting>,
}

impl Spooled {
    /// What is left when that which lay on the disk could not be read: nothing, which is counted.
    pub fn damaged() -> Self {
        Self { damaged: 1, ..Self::default() }
    }
}

/// What waits.
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
        let bytes = spooled.messages.iter().map(Waiting::weight).sum();
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

    /// Takes a measurement, or a window. `now` counts from the start of the run.
    pub fn put(&mut self, now: Millis, measured: Waiting) {
        let run = measured.run();
        self.bytes += measured.weight();
        self.spooled.messages.push_back(measured);
        self.refused = false;
        self.save_at.get_or_insert(now + SAVE_PAUSE);
        if self.online {
            self.spooled.said = self.spooled.messages.len();
        }
        // What an earlier run measured is at least as old as this one.
        let uptime = now / 1_000;
        let old = |w: &Waiting| uptime.saturating_sub(if w.run() == run { w.uptime_s() } else { 0 }) >= HOUR_S;
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
    pub fn next(&mut self, now: Millis) -> Option<Waiting> {
        if !self.may_say() || now < self.say_at {
            return None;
        }
        let message = self.spooled.messages.get(self.flying)?.clone();
        self.flying += 1;
        self.say_at = now + SAY_PAUSE;
        Some(match message {
            Waiting::Telemetry(telemetry) => {
                Waiting::Telemetry(Box::new(Telemetry { spool: self.state(), ..*telemetry }))
            }
            drift @ Waiting::Drift(_) => drift,
        })
    }

    /// The broker has a message.
    pub fn delivered(&mut self, now: Millis, run: u64, seq: u64) {
        let mut said = self.spooled.messages.range(..self.spooled.said);
        let Some(at) = said.position(|w| w.run() == run && w.seq() == seq) else { return };
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

    /// Merges, wider and wider, and then drops the oldest of what matters least, until the rest fits.
    fn make_room(&mut self) {
        while self.bytes + FRAME_BYTES > self.limit {
            if WIDTHS_S.iter().any(|width| self.merge_oldest(*width, |_| true)) {
                continue;
            }
            let worth = self.spooled.messages.iter().map(Waiting::worth);
            let Some((at, _)) = worth.enumerate().min_by_key(|(_, worth)| *worth) else { return };
            self.drop_one(at);
        }
    }

    /// Merges the oldest two of a kind that may be one message of at most `width` seconds.
    fn merge_oldest(&mut self, width: u64, old: impl Fn(&Waiting) -> bool) -> bool {
        let messages = &self.spooled.messages;
        let next = |at: usize| {
            // What was made in one run stands together.
            let same_run = messages.range(at + 1..).take_while(|newer| newer.run() == messages[at].run());
            let later = same_run.enumerate().find_map(|(n, newer)| messages[at].is_like(newer).then_some(n))?;
            let newer = &messages[at + 1 + later];
            let fits = messages[at].together(newer).is_some_and(|span_s| span_s <= width) && old(newer);
            fits.then_some((at, at + later))
        };
        // Behind the older one each is one place further to the front.
        let Some((at, newer)) = (self.spooled.said..messages.len()).find_map(next) else { return false };
        let Some(older) = self.remove(at) else { return false };
        let newer = &mut self.spooled.messages[newer];
        self.bytes -= newer.weight();
        let absorbed = newer.absorb(&older);
        self.bytes += newer.weight();
        if absorbed {
            self.spooled.merged += 1;
        } else {
            self.count_lost(&older);
        }
        true
    }

    fn drop_one(&mut self, at: usize) {
        if let Some(dropped) = self.remove(at) {
            self.count_lost(&dropped);
        }
    }

    fn count_lost(&mut self, lost: &Waiting) {
        self.spooled.dropped = self.spooled.dropped.saturating_add(lost.measured());
    }

    fn remove(&mut self, at: usize) -> Option<Waiting> {
        let removed = self.spooled.messages.remove(at)?;
        self.bytes -= removed.weight();
        self.spooled.said -= usize::from(at < self.spooled.said);
        self.flying -= usize::from(at < self.flying);
        Some(removed)
    }
}
