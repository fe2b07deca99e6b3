//! The wire of land: one MQTT 5 session that the broker keeps while the bridge is away.
//!
//! Decides how the connection is held. What arrives goes to the driver and is acknowledged by it,
//! after it was saved; the polling task itself never waits for the driver's requests.

use super::config::BridgeConfig;
use super::tls;
use crate::fault::Fault;
use protocol::MAX_PACKET_BYTES;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions, Request};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};
use trust::Digest;

/// Seconds that the broker keeps what devices say while the bridge is away.
const SESSION_SECONDS: u32 = 24 * 3_600;
/// Messages on their way from the broker to the driver: the broker sends no more until they are acknowledged.
const INBOUND: u16 = 1_000;
/// Requests on their way to the broker.
const OUTBOUND: usize = 256;
/// The longest pause between attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the wire tells the driver.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// Connected; `remembered` when the broker kept our session, `retains` when it keeps what it is told to.
    Connected { remembered: bool, retains: bool },
    /// The broker does not hold a bundle that it should retain.
    Missed { bundle: Digest },
    /// A device said something, which came now; to be acknowledged once it is saved.
    Said(Box<Publish>, Instant),
}

/// An open session.
pub(crate) struct Wire {
    /// To say something.
    pub(crate) client: AsyncClient,
    /// What is heard.
    pub(crate) inbound: mpsc::UnboundedReceiver<Inbound>,
    /// Whether the broker has taken the subscription: what devices say before that may be lost.
    pub(crate) listens: watch::Receiver<bool>,
    /// Whether the broker retains, while there is a connection.
    pub(crate) broker: watch::Receiver<Option<bool>>,
    /// The way to the driver for whoever looks at the broker.
    pub(crate) tell: mpsc::WeakUnboundedSender<Inbound>,
}

struct Line {
    poll: EventLoop,
    client: AsyncClient,
    tell: mpsc::UnboundedSender<Inbound>,
    listening: watch::Sender<bool>,
    broker: watch::Sender<Option<bool>>,
    filter: String,
    address: String,
}

/// Opens the session `id`, which hears what `filter` says; the connection is made, and made again, in the background.
pub(crate) fn connect(config: &BridgeConfig, address: &str, id: &str, filter: String) -> anyhow::Result<Wire> {
    let (host, port) = parse(address)?;
    let tls = tls::client(&config.ca, tls::chain(&config.client_cert)?, tls::key(&config.client_key)?)?;
    // Brokers bind the client id to the name in the certificate: it begins like it.
    let mut options = MqttOptions::new(id, host, port);
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
    options.set_keep_alive(Duration::from_secs(20));
    options.set_clean_start(false);
    options.set_manual_acks(true);
    options.set_outgoing_inflight_upper_limit(64);
    options.set_session_expiry_interval(Some(SESSION_SECONDS));
    options.set_receive_maximum(Some(INBOUND));
    options.set_max_packet_size(Some(MAX_PACKET_BYTES));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, poll) = AsyncClient::new(options, OUTBOUND);
    // Bounded by the receive maximum, so the polling task never waits for the driver, which may wait for it.
    let (tell, inbound) = mpsc::unbounded_channel();
    let (listening, listens) = watch::channel(false);
    let (retains, broker) = watch::channel(None);
    let (address, weak) = (address.to_owned(), tell.downgrade());
    let line = Line { poll, client: client.clone(), tell, listening, broker: retains, filter, address };
    tokio::spawn(line.keep());
    Ok(Wire { client, inbound, listens, broker, tell: weak })
}

/// `mqtts://host:port`
pub(crate) fn parse(address: &str) -> anyhow::Result<(String, u16)> {
    let fault = || {
        Fault::new(format!("`{address}` is no broker that the bridge can use"))
            .remedy("give one with TLS, such as mqtts://broker.example:8883")
    };
    let rest = address.strip_prefix("mqtts://").ok_or_else(fault)?;
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "8883"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|_| !host.is_empty()).ok_or_else(fault)?;
    Ok((host.to_owned(), port))
}

impl Line {
    /// A broker that retains nothing ends a connection on which it is told to.
    fn retain_nothing(&mut self) {
        for request in &mut self.poll.pending {
            if let Request::Publish(publish) = request {
                publish.retain = false;
            }
        }
    }

    /// Polls for as long as the driver listens.
    async fn keep(mut self) {
        let mut pause = Duration::from_millis(200);
        let mut up = None;
        loop {
            let inbound = match self.poll.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                    let properties = ack.properties.as_ref();
                    let retains = properties.and_then(|said| said.retain_available) != Some(0);
                    info!(
                        broker = self.address,
                        session_kept = ack.session_present,
                        retains,
                        "connected to the broker"
                    );
                    if !retains {
                        self.retain_nothing();
                    }
                    self.broker.send_replace(Some(retains));
                    pause = Duration::from_millis(200);
                    up = Some(true);
                    // Aside, because the request channel may be full and only this loop drains it.
                    let (client, filter, tell) = (self.client.clone(), self.filter.clone(), self.tell.clone());
                    tokio::spawn(async move {
                        if client.subscribe(filter, QoS::AtLeastOnce).await.is_ok() {
                            // Nobody listens any more when the bridge stops.
                            let _ = tell.send(Inbound::Connected { remembered: ack.session_present, retains });
                        }
                    });
                    continue;
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    self.listening.send_replace(true);
                    continue;
                }
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
                Ok(Event::Incoming(Packet::Publish(publish))) if publish.qos == QoS::AtMostOnce => continue,
                Ok(Event::Incoming(Packet::Publish(publish))) => Inbound::Said(Box::new(publish), Instant::now()),
                Ok(_) => continue,
                Err(error) => {
                    if up != Some(false) {
                        warn!(broker = self.address, %error, "no connection to the broker: trying again");
                    }
                    up = Some(false);
                    self.broker.send_replace(None);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            if self.tell.send(inbound).is_err() {
                return;
            }
        }
    }
}
