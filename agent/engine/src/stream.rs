//! A file on its way through the decoder.
//!
//! Decides that a model file is never in memory as a whole beside what is decoded
//! from it. Knows nothing of what the bytes mean.

use std::io::{self, Read};

use prost::bytes::Buf;

/// Bytes in memory at a time.
const PIECE: usize = 64 << 10;

/// A source of known length that is read piece by piece while a decoder consumes
/// it. A decoder cannot be told that reading failed: it sees an early end, and the
/// caller asks `failure` before it believes what was decoded.
pub(crate) struct Stream<R> {
    source: R,
    piece: Vec<u8>,
    at: usize,
    left: usize,
    failure: Option<io::Error>,
}

impl<R: Read> Stream<R> {
    /// A source that should give `length` bytes; no more are taken.
    pub(crate) fn new(source: R, length: usize) -> Stream<R> {
        let mut stream =
            Stream { source, piece: Vec::with_capacity(PIECE.min(length)), at: 0, left: length, failure: None };
        stream.fill();
        stream
    }

    /// Why the source ended early, if it did.
    pub(crate) fn failure(self) -> Option<io::Error> {
        self.failure
    }

    fn fill(&mut self) {
        self.at = 0;
        self.piece.resize(PIECE.min(self.left), 0);
        if let Err(error) = self.source.read_exact(&mut self.piece) {
            self.failure = Some(error);
            self.piece.clear();
            self.left = 0;
        }
    }
}

impl<R: Read> Buf for Stream<R> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        &self.piece[self.at..]
    }

    fn advance(&mut self, count: usize) {
        let mut count = count.min(self.left);
        while count > 0 {
            let step = count.min(self.piece.len() - self.at);
            self.at += step;
            self.left -= step;
            count -= step;
            if self.at == self.piece.len() && self.left > 0 {
                self.fill();
                count = count.min(self.left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn what_comes_out_is_what_is_in_the_file() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 17] {
            let whole = bytes(length);
            let mut stream = Stream::new(&whole[..], length);
            let mut seen = Vec::new();
            // Pieces that straddle the edges.
            while stream.has_remaining() {
                let step = stream.remaining().min(50_021);
                seen.extend_from_slice(&stream.copy_to_bytes(step));
            }
            assert!(seen == whole, "{length} bytes");
            assert!(stream.failure().is_none());
        }
    }

    #[test]
    fn a_source_that_ends_early_is_a_failure() {
        let whole = bytes(PIECE + 5);
        let mut stream = Stream::new(&whole[..], PIECE + 6);
        stream.advance(PIECE);
        assert_eq!(stream.remaining(), 0);
        assert_eq!(stream.failure().unwrap().kind(), io::ErrorKind::UnexpectedEof);
    }
}
