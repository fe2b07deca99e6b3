//! The broker: retained messages, subscriptions, wills, and a session that is kept for the bridge only.
//!
//! It is a table and no clock: `world` moves the messages and decides how long each is under way.

use protocol::{Profile, Report, Verdict};
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
    Envelope(Digest),
    Chunk(Digest),
    Hello(usize),
    Need(usize),
    Presence(usize),
    Report(usize),
    Verdict(usize),
}

/// What a message says.
#[derive(Clone)]
pub(super) enum Payload {
    /// Signed bytes, or a chunk.
    Bytes(Rc<[u8]>),
    /// Clears what is retained.
    Empty,
    Hello { boot: u64, seq: u64, profile: Profile },
    Need { bundle: Digest, documents: bool, chunks: Vec<Digest> },
    Presence { online: bool },
    Report(Rc<Report>),
    Verdict(Rc<Verdict>),
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

/// What the broker has.
#[derive(Debug, Default)]
pub(super) struct Broker {
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
        }
    }
}

impl Topic {
    /// Whether the bridge hears it.
    pub(super) fn is_up(self) -> bool {
        match self {
            Topic::Hello(_) | Topic::Need(_) | Topic::Presence(_) | Topic::Report(_) | Topic::Verdict(_) => true,
            Topic::Assignment(_) | Topic::Envelope(_) | Topic::Chunk(_) => false,
        }
    }
}

impl Broker {
    /// Whether `link` is the connection that `client` has now.
    pub(super) fn is_linked(&self, client: Client, link: Link) -> bool {
        self.links.get(&client) == Some(&link)
    }

    /// Keeps `message`, if it is to be retained.
    pub(super) fn retain(&mut self, message: &Message) {
        match (message.retain, &message.payload) {
            (true, Payload::Empty) => drop(self.retained.remove(&message.topic)),
            (true, payload) => drop(self.retained.insert(message.topic, payload.clone())),
            (false, _) => {}
        }
    }

    /// The devices that hear `topic` now.
    pub(super) fn listeners(&self, topic: Topic) -> Vec<(usize, Link)> {
        let hears = |(device, filters): (&usize, &BTreeSet<Topic>)| {
            let link = self.links.get(&Client::Device(*device))?;
            filters.contains(&topic).then_some((*device, *link))
        };
        self.filters.iter().filter_map(hears).collect()
    }

    /// Puts `message` into the bridge's session; `None` when it has none.
    pub(super) fn queue(&mut self, message: Message) -> Option<u64> {
        let session = self.session.as_mut()?;
        self.queued += 1;
        session.insert(self.queued, message);
        Some(self.queued)
    }

    /// A device's clean start ends with its connection.
    pub(super) fn unlink(&mut self, client: Client) {
        self.links.remove(&client);
        if let Client::Device(device) = client {
            self.filters.remove(&device);
        }
    }
}
