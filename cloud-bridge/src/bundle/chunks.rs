//! `chunks.bin`: the digest of every chunk of every other signed file, in the order of their names.
//!
//! Decides the order only; how a file is cut is decided by `protocol`.

use super::{CHUNKS, read::read_bounded};
use anyhow::Context;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use trust::{Code, Digest, Refusal, Resource};

/// Bytes of one digest.
pub(crate) const DIGEST_BYTES: u64 = 32;

/// The index over `resources` (sorted by name), as their files lie in `dir`.
///
/// # Errors
/// When a file cannot be read, or is shorter than its resource says.
pub(crate) fn index(dir: &Path, resources: &[Resource]) -> anyhow::Result<Vec<u8>> {
    let mut index = Vec::new();
    for resource in resources.iter().filter(|r| r.name != CHUNKS) {
        let unreadable = || format!("cannot read `{}`", resource.name);
        let mut file = File::open(dir.join(&resource.name)).with_context(unreadable)?;
        let mut chunk = Vec::new();
        for span in protocol::spans(resource.size.get()) {
            chunk.resize(usize::try_from(span.length)?, 0);
            file.read_exact(&mut chunk).with_context(unreadable)?;
            index.extend_from_slice(&Digest::of(&chunk).0);
        }
    }
    Ok(index)
}

/// Refuses an index that is not that of the files: nobody could fetch them.
///
/// # Errors
/// `E_MISSING` and `E_DIGEST`, or what the system said.
pub(crate) fn check(dir: &Path, resources: &[Resource]) -> anyhow::Result<()> {
    let Some(listed) = resources.iter().find(|r| r.name == CHUNKS) else {
        return Err(Refusal::new(Code::Missing, format!("the bundle has no {CHUNKS}")).into());
    };
    let expected = index(dir, resources)?;
    if listed.size.get() != expected.len() as u64 || read_bounded(&dir.join(CHUNKS), listed.size.get())? != expected {
        return Err(Refusal::new(Code::Digest, format!("{CHUNKS} does not list the chunks of the other files")).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::read;
    use std::fs;

    #[test]
    fn chunks_stand_in_the_order_of_names_and_offsets() {
        let dir = tempfile::tempdir().unwrap();
        let size = usize::try_from(protocol::CHUNK_BYTES).unwrap();
        let large: Vec<u8> = (0..=size).map(|i| i as u8).collect();
        for (name, content) in [("b", &large[..]), ("a", b"1"), ("empty", b""), (CHUNKS, b"never in itself")] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let resources = read(dir.path()).unwrap();
        let expected = [Digest::of(b"1"), Digest::of(&large[..size]), Digest::of(&large[size..])].map(|d| d.0).concat();
        assert_eq!(index(dir.path(), &resources).unwrap(), expected);
        assert!(check(dir.path(), &resources).is_err());
        fs::write(dir.path().join(CHUNKS), &expected).unwrap();
        check(dir.path(), &read(dir.path()).unwrap()).unwrap();
    }

    #[test]
    fn a_bundle_without_an_index_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        let error = check(dir.path(), &read(dir.path()).unwrap()).unwrap_err();
        assert_eq!(error.downcast_ref::<Refusal>().unwrap().code, Code::Missing);
    }
}
