//! Devices as the broker sees them: each an MQTT client of its own, with its session, its will and its acknowledgements.
//!
//! Decides how they are connected and what is counted. All of them live in one thread; whoever measures waits for the counts.

use super::voice::{Heard, Voice, Word};
use anyhow::{Context, bail};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, LastWill, Packet, PubAckReason, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// Messages of a device that wait for their acknowledgement. The library's own limit costs 14 MB a client.
const IN_FLIGHT: u16 = 16;
/// Words of a device that wait to be sent.
pub(super) const WAITING: usize = 64;
/// As the agent does it.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What came to pass, of all devices together.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Messages that were given to the clients.
    pub(super) said: AtomicU64,
    /// Messages that the broker acknowledged.
    pub(super) acknowledged: AtomicU64,
    /// Assignments of a release.
    pub(super) releases: AtomicU64,
    /// Commands.
    pub(super) commands: AtomicU64,
    /// When the latest release or command came.
    latest: Mutex<Option<Instant>>,
    /// What must not happen: the first of it.
    fault: Mutex<Option<String>>,
}

impl Seen {
    /// Fails when a connection was lost, or a message was refused.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match &*self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(fault) => bail!("{fault}"),
            None => Ok(()),
        }
    }

    /// When the latest release or command came.
    pub(super) fn latest(&self) -> anyhow::Result<Instant> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).context("nothing came")
    }

    fn came(&self, what: &AtomicU64) {
        what.fetch_add(1, Relaxed);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn note(&self, fault: &anyhow::Error) {
        let mut first = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| format!("a device: {fault:#}"));
    }
}

/// Connected devices.
pub(super) struct Clients {
    runtime: Runtime,
    port: u16,
    senders: Vec<AsyncClient>,
    /// What came to pass.
    pub(super) seen: Arc<Seen>,
}

impl Clients {
    /// Nobody yet; they will connect to this port of this machine.
    pub(super) fn new(port: u16) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { runtime, port, senders: Vec::new(), seen: Arc::default() })
    }

    /// Connects one more device.
    pub(super) fn connect(&mut self, id: &str, voice: Voice) {
        let mut options = MqttOptions::new(id, Ipv4Addr::LOCALHOST.to_string(), self.port);
        let will = voice.will();
        options.set_last_will(LastWill::new(will.topic, will.bytes, QoS::AtLeastOnce, will.retain, None));
        options.set_clean_start(true).set_keep_alive(KEEP_ALIVE);
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT).set_max_packet_size(Some(protocol::MAX_PACKET_BYTES));
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, poll) = AsyncClient::new(options, WAITING);
        self.senders.push(client.clone());
        let seen = self.seen.clone();
        self.runtime.spawn(async move {
            if let Err(fault) = live(voice, client, poll, &seen).await {
                seen.note(&fault);
            }
        });
    }

    /// Lets the device with this number say something as soon as its window allows it.
    pub(super) fn say(&self, device: usize, word: Word) -> anyhow::Result<()> {
        say(self.senders.get(device).context("there is no such device")?, &self.seen, word)
    }

    /// Whether the broker has acknowledged all that was said.
    pub(super) fn all_acknowledged(&self) -> bool {
        self.seen.acknowledged.load(Relaxed) == self.seen.said.load(Relaxed)
    }
}

fn say(client: &AsyncClient, seen: &Seen, Word { topic, bytes, retain }: Word) -> anyhow::Result<()> {
    seen.said.fetch_add(1, Relaxed);
    client.try_publish(topic, QoS::AtLeastOnce, retain, bytes).context("too much waits to be said")
}

/// Polls until something happens that must not.
async fn live(mut voice: Voice, client: AsyncClient, mut poll: EventLoop, seen: &Seen) -> anyhow::Result<()> {
    loop {
        let Event::Incoming(packet) = poll.poll().await? else { continue };
        match packet {
            Packet::ConnAck(ack) => {
                anyhow::ensure!(ack.code == ConnectReturnCode::Success, "the broker said {:?}", ack.code);
                for filter in voice.filters() {
                    client.try_subscribe(filter, QoS::AtLeastOnce)?;
                }
                voice.birth()?.into_iter().try_for_each(|word| say(&client, seen, word))?;
            }
            Packet::PubAck(ack) => match ack.reason {
                PubAckReason::Success => drop(seen.acknowledged.fetch_add(1, Relaxed)),
                // Somebody who said so would have told the device that it was kept, and nobody kept it.
                reason => bail!("the broker said {reason:?} to a message"),
            },
            Packet::Publish(publish) => hear(&mut voice, &client, seen, &publish)?,
            Packet::Disconnect(why) => bail!("the broker ended the connection: {:?}", why.reason_code),
            _ => {}
        }
    }
}

fn hear(voice: &mut Voice, client: &AsyncClient, seen: &Seen, publish: &Publish) -> anyhow::Result<()> {
    let (heard, words) = voice.hear(std::str::from_utf8(&publish.topic)?, &publish.payload)?;
    match heard {
        Heard::Release => seen.came(&seen.releases),
        Heard::Command => seen.came(&seen.commands),
        Heard::Other => {}
    }
    words.into_iter().try_for_each(|word| say(client, seen, word))
}
