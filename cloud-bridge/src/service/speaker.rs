//! The speaker: everything that land says goes through this one task, so that nobody else waits for a broker.
//!
//! Words (assignments, acknowledgements) go before bulk (bundles), and bulk jobs go one after the other, so
//! that what one clears another publishes afterwards. What cannot be said is said again at the next
//! connection: the core repeats it.

use super::library::{Library, Parts};
use anyhow::Context;
use protocol::Topics;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Publish;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::{error, info, warn};
use trust::Digest;

/// Words that may wait; more are dropped, and said again at the next connection.
const WORDS: usize = 50_000;
/// Bulk jobs that may wait; a need that is dropped is repeated by its device.
const JOBS: usize = 1_000;

enum Word {
    Publish { topic: String, payload: Vec<u8>, retain: bool },
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
    },
    /// Its retained chunks go.
    Clear(Digest),
}

/// The way to the speaker.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    words: mpsc::Sender<Word>,
    jobs: mpsc::Sender<Job>,
}

impl Speaker {
    /// Starts the task; it ends with the last of its handles.
    pub(crate) fn start(client: AsyncClient, topics: Topics, library: Arc<Library>) -> Self {
        let (words, said) = mpsc::channel(WORDS);
        let (jobs, asked) = mpsc::channel(JOBS);
        tokio::spawn(Mouth { client, topics, library, said }.speak(asked));
        Self { words, jobs }
    }

    /// A retained message.
    pub(crate) fn publish(&self, topic: String, payload: Vec<u8>) {
        self.word(Word::Publish { topic, payload, retain: true });
    }

    /// A message for whoever listens now.
    pub(crate) fn tell(&self, topic: String, payload: Vec<u8>) {
        self.word(Word::Publish { topic, payload, retain: false });
    }

    /// The broker may forget what was heard.
    pub(crate) fn acknowledge(&self, publish: Publish) {
        self.word(Word::Acknowledge(Box::new(publish)));
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
    client: AsyncClient,
    topics: Topics,
    library: Arc<Library>,
    said: mpsc::Receiver<Word>,
}

impl Mouth {
    async fn speak(mut self, mut asked: mpsc::Receiver<Job>) {
        loop {
            let spoken = tokio::select! {
                biased;
                Some(word) = self.said.recv() => self.say(word).await,
                Some(job) = asked.recv() => self.work(job).await,
                else => return,
            };
            if let Err(error) = spoken {
                error!(error = format!("{error:#}"), "something could not be published");
            }
        }
    }

    async fn say(&self, word: Word) -> anyhow::Result<()> {
        match word {
            Word::Publish { topic, payload, retain } => self.put(topic, retain, payload).await,
            Word::Acknowledge(publish) => self.client.ack(&publish).await.context("the wire ended"),
        }
    }

    async fn put(&self, topic: String, retain: bool, payload: Vec<u8>) -> anyhow::Result<()> {
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload).await.context("the wire ended")
    }

    async fn parts(&self, bundle: Digest) -> anyhow::Result<Arc<Parts>> {
        let library = self.library.clone();
        tokio::task::spawn_blocking(move || library.parts(bundle)).await?
    }

    async fn work(&mut self, job: Job) -> anyhow::Result<()> {
        match job {
            Job::Publish(bundle) => {
                let parts = self.parts(bundle).await?;
                self.documents(bundle, &parts).await?;
                for chunk in parts.chunks() {
                    self.chunk(&parts, chunk, true).await?;
                }
                info!(bundle = %bundle.short(), chunks = parts.chunks().len(), "bundle published");
            }
            Job::Repeat { bundle, documents, chunks } => {
                let parts = self.parts(bundle).await?;
                if documents {
                    self.documents(bundle, &parts).await?;
                }
                for chunk in chunks {
                    self.chunk(&parts, &Digest(chunk), false).await?;
                }
            }
            Job::Clear(bundle) => {
                for chunk in self.parts(bundle).await?.chunks() {
                    self.words_first().await?;
                    self.put(self.topics.chunk(&chunk.0), true, Vec::new()).await?;
                }
            }
        }
        Ok(())
    }

    async fn documents(&self, bundle: Digest, parts: &Parts) -> anyhow::Result<()> {
        self.put(self.topics.envelope(&bundle.0), true, parts.envelope.clone()).await?;
        self.put(self.topics.offer(&bundle.0), true, parts.offer.clone()).await
    }

    /// One chunk; one that is not of the bundle is left out.
    async fn chunk(&mut self, parts: &Parts, chunk: &Digest, retain: bool) -> anyhow::Result<()> {
        self.words_first().await?;
        match parts.chunk(chunk) {
            Some(bytes) => self.put(self.topics.chunk(&chunk.0), retain, bytes?).await,
            None => Ok(()),
        }
    }

    async fn words_first(&mut self) -> anyhow::Result<()> {
        while let Ok(word) = self.said.try_recv() {
            self.say(word).await?;
        }
        Ok(())
    }
}
