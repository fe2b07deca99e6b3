//! The worker: which release answers for which stream, and what becomes of a request.
//!
//! Decides between a release and its fallback, and counts. Which release serves is decided by the
//! core; how requests arrive, by the local API.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod calls;
mod counters;
mod inside;
mod loader;
mod process;
mod samples;
mod sandbox;
mod shadow;
mod tap;
mod truth;
mod watcher;
mod wire;

pub(crate) use counters::Counts;
pub(crate) use inside::run;
pub(crate) use loader::{Loader, Place, Task};
pub(crate) use process::{Launch, Misstart, Process, Program, Question};
pub(crate) use samples::Privacy;
pub(crate) use truth::Truth;

use agent_core::Millis;
use counters::Counters;
use drift::{Closed, Memory};
use engine::{Answer, Port};
use process::Silence;
use protocol::{Joined, Performance, Sample, Sandbox, StreamName};
use samples::Album;
use shadow::Shadow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;
use tokio::sync::Notify;
use trust::{Digest, Refusal};
use watcher::{Ended, Learned, Watcher};
use wire::Given;

/// How nice a thread is whose work can wait.
const PATIENT: i32 = 19;

/// The calling thread does what can wait: answers go first. (For Linux a thread is what has a priority.)
pub(crate) fn let_answers_pass() {
    // Where it is refused, answers wait a little longer.
    let _ = rustix::process::setpriority_process(None, PATIENT);
}

/// How many may ask one model at a time: one for each processor, up to four.
fn lanes() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(wire::MAX_LANES)
}

/// A release in memory.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The bundle.
    pub(crate) bundle: Digest,
    /// Its release number.
    pub(crate) release: u64,
    /// Processing and model, in a process of its own.
    process: Process,
    /// Microseconds that a row took when it was probed here; 0 when nobody knows.
    row_us: u64,
    counters: Counters,
    /// Absent where the bundle has no baseline.
    watcher: Option<Watcher>,
}

/// What answers for a stream.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// It is asked first.
    pub(crate) main: Arc<Loaded>,
    /// It answers what the first cannot.
    pub(crate) fallback: Option<Arc<Loaded>>,
    /// It is asked what they answered, and nobody hears it.
    shadow: Option<Arc<Shadow>>,
}

/// What serves for a stream, at a glance.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// The release.
    pub(crate) main: u64,
    /// The release that stands in for it.
    pub(crate) fallback: Option<u64>,
    /// Its process, while there is one.
    pub(crate) process: Option<u32>,
    /// How that is shut in.
    pub(crate) sandbox: Sandbox,
    /// Inputs that are kept for people, and their bytes.
    pub(crate) samples: (usize, usize),
}

/// An answer and the release that gave it.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Who answered.
    pub(crate) by: Arc<Loaded>,
    /// What.
    pub(crate) answer: Answer,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing serves under that name.
    #[error("no model `{0}` serves here")]
    UnknownModel(String),
    /// The release does not serve.
    #[error("release {release} of `{model}` does not serve here")]
    UnknownRelease {
        /// The stream.
        model: StreamName,
        /// What was asked for.
        release: String,
    },
    /// The request does not fit the model.
    #[error("{0}")]
    Request(String),
    /// The model could not answer.
    #[error("the model could not answer: {0}")]
    Model(String),
    /// The model's process fell, and another is on its way.
    #[error("the model is being started again; try again in a moment")]
    Away,
    /// Too many wait for the model.
    #[error("too many requests wait already; try again in a moment")]
    Busy,
    /// The agent itself.
    #[error("the agent failed on this request; please report it")]
    Broken,
}

/// What a release did since it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    /// The stream.
    pub(crate) stream: StreamName,
    /// The bundle.
    pub(crate) bundle: Digest,
    /// Its release number.
    pub(crate) release: u64,
    /// What it did.
    pub(crate) counts: Counts,
    /// Bytes of memory that its process holds now; 0 when nobody knows.
    pub(crate) resident: u64,
}

/// A window of drift that has ended.
#[derive(Debug)]
pub(crate) struct SeenWindow {
    /// The stream.
    pub(crate) stream: StreamName,
    /// The bundle.
    pub(crate) bundle: Digest,
    /// Its release number.
    pub(crate) release: u64,
    /// Seconds for which it was open.
    pub(crate) span_s: u64,
    /// What it saw, and what that means.
    pub(crate) closed: Closed,
    /// What became known of how right its answers were.
    pub(crate) performance: Option<Performance>,
}

/// The table of what serves.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    table: RwLock<BTreeMap<StreamName, Serving>>,
    drift: Mutex<Watch>,
    /// Releases that serve no more, until what they did last is told.
    retired: Mutex<Vec<(StreamName, Arc<Loaded>)>>,
    album: Album,
    stirred: Arc<Notify>,
}

/// Windows of releases that serve no more, and what was learned of all.
#[derive(Debug, Default)]
struct Watch {
    left: Vec<SeenWindow>,
    learned: Learned,
}

impl Loaded {
    fn new(bundle: Digest, release: u64, process: Process, row_us: u64, watcher: Option<Watcher>) -> Self {
        Self { bundle, release, process, row_us, counters: Counters::default(), watcher }
    }

    /// What the model takes.
    pub(crate) fn inputs(&self) -> &[Port] {
        &self.process.inputs
    }

    /// What it gives.
    pub(crate) fn outputs(&self) -> &[Port] {
        &self.process.outputs
    }

    /// Whether there is a process to ask.
    pub(crate) fn is_up(&self) -> bool {
        self.process.id().is_some()
    }

    /// Asks the model and counts. A request that does not fit is not the model's fault and not counted.
    async fn ask(&self, question: &Question) -> Result<Answer, Silence> {
        let began = Instant::now();
        let outcome = self.process.ask(question, self.row_us).await;
        match &outcome {
            Ok(_) => self.counters.answered(began.elapsed()),
            Err(Silence::Model(_) | Silence::Away) => self.counters.failed(),
            Err(Silence::Request(_) | Silence::Busy) => {}
        }
        let Given { answer, measured } = outcome?;
        self.watcher.iter().for_each(|watcher| watcher.add(&measured));
        Ok(answer)
    }

    /// Remembers an answer by the id of its request, until somebody says what was right.
    fn note(&self, id: &str, answer: &Answer) {
        self.watcher.iter().for_each(|watcher| watcher.note(id, answer));
    }

    /// Ends its window of drift, if it is over when windows are so long, or it answers no more.
    fn close(&self, stream: &StreamName, length: Millis, leaving: bool) -> Option<(SeenWindow, Memory)> {
        let Ended { span_s, closed, performance, memory } = self.watcher.as_ref()?.close(length, leaving)?;
        let (stream, bundle, release) = (stream.clone(), self.bundle, self.release);
        Some((SeenWindow { stream, bundle, release, span_s, closed, performance }, memory))
    }
}

impl From<Silence> for Failure {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::Request(why) => Failure::Request(why),
            Silence::Model(why) => Failure::Model(why),
            Silence::Away => Failure::Away,
            Silence::Busy => Failure::Busy,
        }
    }
}

impl Worker {
    /// One that keeps so much of inputs for people.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn keeping(privacy: Privacy) -> Result<Self, ring::error::Unspecified> {
        Ok(Self { album: Album::new(privacy)?, ..Self::default() })
    }

    /// At most so many of the inputs that are kept of a stream, in so many bytes; for land's request of this number.
    ///
    /// # Errors
    /// Why none are given.
    pub(crate) fn give(
        &self,
        stream: &StreamName,
        request: u64,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<Sample>, Refusal> {
        self.album.give(stream, request, count, bytes)
    }

    /// What serves for a stream, by its name as somebody wrote it.
    ///
    /// # Errors
    /// `UnknownModel`.
    pub(crate) fn find(&self, model: &str) -> Result<(StreamName, Serving), Failure> {
        let unknown = || Failure::UnknownModel(model.chars().take(80).collect());
        let name: StreamName = model.parse().map_err(|_| unknown())?;
        let serving = self.read().get(&name).cloned().ok_or_else(unknown)?;
        Ok((name, serving))
    }

    /// Answers a request. Without `release` the stream's release answers, and its fallback what that
    /// one cannot; with it, that release or nobody.
    ///
    /// # Errors
    /// `Failure`.
    pub(crate) async fn infer(
        self: &Arc<Self>,
        model: &str,
        release: Option<&str>,
        question: Question,
    ) -> Result<Answered, Failure> {
        let (name, serving) = self.find(model)?;
        // What stands in for it, or is asked by its number, is not what one looks at.
        let main = serving.main.release;
        let (first, second, shadow) = match release {
            None => (serving.main, serving.fallback, serving.shadow),
            Some(release) => (serving.of(&name, release)?, None, None),
        };
        let worker = self.clone();
        // On its own: whoever asked may go away, and what was begun must come to its end.
        let answered = tokio::spawn(async move {
            let outcome = answer(first, second, &question).await;
            if let Ok(answered) = outcome.as_ref()
                && answered.by.release == main
                && worker.album.keeps(&name)
                && worker.read().get(&name).is_some_and(|serving| serving.main.release == main)
            {
                worker.album.offer(&name, main, &question, &answered.answer);
            }
            if let (Some(shadow), Ok(answered)) = (shadow, &outcome) {
                shadow.follow(question, &answered.answer, worker.stirred.clone());
            }
            worker.stirred.notify_one();
            outcome
        });
        answered.await.unwrap_or(Err(Failure::Broken))
    }

    /// Puts releases in their places; whoever had one keeps answering what it was asked already.
    fn put(&self, stream: &StreamName, serving: Serving) {
        let before = self.write().insert(stream.clone(), serving.clone());
        self.retire(stream, before, Some(&serving));
    }

    fn remove(&self, stream: &StreamName) {
        let before = self.write().remove(stream);
        self.album.forget(stream);
        self.retire(stream, before, None);
    }

    fn retire(&self, stream: &StreamName, before: Option<Serving>, now: Option<&Serving>) {
        let stays = |old: &Arc<Loaded>| now.is_some_and(|now| now.loaded().any(|new| Arc::ptr_eq(new, old)));
        for old in before.iter().flat_map(Serving::loaded).filter(|old| !stays(old)) {
            if let Some((window, memory)) = old.close(stream, 0, true) {
                let mut watch = self.watch();
                watch.left.push(window);
                watch.learned.keep(stream, memory);
            }
            self.retired().push((stream.clone(), old.clone()));
        }
        self.stirred.notify_one();
    }

    /// Waits until a request was answered, or could not be.
    pub(crate) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// What each release did since the last call; those that did nothing are left out.
    pub(crate) fn observe(&self) -> Vec<Observation> {
        let observed = |stream: &StreamName, loaded: &Loaded| {
            let counts = loaded.counters.take();
            let (stream, bundle, release) = (stream.clone(), loaded.bundle, loaded.release);
            let resident = || loaded.process.resident();
            (!counts.is_zero()).then(|| Observation { stream, bundle, release, counts, resident: resident() })
        };
        let mut retired = self.retired();
        // Who has nobody left to answer has counted all that it ever will.
        let last: Vec<bool> = retired.iter().map(|(_, loaded)| Arc::strong_count(loaded) == 1).collect();
        let mut observations: Vec<Observation> = retired.iter().filter_map(|(s, l)| observed(s, l)).collect();
        let mut last = last.into_iter();
        retired.retain(|_| last.next() == Some(false));
        for (stream, serving) in self.read().iter() {
            observations.extend(serving.loaded().filter_map(|loaded| observed(stream, loaded)));
        }
        observations
    }

    /// Holds answers of a stream against what was right.
    ///
    /// # Errors
    /// `UnknownModel`.
    pub(crate) fn judge(&self, model: &str, truths: &[Truth]) -> Result<Joined, Failure> {
        let (_, serving) = self.find(model)?;
        let known =
            |truth: &&Truth| serving.loaded().filter_map(|l| l.watcher.as_ref()).any(|watcher| watcher.judge(truth));
        let joined = truths.iter().filter(known).count() as u64;
        let unknown = truths.len() as u64 - joined;
        serving.main.watcher.iter().for_each(|watcher| watcher.miss(unknown));
        Ok(Joined { joined, unknown })
    }

    /// Begins with what was learned of the inputs before.
    pub(crate) fn remember(&self, learned: Vec<(StreamName, Memory)>) {
        self.watch().learned = Learned::of(learned);
    }

    fn recall(&self, stream: &StreamName, fingerprint: u64) -> Option<Memory> {
        self.watch().learned.find(stream, fingerprint).cloned()
    }

    /// What was learned of the inputs, to be remembered.
    pub(crate) fn learned(&self) -> Vec<(StreamName, Memory)> {
        self.watch().learned.all()
    }

    /// The windows of drift that have ended since the last call, when windows are so long; at the `end` of the agent all
    /// that have seen anything.
    pub(crate) fn close_windows(&self, length: Millis, end: bool) -> Vec<SeenWindow> {
        let table = self.read();
        let mut watch = self.watch();
        let mut windows = std::mem::take(&mut watch.left);
        for (stream, serving) in table.iter() {
            for (window, memory) in serving.loaded().filter_map(|loaded| loaded.close(stream, length, end)) {
                windows.push(window);
                watch.learned.keep(stream, memory);
            }
        }
        windows
    }

    /// What was compared in the shadows since the last call: bundles, rows, and those of them that were others.
    pub(crate) fn compared(&self) -> Vec<(Digest, u64, u64)> {
        let table = self.read();
        let compared = table.values().filter_map(|serving| serving.shadow.as_ref()).map(|shadow| {
            let (rows, others) = shadow.take();
            (shadow.loaded.bundle, rows, others)
        });
        compared.filter(|(_, rows, _)| *rows > 0).collect()
    }

    /// What serves for each stream.
    pub(crate) fn serving(&self) -> BTreeMap<StreamName, Seen> {
        let seen = |stream: &StreamName, Serving { main, fallback, .. }: &Serving| Seen {
            main: main.release,
            fallback: fallback.as_ref().map(|f| f.release),
            process: main.process.id(),
            sandbox: main.process.sandbox,
            samples: self.album.kept(stream),
        };
        self.read().iter().map(|(stream, serving)| (stream.clone(), seen(stream, serving))).collect()
    }

    // A lock is poisoned only by a panic between two of its lines, none of which leaves it half done.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<StreamName, Serving>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<StreamName, Serving>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.drift.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, Vec<(StreamName, Arc<Loaded>)>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first answers, or the second what the first cannot. A request that fits the second alone is the first one's error:
/// it came to do what the second does.
async fn answer(first: Arc<Loaded>, second: Option<Arc<Loaded>>, question: &Question) -> Result<Answered, Failure> {
    let silence = match first.ask(question).await {
        Ok(answer) => return Ok(Answered { by: first, answer }),
        Err(silence) => silence,
    };
    tracing::debug!(release = first.release, ?silence, fallback = second.is_some(), "no answer");
    let Some(second) = second.filter(|_| silence != Silence::Busy) else { return Err(silence.into()) };
    match (second.ask(question).await, silence) {
        (Ok(answer), silence) => {
            if let Silence::Request(_) = silence {
                first.counters.failed();
            }
            Ok(Answered { by: second, answer })
        }
        (Err(_), silence @ Silence::Request(_)) => Err(silence.into()),
        (Err(silence), _) => Err(silence.into()),
    }
}

impl Answered {
    /// Remembers it by the id of its request, until somebody says what was right.
    pub(crate) fn note(&self, id: &str) {
        self.by.note(id, &self.answer);
    }
}

impl Serving {
    /// The releases in memory, also what nobody hears.
    fn in_memory(&self) -> impl Iterator<Item = &Arc<Loaded>> {
        self.loaded().chain(self.shadow.iter().map(|shadow| &shadow.loaded))
    }

    /// The releases that answer.
    pub(crate) fn loaded(&self) -> impl Iterator<Item = &Arc<Loaded>> {
        std::iter::once(&self.main).chain(&self.fallback)
    }

    /// Whether one of them can be asked.
    pub(crate) fn is_up(&self) -> bool {
        self.loaded().any(|loaded| loaded.is_up())
    }

    /// One of them by its number.
    ///
    /// # Errors
    /// `UnknownRelease`.
    pub(crate) fn of(&self, model: &StreamName, release: &str) -> Result<Arc<Loaded>, Failure> {
        let found = self.loaded().find(|loaded| loaded.release.to_string() == release);
        let release = || release.chars().take(40).collect();
        found.cloned().ok_or_else(|| Failure::UnknownRelease { model: model.clone(), release: release() })
    }
}

#[cfg(test)]
mod tests;
