//! The way of one bundle onto the disk: its documents, its index, its content.
//!
//! Decides what is asked for next and what an arrival is worth. Every byte is checked against what was
//! signed before it is kept; the offer is not signed, so a wrong one costs time and nothing else.

use super::goal::{Goal, Taken};
use super::index::{DIGEST_BYTES, INDEX, digests, listed};
use super::stock::Stock;
use crate::store::{self, Bundles, Disk, ENVELOPE};
use agent_core::{Described, Flow, Millis, Wait};
use protocol::{CHUNK_BYTES, MAX_RETAINED_BYTES, Offer, chunks_in, decode_json, spans};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use trust::{Code, Digest, MAX_DOCUMENT_BYTES, Refusal, Resource, Statement, Trust, Verified};

const MANIFEST: &str = "manifest.json";

/// A source is asked for so many bytes at a time.
const MAX_GAP_BYTES: u64 = 64 * CHUNK_BYTES;

/// Bytes that a bundle lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    /// As what they are to be given.
    pub(crate) part: Part,
    /// Their file in the bundle.
    pub(crate) file: String,
    /// Where they begin in it.
    pub(crate) offset: u64,
    /// How many they are; of the envelope, at most.
    pub(crate) length: u64,
}

/// What a source gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// The signed envelope.
    Envelope,
    /// The whole index.
    Index,
    /// A chunk of a file.
    Chunk,
}

impl Part {
    const ALL: [Self; 3] = [Self::Envelope, Self::Index, Self::Chunk];

    /// Its name in the local API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Index => "index",
            Self::Chunk => "chunk",
        }
    }

    /// The part of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// Why a bundle does not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Setback {
    /// It never will.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk would not have it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One bundle on its way.
#[derive(Debug)]
pub(crate) struct Pull {
    bundles: Bundles,
    bundle: Digest,
    dir: PathBuf,
    total_size: u64,
    statement: Option<Verified<Statement>>,
    offer: Option<Offer>,
    /// Named chunks that were not those of the index: not listened to again.
    wrong_offer: Option<Offer>,
    wait: Wait,
    index: Option<Goal>,
    manifest: Option<Goal>,
    content: Option<Goal>,
}

impl Pull {
    /// Begins, or goes on with what lies there already.
    ///
    /// # Errors
    /// See [`Setback`].
    pub(crate) fn start(
        bundles: Bundles,
        trust: &Trust,
        bundle: Digest,
        total_size: u64,
        wait: Wait,
    ) -> Result<Self, Setback> {
        let dir = bundles.begin(bundle)?;
        bundles.disk().make_dirs(&dir)?;
        let mut pull = Self {
            bundles,
            bundle,
            dir,
            total_size,
            statement: None,
            offer: None,
            wrong_offer: None,
            wait,
            index: None,
            manifest: None,
            content: None,
        };
        let left = read_up_to(&**pull.bundles.disk(), &pull.dir.join(ENVELOPE), MAX_DOCUMENT_BYTES as u64)?;
        pull.statement = left.and_then(|bytes| store::statement(trust, &bytes, bundle).ok());
        pull.advance()?;
        Ok(pull)
    }

    /// Whether every byte is there.
    pub(crate) fn is_complete(&self) -> bool {
        self.content.as_ref().is_some_and(Goal::is_reached)
    }

    /// Whether the envelope or the offer is still needed.
    pub(crate) fn wants_documents(&self) -> bool {
        self.goal().is_none()
    }

    /// Bytes that are there.
    pub(crate) fn arrived(&self) -> u64 {
        self.content.as_ref().map_or(0, |goal| self.total_size - goal.missing_bytes())
    }

    /// The goal under way.
    pub(crate) fn goal(&self) -> Option<&Goal> {
        self.content.as_ref().or(self.manifest.as_ref()).or(self.index.as_ref())
    }

    /// The goal under way, to be asked for.
    pub(crate) fn goal_mut(&mut self) -> Option<&mut Goal> {
        self.content.as_mut().or(self.manifest.as_mut()).or(self.index.as_mut())
    }

    /// Whether the documents should have arrived by `now`, and whether land should hear of it.
    pub(crate) fn documents_late(&mut self, now: Millis, flow: &Flow) -> Option<bool> {
        if self.wants_documents() { self.wait.is_over(now, flow, self.bundle) } else { None }
    }

    /// The connection is another one.
    pub(crate) fn reconnected(&mut self, now: Millis, flow: &Flow) {
        self.wait = Wait::from(now, flow, self.bundle);
    }

    /// An envelope arrived. One that is not the signed envelope of this very bundle is given back as a
    /// doubt and waited past: whoever reaches the broker could have put it there.
    ///
    /// # Errors
    /// A refusal when the signed bundle is not of the size that was assigned, or what the system said.
    pub(crate) fn take_envelope(&mut self, trust: &Trust, bytes: &[u8]) -> Result<Option<Refusal>, Setback> {
        if self.statement.is_some() {
            return Ok(None);
        }
        let statement = match store::statement(trust, bytes, self.bundle) {
            Ok(statement) => statement,
            Err(doubt) => return Ok(Some(doubt)),
        };
        self.bundles.disk().write(&self.dir.join(ENVELOPE), bytes)?;
        self.statement = Some(statement);
        self.advance().map(|()| None)
    }

    /// An offer arrived; one that makes no sense is passed over.
    ///
    /// # Errors
    /// See [`Setback`].
    pub(crate) fn take_offer(&mut self, bytes: &[u8]) -> Result<(), Setback> {
        let Ok(offer) = decode_json::<Offer>(bytes, MAX_RETAINED_BYTES) else { return Ok(()) };
        if self.wrong_offer.as_ref() == Some(&offer) || !self.wants_documents() {
            return Ok(());
        }
        self.offer = Some(offer);
        self.advance()
    }

    /// A chunk arrived whose bytes have the digest `chunk`.
    ///
    /// # Errors
    /// A refusal when the signed index contradicts itself, or what the system said.
    pub(crate) fn take_chunk(&mut self, chunk: Digest, bytes: &[u8]) -> Result<Taken, Setback> {
        let Some(goal) = self.goal_mut() else { return Ok(Taken::Unasked) };
        let taken = goal.take(chunk, bytes)?;
        match taken {
            Taken::Unasked => {}
            Taken::Misfit if self.index.is_none() => {
                return Err(contradiction("a chunk has another length than the index gives it").into());
            }
            Taken::Misfit => self.reject_offer()?,
            Taken::Stored => self.advance()?,
        }
        Ok(taken)
    }

    /// What is missing next, for a source that gives files and knows no chunks.
    pub(crate) fn gap(&self) -> Option<Gap> {
        let Some(statement) = &self.statement else {
            let length = MAX_DOCUMENT_BYTES as u64;
            return Some(Gap { part: Part::Envelope, file: ENVELOPE.into(), offset: 0, length });
        };
        let Some(goal) = self.content.as_ref().or(self.manifest.as_ref()) else {
            let length = statement.resource(INDEX)?.size.get();
            return Some(Gap { part: Part::Index, file: INDEX.into(), offset: 0, length });
        };
        let (path, span) = goal.gap(MAX_GAP_BYTES)?;
        let file = path.strip_prefix(&self.dir).ok()?.to_str()?.to_owned();
        Some(Gap { part: Part::Chunk, file, offset: span.offset, length: span.length })
    }

    /// The whole index, from such a source; one that is not what was signed is passed over.
    ///
    /// # Errors
    /// A refusal when the signed index contradicts itself, or what the system said.
    pub(crate) fn take_index(&mut self, bytes: &[u8]) -> Result<(), Setback> {
        let known = self.content.is_some() || self.manifest.is_some();
        let Some(statement) = self.statement.as_ref().filter(|_| !known) else { return Ok(()) };
        if index_of(statement, self.total_size)?.check_bytes(bytes).is_ok() {
            self.bundles.disk().write(&self.dir.join(INDEX), bytes)?;
            self.index = None;
            self.advance()?;
        }
        Ok(())
    }

    /// A chunk from such a source; one that belongs nowhere is passed over.
    ///
    /// # Errors
    /// See [`Setback`].
    pub(crate) fn take_given(&mut self, bytes: &[u8]) -> Result<(), Setback> {
        match self.content.as_mut().or(self.manifest.as_mut()) {
            Some(goal) => {
                goal.give(bytes)?;
                self.advance()
            }
            None => Ok(()),
        }
    }

    /// Whether it is known what the bundle asks for.
    pub(crate) fn is_described(&self) -> bool {
        self.content.is_some()
    }

    /// What it asks for.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn described(&self) -> io::Result<Described> {
        let read = |name: &str| self.bundles.disk().read(&self.dir.join(name), MAX_DOCUMENT_BYTES as u64);
        let missing = self.content.as_ref().map_or(0, Goal::missing_bytes);
        let room = self.bundles.free()?.saturating_add(self.bundles.arrived(self.bundle));
        Ok(Described { envelope: read(ENVELOPE)?, manifest: read(MANIFEST)?, missing, room })
    }

    /// Goes from stage to stage as far as what is there allows.
    fn advance(&mut self) -> Result<(), Setback> {
        let Some(statement) = &self.statement else { return Ok(()) };
        let under_way = self.index.as_ref().or(self.manifest.as_ref()).is_some_and(|goal| !goal.is_reached());
        if self.content.is_some() || under_way {
            return Ok(());
        }
        let own = index_of(statement, self.total_size)?;
        let (path, size) = (self.dir.join(INDEX), own.size.get());
        if let Some(index) =
            read_up_to(&**self.bundles.disk(), &path, size)?.filter(|bytes| own.check_bytes(bytes).is_ok())
        {
            self.index = None;
            let digests: Vec<Digest> = digests(&index).collect();
            let held = manifest_of(statement)?;
            let path = self.dir.join(MANIFEST);
            let read = read_up_to(&**self.bundles.disk(), &path, held.size.get())?;
            if read.is_some_and(|bytes| held.check_bytes(&bytes).is_ok()) {
                let files = listed(statement).map(|r| (self.dir.join(&r.name), r.size.get())).collect();
                self.manifest = None;
                self.content = Some(filled(&self.bundles, files, &digests)?);
                return Ok(());
            }
            if self.manifest.is_some() {
                return Err(contradiction("chunks.bin gives manifest.json other chunks than were signed").into());
            }
            let owner = listed(statement).flat_map(|r| spans(r.size.get()).map(move |_| r));
            let chunks = owner.zip(&digests).filter(|(r, _)| r.name == MANIFEST).map(|(_, digest)| *digest);
            let chunks: Vec<Digest> = chunks.collect();
            let goal = self.manifest.insert(filled(&self.bundles, vec![(path, held.size.get())], &chunks)?);
            return if goal.is_reached() { self.advance() } else { Ok(()) };
        }
        if self.index.is_some() {
            return self.reject_offer();
        }
        self.manifest = None;
        // The digest of a file of one chunk is the digest of that chunk, and it is signed.
        let chunks = match (chunks_in(size), &self.offer) {
            (1, _) => vec![own.digest],
            (many, Some(offer)) if offer.index.len() as u64 == many => {
                offer.index.iter().map(|digest| Digest(digest.0)).collect()
            }
            _ => return Ok(()),
        };
        let goal = self.index.insert(Goal::new(self.bundles.disk().clone(), vec![(path, size)], &chunks)?);
        if goal.is_reached() { self.reject_offer() } else { Ok(()) }
    }

    /// The chunks that the offer named are not those of the index: another offer is waited for.
    fn reject_offer(&mut self) -> Result<(), Setback> {
        tracing::warn!(bundle = %self.bundle.short(), "the offer does not lead to the signed index, another is asked for");
        self.index = None;
        self.wrong_offer = self.offer.take();
        self.bundles.disk().write(&self.dir.join(INDEX), b"")?;
        Ok(())
    }
}

/// The signed index, if the statement is of the assigned size and its index fits its files.
fn index_of(statement: &Statement, total_size: u64) -> Result<&Resource, Refusal> {
    if statement.total_size() != total_size {
        let detail = format!("the bundle has {} bytes, assigned were {total_size}", statement.total_size());
        return Err(Refusal::new(Code::Mismatch, detail));
    }
    let missing = || Refusal::new(Code::Missing, format!("the statement lists no {INDEX}"));
    let index = statement.resource(INDEX).ok_or_else(missing)?;
    let chunks: u64 = listed(statement).map(|r| chunks_in(r.size.get())).sum();
    if index.size.get() != chunks * DIGEST_BYTES as u64 {
        return Err(contradiction("chunks.bin has not one digest for each chunk of the other files"));
    }
    Ok(index)
}

/// The signed manifest: the first of the content, since it says whether the rest may come.
fn manifest_of(statement: &Statement) -> Result<&Resource, Refusal> {
    let missing = || Refusal::new(Code::Missing, format!("the statement lists no {MANIFEST}"));
    let manifest = statement.resource(MANIFEST).ok_or_else(missing)?;
    if manifest.size.get() > MAX_DOCUMENT_BYTES as u64 {
        return Err(Refusal::new(Code::Limit, format!("{MANIFEST} has {} bytes", manifest.size)));
    }
    Ok(manifest)
}

/// A goal with what other bundles hold of it.
fn filled(bundles: &Bundles, files: Vec<(PathBuf, u64)>, digests: &[Digest]) -> io::Result<Goal> {
    let mut goal = Goal::new(bundles.disk().clone(), files, digests)?;
    if !goal.is_reached() {
        let stock = Stock::of(bundles);
        let copied = goal.fill(|chunk| stock.find(chunk))?;
        if copied > 0 {
            tracing::info!(bytes = copied, "what other bundles hold already is copied");
        }
    }
    Ok(goal)
}

fn contradiction(detail: &str) -> Refusal {
    Refusal::new(Code::Statement, detail)
}

/// A file of at most `limit` bytes; `None` when it is not there or larger.
fn read_up_to(disk: &dyn Disk, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match disk.read(path, limit) {
        Ok(bytes) => Ok(Some(bytes).filter(|b| b.len() as u64 <= limit)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
