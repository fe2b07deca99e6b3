//! One body of checks (`world::conformance`) on the simulation's broker and on a real one: that inside
//! `petrel bridge`, or any other with TLS that `PETREL_TEST_BROKER` and `PETREL_TEST_CA` name.

use crate::fleet::Fleet;
use protocol::{BridgeTopic, DeviceId, DeviceTopic, DocumentKind, FleetId, Topics};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use world::conformance::{Brokered, Heard, Place, WILL, Who, check};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_model_is_a_broker() {
    check(&mut world::ByHand::default());
}

#[test]
fn a_real_broker_is_one() {
    if let (Ok(broker), Ok(ca)) = (std::env::var("PETREL_TEST_BROKER"), std::env::var("PETREL_TEST_CA")) {
        return check(&mut Real::new(&broker, Path::new(&ca)));
    }
    let fleet = Fleet::start();
    let addresses: serde_json::Value = serde_json::from_slice(&fleet.desk.read("fleet/data/bridge.json")).unwrap();
    check(&mut Real::new(addresses["broker"].as_str().unwrap(), &fleet.desk.path("fleet/tls/ca.pem")));
}

/// Real clients of a real broker.
struct Real {
    runtime: Runtime,
    host: String,
    port: u16,
    tls: Arc<rustls::ClientConfig>,
    topics: Topics,
    clients: BTreeMap<Who, Connection>,
    last: Option<Publish>,
}

struct Connection {
    client: AsyncClient,
    poll: EventLoop,
    heard: VecDeque<Publish>,
}

impl Connection {
    /// Polls until the broker answers as expected; what is published meanwhile is kept.
    async fn until<T>(&mut self, expected: impl Fn(&Packet) -> Option<T>) -> T {
        let answer = async {
            loop {
                if let Event::Incoming(packet) = self.poll.poll().await.expect("the connection holds") {
                    let found = expected(&packet);
                    if let Packet::Publish(publish) = packet {
                        self.heard.push_back(publish);
                    }
                    if let Some(found) = found {
                        return found;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.expect("the broker answers")
    }
}

impl Real {
    fn new(broker: &str, ca: &Path) -> Self {
        // Another test of this process may have done it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (host, port) = broker.strip_prefix("mqtts://").and_then(|b| b.rsplit_once(':')).expect("mqtts://host:port");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // A fleet of its own: a broker that was used before has other topics.
        let fleet: FleetId = format!("c{}-{}", std::process::id(), port).parse().unwrap();
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            host: host.to_owned(),
            port: port.parse().unwrap(),
            tls: Arc::new(tls),
            topics: Topics::new(&fleet),
            clients: BTreeMap::new(),
            last: None,
        }
    }

    fn topic(&self, place: Place) -> String {
        match place {
            Place::Assignment(number) => self.topics.assignment(&device(number)),
            Place::Chunk(digest) => self.topics.chunk(&digest),
            Place::Presence(number) => self.topics.upstream(&BridgeTopic::Presence(device(number))),
            Place::Verdict(number) => self.topics.upstream(&BridgeTopic::Verdict(device(number))),
        }
    }

    fn heard(&self, publish: &Publish) -> Heard {
        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
        let down = (0..2).find_map(|number| match self.topics.read_down(&device(number), &topic)? {
            DeviceTopic::Document(DocumentKind::Assignment) => Some(Place::Assignment(number)),
            DeviceTopic::Chunk(digest) => Some(Place::Chunk(digest)),
            DeviceTopic::Document(_) | DeviceTopic::Envelope(_) | DeviceTopic::Offer(_) => None,
        });
        let up = || match self.topics.read_up(&topic)? {
            BridgeTopic::Presence(id) => Some(Place::Presence(number(&id))),
            BridgeTopic::Verdict(id) => Some(Place::Verdict(number(&id))),
            _ => None,
        };
        Heard { place: down.or_else(up).expect("a topic of the checks"), bytes: publish.payload.to_vec() }
    }

    fn options(&self, who: Who) -> MqttOptions {
        let name = match who {
            Who::Device(number) => format!("{}-{}", device(number), std::process::id()),
            Who::Land => format!("land-{}", std::process::id()),
        };
        let mut options = MqttOptions::new(name, self.host.clone(), self.port);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(self.tls.clone())));
        options.set_outgoing_inflight_upper_limit(16);
        options.set_max_packet_size(Some(protocol::MAX_PACKET_BYTES));
        match who {
            Who::Device(number) => {
                let topic = self.topic(Place::Presence(number));
                options.set_clean_start(true);
                options.set_last_will(LastWill::new(topic, WILL, QoS::AtLeastOnce, true, None));
            }
            Who::Land => {
                options.set_clean_start(false).set_session_expiry_interval(Some(3_600)).set_manual_acks(true);
            }
        }
        options
    }
}

fn device(number: usize) -> DeviceId {
    format!("conf-{number}").parse().unwrap()
}

fn number(id: &DeviceId) -> usize {
    id.as_str().trim_start_matches("conf-").parse().unwrap()
}

impl Brokered for Real {
    fn connect(&mut self, who: Who) -> bool {
        let (client, poll) = AsyncClient::new(self.options(who), 64);
        let mut connection = Connection { client, poll, heard: VecDeque::new() };
        let filter = self.topics.up_filter();
        let kept = self.runtime.block_on(async {
            let kept = connection
                .until(|p| {
                    matches!(p, Packet::ConnAck(_)).then(|| matches!(p, Packet::ConnAck(a) if a.session_present))
                })
                .await;
            if who == Who::Land && !kept {
                connection.client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
                connection.until(|p| matches!(p, Packet::SubAck(_)).then_some(())).await;
            }
            kept
        });
        self.clients.insert(who, connection);
        kept
    }

    fn subscribe(&mut self, device: usize, place: Place) {
        let topic = self.topic(place);
        let connection = self.clients.get_mut(&Who::Device(device)).unwrap();
        connection.client.try_subscribe(topic, QoS::AtLeastOnce).unwrap();
        self.runtime.block_on(connection.until(|p| matches!(p, Packet::SubAck(_)).then_some(())));
    }

    fn publish(&mut self, who: Who, place: Place, bytes: &[u8], retain: bool) {
        let topic = self.topic(place);
        let connection = self.clients.get_mut(&who).unwrap();
        connection.client.try_publish(topic, QoS::AtLeastOnce, retain, bytes.to_vec()).unwrap();
        self.runtime.block_on(connection.until(|p| matches!(p, Packet::PubAck(_)).then_some(())));
    }

    fn next(&mut self, who: Who) -> Heard {
        let connection = self.clients.get_mut(&who).unwrap();
        if connection.heard.is_empty() {
            self.runtime.block_on(connection.until(|p| matches!(p, Packet::Publish(_)).then_some(())));
        }
        let publish = connection.heard.pop_front().unwrap();
        let heard = self.heard(&publish);
        if who == Who::Land {
            self.last = Some(publish);
        }
        heard
    }

    fn acknowledge(&mut self) {
        let publish = self.last.take().unwrap();
        let connection = self.clients.get_mut(&Who::Land).unwrap();
        connection.client.try_ack(&publish).unwrap();
        self.runtime.block_on(async {
            let sent = async {
                loop {
                    match connection.poll.poll().await.expect("the connection holds") {
                        Event::Outgoing(rumqttc::Outgoing::PubAck(_)) => return,
                        Event::Incoming(Packet::Publish(publish)) => connection.heard.push_back(publish),
                        _ => {}
                    }
                }
            };
            tokio::time::timeout(PATIENCE, sent).await.expect("the acknowledgement goes out");
        });
    }

    fn lose(&mut self, who: Who) {
        // Without a goodbye: the socket closes, and the broker speaks the will.
        drop(self.clients.remove(&who));
    }
}
