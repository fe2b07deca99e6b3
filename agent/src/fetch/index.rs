//! The index of a bundle: the signed file that lists the chunk digests of all its other files, in their order.

use trust::{Digest, Resource, Statement};

/// Its name.
pub(super) const INDEX: &str = "chunks.bin";
/// Bytes of each digest in it.
pub(super) const DIGEST_BYTES: usize = 32;

/// The files whose chunks it lists.
pub(super) fn listed(statement: &Statement) -> impl Iterator<Item = &Resource> {
    statement.resources().iter().filter(|r| r.name != INDEX)
}

/// What it says.
pub(super) fn digests(index: &[u8]) -> impl Iterator<Item = Digest> {
    index.as_chunks::<DIGEST_BYTES>().0.iter().map(|bytes| Digest(*bytes))
}
