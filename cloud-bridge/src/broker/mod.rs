//! The broker inside this process: MQTT over TLS for a desk and a single site.
//!
//! Decides how much one process may hold for its clients (packets, sessions, queues, retained bytes) and what happens
//! at a limit; who may come in and say what is decided in `gate`. It keeps everything in memory, so a restart begins empty and the bridge and the devices publish again.

mod gate;

pub(crate) use gate::Guests;

use gate::Gate;
use protocol::{FleetId, Topics};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::codec::v5::PublishAckReason;
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::net::{Builder, Listener};
use rmqtt::retain::{RetainStorage, RetainTree};
use rmqtt::server::MqttServer;
use rmqtt::subscribe::SharedSubscription;
use rmqtt::topic::Topic;
use rmqtt::types::{
    ClientId, Id, IsOnline, NodeId, PublishAclResult, PublishResult, Retain, SharedGroup, SubscriptionIdentifier,
    SubscriptionOptions, TimedValue, TopicFilter, TopicName,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::{RwLock, oneshot};

/// The largest packet that the broker takes, in bytes: a chunk with room to spare.
pub(crate) const MAX_PACKET: u32 = 256 * 1024;
/// Messages that wait for one client before the oldest of QoS 1 is dropped.
const MAX_QUEUE: usize = 50_000;
/// Messages of QoS 1 under way to one client, and from one client.
const MAX_INFLIGHT: NonZeroU16 = NonZeroU16::new(64).unwrap();
/// Subscriptions of one client; more are refused in the SUBACK.
const MAX_SUBSCRIPTIONS: usize = 1_000;
/// Levels of one topic; deeper ones are refused. (The library walks topics by recursion: this guards the stack.)
const MAX_TOPIC_LEVELS: usize = 16;
const MAX_CLIENT_ID: usize = 128;
/// An absent client is forgotten after a week, whatever it asked for.
const MAX_SESSION_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
const HANDSHAKE: Duration = Duration::from_secs(15);
/// How often retained messages past their expiry are swept out.
const SWEEP: Duration = Duration::from_secs(60);
/// What running connections get to end in when the broker stops.
const GOODBYE: Duration = Duration::from_secs(2);
/// The fleet's traffic is chunks, so two threads of its own fill a gigabit link.
const THREADS: usize = 2;

/// Where the broker listens, as whom, and how much it may hold.
#[derive(Clone, Debug)]
pub(crate) struct BrokerConfig {
    /// The address to listen on; port 0 takes a free one, which [`Broker::address`] then tells.
    pub(crate) listen: SocketAddr,
    /// PEM file with the certificate chain, the broker's own first.
    pub(crate) cert: PathBuf,
    /// PEM file with the private key of that certificate.
    pub(crate) key: PathBuf,
    /// PEM file with the certificate that signs those of clients.
    pub(crate) clients: PathBuf,
    /// The fleet whose topics are used.
    pub(crate) fleet: FleetId,
    /// Which of those certificates count.
    pub(crate) guests: Arc<Guests>,
    /// Sessions at once, connected or remembered; one more is refused with `ServerUnavailable`.
    pub(crate) max_sessions: u16,
    /// Bytes of retained payload; one more is refused with `QuotaExceeded`.
    pub(crate) max_retained: usize,
}

impl BrokerConfig {
    /// Sessions at once for a desk: connected or remembered.
    pub(crate) const SESSIONS: u16 = 1_000;
    /// Bytes of retained payload for a desk.
    pub(crate) const RETAINED: usize = 1 << 30;
}

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    /// The address is in use, or not of this machine.
    #[error(
        "cannot listen for MQTT on {address}: {reason}; choose another address, or stop the program that holds this one"
    )]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// The words of the operating system.
        reason: String,
    },
    /// The certificate or its key cannot be used.
    #[error(
        "cannot use {} for the broker's TLS: {reason}; give PEM files of a certificate chain and of its private key",
        path.display()
    )]
    Identity {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system gave the broker no threads.
    #[error("cannot start the broker's threads")]
    Threads(#[source] io::Error),
}

/// A running broker. It stops when it is dropped; [`Broker::stop`] also waits until it has.
#[derive(Debug)]
pub(crate) struct Broker {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Broker {
    /// Starts a broker on a thread and a runtime of its own, and returns once it listens.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when certificate and key are not usable or the address is not free.
    pub(crate) async fn start(config: BrokerConfig) -> Result<Broker, BrokerError> {
        check_identity(&config.cert, &config.key, &config.clients)?;
        let (listening, address) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("broker".into())
            .spawn(move || run(&config, listening, stopped))
            .map_err(BrokerError::Threads)?;
        let address = address.await.map_err(|_| BrokerError::Threads(io::ErrorKind::BrokenPipe.into()))??;
        Ok(Broker { address, stop, thread })
    }

    /// The address that clients connect to, with the real port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection, forgets every session and retained message, and frees the port.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        // A thread that panicked has stopped as well.
        let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
    }
}

/// Finds out before the broker does, with an error that names the file.
fn check_identity(cert: &Path, key: &Path, clients: &Path) -> Result<(), BrokerError> {
    let fault = |path: &Path, reason: String| BrokerError::Identity { path: path.to_owned(), reason };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|e| fault(cert, e.to_string()))?;
    if chain.is_empty() {
        return Err(fault(cert, "it holds no certificate".into()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| fault(key, e.to_string()))?;
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|tls| tls.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|e| fault(key, e.to_string()))?;
    CertificateDer::from_pem_file(clients).map_err(|e| fault(clients, e.to_string()))?;
    Ok(())
}

/// The broker's thread. The library cannot end its connections: the end of this runtime does.
fn run(
    config: &BrokerConfig,
    listening: oneshot::Sender<Result<SocketAddr, BrokerError>>,
    stop: oneshot::Receiver<()>,
) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).thread_name("broker").enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return drop(listening.send(Err(BrokerError::Threads(e)))),
    };
    runtime.block_on(async {
        let (address, listener) = match listen(config) {
            Ok(bound) => bound,
            Err(e) => return drop(listening.send(Err(e))),
        };
        let retained = Arc::new(Retained { limit: config.max_retained, held: RwLock::default() });
        let context = context(config, &retained).await;
        let server = MqttServer::new(context).listener_by_id(listener, address.port()).build();
        if listening.send(Ok(address)).is_ok() {
            tokio::select! {
                _ = server.run() => {}
                _ = retained.sweep() => {}
                _ = stop => {}
            }
        }
        // The library's parts hold each other, so they outlive the runtime; the bytes must not.
        *retained.held.write().await = Held::default();
    });
    runtime.shutdown_timeout(GOODBYE);
}

fn listen(config: &BrokerConfig) -> Result<(SocketAddr, Listener), BrokerError> {
    let refused = |e: rmqtt::Error| BrokerError::Listen { address: config.listen, reason: e.to_string() };
    let file = |path: &Path| {
        path.to_str()
            .map(String::from)
            .ok_or_else(|| BrokerError::Identity { path: path.to_owned(), reason: "its name is not UTF-8".into() })
    };
    let listener = Builder::new()
        .name("petrel")
        .laddr(config.listen)
        .reuseaddr(Some(true)) // a restart need not wait for the sockets of the last run
        .nodelay(true)
        .max_connections(config.max_sessions.into())
        .max_packet_size(MAX_PACKET)
        .max_mqueue_len(MAX_QUEUE)
        .max_inflight(MAX_INFLIGHT)
        .max_subscriptions(MAX_SUBSCRIPTIONS)
        .max_topic_levels(MAX_TOPIC_LEVELS)
        .max_clientid_len(MAX_CLIENT_ID)
        .handshake_timeout(HANDSHAKE)
        .max_session_expiry_interval(MAX_SESSION_EXPIRY)
        .message_expiry_interval(Duration::ZERO) // never, unless the message says so itself
        .message_retry_interval(Duration::ZERO) // MQTT 5 sends again at a reconnect and at no other time
        .allow_anonymous(false) // or nobody without a user name would be asked for anything
        .tls_cross_certificate(true)
        .tls_client_ca_certs(Some(file(&config.clients)?))
        .collect_cert_info(true)
        .tls_cert(Some(file(&config.cert)?))
        .tls_key(Some(file(&config.key)?))
        .bind()
        .and_then(Listener::tls)
        .map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((address, listener))
}

/// The library's parts, with the three that it leaves open: retained messages, their limit, and shared subscriptions.
async fn context(config: &BrokerConfig, retained: &Arc<Retained>) -> ServerContext {
    let context = ServerContext::new()
        .mqtt_max_sessions(config.max_sessions as isize)
        .busy_check_enable(false) // or a machine at work would refuse its devices
        .build()
        .await;
    *context.extends.retain_mut().await = Box::new(Store(retained.clone()));
    *context.extends.shared_subscription_mut().await = Box::new(RoundRobin(AtomicUsize::new(0)));
    let hooks = context.extends.hook_mgr().register();
    let gate = || Box::new(Gate { guests: config.guests.clone(), topics: Topics::new(&config.fleet) });
    hooks.add(Type::ClientAuthenticate, gate()).await;
    hooks.add(Type::ClientSubscribeCheckAcl, gate()).await;
    let admission = Admission { gate: *gate(), retained: retained.clone() };
    hooks.add(Type::MessagePublishCheckAcl, Box::new(admission)).await;
    hooks.start().await;
    context
}

/// Retained messages by topic, bounded by the bytes of their payloads.
struct Retained {
    limit: usize,
    held: RwLock<Held>,
}

#[derive(Default)]
struct Held {
    messages: RetainTree<TimedValue<Retain>>,
    bytes: usize,
}

impl Held {
    /// What a payload of this size in place of the topic's present one would bring the sum to.
    fn bytes_with(&self, topic: &Topic, size: usize) -> usize {
        let replaced: usize = self.messages.matches(topic).iter().map(|(_, held)| size_of_payload(held)).sum();
        self.bytes - replaced + size
    }
}

/// Whether a message may go to this topic; the library itself lets wildcards and any depth through.
fn is_name(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#']) && topic.split('/').count() <= MAX_TOPIC_LEVELS
}

fn size_of_payload(held: &TimedValue<Retain>) -> usize {
    held.value().publish.payload.len()
}

impl Retained {
    /// Whether a [name](is_name) may hold this size. Clearing is always possible, at the limit too.
    async fn has_room(&self, topic: &str, size: usize) -> bool {
        let Ok(topic) = Topic::from_str(topic) else { return false };
        size == 0 || self.held.read().await.bytes_with(&topic, size) <= self.limit
    }

    /// Gives back the room of expired messages, for ever.
    async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Held { messages, bytes } = &mut *self.held.write().await;
            messages.retain(usize::MAX, |held| {
                let expired = held.is_expired();
                if expired {
                    *bytes -= size_of_payload(held);
                }
                !expired
            });
        }
    }
}

/// The library's door to [`Retained`].
struct Store(Arc<Retained>);

#[async_trait]
impl RetainStorage for Store {
    fn enable(&self) -> bool {
        true
    }

    async fn set(&self, name: &TopicName, mut retain: Retain, expiry: Option<Duration>) -> rmqtt::Result<()> {
        // A will comes here unasked, and two may race: `Admission` refuses all others with a reason.
        if !is_name(name) {
            return Ok(());
        }
        let topic = Topic::from_str(name)?;
        let size = retain.publish.payload.len();
        let mut held = self.0.held.write().await;
        let bytes = held.bytes_with(&topic, size);
        if size > 0 && bytes > self.0.limit {
            tracing::warn!(topic = %name, "retained message dropped: the broker's limit is reached");
            return Ok(());
        }
        held.bytes = bytes;
        if size == 0 {
            held.messages.remove(&topic);
            return Ok(());
        }
        // Both are slices of the network's buffer and would keep all of it; the tree knows the topic.
        retain.publish.payload = retain.publish.payload.to_vec().into();
        retain.publish.topic = TopicName::default();
        let expiry = expiry.filter(|after| !after.is_zero());
        held.messages.insert(&topic, TimedValue::new(retain, expiry));
        Ok(())
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        let filter = Topic::from_str(filter)?;
        let found = self.0.held.read().await.messages.matches(&filter);
        let alive = found.into_iter().filter(|(_, held)| !held.is_expired());
        Ok(alive.map(|(topic, held)| (topic.to_string().into(), held.into_value())).collect())
    }

    async fn count(&self) -> isize {
        self.0.held.read().await.messages.values_size() as isize
    }

    async fn max(&self) -> isize {
        self.count().await
    }
}

/// Refuses a message that is not its publisher's to say, or that no topic or no room takes, so that it hears of it.
struct Admission {
    gate: Gate,
    retained: Arc<Retained>,
}

#[async_trait]
impl Handler for Admission {
    async fn hook(&self, event: &Parameter, so_far: Option<HookResult>) -> ReturnType {
        let Parameter::MessagePublishCheckAcl(_, publish) = event else { return (true, so_far) };
        let (goes_on, refusal) = self.gate.hook(event, so_far).await;
        if !goes_on {
            return (false, refusal);
        }
        let (code, reason) = if !is_name(&publish.topic) {
            (PublishAckReason::TopicNameInvalid, "a topic to publish to has no wildcard and at most 16 levels")
        } else if publish.retain && !self.retained.has_room(&publish.topic, publish.payload.len()).await {
            (PublishAckReason::QuotaExceeded, "the broker holds no more retained bytes")
        } else {
            return (true, refusal);
        };
        let refusal = PublishResult::reason_code(code, Some(reason.into()), false);
        (false, Some(HookResult::PublishAclResult(PublishAclResult(refusal))))
    }
}

/// `$share/group/filter`: the members take turns, those who are connected first.
struct RoundRobin(AtomicUsize);

type Member = (NodeId, ClientId, SubscriptionOptions, Option<Vec<SubscriptionIdentifier>>, Option<IsOnline>);

#[async_trait]
impl SharedSubscription for RoundRobin {
    fn is_supported(&self) -> bool {
        true
    }

    async fn choice(
        &self,
        _: &ServerContext,
        _: &SharedGroup,
        _: &Id,
        _: &TopicName,
        members: &[Member],
    ) -> Option<(usize, IsOnline)> {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        let order = || (0..members.len()).map(|i| turn.wrapping_add(i) % members.len());
        let online = |&i: &usize| members[i].4 == Some(true);
        order().find(online).map(|i| (i, true)).or_else(|| order().next().map(|i| (i, false)))
    }
}

#[cfg(test)]
mod tests;
