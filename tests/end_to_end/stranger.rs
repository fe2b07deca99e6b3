//! A stranger at the broker: it hears what is retained, and says whatever it likes on anybody's topic.
//!
//! Decides only how bytes come to a topic. What they are is decided by each test.

use crate::fleet::Fleet;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long the broker may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that nobody let in.
pub(crate) struct Stranger {
    runtime: Runtime,
    client: AsyncClient,
    poll: EventLoop,
}

impl Stranger {
    pub(crate) fn at(fleet: &Fleet) -> Self {
        // Another test of this process may have done it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let addresses: Value = serde_json::from_slice(&fleet.desk.read("fleet/data/bridge.json")).unwrap();
        let broker = addresses["broker"].as_str().unwrap().strip_prefix("mqtts://").unwrap();
        let (host, port) = broker.rsplit_once(':').unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(fleet.desk.path("fleet/tls/ca.pem")).unwrap()).unwrap();
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut options = MqttOptions::new("stranger", host.to_owned(), port.parse().unwrap());
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
        options.set_max_packet_size(Some(protocol::MAX_PACKET_BYTES));
        let (client, poll) = AsyncClient::new(options, 16);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, client, poll }
    }

    /// Publishes, and waits until the broker has it.
    pub(crate) fn says(&mut self, topic: &str, bytes: &[u8], retain: bool) {
        self.client.try_publish(topic, QoS::AtLeastOnce, retain, bytes.to_vec()).unwrap();
        self.until(|packet| matches!(packet, Packet::PubAck(_)).then_some(()));
    }

    /// What is retained on a topic.
    pub(crate) fn hears(&mut self, topic: &str) -> Vec<u8> {
        self.client.try_subscribe(topic, QoS::AtLeastOnce).unwrap();
        let said = |publish: &Publish| publish.topic == topic.as_bytes() && !publish.payload.is_empty();
        let heard = self.until(|packet| match packet {
            Packet::Publish(publish) => said(publish).then(|| publish.payload.to_vec()),
            _ => None,
        });
        self.client.try_unsubscribe(topic).unwrap();
        self.until(|packet| matches!(packet, Packet::UnsubAck(_)).then_some(()));
        heard
    }

    fn until<T>(&mut self, expected: impl Fn(&Packet) -> Option<T>) -> T {
        let Self { runtime, poll, .. } = self;
        runtime.block_on(async {
            let answer = async {
                loop {
                    if let Event::Incoming(packet) = poll.poll().await.expect("the connection holds")
                        && let Some(found) = expected(&packet)
                    {
                        return found;
                    }
                }
            };
            tokio::time::timeout(PATIENCE, answer).await.expect("the broker answers")
        })
    }
}
