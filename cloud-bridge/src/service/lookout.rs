//! The lookout: whether the broker still retains a bundle.
//!
//! A broker that is killed may come back with our session and without what it retained last. Bundles are published
//! chunk by chunk, so the last one that is in no other bundle tells of all. Decides nothing: the driver is told what
//! is missing.

use super::library::Library;
use super::mqtt::Inbound;
use protocol::Topics;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};
use trust::Digest;

/// How long a retained message may take after its subscription.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at what the broker retains.
#[derive(Debug, Clone)]
pub(crate) struct Lookout {
    pub(crate) client: AsyncClient,
    pub(crate) topics: Topics,
    pub(crate) library: Arc<Library>,
    /// Whether the broker retains, while there is a connection.
    pub(crate) broker: watch::Receiver<Option<bool>>,
    pub(crate) tell: mpsc::WeakUnboundedSender<Inbound>,
    pub(crate) awaited: Awaited,
}

/// Chunks that were asked for and have not come.
pub(crate) type Awaited = Arc<Mutex<BTreeMap<[u8; 32], oneshot::Sender<()>>>>;

impl Lookout {
    /// Looks for each bundle, one after the other; one look ends with its connection.
    pub(crate) fn look(&self, bundles: BTreeSet<Digest>) {
        let mut lookout = self.clone();
        lookout.broker.mark_unchanged();
        tokio::spawn(async move {
            if let Err(error) = lookout.go_through(bundles).await {
                warn!(error = format!("{error:#}"), "what the broker retains could not be looked at");
            }
        });
    }

    /// A retained chunk came.
    pub(crate) fn saw(&self, chunk: [u8; 32]) {
        if let Some(awaited) = self.awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(&chunk) {
            // Nobody waits any more.
            let _ = awaited.send(());
        }
    }

    async fn go_through(self, bundles: BTreeSet<Digest>) -> anyhow::Result<()> {
        let library = self.library.clone();
        let last = tokio::task::spawn_blocking(move || last_chunks(&library, &bundles)).await??;
        for (bundle, chunk) in last {
            let held = self.holds(chunk.0).await?;
            if self.broker.has_changed()? {
                return Ok(());
            }
            if !held {
                info!(bundle = %bundle.short(), "the broker lost a bundle that it should retain");
                let Some(tell) = self.tell.upgrade() else { return Ok(()) };
                tell.send(Inbound::Missed { bundle })?;
            }
        }
        Ok(())
    }

    async fn holds(&self, chunk: [u8; 32]) -> anyhow::Result<bool> {
        let (seen, sees) = oneshot::channel();
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).insert(chunk, seen);
        let topic = self.topics.chunk(&chunk);
        self.client.subscribe(topic.clone(), QoS::AtLeastOnce).await?;
        let held = tokio::time::timeout(PATIENCE, sees).await.is_ok_and(|seen| seen.is_ok());
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(&chunk);
        self.client.unsubscribe(topic).await?;
        Ok(held)
    }
}

/// Of each bundle the last chunk that is in no other of them; of one that shares all, the last.
fn last_chunks(library: &Library, bundles: &BTreeSet<Digest>) -> anyhow::Result<Vec<(Digest, Digest)>> {
    let mut uses: BTreeMap<Digest, u32> = BTreeMap::new();
    let mut parts = Vec::new();
    for bundle in bundles {
        let of = library.parts(*bundle)?;
        of.chunks().iter().for_each(|chunk| *uses.entry(*chunk).or_default() += 1);
        parts.push((*bundle, of));
    }
    let last = |(bundle, of): (Digest, Arc<super::library::Parts>)| {
        let chunks = of.chunks();
        let own = chunks.iter().rev().find(|chunk| uses.get(chunk) == Some(&1));
        own.or(chunks.last()).map(|chunk| (bundle, *chunk))
    };
    Ok(parts.into_iter().filter_map(last).collect())
}
