//! What Petrel needs of a broker, as one body of checks: run against the simulation's model and
//! against real brokers, so that the model lies in nothing that the cores rest on.
//!
//! It knows clients, topics and bytes. How a broker is reached is its implementation's business.

use std::collections::BTreeMap;

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A device by its number: a clean start at each connection; its will is retained.
    Device(usize),
    /// The bridge: one session that the broker keeps, subscribed to all that devices say.
    Land,
}

/// A topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// To a device.
    Assignment(usize),
    /// A chunk.
    Chunk([u8; 32]),
    /// Of a device.
    Presence(usize),
    /// Of a device.
    Verdict(usize),
}

/// A message as a client gets it; a cleared topic and an empty message look the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Where it was published.
    pub place: Place,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// The will of every device.
pub const WILL: &[u8] = b"gone";

/// A broker and its clients.
pub trait Brokered {
    /// Connects a client; whether the broker kept its session.
    fn connect(&mut self, who: Who) -> bool;
    /// Subscribes a device, and waits until the broker says so.
    fn subscribe(&mut self, device: usize, place: Place);
    /// Publishes with QoS 1, and waits until the broker has it.
    fn publish(&mut self, who: Who, place: Place, bytes: &[u8], retain: bool);
    /// Waits for the next message of a client.
    fn next(&mut self, who: Who) -> Heard;
    /// Acknowledges the last message of land. (Devices acknowledge by themselves.)
    fn acknowledge(&mut self);
    /// Cuts a connection, as a power cut does.
    fn lose(&mut self, who: Who);
}

/// Everything that is checked, in an order that leaves the broker as it was found. Devices 0 and 1 are
/// connected in it, and land.
pub fn check(broker: &mut impl Brokered) {
    assert!(!broker.connect(Who::Land), "a session before there was one");
    retained(broker);
    live(broker);
    wills(broker);
    sessions(broker);
    clean_starts(broker);
}

fn chunk(number: u8) -> Place {
    Place::Chunk([number; 32])
}

/// Nothing but `expected` comes, and this marker: whatever came besides would stand in its place, or in
/// that of the next one. A topic keeps its order; between topics there is none.
fn hears(broker: &mut impl Brokered, device: usize, expected: &[(Place, &[u8])], marker: &[u8]) {
    let end = Place::Assignment(device);
    broker.publish(Who::Land, end, marker, false);
    let by_topic = |messages: Vec<Heard>| {
        let mut topics: BTreeMap<Place, Vec<Vec<u8>>> = BTreeMap::new();
        messages.into_iter().for_each(|heard| topics.entry(heard.place).or_default().push(heard.bytes));
        topics
    };
    let expected = expected.iter().copied().chain([(end, marker)]);
    let expected: Vec<Heard> = expected.map(|(place, bytes)| Heard { place, bytes: bytes.to_vec() }).collect();
    let heard = expected.iter().map(|_| broker.next(Who::Device(device))).collect();
    assert_eq!(by_topic(heard), by_topic(expected));
}

/// A retained message reaches who comes later; it is replaced, and cleared by an empty one.
fn retained(broker: &mut impl Brokered) {
    broker.publish(Who::Land, chunk(1), b"first", true);
    broker.publish(Who::Land, chunk(1), b"second", true);
    broker.publish(Who::Land, chunk(2), b"cleared", true);
    broker.publish(Who::Land, chunk(2), b"", true);
    broker.connect(Who::Device(0));
    broker.subscribe(0, Place::Assignment(0));
    broker.subscribe(0, chunk(2));
    broker.subscribe(0, chunk(1));
    hears(broker, 0, &[(chunk(1), b"second")], b"after retained");
    // Subscribing again asks again: this is how a late chunk is looked for.
    broker.subscribe(0, chunk(1));
    hears(broker, 0, &[(chunk(1), b"second")], b"after asking again");
    broker.publish(Who::Land, chunk(1), b"", true);
    hears(broker, 0, &[(chunk(1), b"")], b"after clearing");
}

/// A message that is not retained reaches who is subscribed, in order, and nobody later.
fn live(broker: &mut impl Brokered) {
    broker.subscribe(0, chunk(3));
    broker.publish(Who::Land, chunk(3), b"one", false);
    broker.publish(Who::Land, chunk(3), b"two", false);
    broker.publish(Who::Land, Place::Assignment(1), b"not for it", false);
    hears(broker, 0, &[(chunk(3), b"one"), (chunk(3), b"two")], b"after live");
    broker.connect(Who::Device(1));
    broker.subscribe(1, Place::Assignment(1));
    broker.subscribe(1, chunk(3));
    hears(broker, 1, &[], b"nothing from before");
}

/// A device that is cut off is said to be gone, and stays so for who comes later.
fn wills(broker: &mut impl Brokered) {
    broker.publish(Who::Device(1), Place::Presence(1), b"here", true);
    land_hears(broker, Place::Presence(1), b"here");
    broker.lose(Who::Device(1));
    land_hears(broker, Place::Presence(1), WILL);
    // Itself, because no other may speak on its topics.
    broker.connect(Who::Device(1));
    broker.publish(Who::Device(1), Place::Presence(1), b"", true);
    land_hears(broker, Place::Presence(1), b"");
}

fn land_hears(broker: &mut impl Brokered, place: Place, bytes: &[u8]) {
    assert_eq!(broker.next(Who::Land), Heard { place, bytes: bytes.to_vec() });
    broker.acknowledge();
}

/// What devices say while land is away waits for it; what land did not acknowledge comes again.
fn sessions(broker: &mut impl Brokered) {
    broker.publish(Who::Device(0), Place::Verdict(0), b"unacknowledged", false);
    assert_eq!(broker.next(Who::Land), Heard { place: Place::Verdict(0), bytes: b"unacknowledged".to_vec() });
    broker.lose(Who::Land);
    broker.publish(Who::Device(0), Place::Verdict(0), b"while away", false);
    assert!(broker.connect(Who::Land), "the session was not kept");
    // Some brokers give what is new before what is old.
    let mut again = [broker.next(Who::Land), broker.next(Who::Land)].map(|heard| heard.bytes);
    again.sort();
    assert_eq!(again, [b"unacknowledged".to_vec(), b"while away".to_vec()]);
}

/// A device begins anew at each connection: it is subscribed to nothing.
fn clean_starts(broker: &mut impl Brokered) {
    broker.lose(Who::Device(0));
    assert!(!broker.connect(Who::Device(0)), "a device's session was kept");
    broker.publish(Who::Land, chunk(3), b"unheard", false);
    broker.subscribe(0, Place::Assignment(0));
    hears(broker, 0, &[], b"only what it asked for anew");
}
