//! The broker as its clients see it: retained messages, wills, sessions, limits, over TLS. They come as the bridge,
//! which may say anything; what devices may is tested in `gate`, and with real devices end to end.

use rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, LastWill, Packet, PubAckReason, Publish};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{Outgoing, TlsConfiguration, Transport};

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// A folder with the broker's certificate and key, and clients that trust its authority and are trusted by it.
struct Desk {
    folder: tempfile::TempDir,
    tls: Arc<rustls::ClientConfig>,
}

impl Desk {
    fn new() -> Self {
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let root = authority.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("clients.pem"), root.pem()).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, protocol::BRIDGE_NAME);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        let shown = params.signed_by(&key, &issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![shown], key)
            .unwrap();
        Desk { folder, tls: Arc::new(tls) }
    }

    fn config(&self) -> BrokerConfig {
        let file = |name| self.folder.path().join(name);
        BrokerConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            cert: file("cert.pem"),
            key: file("key.pem"),
            clients: file("clients.pem"),
            fleet: "sea".parse().unwrap(),
            guests: Arc::default(),
            max_sessions: BrokerConfig::SESSIONS,
            max_retained: BrokerConfig::RETAINED,
        }
    }

    fn options(&self, broker: &Broker, id: &str) -> MqttOptions {
        let id = format!("{}-{id}", protocol::BRIDGE_NAME);
        let mut options = MqttOptions::new(id, "127.0.0.1", broker.address().port());
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(self.tls.clone())))
            .set_max_packet_size(Some(MAX_PACKET))
            .set_outgoing_inflight_upper_limit(16);
        options
    }

    async fn client(&self, broker: &Broker, id: &str) -> Client {
        Client::connect(self.options(broker, id)).await.unwrap()
    }
}

struct Client {
    mqtt: AsyncClient,
    line: EventLoop,
    session_present: bool,
}

impl Client {
    async fn connect(options: MqttOptions) -> Result<Client, ConnectionError> {
        let (mqtt, line) = AsyncClient::new(options, 16);
        let mut client = Client { mqtt, line, session_present: false };
        match client.event().await? {
            Event::Incoming(Packet::ConnAck(ack)) => client.session_present = ack.session_present,
            other => panic!("expected a CONNACK, not {other:?}"),
        }
        Ok(client)
    }

    async fn event(&mut self) -> Result<Event, ConnectionError> {
        tokio::time::timeout(SOON, self.line.poll()).await.expect("an event before the time is up")
    }

    async fn until<T>(&mut self, pick: impl Fn(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.event().await.unwrap()) {
                return found;
            }
        }
    }

    async fn subscribe(&mut self, filter: &str) {
        self.mqtt.subscribe(filter, AtLeastOnce).await.unwrap();
        self.until(|e| matches!(e, Event::Incoming(Packet::SubAck(_))).then_some(())).await
    }

    async fn keep(&mut self, topic: &str, payload: &str) -> PubAckReason {
        self.publish(topic, true, payload).await
    }

    async fn publish(&mut self, topic: &str, retain: bool, payload: &str) -> PubAckReason {
        self.mqtt.publish(topic, AtLeastOnce, retain, payload.to_owned()).await.unwrap();
        self.until(|e| match e {
            Event::Incoming(Packet::PubAck(ack)) => Some(ack.reason),
            _ => None,
        })
        .await
    }

    /// The next message as `topic payload`.
    async fn heard(&mut self) -> String {
        let text = |p: Publish| String::from_utf8([&p.topic, &b" "[..], &p.payload].concat()).unwrap();
        self.until(|e| match e {
            Event::Incoming(Packet::Publish(message)) => Some(text(message)),
            _ => None,
        })
        .await
    }

    /// Says goodbye; the broker leaves the closing of the line to the client.
    async fn leave(mut self) {
        self.mqtt.disconnect().await.unwrap();
        self.until(|e| matches!(e, Event::Outgoing(Outgoing::Disconnect)).then_some(())).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_is_delivered_late_replaced_and_cleared() {
    let desk = Desk::new();
    let broker = Broker::start(desk.config()).await.unwrap();
    let mut land = desk.client(&broker, "land").await;
    land.keep("c/1", "old").await;
    land.keep("c/1", "new").await;
    land.keep("c/2", "gone").await;
    land.keep("c/2", "").await;
    land.keep("c/3", "last").await;
    let mut device = desk.client(&broker, "device").await;
    device.mqtt.subscribe("c/+", AtLeastOnce).await.unwrap();
    let mut kept = [device.heard().await, device.heard().await];
    kept.sort();
    assert_eq!(kept, ["c/1 new", "c/3 last"]);
    land.publish("c/4", false, "live").await;
    assert_eq!(device.heard().await, "c/4 live");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_client_leaves_its_will_and_finds_what_it_missed() {
    let desk = Desk::new();
    let broker = Broker::start(desk.config()).await.unwrap();
    let mut options = desk.options(&broker, "device");
    options.set_clean_start(false).set_session_expiry_interval(Some(3600));
    options.set_last_will(LastWill::new("presence", "dead", AtLeastOnce, true, None));
    let mut land = desk.client(&broker, "land").await;
    land.subscribe("presence").await;

    let mut device = Client::connect(options.clone()).await.unwrap();
    assert!(!device.session_present);
    device.subscribe("down").await;
    drop(device);
    assert_eq!(land.heard().await, "presence dead");
    land.publish("down", false, "first").await;
    land.publish("down", false, "second").await;

    let mut device = Client::connect(options.clone()).await.unwrap();
    assert!(device.session_present);
    assert_eq!(device.heard().await, "down first");
    assert_eq!(device.heard().await, "down second");

    device.leave().await;
    let again = Client::connect(options).await.unwrap();
    assert!(again.session_present);
    land.publish("presence", false, "nobody died").await;
    assert_eq!(land.heard().await, "presence nobody died");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_refused_with_its_reason() {
    let desk = Desk::new();
    let config = BrokerConfig { max_sessions: 1, max_retained: 10, ..desk.config() };
    let broker = Broker::start(config).await.unwrap();
    let mut land = desk.client(&broker, "land").await;
    assert_eq!(land.keep("a", "0123456789").await, PubAckReason::Success);
    assert_eq!(land.keep("b", "0").await, PubAckReason::QuotaExceeded);
    assert_eq!(land.keep("a", "9876543210").await, PubAckReason::Success);
    assert_eq!(land.keep("a", "").await, PubAckReason::Success);
    assert_eq!(land.keep("b", "0").await, PubAckReason::Success);
    let deep = "/".repeat(MAX_TOPIC_LEVELS);
    assert_eq!(land.publish(&deep, false, "x").await, PubAckReason::TopicNameInvalid);
    match Client::connect(desk.options(&broker, "second")).await.err() {
        Some(ConnectionError::ConnectionRefused(reason)) => {
            assert_eq!(reason, ConnectReturnCode::ServerUnavailable)
        }
        other => panic!("expected a refusal, not {other:?}"),
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_will_does_no_harm() {
    let desk = Desk::new();
    let broker = Broker::start(BrokerConfig { max_retained: 1_000, ..desk.config() }).await.unwrap();
    let mut land = desk.client(&broker, "land").await;
    land.keep("kept", "well").await;
    for topic in ["#", "+", "", &"/".repeat(60_000)] {
        let mut options = desk.options(&broker, "hostile");
        options.set_clean_start(false).set_session_expiry_interval(Some(3600));
        let polite = options.clone();
        options.set_last_will(LastWill::new(topic, "boo", AtLeastOnce, true, None));
        drop(Client::connect(options).await.unwrap());
        // The session is handed over after its will.
        Client::connect(polite).await.unwrap().leave().await;
        land.mqtt.subscribe("kept", AtLeastOnce).await.unwrap();
        assert_eq!(land.heard().await, "kept well");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_members_of_a_share_take_turns() {
    let desk = Desk::new();
    let broker = Broker::start(desk.config()).await.unwrap();
    let (mut one, mut two) = (desk.client(&broker, "one").await, desk.client(&broker, "two").await);
    one.subscribe("$share/bridges/up").await;
    two.subscribe("$share/bridges/up").await;
    let mut device = desk.client(&broker, "device").await;
    device.publish("up", false, "1").await;
    device.publish("up", false, "2").await;
    let mut heard = [one.heard().await, two.heard().await];
    heard.sort();
    assert_eq!(heard, ["up 1", "up 2"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_names_the_fault_and_stopping_frees_the_port() {
    let desk = Desk::new();
    let broker = Broker::start(desk.config()).await.unwrap();
    let taken = BrokerConfig { listen: broker.address(), ..desk.config() };
    let no_cert = BrokerConfig { cert: "nowhere.pem".into(), ..desk.config() };
    let other_key = BrokerConfig { key: desk.folder.path().join("other.pem"), ..desk.config() };
    std::fs::write(&other_key.key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let address = broker.address().to_string();
    for (config, fault) in [(&taken, &*address), (&no_cert, "nowhere.pem"), (&other_key, "other.pem")] {
        let error = Broker::start(config.clone()).await.unwrap_err().to_string();
        assert!(error.contains(fault), "{error:?} does not name {fault:?}");
    }

    let mut client = desk.client(&broker, "client").await;
    broker.stop().await;
    assert!(client.event().await.is_err());
    Broker::start(taken).await.unwrap().stop().await;
}
