//! Sources of a bundle besides the broker: a tar that a person brings, land's files over HTTPS.
//!
//! A source gives bytes of files; what is lacking is said by the keeper, and what they are worth is decided where chunks from
//! the broker are judged. So nothing of a source is believed, and one that is cut off goes on where it stopped.

mod install;
mod land;

pub(crate) use install::{InstallArgs, install};
pub(crate) use land::{Land, bring};

use crate::fetch::{Gap, Part};
use crate::keeper::Counter;
use protocol::CHUNK_BYTES;
use std::io;
use trust::Digest;

/// Where the files of one bundle come from.
pub(crate) trait Source {
    /// Bytes of a file from `offset` on, at most `length`; fewer where the file ends.
    ///
    /// # Errors
    /// Why they do not come.
    fn read(&mut self, file: &str, offset: u64, length: u64) -> io::Result<Vec<u8>>;
}

/// Who takes parts of a bundle.
pub(crate) trait Taker {
    /// What it lacks next; `None` when it is not wanted, or lacks nothing.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn gap(&mut self) -> io::Result<Option<Gap>>;

    /// Takes a part, or passes it over.
    ///
    /// # Errors
    /// When it cannot be given.
    fn give(&mut self, part: Part, bytes: &[u8]) -> io::Result<()>;
}

/// The keeper of this process, for one bundle.
struct Here<'a>(&'a Counter, Digest);

impl Taker for Here<'_> {
    fn gap(&mut self) -> io::Result<Option<Gap>> {
        Ok(self.0.gap(self.1))
    }

    fn give(&mut self, part: Part, bytes: &[u8]) -> io::Result<()> {
        self.0.give(self.1, part, bytes.to_vec());
        Ok(())
    }
}

/// Gives what is lacking until nothing is; gives how many bytes that were. Each of them is told to `progress`.
///
/// # Errors
/// When either side fails, or the source has something else than what was signed.
fn pour(taker: &mut impl Taker, source: &mut impl Source, mut progress: impl FnMut(u64)) -> io::Result<u64> {
    let (mut last, mut poured) = (None, 0);
    while let Some(gap) = taker.gap()? {
        if last.as_ref() == Some(&gap) {
            let why = format!("`{}` is not what was signed, at byte {}", gap.file, gap.offset);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let bytes = source.read(&gap.file, gap.offset, gap.length)?;
        let piece = if gap.part == Part::Chunk { CHUNK_BYTES as usize } else { bytes.len().max(1) };
        for bytes in bytes.chunks(piece) {
            taker.give(gap.part, bytes)?;
            poured += bytes.len() as u64;
            progress(poured);
        }
        last = Some(gap);
    }
    Ok(poured)
}
