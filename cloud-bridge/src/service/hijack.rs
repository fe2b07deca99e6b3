//! Land in hostile hands, for `petrel demo --attack`: whoever holds the bridge's machine has its papers, its keys, its
//! broker and the bundles that were pushed.
//!
//! Decides nothing: what is said with them is the demo's affair.

use super::config::BridgeConfig;
use super::library::Library;
use super::mqtt::{self, Inbound, Wire};
use super::pen::Pen;
use super::speaker::{Job, Speaker, Voice};
use super::store::Store;
use super::tally::What;
use super::{guests, start_broker};
use crate::broker::Broker;
use anyhow::Context;
use bridge_core::{AssignmentDraft, BeaconDraft};
use protocol::{BRIDGE_NAME, Topics};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedReceiver;
use trust::Digest;

/// Topics and what was said on them, in order.
type Heard = Vec<(String, Vec<u8>)>;

/// Everything that is said on a fleet's topics, heard with the bridge's papers.
pub(crate) struct Tap {
    heard: Arc<Mutex<Heard>>,
}

impl Tap {
    /// Listens at the broker for as long as the runtime lives, from the return of this function on.
    ///
    /// # Errors
    /// When the bridge's papers cannot be read.
    pub(crate) async fn open(config: &BridgeConfig, broker: &str) -> anyhow::Result<Self> {
        let name = format!("{BRIDGE_NAME}-tap");
        let everything = Topics::new(&config.fleet).everything();
        let Wire { client, mut inbound, mut listens, .. } = mqtt::connect(config, broker, &name, everything)?;
        let heard = Arc::<Mutex<Heard>>::default();
        let told = heard.clone();
        tokio::spawn(async move {
            while let Some(word) = inbound.recv().await {
                let Inbound::Said(publish, _) = word else { continue };
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                told.lock().unwrap_or_else(PoisonError::into_inner).push((topic, publish.payload.to_vec()));
                // The connection may be gone; what was heard stays.
                let _ = client.ack(&publish).await;
            }
        });
        listens.wait_for(|listens| *listens).await.context("the broker does not answer")?;
        Ok(Self { heard })
    }

    /// What was said on `topic`, the oldest first.
    pub(crate) fn heard(&self, topic: &str) -> Vec<Vec<u8>> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|(said, _)| said == topic).map(|(_, bytes)| bytes.clone()).collect()
    }
}

/// The bridge's place, taken.
pub(crate) struct Hijacked {
    broker: Option<Broker>,
    pen: Pen,
    speaker: Speaker,
    topics: Topics,
    /// Kept and not read: the connection ends with it.
    _inbound: UnboundedReceiver<Inbound>,
}

impl Hijacked {
    /// Opens its broker where the bridge's was, with all that the bridge had.
    ///
    /// # Errors
    /// What keeps a bridge from starting.
    pub(crate) async fn start(config: &BridgeConfig) -> anyhow::Result<Self> {
        let pen = Pen::open(config)?;
        let store = Store::open(&config.database, config.fleet.as_str()).await?;
        let guests = guests(&store).await?;
        store.close().await;
        let library = Arc::new(Library::open(&config.data, config.root()?.0)?);
        let (broker, address) = start_broker(config, guests).await?;
        let topics = Topics::new(&config.fleet);
        let wire = mqtt::connect(config, &address, BRIDGE_NAME, topics.up_filter())?;
        let Wire { client, inbound, mut listens, broker: connection, .. } = wire;
        listens.wait_for(|listens| *listens).await.context("the broker does not answer")?;
        let tally = Arc::default();
        let voice = Voice { client, broker: connection, topics: topics.clone(), library, tally, rate: None };
        let speaker = Speaker::start(voice);
        Ok(Self { broker, pen, speaker, topics, _inbound: inbound })
    }

    /// Says anything, retained.
    pub(crate) fn say(&self, topic: String, bytes: Vec<u8>) {
        self.speaker.publish(What::Document, topic, bytes);
    }

    /// Tells a device what to run, signed as the director.
    ///
    /// # Errors
    /// When a number or a time cannot be written.
    pub(crate) fn assign(&self, draft: &AssignmentDraft) -> anyhow::Result<()> {
        self.say(self.topics.assignment(&draft.device), self.pen.assignment(draft)?);
        Ok(())
    }

    /// Tells everybody the time, signed as the beacon.
    ///
    /// # Errors
    /// When a number or a time cannot be written.
    pub(crate) fn tell_time(&self, draft: &BeaconDraft, unix_seconds: u64) -> anyhow::Result<()> {
        self.say(self.topics.beacon(), self.pen.beacon(draft, unix_seconds)?);
        Ok(())
    }

    /// Publishes a bundle that was pushed to the bridge.
    pub(crate) fn deliver(&self, bundle: Digest) {
        self.speaker.ask(Job::Publish(bundle));
    }

    /// Gives the place up.
    pub(crate) async fn stop(self) {
        if let Some(broker) = self.broker {
            broker.stop().await;
        }
    }
}
