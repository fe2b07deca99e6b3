//! The connection to the broker.
//!
//! Decides how to connect, when to try again, and which acknowledgement belongs to which message.
//! What is said and heard is not known here. Each connection begins with a client of its own: nothing
//! of a broken one (ids, queues, subscriptions) lives on, and what must not be lost is in the core's
//! ledger, which says it again.

use crate::config::Broker;
use crate::identity::is_their_fault;
use protocol::MAX_PACKET_BYTES;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, DisconnectReasonCode, Filter, LastWill, Packet, PubAckReason, PublishProperties,
    SubscribeReasonCode, UnsubAckReason,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions, StateError};
use rumqttc::{Outgoing, TlsConfiguration, Transport};
use rustls::AlertDescription;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const KEEP_ALIVE: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT_S: u64 = 20;
/// The library's own default costs 14 MB.
const INFLIGHT: u16 = 16;
/// Requests that may wait for the connection.
const REQUESTS: usize = 4096;
/// Arrivals that may wait for the driver; then the broker waits.
const ARRIVALS: usize = 64;
/// Some brokers take no more topics in one SUBSCRIBE.
const TOPICS_PER_SUBSCRIBE: usize = 8;
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After a refusal of the device itself.
const UNWANTED_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_UNWANTED_PAUSE: Duration = Duration::from_secs(15 * 60);
/// A connection that held this long was a good one.
const GOOD_CONNECTION: Duration = Duration::from_secs(30);

/// What is needed to connect.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where the broker is.
    pub(crate) broker: Broker,
    /// The client id.
    pub(crate) client_id: String,
    /// How the broker is known, where it is spoken to over TLS.
    pub(crate) tls: Arc<rustls::ClientConfig>,
    /// What the broker says when the device is gone without a word: topic and payload, retained.
    pub(crate) will: (String, Vec<u8>),
    /// Connections that were refused to this device lately: the first attempt waits as long as the next would.
    pub(crate) refused: u32,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    /// In words.
    pub(crate) why: String,
    /// Whose fault it is.
    pub(crate) kind: LossKind,
}

/// Whose fault it is that there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LossKind {
    /// The network's, or nobody's.
    Network,
    /// The broker cannot prove who it is.
    Impostor,
    /// The broker keeps nothing, and takes no will that it should keep.
    Forgetful,
    /// The broker does not want this device.
    Refused,
    /// Somebody else came with this device's certificate: a copy of it, or land, which wants it gone.
    TakenOver,
    /// The broker says that the device's certificate has expired.
    Expired,
}

/// A message to publish, at least once.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its topic.
    pub(crate) topic: String,
    /// Its bytes.
    pub(crate) payload: Vec<u8>,
    /// Whether the broker keeps it.
    pub(crate) retain: bool,
    /// Seconds after which the broker drops it.
    pub(crate) expiry_s: Option<u32>,
    /// What [`Heard::Delivered`] or [`Heard::Refused`] says of it.
    pub(crate) receipt: Option<Receipt>,
}

/// Which message the broker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// The verdict of this number.
    Verdict(u64),
    /// A telemetry, or a window of drift.
    Spooled {
        /// Its run.
        run: u64,
        /// Its number.
        seq: u64,
    },
}

/// What the connection has to say.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The broker took the connection.
    Connected {
        /// It says that it keeps what is published to be kept.
        retains: bool,
    },
    /// The connection is gone; another is tried.
    Lost(Loss),
    /// There was no connection; another is tried.
    Unreachable(Loss),
    /// A message arrived.
    Message {
        /// Its topic.
        topic: String,
        /// Its bytes.
        payload: Vec<u8>,
        /// The broker had kept it.
        retained: bool,
    },
    /// The broker has a message.
    Delivered(Receipt),
    /// The broker does not want a message.
    Refused(Receipt),
    /// The broker did not take the subscriptions to these topics.
    TurnedDown(Vec<String>),
}

enum Raw {
    Up { client: AsyncClient, retains: bool },
    Down { was_up: bool, loss: Loss },
    Message { topic: String, payload: Vec<u8>, retained: bool },
    Sent(u16),
    Acknowledged { id: u16, refused: Option<PubAckReason> },
    Subscribed(Vec<SubscribeReasonCode>),
}

/// The one connection, made again and again.
#[derive(Debug)]
pub(crate) struct Link {
    settings: Settings,
    raw: mpsc::Receiver<Raw>,
    task: JoinHandle<()>,
    client: Option<AsyncClient>,
    /// The broker keeps what is published to be kept.
    retains: bool,
    /// Receipts of what was handed over, in its order, until it has a packet id.
    unsent: VecDeque<Option<Receipt>>,
    /// Receipts of what has one, until it is acknowledged.
    unacknowledged: BTreeMap<u16, Option<Receipt>>,
    /// Topics of the subscriptions that the broker has not answered, in their order.
    unanswered: VecDeque<Vec<String>>,
    choked: bool,
}

impl Link {
    /// Begins to connect, on the runtime of the caller.
    pub(crate) fn start(settings: Settings) -> Self {
        let (raw, task) = spawn(&settings);
        let (unsent, unacknowledged, unanswered) = (VecDeque::new(), BTreeMap::new(), VecDeque::new());
        Self { settings, raw, task, client: None, retains: true, unsent, unacknowledged, unanswered, choked: false }
    }

    /// What happened next. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            if self.choked {
                return self.begin_again();
            }
            let Some(raw) = self.raw.recv().await else {
                self.choked = true;
                continue;
            };
            match raw {
                Raw::Up { client, retains } => {
                    self.forget();
                    self.client = Some(client);
                    self.retains = retains;
                    return Heard::Connected { retains };
                }
                Raw::Down { was_up, loss } => {
                    self.forget();
                    return if was_up { Heard::Lost(loss) } else { Heard::Unreachable(loss) };
                }
                Raw::Message { topic, payload, retained } => return Heard::Message { topic, payload, retained },
                Raw::Sent(id) => {
                    let receipt = self.unsent.pop_front().flatten();
                    self.unacknowledged.insert(id, receipt);
                }
                Raw::Acknowledged { id, refused } => {
                    let receipt = self.unacknowledged.remove(&id).flatten();
                    if let Some(why) = refused {
                        tracing::warn!(
                            "the broker refused a message ({why:?}): its access rules must let this device write below d/{}/up",
                            self.settings.client_id
                        );
                    }
                    match receipt {
                        Some(receipt) if refused.is_some() => return Heard::Refused(receipt),
                        Some(receipt) => return Heard::Delivered(receipt),
                        None => {}
                    }
                }
                Raw::Subscribed(codes) => {
                    let topics = self.unanswered.pop_front().unwrap_or_default();
                    let taken = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                    let refused = topics.into_iter().zip(&codes).filter(|(_, code)| !taken(code));
                    let refused: Vec<String> = refused.map(|(topic, _)| topic).collect();
                    if !refused.is_empty() {
                        return Heard::TurnedDown(refused);
                    }
                }
            }
        }
    }

    /// Publishes, if there is a connection.
    pub(crate) fn publish(&mut self, message: Message) {
        let Some(client) = &self.client else { return };
        let properties = PublishProperties { message_expiry_interval: message.expiry_s, ..Default::default() };
        let handed = client.try_publish_with_properties(
            message.topic,
            QoS::AtLeastOnce,
            message.retain && self.retains,
            message.payload,
            properties,
        );
        match handed {
            Ok(()) => self.unsent.push_back(message.receipt),
            Err(_) => self.choked = true,
        }
    }

    /// Subscribes, if there is a connection.
    pub(crate) fn subscribe(&mut self, topics: impl IntoIterator<Item = String>) {
        let Some(client) = &self.client else { return };
        let topics: Vec<String> = topics.into_iter().collect();
        for some in topics.chunks(TOPICS_PER_SUBSCRIBE) {
            let filters = some.iter().map(|topic| Filter::new(topic, QoS::AtLeastOnce));
            match client.try_subscribe_many(filters) {
                Ok(()) => self.unanswered.push_back(some.to_vec()),
                Err(_) => self.choked = true,
            }
        }
    }

    /// Unsubscribes, if there is a connection.
    pub(crate) fn unsubscribe(&mut self, topic: String) {
        let Some(client) = &self.client else { return };
        self.choked |= client.try_unsubscribe(topic).is_err();
    }

    /// Says goodbye, so that the broker does not speak the will, and waits until that is said.
    pub(crate) async fn end(mut self, last: Message, patience: Duration) {
        self.publish(last);
        if self.client.take().is_some_and(|client| client.try_disconnect().is_ok()) {
            let gone = async { while !matches!(self.raw.recv().await, None | Some(Raw::Down { .. })) {} };
            let _ = tokio::time::timeout(patience, gone).await;
        }
        self.task.abort();
    }

    /// Drops the connection, in whatever state it is; the broker speaks the will.
    pub(crate) fn drop_now(self) {
        self.task.abort();
    }

    /// Too much waited to be sent: a new connection, after which everything is said again.
    fn begin_again(&mut self) -> Heard {
        self.task.abort();
        self.forget();
        (self.raw, self.task) = spawn(&self.settings);
        let why = "the connection did not take what was to be said".into();
        Heard::Lost(Loss { why, kind: LossKind::Network })
    }

    fn forget(&mut self) {
        self.client = None;
        self.choked = false;
        self.unsent.clear();
        self.unacknowledged.clear();
        self.unanswered.clear();
    }
}

fn spawn(settings: &Settings) -> (mpsc::Receiver<Raw>, JoinHandle<()>) {
    let (heard, raw) = mpsc::channel(ARRIVALS);
    let settings = settings.clone();
    (raw, tokio::spawn(async move { keep_connected(&settings, &heard).await }))
}

/// Ends when nobody listens any more.
async fn keep_connected(settings: &Settings, heard: &mpsc::Sender<Raw>) {
    let (mut failures, mut refused) = (0, settings.refused);
    let mut retain = true;
    if refused > 0 {
        tokio::time::sleep(unwanted_pause(refused, fastrand::f64())).await;
    }
    loop {
        let began = Instant::now();
        let Some((was_up, loss)) = connection(settings, retain, heard).await else { return };
        let kind = loss.kind;
        retain &= kind != LossKind::Forgetful;
        if heard.send(Raw::Down { was_up, loss }).await.is_err() {
            return;
        }
        let good = was_up && began.elapsed() >= GOOD_CONNECTION;
        failures = if good { 0 } else { failures + 1 };
        let pause = match kind {
            LossKind::Network | LossKind::Impostor | LossKind::Forgetful => pause(failures, fastrand::f64()),
            LossKind::Refused | LossKind::TakenOver | LossKind::Expired => {
                refused = if good { 1 } else { refused + 1 };
                unwanted_pause(refused, fastrand::f64())
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Full jitter: a fleet that lost its broker does not come back all at once.
pub(crate) fn pause(failures: u32, chance: f64) -> Duration {
    let longest = SHORTEST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    longest.mul_f64(chance)
}

/// A device that is not wanted knocks seldom: after a minute at least, and then ever later, up to half an hour.
fn unwanted_pause(refused: u32, chance: f64) -> Duration {
    let shortest = UNWANTED_PAUSE.saturating_mul(1 << refused.saturating_sub(1).min(4)).min(LONGEST_UNWANTED_PAUSE);
    shortest.mul_f64(1.0 + chance)
}

/// One connection from its beginning to its end: whether it ever was one, and why it ended.
async fn connection(settings: &Settings, retain: bool, heard: &mpsc::Sender<Raw>) -> Option<(bool, Loss)> {
    let (client, mut polled) = AsyncClient::new(options(settings, retain), REQUESTS);
    let mut was_up = false;
    loop {
        let raw = match polled.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                was_up = true;
                let said = ack.properties.and_then(|properties| properties.retain_available);
                Raw::Up { client: client.clone(), retains: said != Some(0) }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => match String::from_utf8(publish.topic.to_vec()) {
                Ok(topic) => Raw::Message { topic, payload: publish.payload.into(), retained: publish.retain },
                Err(_) => continue,
            },
            Ok(Event::Outgoing(Outgoing::Publish(id))) => Raw::Sent(id),
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                let taken = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
                Raw::Acknowledged { id: ack.pkid, refused: (!taken).then_some(ack.reason) }
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => Raw::Subscribed(ack.return_codes),
            Ok(Event::Incoming(Packet::UnsubAck(ack))) => {
                let odd = ack.reasons.iter().find(|reason| **reason != UnsubAckReason::Success);
                if let Some(reason) = odd {
                    tracing::debug!("a subscription could not be ended: {reason:?}");
                }
                continue;
            }
            // The goodbye is said. Some brokers leave closing to the client.
            Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                return Some((was_up, Loss { why: "goodbye".into(), kind: LossKind::Network }));
            }
            Ok(_) => continue,
            Err(error) => return Some((was_up, explain(&error))),
        };
        heard.send(raw).await.ok()?;
    }
}

fn options(settings: &Settings, retain: bool) -> MqttOptions {
    let mut options = MqttOptions::new(&settings.client_id, &settings.broker.host, settings.broker.port);
    let (topic, payload) = settings.will.clone();
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT_S);
    let transport = match settings.broker.tls {
        true => Transport::tls_with_config(TlsConfiguration::Rustls(settings.tls.clone())),
        false => Transport::tcp(),
    };
    options
        .set_transport(transport)
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(CONNECT_TIMEOUT_S)
        .set_clean_start(true)
        .set_max_packet_size(Some(MAX_PACKET_BYTES))
        .set_outgoing_inflight_upper_limit(INFLIGHT)
        .set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, retain, None))
        .set_network_options(network);
    options
}

/// The library's words, which hold those of their causes, and whose fault it is.
fn explain(error: &ConnectionError) -> Loss {
    let why = match error {
        ConnectionError::Timeout(_) => "there was no answer in time".into(),
        other => other.to_string(),
    };
    Loss { why, kind: kind(error) }
}

fn kind(error: &ConnectionError) -> LossKind {
    use ConnectReturnCode as Code;
    let refused = match error {
        ConnectionError::ConnectionRefused(Code::RetainNotSupported) => return LossKind::Forgetful,
        ConnectionError::ConnectionRefused(code) => matches!(
            code,
            Code::NotAuthorized | Code::Banned | Code::BadUserNamePassword | Code::ClientIdentifierNotValid
        ),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => match reason_code {
            DisconnectReasonCode::SessionTakenOver => return LossKind::TakenOver,
            other => {
                matches!(other, DisconnectReasonCode::NotAuthorized | DisconnectReasonCode::AdministrativeAction)
            }
        },
        _ => false,
    };
    if refused {
        return LossKind::Refused;
    }
    match tls_error(error) {
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => LossKind::Expired,
        Some(rustls::Error::AlertReceived(
            AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
            | AlertDescription::DecryptError,
        )) => LossKind::Refused,
        Some(error) if is_their_fault(error) => LossKind::Impostor,
        Some(_) | None => LossKind::Network,
    }
}

/// What TLS said, however deep in the error.
fn tls_error(error: &ConnectionError) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(match error {
        // This one hides its cause.
        ConnectionError::MqttState(StateError::Deserialization(hidden)) => hidden,
        other => other,
    });
    while let Some(error) = cause {
        let within = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let found = within.and_then(|e| e.downcast_ref::<rustls::Error>());
        if let Some(found) = found.or_else(|| error.downcast_ref::<rustls::Error>()) {
            return Some(found);
        }
        // An `io::Error` gives the cause of what it wraps, not what it wraps.
        cause = match within {
            Some(within) => Some(within as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::CertificateError;

    #[test]
    fn the_pause_doubles_up_to_its_limit_and_chance_shortens_it() {
        let longest: Vec<f64> = (0..8).map(|failures| pause(failures, 1.0).as_secs_f64()).collect();
        assert_eq!(longest, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(pause(u32::MAX, 0.0), Duration::ZERO);
        assert_eq!(pause(3, 0.5), Duration::from_secs(2));
    }

    /// T66: a device that is refused makes no storm.
    #[test]
    fn a_device_that_is_not_wanted_waits_for_a_minute_at_least() {
        let shortest: Vec<u64> = (1..7).map(|refused| unwanted_pause(refused, 0.0).as_secs()).collect();
        assert_eq!(shortest, [60, 120, 240, 480, 900, 900]);
        assert_eq!(unwanted_pause(1, 0.5), Duration::from_secs(90));
        assert_eq!(unwanted_pause(u32::MAX, 1.0), Duration::from_secs(1_800));
    }

    #[test]
    fn it_is_known_whose_fault_it_is() {
        let tls =
            |error: rustls::Error| ConnectionError::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, error));
        let ended =
            |reason_code| ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string: None });
        let alert = |alert| tls(rustls::Error::AlertReceived(alert));
        let revoked = rustls::Error::AlertReceived(AlertDescription::CertificateRevoked);
        let hidden = std::io::Error::new(std::io::ErrorKind::InvalidData, revoked);
        let hidden = ConnectionError::MqttState(StateError::Deserialization(hidden.into()));
        for (error, expected) in [
            (tls(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)), LossKind::Impostor),
            (alert(AlertDescription::ProtocolVersion), LossKind::Impostor),
            (alert(AlertDescription::CertificateRevoked), LossKind::Refused),
            (hidden, LossKind::Refused),
            (alert(AlertDescription::CertificateExpired), LossKind::Expired),
            (alert(AlertDescription::InternalError), LossKind::Network),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized), LossKind::Refused),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::ServerBusy), LossKind::Network),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::RetainNotSupported), LossKind::Forgetful),
            (ConnectionError::Io(std::io::ErrorKind::ConnectionReset.into()), LossKind::Network),
            (ended(DisconnectReasonCode::SessionTakenOver), LossKind::TakenOver),
            (ended(DisconnectReasonCode::NotAuthorized), LossKind::Refused),
            (ended(DisconnectReasonCode::ServerShuttingDown), LossKind::Network),
        ] {
            assert_eq!(kind(&error), expected, "{error}");
        }
    }
}
