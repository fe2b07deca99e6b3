//! One body of checks (`world::conformance`) on the simulation's broker and on real ones: that inside `petrel bridge`,
//! and Mosquitto where it is installed. Clients show certificates, as everybody does.

use crate::client::{Client, Papers, tls};
use crate::fleet::Fleet;
use protocol::{BridgeTopic, DeviceId, DeviceTopic, DocumentKind, FleetId, Topics};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use std::collections::{BTreeMap, VecDeque};
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
fn the_broker_inside_is_one() {
    check(&mut Real::new(Fleet::start()));
}

#[test]
fn mosquitto_is_one() {
    check(&mut Real::new(Fleet::on_mosquitto()));
}

/// Real clients of a real broker.
struct Real {
    runtime: Runtime,
    fleet: Fleet,
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
    fn new(mut fleet: Fleet) -> Self {
        for number in 0..2 {
            // One that waits for a person is told nothing, so its topics are the checks' own.
            fleet.enrol(device(number).as_str(), "--pending");
        }
        if fleet.has_broker_of_its_own() {
            // There the name in the certificate is the client id, and the checks need the bridge's.
            fleet.bridge.kill();
            // A clean start ends the session that the bridge left behind.
            drop(Client::connect(&fleet, Some(Papers::bridge(&fleet.desk)), "petrel-bridge", None).unwrap());
        }
        let name: FleetId = "sea".parse().unwrap();
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            fleet,
            topics: Topics::new(&name),
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
        let desk = &self.fleet.desk;
        let (name, papers) = match who {
            Who::Device(number) => (device(number).to_string(), Papers::device(desk, device(number).as_str())),
            Who::Land => ("petrel-bridge-conformance".to_owned(), Papers::bridge(desk)),
        };
        let (host, port) = self.fleet.broker();
        let mut options = MqttOptions::new(name, host, port);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls(desk, Some(papers)))));
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
