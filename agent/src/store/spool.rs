//! The spool on disk: one file, replaced whole.
//!
//! Decides how it survives a power cut, and that a file that cannot be read is set aside and keeps nobody from
//! starting. What is in it, and when it is written, is decided by the core.
//!
//! The file is one line `petrel-spool <format> <sum>`, where the sum is the SHA-256 of the rest, then CBOR.

use super::disk::{Door, How};
use crate::config::MAX_SPOOL_BYTES;
use agent_core::Spooled;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use trust::Digest;

const NAME: &str = "spool";
/// Where the last file lies that could not be read: somebody may want to look at it.
const ASIDE: &str = "spool.damaged";
const HEAD: &str = "petrel-spool 1 ";

/// The file `<state>/spool`.
#[derive(Debug)]
pub(crate) struct SpoolFile {
    disk: Door,
    path: PathBuf,
}

impl SpoolFile {
    /// The file, and what is in it.
    pub(crate) fn open(disk: Door, state: &Path) -> (Self, Spooled) {
        let file = Self { disk, path: state.join(NAME) };
        let spooled = match file.read() {
            Ok(spooled) => spooled,
            Err(error) if error.kind() == ErrorKind::NotFound => Spooled::default(),
            Err(error) => {
                let aside = state.join(ASIDE);
                tracing::warn!("telemetry that waited is lost: {} cannot be read: {error}", file.path.display());
                if let Err(error) = file.disk.rename(&file.path, &aside) {
                    tracing::warn!("it cannot be moved to {}: {error}", aside.display());
                }
                Spooled::damaged()
            }
        };
        (file, spooled)
    }

    /// Replaces it.
    ///
    /// # Errors
    /// What the system said; the file before this one is still there.
    pub(crate) fn save(&self, spooled: &Spooled) -> io::Result<()> {
        let content = protocol::encode_cbor(spooled);
        let mut bytes = format!("{HEAD}{}\n", Digest::of(&content)).into_bytes();
        bytes.extend(content);
        self.disk.replace(&self.path, &bytes, How::Fresh)
    }

    fn read(&self) -> io::Result<Spooled> {
        let bytes = self.disk.read(&self.path, MAX_SPOOL_BYTES)?;
        let wrong = |why: &str| io::Error::new(ErrorKind::InvalidData, why.to_owned());
        if bytes.len() as u64 > MAX_SPOOL_BYTES {
            return Err(wrong("it is too large"));
        }
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| wrong("it is cut short"))?;
        let (head, content) = (&bytes[..end], &bytes[end + 1..]);
        if head != format!("{HEAD}{}", Digest::of(content)).as_bytes() {
            return Err(wrong("it is cut short or changed, or another version of the agent wrote it"));
        }
        protocol::decode_cbor(content).map_err(|error| wrong(&error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::host;
    use super::*;
    use agent_core::Spool;
    use protocol::{SpoolState, Telemetry};

    const LIMIT: u64 = 64 << 10;

    fn measured(run: u64, seq: u64) -> Telemetry {
        Telemetry {
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
        }
    }

    /// Killed at every third measurement, after or before it was saved.
    #[test]
    fn what_was_saved_outlives_any_kill_and_fits() {
        let state = tempfile::tempdir().unwrap();
        let (mut last, mut saves) = (Spooled::default(), 0);
        for run in 1..40 {
            let (file, spooled) = SpoolFile::open(host(), state.path());
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
            assert!(std::fs::metadata(state.path().join(NAME)).unwrap().len() <= LIMIT);
        }
        let state = Spool::new(LIMIT, last).state();
        assert_eq!(saves, 39 + 13, "once in a quarter of an hour");
        assert!(state.merged > 0 && state.waiting > 50, "{state:?}");
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_counted() {
        let state = tempfile::tempdir().unwrap();
        let (path, aside) = (state.path().join(NAME), state.path().join(ASIDE));
        let (file, _) = SpoolFile::open(host(), state.path());
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
            assert_eq!(SpoolFile::open(host(), state.path()).1, Spooled::damaged());
            assert_eq!(std::fs::read(&aside).unwrap(), damaged);
        }
        file.save(&Spooled::damaged()).unwrap();
        assert_eq!(SpoolFile::open(host(), state.path()).1, Spooled::damaged(), "counted once");
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(&SpoolFile::open(host(), state.path()).1, spool.spooled());
    }
}
