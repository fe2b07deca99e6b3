//! How a file is cut: into pieces of 48 KiB, each file on its own, the last piece shorter.

/// The size of a chunk in bytes, on every broker (Azure Event Grid retains at most 64 KB, AWS IoT Core carries 128 KB).
pub const CHUNK_BYTES: u64 = 48 * 1024;

/// Where one chunk lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSpan {
    /// Offset of the first byte.
    pub offset: u64,
    /// Length in bytes, 1 to [`CHUNK_BYTES`].
    pub length: u64,
}

/// The number of chunks of a file of `size` bytes; an empty file has none.
pub fn chunks_in(size: u64) -> u64 {
    size.div_ceil(CHUNK_BYTES)
}

/// The spans of a file of `size` bytes, in order.
pub fn spans(size: u64) -> impl Iterator<Item = ChunkSpan> {
    (0..chunks_in(size)).map(move |i| {
        let offset = i * CHUNK_BYTES;
        ChunkSpan { offset, length: CHUNK_BYTES.min(size - offset) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_a_file_exactly_once() {
        for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 10 * CHUNK_BYTES] {
            let mut next = 0;
            for span in spans(size) {
                assert_eq!(span.offset, next);
                assert!((1..=CHUNK_BYTES).contains(&span.length));
                next += span.length;
            }
            assert_eq!(next, size);
        }
    }
}
