//! An MQTT client that may be hostile: with whose papers it comes, what it calls itself and what it says is its test's
//! affair.

use crate::fleet::Fleet;
use crate::programs::Desk;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, PubAckReason, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(20);

/// A certificate and its key.
pub(crate) struct Papers {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Papers {
    /// Those of a device whose state is the folder `id`.
    pub(crate) fn device(desk: &Desk, id: &str) -> Self {
        let held: Value = serde_json::from_slice(&desk.read(&format!("{id}/identity/a.json"))).unwrap();
        let chain = CertificateDer::pem_slice_iter(held["chain"].as_str().unwrap().as_bytes());
        let key = PrivatePkcs8KeyDer::from(desk.read(&format!("{id}/identity/a.key")));
        Self { chain: chain.map(Result::unwrap).collect(), key: key.into() }
    }

    /// The bridge's own.
    pub(crate) fn bridge(desk: &Desk) -> Self {
        let chain = CertificateDer::pem_file_iter(desk.path("fleet/tls/petrel-bridge.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(desk.path("fleet/tls/petrel-bridge.key")).unwrap();
        Self { chain: chain.map(Result::unwrap).collect(), key }
    }
}

/// TLS that believes the fleet's authority.
pub(crate) fn tls(desk: &Desk, papers: Option<Papers>) -> Arc<rustls::ClientConfig> {
    // Another test of this process may have done it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(desk.path("fleet/tls/ca.pem")).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    Arc::new(match papers {
        Some(Papers { chain, key }) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    })
}

/// A connection.
pub(crate) struct Client {
    runtime: Runtime,
    client: AsyncClient,
    poll: EventLoop,
    heard: VecDeque<Publish>,
}

impl Client {
    /// Connects as `id`; the error of whoever was refused. `will` is the topic of a last will.
    pub(crate) fn connect(fleet: &Fleet, papers: Option<Papers>, id: &str, will: Option<&str>) -> Result<Self, String> {
        Self::at(&fleet.desk, fleet.broker(), papers, id, will)
    }

    /// The same, at a broker that is known already.
    pub(crate) fn at(
        desk: &Desk,
        (host, port): (String, u16),
        papers: Option<Papers>,
        id: &str,
        will: Option<&str>,
    ) -> Result<Self, String> {
        let mut options = MqttOptions::new(id, host, port);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls(desk, papers))));
        options.set_clean_start(true).set_max_packet_size(Some(protocol::MAX_PACKET_BYTES));
        if let Some(topic) = will {
            options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, false, None));
        }
        let (client, poll) = AsyncClient::new(options, 16);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut connected = Self { runtime, client, poll, heard: VecDeque::new() };
        connected.until(|packet| matches!(packet, Packet::ConnAck(_)).then_some(()))?;
        Ok(connected)
    }

    fn until<T>(&mut self, expected: impl Fn(&Packet) -> Option<T>) -> Result<T, String> {
        let answer = async {
            loop {
                if let Event::Incoming(packet) = self.poll.poll().await.map_err(|e| e.to_string())? {
                    let found = expected(&packet);
                    if let Packet::Publish(publish) = packet {
                        self.heard.push_back(publish);
                    }
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await.expect("the broker answers") })
    }

    /// Publishes, and what the broker says to it.
    pub(crate) fn publish(&mut self, topic: &str, retain: bool, bytes: &[u8]) -> PubAckReason {
        self.client.try_publish(topic, QoS::AtLeastOnce, retain, bytes.to_vec()).unwrap();
        let acknowledged = |packet: &Packet| match packet {
            Packet::PubAck(ack) => Some(ack.reason),
            _ => None,
        };
        self.until(acknowledged).expect("the connection holds")
    }

    /// Publishes the same again and again, as fast as the broker takes it.
    pub(crate) fn flood(&mut self, topic: &str, times: usize, bytes: &[u8]) {
        for n in 0..times {
            let last = n + 1 == times;
            let qos = if last { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            while self.client.try_publish(topic, qos, false, bytes.to_vec()).is_err() {
                self.runtime.block_on(self.poll.poll()).expect("the connection holds");
            }
        }
        self.until(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).expect("the connection holds");
    }

    /// Subscribes, and what the broker says to it.
    pub(crate) fn subscribe(&mut self, filter: &str) -> SubscribeReasonCode {
        self.client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
        let acknowledged = |packet: &Packet| match packet {
            Packet::SubAck(ack) => ack.return_codes.first().copied(),
            _ => None,
        };
        self.until(acknowledged).expect("the connection holds")
    }

    /// What is retained on a topic that it may hear.
    pub(crate) fn hears(&mut self, topic: &str) -> Vec<u8> {
        assert_ne!(self.subscribe(topic), SubscribeReasonCode::NotAuthorized, "{topic}");
        loop {
            if let Some(said) = self.heard.pop_front() {
                if said.topic == topic.as_bytes() && !said.payload.is_empty() {
                    return said.payload.to_vec();
                }
                continue;
            }
            self.until(|packet| matches!(packet, Packet::Publish(_)).then_some(())).expect("the connection holds");
        }
    }

    /// The topic of the next message.
    pub(crate) fn next_topic(&mut self) -> String {
        if self.heard.is_empty() {
            self.until(|packet| matches!(packet, Packet::Publish(_)).then_some(())).expect("the connection holds");
        }
        String::from_utf8(self.heard.pop_front().unwrap().topic.to_vec()).unwrap()
    }

    /// Waits until the broker has ended the connection; why.
    pub(crate) fn ended(&mut self) -> String {
        self.until(|_| None::<()>).expect_err("the connection ends")
    }
}
