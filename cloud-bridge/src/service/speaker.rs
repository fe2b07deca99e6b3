//! The speaker: everything that land says goes through this one task, so that nobody else waits for a broker.
//!
//! Words (assignments, acknowledgements) go before bulk (bundles), and bulk jobs go one after the other, so
//! that what one clears another publishes afterwards. What cannot be said is said again at the next
//! connection: the core repeats it. A chunk goes out when the pace allows it, and not again for whoever asked before
//! it went. To a broker that retains nothing everything is said for whoever listens now.

use super::library::{Library, Parts};
use super::tally::{Tally, What};
use anyhow::Context;
use protocol::Topics;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Publish;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};
use trust::Digest;

/// Words that may wait; more are dropped, and said again at the next connection.
const WORDS: usize = 50_000;
/// Bulk jobs that may wait; a need that is dropped is repeated by its device.
const JOBS: usize = 1_000;
/// Publications of chunks that are remembered: a bundle of three gigabytes.
const REMEMBERED: usize = 65_536;

enum Word {
    Publish { what: What, topic: String, payload: Vec<u8>, retain: bool },
    Acknowledge(Box<Publish>),
}

/// Work on a bundle.
#[derive(Debug)]
pub(crate) enum Job {
    /// Its envelope, its offer and every chunk, retained.
    Publish(Digest),
    /// Some of it again, the chunks not retained: whoever waits is subscribed.
    Repeat {
        /// The bundle.
        bundle: Digest,
        /// Envelope and offer too.
        documents: bool,
        /// Chunk digests.
        chunks: Vec<[u8; 32]>,
        /// What went out since then need not go out again.
        asked: Instant,
    },
    /// Its retained chunks go, but for those of bundles that stay.
    Clear(Digest, BTreeSet<Digest>),
}

/// The way to the speaker.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    words: mpsc::Sender<Word>,
    /// Never more than the broker sends without them. One that were dropped would take its place there for ever.
    acknowledgements: mpsc::UnboundedSender<Publish>,
    jobs: mpsc::Sender<Job>,
}

/// What the speaker speaks with.
#[derive(Debug)]
pub(crate) struct Voice {
    pub(crate) client: AsyncClient,
    /// Whether the broker retains, while there is a connection.
    pub(crate) broker: watch::Receiver<Option<bool>>,
    pub(crate) topics: Topics,
    pub(crate) library: Arc<Library>,
    pub(crate) tally: Arc<Tally>,
    /// Bytes of bundles a second, at most.
    pub(crate) rate: Option<NonZeroU64>,
}

impl Speaker {
    /// Starts the task; it ends with the last of its handles.
    pub(crate) fn start(voice: Voice) -> Self {
        let (words, said) = mpsc::channel(WORDS);
        let (acknowledgements, heard) = mpsc::unbounded_channel();
        let (jobs, asked) = mpsc::channel(JOBS);
        let mouth = Mouth { voice, said, heard, published: HashMap::new(), free: Instant::now() };
        tokio::spawn(mouth.speak(asked));
        Self { words, acknowledgements, jobs }
    }

    /// A retained message.
    pub(crate) fn publish(&self, what: What, topic: String, payload: Vec<u8>) {
        self.word(Word::Publish { what, topic, payload, retain: true });
    }

    /// A command, which is said once: those that wait leave room for what a device must hear.
    pub(crate) fn command(&self, topic: String, payload: Vec<u8>) {
        if self.words.capacity() < WORDS / 2 {
            // Whoever asked sees that nobody answered; with a fan-out there may be thousands.
            debug!(topic, "too much waits to be said: a command is left out");
            return;
        }
        self.tell(What::Command, topic, payload);
    }

    /// A message for whoever listens now.
    pub(crate) fn tell(&self, what: What, topic: String, payload: Vec<u8>) {
        self.word(Word::Publish { what, topic, payload, retain: false });
    }

    /// The broker may forget what was heard.
    pub(crate) fn acknowledge(&self, publish: Publish) {
        // Nobody speaks any more when the bridge stops.
        let _ = self.acknowledgements.send(publish);
    }

    /// Bulk.
    pub(crate) fn ask(&self, job: Job) {
        if let Err(error) = self.jobs.try_send(job) {
            warn!(%error, "too much waits to be published");
        }
    }

    fn word(&self, word: Word) {
        if let Err(error) = self.words.try_send(word) {
            warn!(%error, "too much waits to be said: it is said again at the next connection");
        }
    }
}

struct Mouth {
    voice: Voice,
    said: mpsc::Receiver<Word>,
    heard: mpsc::UnboundedReceiver<Publish>,
    /// When a chunk, or a bundle's documents, went out last.
    published: HashMap<Digest, Instant>,
    /// When the next chunk may go.
    free: Instant,
}

impl Mouth {
    async fn speak(mut self, mut asked: mpsc::Receiver<Job>) {
        loop {
            let spoken = tokio::select! {
                biased;
                Some(word) = self.next_word() => self.say(word).await,
                Some(job) = asked.recv() => self.work(job).await,
                else => return,
            };
            if let Err(error) = spoken {
                error!(error = format!("{error:#}"), "something could not be published");
            }
        }
    }

    /// Words and acknowledgements in turns: neither waits for the last of the others.
    async fn next_word(&mut self) -> Option<Word> {
        tokio::select! {
            Some(word) = self.said.recv() => Some(word),
            Some(publish) = self.heard.recv() => Some(Word::Acknowledge(Box::new(publish))),
            else => None,
        }
    }

    async fn say(&mut self, word: Word) -> anyhow::Result<()> {
        match word {
            Word::Publish { what, topic, payload, retain } => self.put(what, topic, retain, payload).await,
            Word::Acknowledge(publish) => self.voice.client.ack(&publish).await.context("the wire ended"),
        }
    }

    /// Waits for a connection: how to say it depends on who hears it.
    async fn put(&mut self, what: What, topic: String, retain: bool, payload: Vec<u8>) -> anyhow::Result<()> {
        let retains = *self.voice.broker.wait_for(Option::is_some).await.context("the wire ended")? == Some(true);
        if what == What::Cleared && !retains {
            return Ok(());
        }
        self.voice.tally.said(what, payload.len());
        let retain = retain && retains;
        self.voice.client.publish(topic, QoS::AtLeastOnce, retain, payload).await.context("the wire ended")
    }

    async fn parts(&self, bundle: Digest) -> anyhow::Result<Arc<Parts>> {
        let library = self.voice.library.clone();
        tokio::task::spawn_blocking(move || library.parts(bundle)).await?
    }

    async fn work(&mut self, job: Job) -> anyhow::Result<()> {
        match job {
            Job::Publish(bundle) => {
                let parts = self.parts(bundle).await?;
                self.documents(bundle, &parts).await?;
                for chunk in parts.chunks() {
                    self.chunk(&parts, chunk, What::Chunk).await?;
                }
                info!(bundle = %bundle.short(), chunks = parts.chunks().len(), "bundle published");
            }
            Job::Repeat { bundle, documents, chunks, asked } => {
                let parts = self.parts(bundle).await?;
                if documents && !self.went_since(&bundle, asked) {
                    self.documents(bundle, &parts).await?;
                }
                for chunk in chunks.into_iter().map(Digest) {
                    if !self.went_since(&chunk, asked) {
                        self.chunk(&parts, &chunk, What::ChunkAgain).await?;
                    }
                }
            }
            Job::Clear(bundle, stay) => {
                let mut shared = HashSet::new();
                for bundle in stay {
                    shared.extend(self.parts(bundle).await?.chunks().iter().copied());
                }
                for chunk in self.parts(bundle).await?.chunks().iter().filter(|chunk| !shared.contains(*chunk)) {
                    self.words_first().await?;
                    self.put(What::Cleared, self.voice.topics.chunk(&chunk.0), true, Vec::new()).await?;
                }
            }
        }
        Ok(())
    }

    async fn documents(&mut self, bundle: Digest, parts: &Parts) -> anyhow::Result<()> {
        self.note(bundle);
        let (envelope, offer) = (self.voice.topics.envelope(&bundle.0), self.voice.topics.offer(&bundle.0));
        self.put(What::BundleDocument, envelope, true, parts.envelope.clone()).await?;
        self.put(What::BundleDocument, offer, true, parts.offer.clone()).await
    }

    /// One chunk, retained the first time; one that is not of the bundle is left out.
    async fn chunk(&mut self, parts: &Parts, chunk: &Digest, what: What) -> anyhow::Result<()> {
        self.words_first().await?;
        let Some(bytes) = parts.chunk(chunk).transpose()? else { return Ok(()) };
        if let Some(rate) = self.voice.rate {
            let nanos = (bytes.len() as u64).saturating_mul(1_000_000_000) / rate;
            self.free = self.free.max(Instant::now()) + Duration::from_nanos(nanos);
        }
        self.note(*chunk);
        self.put(what, self.voice.topics.chunk(&chunk.0), what == What::Chunk, bytes).await
    }

    /// Words go before the next chunk, and until its time has come.
    async fn words_first(&mut self) -> anyhow::Result<()> {
        let free = self.free.into();
        loop {
            tokio::select! {
                biased;
                Some(word) = self.next_word() => self.say(word).await?,
                () = tokio::time::sleep_until(free) => return Ok(()),
            }
        }
    }

    fn note(&mut self, part: Digest) {
        if self.published.len() >= REMEMBERED {
            // Some of it is published once more than it had to be.
            self.published.clear();
        }
        self.published.insert(part, Instant::now());
    }

    fn went_since(&self, part: &Digest, asked: Instant) -> bool {
        self.published.get(part).is_some_and(|went| *went >= asked)
    }
}
