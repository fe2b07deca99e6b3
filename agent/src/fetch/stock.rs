//! The chunks that whole bundles on this disk hold already: what a new one shares with them is copied, not sent.
//!
//! Decides where a chunk may lie. What is found there counts by its digest alone, so a stock that is wrong costs
//! time and nothing else.

use super::index::{INDEX, digests, listed};
use crate::store::{Bundles, Door, ENVELOPE, How};
use protocol::{ChunkSpan, spans};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use trust::{Digest, MAX_DOCUMENT_BYTES};

/// Where the chunks of whole bundles lie: some 70 bytes for each.
#[derive(Debug)]
pub(crate) struct Stock {
    disk: Door,
    files: Vec<PathBuf>,
    places: HashMap<Digest, (usize, ChunkSpan)>,
}

impl Stock {
    /// What lies there now. A bundle that cannot be read holds nothing.
    pub(crate) fn of(bundles: &Bundles) -> Self {
        let mut stock = Self { disk: bundles.disk().clone(), files: Vec::new(), places: HashMap::new() };
        for bundle in bundles.whole().unwrap_or_default() {
            if let Err(error) = stock.add(bundles.complete(bundle), bundle) {
                tracing::debug!(bundle = %bundle.short(), "nothing is copied from this bundle: {error}");
            }
        }
        stock
    }

    fn add(&mut self, dir: PathBuf, bundle: Digest) -> io::Result<()> {
        let envelope = self.disk.read(&dir.join(ENVELOPE), MAX_DOCUMENT_BYTES as u64)?;
        let statement = trust::known_statement(bundle, &envelope).map_err(io::Error::other)?;
        let Some(index) = statement.resource(INDEX) else { return Ok(()) };
        let index = self.disk.read(&dir.join(INDEX), index.size.get())?;
        let mut digests = digests(&index);
        for resource in listed(&statement) {
            let file = self.files.len();
            self.files.push(dir.join(&resource.name));
            let places = spans(resource.size.get()).zip(&mut digests);
            for (span, digest) in places {
                self.places.entry(digest).or_insert((file, span));
            }
        }
        Ok(())
    }

    /// The bytes of a chunk, if they are there.
    pub(crate) fn find(&self, chunk: &Digest) -> Option<Vec<u8>> {
        let (file, span) = self.places.get(chunk)?;
        let file = self.disk.open(&self.files[*file], How::Read).ok()?;
        let mut bytes = vec![0; usize::try_from(span.length).ok()?];
        let whole = file.read_up_to(&mut bytes, span.offset).ok()? == bytes.len();
        Some(bytes).filter(|bytes| whole && Digest::of(bytes) == *chunk)
    }
}
