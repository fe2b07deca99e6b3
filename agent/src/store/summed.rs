//! What may be lost but not mistaken, on disk: a file that is replaced whole and has the sum of what is in it.
//!
//! Decides how it survives a power cut, and that a file that cannot be read is set aside and keeps nobody from
//! starting. What is in it, and when it is written, is decided elsewhere.
//!
//! The file is one line `petrel-<name> <format> <sum>`, where the sum is the SHA-256 of the rest, then CBOR.

use super::disk::{Door, How};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use trust::Digest;

/// A file `<state>/<name>`. What cannot be read of it lies in `<state>/<name>.damaged`: somebody may want to look at it.
#[derive(Debug)]
pub(crate) struct Summed {
    disk: Door,
    path: PathBuf,
    head: String,
    most: u64,
}

/// What was found in it.
#[derive(Debug, PartialEq)]
pub(crate) enum Found<T> {
    /// What was written last.
    Whole(T),
    /// There was no file.
    Nothing,
    /// It cannot be read, and was set aside.
    Damaged,
}

impl Summed {
    /// The file of that name, in that format, with at most so many bytes.
    pub(crate) fn new(disk: Door, state: &Path, name: &str, format: u32, most: u64) -> Self {
        Self { disk, path: state.join(name), head: format!("petrel-{name} {format} "), most }
    }

    /// What is in it.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Found<T> {
        match self.whole() {
            Ok(whole) => Found::Whole(whole),
            Err(error) if error.kind() == ErrorKind::NotFound => Found::Nothing,
            Err(error) => {
                let aside = self.path.with_added_extension("damaged");
                tracing::warn!("what was in {} is lost: {error}", self.path.display());
                if let Err(error) = self.disk.rename(&self.path, &aside) {
                    tracing::warn!("it cannot be moved to {}: {error}", aside.display());
                }
                Found::Damaged
            }
        }
    }

    /// Replaces it.
    ///
    /// # Errors
    /// What the system said; the file before this one is still there.
    pub(crate) fn save<T: Serialize>(&self, what: &T) -> io::Result<()> {
        let content = protocol::encode_cbor(what);
        let mut bytes = format!("{}{}\n", self.head, Digest::of(&content)).into_bytes();
        bytes.extend(content);
        self.disk.replace(&self.path, &bytes, How::Fresh)
    }

    fn whole<T: DeserializeOwned>(&self) -> io::Result<T> {
        let bytes = self.disk.read(&self.path, self.most)?;
        let wrong = |why: &str| io::Error::new(ErrorKind::InvalidData, why.to_owned());
        if bytes.len() as u64 > self.most {
            return Err(wrong("it is too large"));
        }
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| wrong("it is cut short"))?;
        let (head, content) = (&bytes[..end], &bytes[end + 1..]);
        if head != format!("{}{}", self.head, Digest::of(content)).as_bytes() {
            return Err(wrong("it is cut short or changed, or another version of the agent wrote it"));
        }
        protocol::decode_cbor(content).map_err(|error| wrong(&error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::host;
    use super::*;
    use crate::config::MAX_SPOOL_BYTES;
    use agent_core::{Spool, Spooled, Waiting};
    use protocol::{SpoolState, Telemetry};

    const LIMIT: u64 = 64 << 10;

    fn file(state: &Path) -> Summed {
        Summed::new(host(), state, "spool", 2, MAX_SPOOL_BYTES)
    }

    fn measured(run: u64, seq: u64) -> Waiting {
        Waiting::Telemetry(Box::new(Telemetry {
            device: "d".parse().unwrap(),
            boot: run,
            run,
            seq,
            at: None,
            uptime_s: 60 * seq,
            span_s: 60,
            measured: 1,
            cpu_percent: 1.0,
            memory_used_mb: 1,
            memory_total_mb: 1,
            agent_memory_mb: 1,
            disk_free_mb: 1,
            temperature_c: None,
            streams: Vec::new(),
            arriving: Vec::new(),
            spool: SpoolState::default(),
        }))
    }

    /// Killed at every third measurement, after or before it was saved.
    #[test]
    fn what_was_saved_outlives_any_kill_and_fits() {
        let state = tempfile::tempdir().unwrap();
        let (mut last, mut saves) = (Spooled::default(), 0);
        assert_eq!(file(state.path()).read::<Spooled>(), Found::Nothing);
        for run in 1..40 {
            let file = file(state.path());
            let spooled = match file.read() {
                Found::Whole(spooled) => spooled,
                _ => Spooled::default(),
            };
            assert_eq!(spooled, last, "run {run}");
            let mut spool = Spool::new(LIMIT, spooled);
            for seq in 1..=30 + run % 3 {
                spool.put(60_000 * seq, measured(run, seq));
                if spool.is_save_due(60_000 * seq) {
                    file.save(spool.spooled()).unwrap();
                    spool.saved(60_000 * seq, true);
                    (last, saves) = (spool.spooled().clone(), saves + 1);
                }
                assert!(spool.state().bytes < LIMIT);
            }
            assert!(std::fs::metadata(state.path().join("spool")).unwrap().len() <= LIMIT);
        }
        let state = Spool::new(LIMIT, last).state();
        assert_eq!(saves, 39 + 13, "once in a quarter of an hour");
        assert!(state.merged > 0 && state.waiting > 50, "{state:?}");
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_counted() {
        let state = tempfile::tempdir().unwrap();
        let (path, aside) = (state.path().join("spool"), state.path().join("spool.damaged"));
        let file = file(state.path());
        let mut spool = Spool::new(LIMIT, Spooled::default());
        spool.put(60_000, measured(1, 1));
        file.save(spool.spooled()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut damages: Vec<Vec<u8>> = (0..whole.len()).map(|cut| whole[..cut].to_vec()).collect();
        damages.extend((0..whole.len()).map(|at| {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            changed
        }));
        damages.push(vec![b' '; MAX_SPOOL_BYTES as usize + 1]);
        for damaged in damages {
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(file.read::<Spooled>(), Found::Damaged);
            assert_eq!(std::fs::read(&aside).unwrap(), damaged);
        }
        file.save(&Spooled::damaged()).unwrap();
        assert_eq!(file.read(), Found::Whole(Spooled::damaged()), "counted once");
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(file.read(), Found::Whole(spool.spooled().clone()));
    }
}
