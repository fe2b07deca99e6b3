//! A set of files to be filled with chunks: what is missing, what was asked for, and since when.
//!
//! Decides which chunks are asked for next and when one is overdue. It neither knows who sends them
//! nor whether the list of digests may be believed.

use crate::store::{Disk, DiskFile, Door, How};
use agent_core::Millis;
use protocol::{ChunkSpan, MAX_NEEDED_CHUNKS, spans};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use trust::Digest;

/// How long something may take to arrive before it is asked for; it doubles.
const FIRST_PATIENCE: Millis = 3_000;
/// The longest patience.
const LONGEST_PATIENCE: Millis = 60_000;

/// Waiting for something that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    due: Millis,
    patience: Millis,
}

impl Wait {
    /// Asked for at `now`.
    pub(crate) fn from(now: Millis) -> Self {
        Self { due: now + FIRST_PATIENCE, patience: FIRST_PATIENCE }
    }

    /// Whether it should have arrived by `now`; then the next wait is twice as long.
    pub(crate) fn is_over(&mut self, now: Millis) -> bool {
        let over = now >= self.due;
        if over {
            self.patience = (self.patience * 2).min(LONGEST_PATIENCE);
            self.due = now + self.patience;
        }
        over
    }
}

/// Where a chunk belongs.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: usize,
    span: ChunkSpan,
}

/// What became of a chunk that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was not asked for.
    Unasked,
    /// It is on disk, wherever it belongs.
    Stored,
    /// It has the digest that the list says and not the length: the list is wrong.
    Misfit,
}

/// Files on their way.
#[derive(Debug)]
pub(crate) struct Goal {
    disk: Door,
    files: Vec<PathBuf>,
    missing: BTreeMap<Digest, Vec<Place>>,
    queue: VecDeque<Digest>,
    asked: BTreeMap<Digest, Wait>,
    missing_bytes: u64,
}

impl Goal {
    /// The files (path and size) whose chunks have these digests, in order. What lies there already
    /// and is right is kept; empty files are made.
    ///
    /// # Errors
    /// What the system said.
    ///
    /// # Panics
    /// When there are not as many digests as chunks: the caller counted them.
    pub(crate) fn new(disk: Door, files: Vec<(PathBuf, u64)>, digests: &[Digest]) -> io::Result<Self> {
        let mut goal = Self {
            disk,
            files: Vec::new(),
            missing: BTreeMap::new(),
            queue: VecDeque::new(),
            asked: BTreeMap::new(),
            missing_bytes: 0,
        };
        let mut digests = digests.iter();
        for (file, (path, size)) in files.into_iter().enumerate() {
            let found = open(&*goal.disk, &path)?;
            for span in spans(size) {
                let digest = digests.next().expect("a digest for each chunk");
                if !holds(&*found, span, digest) {
                    goal.miss(*digest, Place { file, span });
                }
            }
            found.set_len(size.min(found.size()?))?;
            goal.files.push(path);
        }
        assert!(digests.next().is_none(), "a chunk for each digest");
        Ok(goal)
    }

    fn miss(&mut self, digest: Digest, place: Place) {
        let places = self.missing.entry(digest).or_default();
        if places.is_empty() {
            self.queue.push_back(digest);
        }
        places.push(place);
        self.missing_bytes += place.span.length;
    }

    /// Whether nothing is missing.
    pub(crate) fn is_reached(&self) -> bool {
        self.missing.is_empty()
    }

    /// Bytes that are missing.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.missing_bytes
    }

    /// What was asked for and has not arrived.
    pub(crate) fn asked(&self) -> Vec<Digest> {
        self.asked.keys().copied().collect()
    }

    /// Whether `chunk` was asked for and has not arrived.
    pub(crate) fn awaits(&self, chunk: Digest) -> bool {
        self.asked.contains_key(&chunk)
    }

    /// The chunks to ask for now, so that `window` are on their way.
    pub(crate) fn ask(&mut self, now: Millis, window: usize) -> Vec<Digest> {
        let room = window.saturating_sub(self.asked.len()).min(self.queue.len());
        let next: Vec<Digest> = self.queue.drain(..room).collect();
        self.asked.extend(next.iter().map(|digest| (*digest, Wait::from(now))));
        next
    }

    /// Everything on its way is asked for anew: the connection is another one.
    pub(crate) fn ask_again(&mut self, now: Millis) -> Vec<Digest> {
        self.asked.values_mut().for_each(|wait| *wait = Wait::from(now));
        self.asked()
    }

    /// Chunks that should have arrived, as many as one message can ask for.
    pub(crate) fn overdue(&mut self, now: Millis) -> Vec<Digest> {
        let late = self.asked.iter_mut().filter_map(|(digest, wait)| wait.is_over(now).then_some(*digest));
        late.take(MAX_NEEDED_CHUNKS).collect()
    }

    /// Writes a chunk whose bytes have this digest wherever it belongs.
    ///
    /// # Errors
    /// What the system said; the chunk is still missing.
    pub(crate) fn take(&mut self, chunk: Digest, bytes: &[u8]) -> io::Result<Taken> {
        if !self.asked.contains_key(&chunk) {
            return Ok(Taken::Unasked);
        }
        let taken = self.put(chunk, bytes)?;
        if taken == Taken::Stored {
            self.asked.remove(&chunk);
        }
        Ok(taken)
    }

    /// Takes what can be found elsewhere; gives how many bytes that were.
    ///
    /// # Errors
    /// What the system said of what was to be written; the rest is still missing.
    pub(crate) fn fill(&mut self, find: impl Fn(&Digest) -> Option<Vec<u8>>) -> io::Result<u64> {
        let before = self.missing_bytes;
        let missing: Vec<Digest> = self.missing.keys().copied().collect();
        for chunk in missing {
            if let Some(bytes) = find(&chunk) {
                self.put(chunk, &bytes)?;
            }
        }
        self.queue.retain(|chunk| self.missing.contains_key(chunk));
        Ok(before - self.missing_bytes)
    }

    fn put(&mut self, chunk: Digest, bytes: &[u8]) -> io::Result<Taken> {
        let Some(places) = self.missing.get(&chunk) else { return Ok(Taken::Unasked) };
        if places.iter().any(|p| p.span.length != bytes.len() as u64) {
            return Ok(Taken::Misfit);
        }
        for place in places {
            let file = self.disk.open(&self.files[place.file], How::Write)?;
            file.write_all_at(bytes, place.span.offset)?;
        }
        let places = self.missing.remove(&chunk).unwrap_or_default();
        self.missing_bytes -= places.iter().map(|place| place.span.length).sum::<u64>();
        Ok(Taken::Stored)
    }
}

/// The file, made with its folders when it is not there.
fn open(disk: &dyn Disk, path: &Path) -> io::Result<Box<dyn DiskFile>> {
    if let Some(folder) = path.parent() {
        disk.make_dirs(folder)?;
    }
    disk.open(path, How::Keep)
}

/// Whether the chunk is there. What the disk does not give is written anew.
fn holds(file: &dyn DiskFile, span: ChunkSpan, digest: &Digest) -> bool {
    let mut bytes = vec![0; usize::try_from(span.length).unwrap_or(0)];
    let whole = file.read_up_to(&mut bytes, span.offset).is_ok_and(|found| found as u64 == span.length);
    whole && Digest::of(&bytes) == *digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::host;
    use protocol::CHUNK_BYTES;

    #[test]
    fn patience_doubles_up_to_its_limit() {
        let mut wait = Wait::from(0);
        let mut asked = Vec::new();
        for now in (0..300_000).step_by(1_000) {
            if wait.is_over(now) {
                asked.push(now / 1_000);
            }
        }
        assert_eq!(asked, [3, 9, 21, 45, 93, 153, 213, 273]);
    }

    #[test]
    fn a_write_that_failed_leaves_the_chunk_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let chunk = Digest::of(b"1");
        let mut goal = Goal::new(host(), vec![(path.clone(), 1)], &[chunk]).unwrap();
        assert_eq!(goal.ask(0, 8), [chunk]);
        std::fs::remove_file(&path).unwrap();
        goal.take(chunk, b"1").unwrap_err();
        assert!(goal.awaits(chunk) && !goal.is_reached());
    }

    #[test]
    fn a_file_that_grew_is_cut_to_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, vec![7; CHUNK_BYTES as usize + 9]).unwrap();
        let chunk = Digest::of(&vec![7; CHUNK_BYTES as usize]);
        let goal = Goal::new(host(), vec![(path.clone(), CHUNK_BYTES)], &[chunk]).unwrap();
        assert!(goal.is_reached());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), CHUNK_BYTES);
    }
}
