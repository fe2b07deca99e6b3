//! The tally: what land said and heard since it started, by kind and never by device.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    said: [Sum; What::ALL.len()],
    taken: AtomicU64,
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
