//! The watch on what a release sees: its rows are counted against its baseline, window after window.
//!
//! Decides nothing of drift, and nothing of when a window ends. What was learned of how the inputs vary is kept for the
//! next release with the same baseline, and for the next start.

use super::truth::{Answers, Truth};
use agent_core::{Millis, OpenWindow};
use drift::{Baseline, Closed, Memory, Monitor};
use engine::Answer;
use protocol::{Performance, StreamName};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The most bytes of a baseline.
const MAX_BASELINE_BYTES: u64 = 8 << 20;
/// Baselines of a stream of which is remembered what was learned.
const MOST_REMEMBERED: usize = 4;

/// Reads a baseline of a bundle, whose bytes are believed.
///
/// # Errors
/// In words.
pub(super) fn read_baseline(path: &Path) -> Result<Baseline, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BASELINE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|why| why.to_string())?;
    if bytes.len() as u64 > MAX_BASELINE_BYTES {
        return Err(format!("it has more than {MAX_BASELINE_BYTES} bytes"));
    }
    let baseline: Baseline = serde_json::from_slice(&bytes).map_err(|why| why.to_string())?;
    baseline.validate().map_err(|why| why.to_string())?;
    Ok(baseline)
}

/// One release's watch.
#[derive(Debug)]
pub(super) struct Watcher(Mutex<Watched>);

#[derive(Debug)]
struct Watched {
    monitor: Monitor,
    since: Instant,
    answers: Answers,
}

/// What became of a window.
#[derive(Debug)]
pub(super) struct Ended {
    /// Seconds for which it was open.
    pub(super) span_s: u64,
    /// What it saw, and what that means.
    pub(super) closed: Closed,
    /// What became known of how right the answers were.
    pub(super) performance: Option<Performance>,
    /// What was learned.
    pub(super) memory: Memory,
}

impl Watcher {
    /// Goes on with what was learned of this baseline before, if anything was.
    pub(super) fn new(baseline: Baseline, memory: Option<Memory>) -> Self {
        let mut monitor = Monitor::new(baseline);
        if let Some(why) = memory.and_then(|memory| monitor.remember(memory).err()) {
            tracing::warn!("what was learned of the inputs is forgotten: {why}");
        }
        Self(Mutex::new(Watched { monitor, since: Instant::now(), answers: Answers::default() }))
    }

    /// Takes what was measured of one request, row after row.
    pub(super) fn add(&self, measured: &[f32]) {
        let mut watched = self.watched();
        let width = watched.monitor.baseline().features.len();
        for row in measured.chunks_exact(width) {
            if let Err(why) = watched.monitor.update(row) {
                return tracing::debug!("a row is not counted: {why}");
            }
        }
    }

    /// Remembers an answer until somebody says what was right.
    pub(super) fn note(&self, id: &str, answer: &Answer) {
        self.watched().answers.note(id, answer);
    }

    /// Holds an answer against what was right; whether it is remembered.
    pub(super) fn judge(&self, truth: &Truth) -> bool {
        self.watched().answers.judge(truth)
    }

    /// Counts truths that found no answer.
    pub(super) fn miss(&self, unknown: u64) {
        self.watched().answers.miss(unknown);
    }

    /// Ends the window, if it is over when windows are so long, or anything was seen and the release is `leaving`.
    pub(super) fn close(&self, length: Millis, leaving: bool) -> Option<Ended> {
        let mut watched = self.watched();
        let open = watched.since.elapsed();
        let window = OpenWindow { since: 0, rows: watched.monitor.rows().into() };
        let over = window.is_over(Millis::try_from(open.as_millis()).unwrap_or(Millis::MAX), length);
        let ends = over || (leaving && window.rows > 0);
        if !ends {
            return None;
        }
        watched.since = Instant::now();
        let closed = watched.monitor.close();
        let (performance, memory) = (watched.answers.take(), watched.monitor.memory());
        Some(Ended { span_s: open.as_secs(), closed, performance, memory })
    }

    // Poisoned only by a panic between two lines that leave nothing half done.
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was learned, by stream; of each stream's baselines the latest.
#[derive(Debug, Default)]
pub(super) struct Learned(BTreeMap<StreamName, Vec<Memory>>);

impl Learned {
    pub(super) fn of(memories: Vec<(StreamName, Memory)>) -> Self {
        let mut learned = Self::default();
        memories.into_iter().for_each(|(stream, memory)| learned.keep(&stream, memory));
        learned
    }

    pub(super) fn find(&self, stream: &StreamName, fingerprint: u64) -> Option<&Memory> {
        self.0.get(stream)?.iter().find(|memory| memory.fingerprint() == fingerprint)
    }

    pub(super) fn keep(&mut self, stream: &StreamName, memory: Memory) {
        let known = self.0.entry(stream.clone()).or_default();
        known.retain(|other| other.fingerprint() != memory.fingerprint());
        known.push(memory);
        let old = known.len().saturating_sub(MOST_REMEMBERED);
        known.drain(..old);
    }

    pub(super) fn all(&self) -> Vec<(StreamName, Memory)> {
        let of_stream = |(stream, known): (&StreamName, &Vec<Memory>)| {
            known.iter().map(|memory| (stream.clone(), memory.clone())).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_stream).collect()
    }
}
