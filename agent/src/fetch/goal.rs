//! A set of files to be filled with chunks: where each belongs, and what is missing.
//!
//! Decides what an arrival is worth to the files. When a chunk is asked for is decided by its [`Window`]; whether the
//! list of digests may be believed, by `pull`.

use crate::store::{Disk, DiskFile, Door, How};
use agent_core::Window;
use protocol::{ChunkSpan, spans};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use trust::Digest;

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
    window: Window,
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
        let mut goal =
            Self { disk, files: Vec::new(), missing: BTreeMap::new(), window: Window::default(), missing_bytes: 0 };
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
            self.window.want(digest);
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

    /// What is asked for, and when.
    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// The same, to be asked.
    pub(crate) fn window_mut(&mut self) -> &mut Window {
        &mut self.window
    }

    /// Writes a chunk whose bytes have this digest wherever it belongs.
    ///
    /// # Errors
    /// What the system said; the chunk is still missing.
    pub(crate) fn take(&mut self, chunk: Digest, bytes: &[u8]) -> io::Result<Taken> {
        if self.window.awaits(chunk).is_none() {
            return Ok(Taken::Unasked);
        }
        let taken = self.put(chunk, bytes)?;
        if taken == Taken::Stored {
            self.window.arrived(chunk);
        }
        Ok(taken)
    }

    /// Writes a chunk wherever it belongs, whether it was asked for or not.
    ///
    /// # Errors
    /// What the system said; the chunk is still missing.
    pub(crate) fn give(&mut self, bytes: &[u8]) -> io::Result<Taken> {
        let chunk = Digest::of(bytes);
        let taken = self.put(chunk, bytes)?;
        if taken == Taken::Stored {
            self.window.retain(|wanted| *wanted != chunk);
        }
        Ok(taken)
    }

    /// The first bytes that are missing, at most `most` of them: their file, and where they lie in it.
    pub(crate) fn gap(&self, most: u64) -> Option<(&Path, ChunkSpan)> {
        let mut places: Vec<Place> = self.missing.values().flatten().copied().collect();
        places.sort_by_key(|place| (place.file, place.span.offset));
        let first = *places.first()?;
        let joined = places.iter().skip(1).try_fold(first.span, |gap, place| {
            let next = place.file == first.file && place.span.offset == gap.offset + gap.length;
            let length = gap.length + place.span.length;
            if next && length <= most { Ok(ChunkSpan { offset: gap.offset, length }) } else { Err(gap) }
        });
        Some((&self.files[first.file], joined.unwrap_or_else(|gap| gap)))
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
        self.window.retain(|chunk| self.missing.contains_key(chunk));
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
    use agent_core::Flow;
    use protocol::CHUNK_BYTES;

    #[test]
    fn a_write_that_failed_leaves_the_chunk_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let chunk = Digest::of(b"1");
        let mut goal = Goal::new(host(), vec![(path.clone(), 1)], &[chunk]).unwrap();
        assert_eq!(goal.window_mut().ask(0, &mut Flow::new(8, None, "a"), 8), [chunk]);
        std::fs::remove_file(&path).unwrap();
        goal.take(chunk, b"1").unwrap_err();
        assert!(goal.window().awaits(chunk).is_some() && !goal.is_reached());
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
