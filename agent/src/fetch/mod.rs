//! The pull: bundles arrive chunk by chunk through a window of subscriptions.
//!
//! A state machine: arrivals and ticks go in, actions come out. It knows no network and no clock, and
//! it is slow only where it reads what already lies on the disk. What is wanted is decided by the
//! core; whether it is believed in the end, by `store::bundle`.

mod goal;
mod index;
mod pull;
mod stock;

use crate::store::Bundles;
use agent_core::{Described, Flow, Late, Millis, Wait};
use goal::{Goal, Taken};
use protocol::CHUNK_BYTES;
pub(crate) use pull::{Gap, Part};
use pull::{Pull, Setback};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trust::{Code, Digest, Refusal, Trust};

/// Progress is told this often at most.
const PROGRESS_PAUSE: Millis = 1_000;
/// Not one chunk in so long is slow.
const SLOW: Millis = 60_000;
/// Bytes of no use that may come beyond the size of what is under way: late answers are no attack.
const SLACK: u64 = 64 * CHUNK_BYTES;

/// What the pull wants done, or has to say.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Subscribe to a bundle's documents.
    AskDocuments(Digest),
    /// Unsubscribe from them.
    LeaveDocuments(Digest),
    /// Subscribe to these chunks.
    AskChunks(Vec<Digest>),
    /// Unsubscribe from a chunk.
    LeaveChunk(Digest),
    /// Tell land what did not arrive.
    Need {
        /// The bundle.
        bundle: Digest,
        /// Its envelope and its offer.
        documents: bool,
        /// Its chunks.
        chunks: Vec<Digest>,
    },
    /// How far it is, once a second at most.
    Progressed {
        /// The bundle.
        bundle: Digest,
        /// Bytes on disk.
        arrived: u64,
        /// Bytes in all.
        total: u64,
    },
    /// What it asks for is on disk; the rest is asked for when it is admitted.
    Described(Digest, Box<Described>),
    /// Every byte is on disk.
    Stored(Digest),
    /// Something that arrived is not what it should be, or nothing arrives; the right one may still come.
    Doubted(Refusal),
    /// The broker gives nothing of it.
    Slow(Digest),
    /// It cannot be had, or is not what was signed.
    Refused(Digest, Refusal),
    /// The disk would not have it.
    Stumbled(Digest, String),
}

/// All bundles on their way.
#[derive(Debug)]
pub(crate) struct Fetcher {
    trust: Arc<Trust>,
    bundles: Bundles,
    flow: Flow,
    online: bool,
    pulls: BTreeMap<Digest, Underway>,
    /// Chunks that were no use: unasked, or not of their topic's digest.
    foreign: u64,
    /// What came and was of use, while anything is on its way: asked for twice it comes twice, also late.
    came: BTreeSet<Digest>,
    /// Bytes that nobody asked for meanwhile, and how many may come before it is told.
    useless: u64,
    useless_told: u64,
    actions: Vec<Action>,
}

/// Whether the bulk of a bundle may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// What describes it is not here.
    Unknown,
    /// The core was told, and has not answered.
    Asked,
    /// It may.
    Given,
}

#[derive(Debug)]
struct Underway {
    pull: Pull,
    total_size: u64,
    /// The broker is asked for it.
    asks: bool,
    admission: Admission,
    subscribed: bool,
    told: Option<Millis>,
    /// While there is a connection: when something of use came last, or it was told that nothing does.
    pace: Option<Millis>,
}

impl Underway {
    /// Nothing came for too long.
    fn is_slow(&mut self, now: Millis) -> bool {
        if self.admission == Admission::Asked {
            return false;
        }
        let over = now >= *self.pace.get_or_insert(now) + SLOW;
        if over {
            self.pace = Some(now);
        }
        over
    }
}

impl Fetcher {
    /// Nothing on its way; as many chunks at a time as `flow` says, of all bundles together.
    pub(crate) fn new(trust: Arc<Trust>, bundles: Bundles, flow: Flow) -> Self {
        let (pulls, actions) = (BTreeMap::new(), Vec::new());
        Self {
            trust,
            bundles,
            flow,
            online: false,
            pulls,
            foreign: 0,
            came: BTreeSet::new(),
            useless: 0,
            useless_told: 0,
            actions,
        }
    }

    /// Envelopes are checked against this from now on.
    pub(crate) fn believe(&mut self, trust: Arc<Trust>) {
        self.trust = trust;
    }

    /// What is to be done since the last call.
    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether anything is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.pulls.is_empty()
    }

    /// Begins to get a bundle; asked twice it begins anew with what is there. The broker is asked for it at once if `asks`.
    pub(crate) fn start(&mut self, now: Millis, bundle: Digest, total_size: u64, asks: bool) {
        self.stop(bundle);
        if self.pulls.is_empty() {
            self.flow.idle();
        }
        match self.bundles.has(bundle) {
            Ok(true) => return self.actions.push(Action::Stored(bundle)),
            Ok(false) => {}
            Err(error) => return self.end(bundle, error.into()),
        }
        let pull = self.check_room(bundle, total_size).and_then(|()| self.pull(now, bundle, total_size));
        match pull {
            Ok(pull) => {
                let admission = Admission::Unknown;
                let underway =
                    Underway { pull, total_size, asks, admission, subscribed: false, told: None, pace: None };
                self.pulls.insert(bundle, underway);
                self.go_on(now, bundle);
            }
            Err(setback) => self.end(bundle, setback),
        }
    }

    fn pull(&self, now: Millis, bundle: Digest, total_size: u64) -> Result<Pull, Setback> {
        let wait = Wait::from(now, &self.flow, bundle);
        Pull::start(self.bundles.clone(), &self.trust, bundle, total_size, wait)
    }

    fn check_room(&self, bundle: Digest, total_size: u64) -> Result<(), Setback> {
        let free = self.bundles.free()?;
        let needed = total_size.saturating_sub(self.bundles.arrived(bundle));
        if needed <= free {
            return Ok(());
        }
        let detail = format!("{needed} bytes are to come, and the disk has room for {free}");
        Err(Refusal::new(Code::Disk, detail).into())
    }

    /// The broker is asked for a bundle from now on.
    pub(crate) fn ask_broker(&mut self, now: Millis, bundle: Digest) {
        if let Some(underway) = self.pulls.get_mut(&bundle) {
            underway.asks = true;
            underway.pull.reconnected(now, &self.flow);
            self.go_on(now, bundle);
        }
    }

    /// The rest of a bundle may come.
    pub(crate) fn admit(&mut self, now: Millis, bundle: Digest) {
        if let Some(underway) = self.pulls.get_mut(&bundle) {
            underway.admission = Admission::Given;
            underway.pace = Some(now);
            self.go_on(now, bundle);
        }
    }

    /// Whether nothing of a bundle may come over the link now.
    pub(crate) fn awaits_admission(&self, bundle: Digest) -> bool {
        self.pulls.get(&bundle).is_some_and(|underway| underway.admission == Admission::Asked)
    }

    /// What a bundle lacks next; `None` when it is not wanted, or lacks nothing.
    pub(crate) fn gap(&self, bundle: Digest) -> Option<Gap> {
        self.pulls.get(&bundle)?.pull.gap()
    }

    /// A source gives a part of a bundle.
    pub(crate) fn given(&mut self, now: Millis, bundle: Digest, part: Part, bytes: &[u8]) {
        if part == Part::Envelope {
            return self.envelope(now, bundle, bytes);
        }
        let Some(underway) = self.pulls.get_mut(&bundle) else { return };
        let asked = underway.pull.goal().map(|goal| goal.window().asked()).unwrap_or_default();
        let taken = match part {
            Part::Index => underway.pull.take_index(bytes),
            Part::Envelope | Part::Chunk => underway.pull.take_given(bytes),
        };
        underway.pace = Some(now);
        self.settle(now, bundle, taken);
        if self.online {
            let left: Vec<Digest> = asked.into_iter().filter(|chunk| !self.awaited(*chunk)).collect();
            self.actions.extend(left.into_iter().map(Action::LeaveChunk));
        }
    }

    /// Stops getting a bundle; what is there stays.
    pub(crate) fn stop(&mut self, bundle: Digest) {
        let Some(stopped) = self.pulls.remove(&bundle) else { return };
        if !self.online {
            return;
        }
        if stopped.subscribed {
            self.actions.push(Action::LeaveDocuments(bundle));
        }
        for chunk in stopped.pull.goal().map(|goal| goal.window().asked()).unwrap_or_default() {
            if !self.awaited(chunk) {
                self.actions.push(Action::LeaveChunk(chunk));
            }
        }
    }

    /// Stops getting anything.
    pub(crate) fn stop_all(&mut self) {
        self.all().into_iter().for_each(|bundle| self.stop(bundle));
    }

    /// The broker took a new connection: it knows nothing of the old one's subscriptions. `retains` when it says that it keeps
    /// what is published.
    pub(crate) fn connected(&mut self, now: Millis, retains: bool) {
        self.online = true;
        self.flow.reconnected(retains);
        for bundle in self.all() {
            let Some(underway) = self.pulls.get_mut(&bundle) else { continue };
            underway.subscribed = false;
            underway.pull.reconnected(now, &self.flow);
            if let Some(goal) = underway.pull.goal_mut() {
                goal.window_mut().reconnected();
            }
            self.go_on(now, bundle);
        }
    }

    fn all(&self) -> Vec<Digest> {
        self.pulls.keys().copied().collect()
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        self.online = false;
        self.pulls.values_mut().for_each(|underway| underway.pace = None);
    }

    /// A bundle's envelope arrived.
    pub(crate) fn envelope(&mut self, now: Millis, bundle: Digest, bytes: &[u8]) {
        let Some(underway) = self.pulls.get_mut(&bundle) else { return };
        match underway.pull.take_envelope(&self.trust, bytes) {
            Ok(Some(doubt)) => self.actions.push(Action::Doubted(doubt)),
            taken => self.settle(now, bundle, taken.map(drop)),
        }
    }

    /// A bundle's offer arrived.
    pub(crate) fn offer(&mut self, now: Millis, bundle: Digest, bytes: &[u8]) {
        let Some(underway) = self.pulls.get_mut(&bundle) else { return };
        let taken = underway.pull.take_offer(bytes);
        self.settle(now, bundle, taken);
    }

    /// A chunk arrived under the topic of `chunk`; `retained` when the broker had kept it.
    pub(crate) fn chunk(&mut self, now: Millis, chunk: Digest, bytes: &[u8], retained: bool) {
        let wait = self.pulls.values().find_map(|underway| awaits(underway, chunk));
        let Some(wait) = wait.filter(|_| Digest::of(bytes) == chunk) else {
            return self.pass_over(chunk, bytes.len() as u64);
        };
        self.flow.arrived(now, wait, retained);
        let waiting = self.pulls.iter().filter(|(_, underway)| awaits(underway, chunk).is_some());
        let waiting: Vec<Digest> = waiting.map(|(bundle, _)| *bundle).collect();
        for bundle in waiting {
            let Some(underway) = self.pulls.get_mut(&bundle) else { continue };
            let asked = underway.pull.goal().map(|goal| goal.window().asked()).unwrap_or_default();
            let taken = underway.pull.take_chunk(chunk, bytes);
            match taken {
                Ok(Taken::Misfit) => {
                    self.actions.extend(asked.into_iter().filter(|other| *other != chunk).map(Action::LeaveChunk));
                }
                Ok(Taken::Stored) => {
                    underway.pace = Some(now);
                    self.came.insert(chunk);
                }
                Ok(Taken::Unasked) | Err(_) => {}
            }
            self.settle(now, bundle, taken.map(drop));
        }
        if self.online && !self.awaited(chunk) {
            self.actions.push(Action::LeaveChunk(chunk));
        }
    }

    /// A chunk is of no use. The disk never sees it; a broker that does not end is told of.
    fn pass_over(&mut self, chunk: Digest, length: u64) {
        self.foreign += 1;
        tracing::debug!(chunk = %chunk.short(), foreign = self.foreign, "a chunk is of no use");
        if self.pulls.is_empty() {
            self.came.clear();
            (self.useless, self.useless_told) = (0, 0);
            return;
        }
        if self.came.contains(&chunk) {
            return;
        }
        self.useless += length;
        let wanted: u64 = self.pulls.values().map(|underway| underway.total_size).sum();
        if self.useless > wanted.max(self.useless_told) + SLACK {
            self.useless_told = self.useless * 2;
            let detail = format!("{} bytes came that nobody asked for; {wanted} are wanted", self.useless);
            self.actions.push(Action::Doubted(Refusal::new(Code::Limit, detail)));
        }
    }

    /// Time has passed: what is late is asked for.
    pub(crate) fn tick(&mut self, now: Millis) {
        if !self.online {
            let slow = self.pulls.iter_mut().filter_map(|(b, underway)| underway.is_slow(now).then_some(*b));
            self.actions.extend(slow.map(Action::Slow));
            return;
        }
        for (bundle, underway) in self.pulls.iter_mut().filter(|(_, underway)| underway.asks) {
            let documents = underway.pull.documents_late(now, &self.flow);
            let late = underway.pull.goal_mut().map(|goal| goal.window_mut().late(now, &self.flow));
            let Late { again, needed } = late.unwrap_or_default();
            if documents.is_some() {
                self.actions.push(Action::AskDocuments(*bundle));
            }
            if !again.is_empty() {
                self.actions.push(Action::AskChunks(again));
            }
            if underway.is_slow(now) {
                let (arrived, total) = (underway.pull.arrived(), underway.total_size);
                let detail = format!("nothing came in {} s: {arrived} of {total} bytes are here", SLOW / 1_000);
                self.actions.push(Action::Doubted(Refusal::new(Code::Slow, detail)));
                self.actions.push(Action::Slow(*bundle));
            }
            let documents = documents == Some(true);
            if documents || !needed.is_empty() {
                self.actions.push(Action::Need { bundle: *bundle, documents, chunks: needed });
            }
        }
        self.all().into_iter().for_each(|bundle| self.go_on(now, bundle));
    }

    /// The broker did not take these subscriptions: so many are too many for it. They are asked for when others are here.
    pub(crate) fn turned_down(&mut self, chunks: &[Digest]) {
        let windows = self.pulls.values_mut().filter_map(|underway| underway.pull.goal_mut()).map(Goal::window_mut);
        let held = windows.map(|window| {
            chunks.iter().for_each(|chunk| window.turned_down(*chunk));
            window.asked().len()
        });
        self.flow.turned_down(held.sum());
    }

    fn settle(&mut self, now: Millis, bundle: Digest, taken: Result<(), Setback>) {
        match taken {
            Ok(()) => self.go_on(now, bundle),
            Err(setback) => {
                self.stop(bundle);
                self.end(bundle, setback);
            }
        }
    }

    fn end(&mut self, bundle: Digest, setback: Setback) {
        self.actions.push(match setback {
            Setback::Refused(refusal) => Action::Refused(bundle, refusal),
            Setback::Io(error) => Action::Stumbled(bundle, error.to_string()),
        });
    }

    /// Asks for what a bundle lacks next, or ends it.
    fn go_on(&mut self, now: Millis, bundle: Digest) {
        let share = (self.flow.size() / self.pulls.len().max(1)).max(1);
        let Some(underway) = self.pulls.get_mut(&bundle) else { return };
        if underway.pull.is_complete() {
            self.stop(bundle);
            return self.actions.push(Action::Stored(bundle));
        }
        if underway.told.is_none_or(|told| now >= told + PROGRESS_PAUSE) {
            underway.told = Some(now);
            let (arrived, total) = (underway.pull.arrived(), underway.total_size);
            self.actions.push(Action::Progressed { bundle, arrived, total });
        }
        if underway.admission == Admission::Unknown && underway.pull.is_described() {
            underway.admission = Admission::Asked;
            let described = underway.pull.described();
            match described {
                Ok(described) => self.actions.push(Action::Described(bundle, Box::new(described))),
                Err(error) => return self.settle(now, bundle, Err(error.into())),
            }
        }
        let Some(underway) = self.pulls.get_mut(&bundle).filter(|underway| self.online && underway.asks) else {
            return;
        };
        let wanted = underway.pull.wants_documents();
        if wanted != underway.subscribed {
            underway.subscribed = wanted;
            self.actions.push(if wanted { Action::AskDocuments(bundle) } else { Action::LeaveDocuments(bundle) });
        }
        let open = underway.admission != Admission::Asked;
        let next =
            underway.pull.goal_mut().filter(|_| open).map(|goal| goal.window_mut().ask(now, &mut self.flow, share));
        let next = next.unwrap_or_default();
        if !next.is_empty() {
            self.actions.push(Action::AskChunks(next));
        }
    }

    fn awaited(&self, chunk: Digest) -> bool {
        self.pulls.values().any(|underway| awaits(underway, chunk).is_some())
    }
}

fn awaits(underway: &Underway, chunk: Digest) -> Option<Wait> {
    underway.pull.goal().and_then(|goal| goal.window().awaits(chunk))
}

#[cfg(test)]
mod tests;
