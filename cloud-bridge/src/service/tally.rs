//! The tally: what land said and heard since it started, by kind and never by device.

use bridge_core::Measured;
use protocol::StreamName;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For so long it is told how long a message waited.
const LATELY: Duration = Duration::from_secs(120);

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A chunk of a bundle, the first time.
    Chunk,
    /// A chunk that a device asked for.
    ChunkAgain,
    /// The envelope or the offer of a bundle.
    BundleDocument,
    /// A document for everybody.
    Document,
    /// What a device should run.
    Assignment,
    /// The time.
    Beacon,
    /// What a device should do now.
    Command,
    /// Nothing: what is retained goes.
    Cleared,
}

impl What {
    /// Every kind, with its name.
    pub(crate) const ALL: [(Self, &str); 8] = [
        (Self::Chunk, "chunk"),
        (Self::ChunkAgain, "chunk_again"),
        (Self::BundleDocument, "bundle_document"),
        (Self::Document, "document"),
        (Self::Assignment, "assignment"),
        (Self::Beacon, "beacon"),
        (Self::Command, "command"),
        (Self::Cleared, "cleared"),
    ];
}

/// Messages and the bytes in them.
#[derive(Debug, Default)]
struct Sum {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// What devices did with a release, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Answers given.
    pub(crate) answers: u64,
    /// Requests without an answer.
    pub(crate) errors: u64,
    /// What the answers took together, in microseconds.
    pub(crate) took_us: u64,
}

/// How far what devices say is behind.
#[derive(Debug, Default)]
struct Lag {
    /// When the first of the messages came that are being taken.
    under_way: Option<Instant>,
    /// When the last ones were on the disk, and how long the first of them had waited.
    last: Option<(Instant, Duration)>,
    waiting: u64,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    said: [Sum; What::ALL.len()],
    taken: AtomicU64,
    lag: Mutex<Lag>,
    work: Mutex<BTreeMap<(StreamName, u64), Work>>,
}

impl Tally {
    /// Something of so many bytes was given to the wire.
    pub(crate) fn said(&self, what: What, bytes: usize) {
        let sum = &self.said[what as usize];
        sum.messages.fetch_add(1, Ordering::Relaxed);
        sum.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A message of a device was believed.
    pub(crate) fn took(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// A message is being taken that came then, with those before it.
    pub(crate) fn began(&self, came: Instant) {
        self.lag().under_way.get_or_insert(came);
    }

    /// All of them are on the disk; so many more wait.
    pub(crate) fn caught_up(&self, waiting: usize) {
        let mut lag = self.lag();
        if let Some(came) = lag.under_way.take() {
            lag.last = Some((Instant::now(), came.elapsed()));
        }
        lag.waiting = waiting as u64;
    }

    /// How long the latest message waited, or waits, until it was on the disk; and how many more wait. Nothing when none came
    /// lately.
    pub(crate) fn behind(&self) -> (Duration, u64) {
        let lag = self.lag();
        let lately = lag.last.filter(|(at, _)| at.elapsed() < LATELY).map(|(_, waited)| waited);
        let now = lag.under_way.map(|came| came.elapsed());
        (now.max(lately).unwrap_or_default(), lag.waiting)
    }

    fn lag(&self) -> MutexGuard<'_, Lag> {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Devices told what they did with releases that land knows: nobody can fill this with others.
    pub(crate) fn worked<'a>(&self, rows: impl Iterator<Item = &'a Measured>) {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        for Measured { stream, release, figures, .. } in rows {
            let sum = work.entry((stream.clone(), *release)).or_default();
            sum.answers = sum.answers.saturating_add(figures.answers);
            sum.errors = sum.errors.saturating_add(figures.errors);
            sum.took_us = sum.took_us.saturating_add(figures.took_us);
        }
    }

    /// What devices did, by stream and release.
    pub(crate) fn work(&self) -> BTreeMap<(StreamName, u64), Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Messages and bytes of each kind.
    pub(crate) fn all_said(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        What::ALL.iter().zip(&self.said).map(move |((_, name), sum)| (*name, read(&sum.messages), read(&sum.bytes)))
    }

    /// Messages of devices that were believed.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_counts_while_it_hangs() {
        let tally = Tally::default();
        assert_eq!(tally.behind(), (Duration::ZERO, 0));
        let came = Instant::now().checked_sub(Duration::from_secs(7)).unwrap();
        tally.began(came);
        assert!(tally.behind().0 >= Duration::from_secs(7));
        tally.caught_up(3);
        let (waited, waiting) = tally.behind();
        assert!(waited >= Duration::from_secs(7) && waiting == 3);
        tally.began(Instant::now());
        tally.caught_up(0);
        assert!(tally.behind().0 < Duration::from_secs(7));
    }

    #[test]
    fn each_kind_is_counted_under_its_own_name() {
        let tally = Tally::default();
        for (at, (what, _)) in What::ALL.into_iter().enumerate() {
            tally.said(what, at);
        }
        let said: Vec<_> = tally.all_said().collect();
        let expected: Vec<_> = What::ALL.iter().enumerate().map(|(at, (_, name))| (*name, 1, at as u64)).collect();
        assert_eq!(said, expected);
    }
}
