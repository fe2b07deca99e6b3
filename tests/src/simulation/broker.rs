//! The broker: retained messages, subscriptions, wills, and a session that is kept for the bridge only.
//!
//! It says what goes to whom and has no clock: `world` moves the messages and decides how long each is
//! under way. tests/end_to_end/conformance.rs holds it against real brokers.

use bridge_core::Measured;
use protocol::{DocumentKind, Profile, Report, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use trust::Digest;

/// A connection's number; a new one for each, so that what belongs to an old one is recognised.
pub(super) type Link = u64;

/// Who talks to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Client {
    Device(usize),
    Land,
}

/// A topic of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Assignment(usize),
    /// The answer to a device's hello.
    Answer(usize),
    /// A document for everybody, and the version of a root.
    All(DocumentKind, u64),
    Envelope(Digest),
    Chunk(Digest),
    Hello(usize),
    Need(usize),
    Presence(usize),
    Report(usize),
    Verdict(usize),
    Telemetry(usize),
}

/// What a message says.
#[derive(Clone)]
pub(super) enum Payload {
    /// Signed bytes, or a chunk.
    Bytes(Rc<[u8]>),
    /// Clears what is retained.
    Empty,
    Hello {
        boot: u64,
        seq: u64,
        nonce: String,
        profile: Profile,
    },
    Need {
        bundle: Digest,
        documents: bool,
        chunks: Vec<Digest>,
    },
    Presence {
        online: bool,
    },
    Report(Rc<Report>),
    Verdict(Rc<Verdict>),
    Telemetry(Rc<Measured>),
}

/// A message under way.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) topic: Topic,
    pub(super) payload: Payload,
    pub(super) retain: bool,
    /// What the publisher knows its acknowledgement by.
    pub(super) token: Option<u64>,
}

/// A message on its way from the broker to a client.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) to: Client,
    pub(super) link: Link,
    /// Its number in the bridge's session, if it is not a retained one.
    pub(super) queued: Option<u64>,
    pub(super) message: Message,
}

/// What a broker is able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// It keeps what is published to be kept; CONNACK says whether.
    pub(super) retains: bool,
    /// Subscriptions that it takes of one client.
    pub(super) filters: usize,
    /// Bytes of a message that it takes.
    pub(super) bytes: usize,
}

impl Kind {
    /// One of one's own.
    pub(super) const LARGE: Self = Self { retains: true, filters: usize::MAX, bytes: 1 << 20 };
    /// As clouds offer them.
    pub(super) const SMALL: Self = Self { retains: true, filters: 10, bytes: 128 * 1024 };
    /// One that only passes on.
    pub(super) const FORGETFUL: Self = Self { retains: false, ..Self::SMALL };
}

impl Default for Kind {
    fn default() -> Self {
        Self::LARGE
    }
}

/// What the broker has.
#[derive(Debug, Default)]
pub(super) struct Broker {
    pub(super) kind: Kind,
    pub(super) down: bool,
    pub(super) retained: BTreeMap<Topic, Payload>,
    pub(super) links: BTreeMap<Client, Link>,
    pub(super) filters: BTreeMap<usize, BTreeSet<Topic>>,
    /// The bridge's session: messages that it has not acknowledged. `None` when there is none.
    pub(super) session: Option<BTreeMap<u64, Message>>,
    queued: u64,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Bytes(bytes) => write!(f, "{:?}", Digest::of(bytes)),
            Payload::Empty => write!(f, "empty"),
            Payload::Hello { boot, seq, .. } => write!(f, "hello {boot}.{seq}"),
            Payload::Need { bundle, documents, chunks } => write!(f, "need of {bundle:?}: {documents} {chunks:?}"),
            Payload::Presence { online } => write!(f, "online {online}"),
            Payload::Report(r) => write!(f, "report {}.{}", r.boot, r.seq),
            Payload::Verdict(v) => write!(f, "verdict {} of {}: {:?} {:?}", v.seq, v.release, v.outcome, v.code),
            Payload::Telemetry(m) => {
                write!(f, "telemetry of {}: {} {}", m.release, m.figures.answers, m.figures.errors)
            }
        }
    }
}

impl Topic {
    /// Whether the bridge hears it.
    pub(super) fn is_up(self) -> bool {
        match self {
            Topic::Hello(_)
            | Topic::Need(_)
            | Topic::Presence(_)
            | Topic::Report(_)
            | Topic::Verdict(_)
            | Topic::Telemetry(_) => true,
            Topic::Assignment(_) | Topic::Answer(_) | Topic::All(..) | Topic::Envelope(_) | Topic::Chunk(_) => false,
        }
    }
}

impl Broker {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Whether `link` is the connection that `client` has now.
    pub(super) fn is_linked(&self, client: Client, link: Link) -> bool {
        self.links.get(&client) == Some(&link)
    }

    /// `client` has a connection now; whether its session was kept, and what waits for it.
    pub(super) fn connect(&mut self, client: Client, link: Link) -> (bool, Vec<Delivery>) {
        self.links.insert(client, link);
        if client != Client::Land {
            return (false, Vec::new());
        }
        let kept = self.session.is_some();
        let session = self.session.get_or_insert_default();
        let waiting = session.iter().map(|(queued, message)| (Some(*queued), message.clone()));
        let retained = self.retained.iter().filter(|(topic, _)| topic.is_up());
        let retained = retained.map(|(topic, payload)| (None, Message::plain(*topic, payload.clone())));
        let to = |(queued, message)| Delivery { to: client, link, queued, message };
        (kept, waiting.chain(retained).map(to).collect())
    }

    /// A device hears `topic` from now on, and what is retained there at once; `None` when it has too many already.
    pub(super) fn subscribe(&mut self, device: usize, topic: Topic) -> Option<Vec<Delivery>> {
        let to = Client::Device(device);
        let Some(link) = self.links.get(&to).copied() else { return Some(Vec::new()) };
        let filters = self.filters.entry(device).or_default();
        if filters.len() >= self.kind.filters && !filters.contains(&topic) {
            return None;
        }
        filters.insert(topic);
        let kept = self.retained.get(&topic).map(|payload| Message::plain(topic, payload.clone()));
        let message = kept.map(|kept| Message { retain: true, ..kept });
        Some(message.map(|message| Delivery { to, link, queued: None, message }).into_iter().collect())
    }

    /// A device hears `topic` no more.
    pub(super) fn unsubscribe(&mut self, device: usize, topic: Topic) {
        if let Some(filters) = self.filters.get_mut(&device) {
            filters.remove(&topic);
        }
    }

    /// A message came: it is retained and passed on.
    pub(super) fn publish(&mut self, message: Message) -> Vec<Delivery> {
        match (message.retain && self.kind.retains, &message.payload) {
            (true, Payload::Empty) => drop(self.retained.remove(&message.topic)),
            (true, payload) => drop(self.retained.insert(message.topic, payload.clone())),
            (false, _) => {}
        }
        if message.topic.is_up() {
            self.queue(message).into_iter().collect()
        } else {
            self.listeners(message.topic)
                .map(|(device, link)| Delivery {
                    to: Client::Device(device),
                    link,
                    queued: None,
                    message: Message::plain(message.topic, message.payload.clone()),
                })
                .collect()
        }
    }

    /// The bridge has message `queued`.
    pub(super) fn acknowledge(&mut self, queued: u64) {
        self.session.as_mut().and_then(|session| session.remove(&queued));
    }

    /// A connection is gone. A device's clean start ends with it, and its will is said.
    pub(super) fn lose(&mut self, client: Client) -> Vec<Delivery> {
        let was = self.links.remove(&client).is_some();
        let Client::Device(device) = client else { return Vec::new() };
        self.filters.remove(&device);
        if !was {
            return Vec::new();
        }
        let payload = Payload::Presence { online: false };
        self.publish(Message { topic: Topic::Presence(device), payload, retain: true, token: None })
    }

    /// The devices that hear `topic` now.
    fn listeners(&self, topic: Topic) -> impl Iterator<Item = (usize, Link)> {
        let range = match topic {
            Topic::Assignment(device) | Topic::Answer(device) => device..=device,
            _ => 0..=usize::MAX,
        };
        self.filters
            .range(range)
            .filter(move |(_, filters)| filters.contains(&topic))
            .filter_map(|(device, _)| self.links.get(&Client::Device(*device)).map(|link| (*device, *link)))
    }

    /// Puts `message` into the bridge's session, if there is one; it goes out if there is a connection.
    fn queue(&mut self, message: Message) -> Option<Delivery> {
        let session = self.session.as_mut()?;
        self.queued += 1;
        session.insert(self.queued, message.clone());
        let link = *self.links.get(&Client::Land)?;
        Some(Delivery { to: Client::Land, link, queued: Some(self.queued), message })
    }
}

impl Message {
    /// As the broker passes it on.
    fn plain(topic: Topic, payload: Payload) -> Self {
        Self { topic, payload, retain: false, token: None }
    }
}
