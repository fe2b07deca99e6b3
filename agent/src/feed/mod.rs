//! Feeds: what a folder or a broker on this device brings is answered by a model, and the answer goes where it was told.
//!
//! Decides how many there are, how they end, and what is counted. A feed takes one thing at a time and shares the models
//! with the local API: when they are busy it waits, and never holds more than it said.

mod answer;
mod folder;
mod input;
mod meant;
mod mqtt;
mod output;

pub(crate) use meant::{Meant, Raw};

use crate::worker::Worker;
use protocol::DeviceId;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

/// A feed at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FeedStatus {
    /// Its kind.
    pub(crate) kind: String,
    /// What it listens to: a folder, or a filter of topics.
    pub(crate) from: String,
    /// The stream that answers.
    pub(crate) model: String,
    /// Files or messages that were answered.
    pub(crate) answered: u64,
    /// Of those that came: no answer could be given, and it was said why.
    pub(crate) failed: u64,
    /// Messages, or answers, that were lost for want of room or of a connection.
    pub(crate) dropped: u64,
    /// What keeps it from working, if anything.
    pub(crate) trouble: Option<String>,
}

/// What a feed did, and what is wrong with it now.
#[derive(Debug, Default)]
struct Count {
    answered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    trouble: Mutex<Option<String>>,
    /// Rings when something of it changed.
    bell: Arc<Notify>,
}

impl Count {
    fn answered(&self) {
        self.add(&self.answered);
    }

    fn failed(&self) {
        self.add(&self.failed);
    }

    fn dropped(&self) {
        self.add(&self.dropped);
    }

    fn add(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// Nothing keeps it from working.
    fn works(&self) {
        if self.lock().take().is_some() {
            self.bell.notify_one();
        }
    }

    /// Something does; it is logged when it is news.
    fn troubled(&self, why: String) {
        let mut trouble = self.lock();
        if trouble.as_ref() != Some(&why) {
            tracing::warn!("the feed cannot work, it is tried again and again: {why}");
        }
        *trouble = Some(why);
        self.bell.notify_one();
    }

    // Nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all feeds did, for whoever asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    feeds: Arc<[(Meant, Arc<Count>)]>,
    bell: Arc<Notify>,
}

impl Counts {
    /// Waits until something of them changed.
    pub(crate) async fn stirred(&self) {
        self.bell.notified().await;
    }

    /// Each feed as it is now.
    pub(crate) fn status(&self) -> Vec<FeedStatus> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let status = |(meant, count): &(Meant, Arc<Count>)| FeedStatus {
            kind: meant.kind().into(),
            from: meant.from(),
            model: meant.model().to_string(),
            answered: read(&count.answered),
            failed: read(&count.failed),
            dropped: read(&count.dropped),
            trouble: count.lock().clone(),
        };
        self.feeds.iter().map(status).collect()
    }
}

/// The feeds that run; they end when this is dropped, in the middle of whatever they do.
#[derive(Debug)]
pub(crate) struct Feeds {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Feeds {
    /// Starts them on the runtime of the caller.
    pub(crate) fn start(meant: &[Meant], device: &DeviceId, worker: &Arc<Worker>) -> (Self, Counts) {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let bell = Arc::new(Notify::new());
        let count = || Arc::new(Count { bell: bell.clone(), ..Count::default() });
        let counts: Vec<(Meant, Arc<Count>)> = meant.iter().map(|meant| (meant.clone(), count())).collect();
        for (n, (meant, count)) in counts.iter().cloned().enumerate() {
            let span = tracing::info_span!("feed", kind = meant.kind(), from = meant.from());
            let (worker, stopped) = (worker.clone(), stopped.clone());
            let client = format!("petrel-feed-{device}-{n}");
            tasks.spawn(
                async move {
                    match meant {
                        Meant::Folder(folder) => folder::run(&folder, &worker, &count, stopped).await,
                        Meant::Mqtt(mqtt) => mqtt::run(&mqtt, client, &worker, &count, stopped).await,
                    }
                }
                .instrument(span),
            );
        }
        (Self { tasks, stop }, Counts { feeds: counts.into(), bell })
    }

    /// Lets each end what it is at.
    pub(crate) async fn end(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Waits until the feeds shall end.
async fn ended(stopped: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could say it.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
