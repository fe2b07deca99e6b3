//! The broker model without its world: what it says goes to whom arrives at once.

use super::broker::{Broker, Client, Delivery, Message, Payload, Topic};
use crate::conformance::{Brokered, Heard, Place, WILL, Who};
use std::collections::{BTreeMap, VecDeque};
use trust::Digest;

/// The broker of the simulation, for tests/end_to_end/conformance.rs.
#[derive(Debug, Default)]
pub struct ByHand {
    broker: Broker,
    links: u64,
    inboxes: BTreeMap<Client, VecDeque<Delivery>>,
    last: Option<u64>,
}

fn client(who: Who) -> Client {
    match who {
        Who::Device(device) => Client::Device(device),
        Who::Land => Client::Land,
    }
}

fn topic(place: Place) -> Topic {
    match place {
        Place::Assignment(device) => Topic::Assignment(device),
        Place::Chunk(digest) => Topic::Chunk(Digest(digest)),
        Place::Presence(device) => Topic::Presence(device),
        Place::Verdict(device) => Topic::Verdict(device),
    }
}

fn heard(message: Message) -> Heard {
    let place = match message.topic {
        Topic::Assignment(device) => Place::Assignment(device),
        Topic::Chunk(digest) => Place::Chunk(digest.0),
        Topic::Presence(device) => Place::Presence(device),
        Topic::Verdict(device) => Place::Verdict(device),
        other => panic!("nothing was published on {other:?}"),
    };
    let bytes = match message.payload {
        Payload::Bytes(bytes) => bytes.to_vec(),
        Payload::Empty => Vec::new(),
        Payload::Presence { online: false } => WILL.to_vec(),
        other => panic!("nobody published {other:?}"),
    };
    Heard { place, bytes }
}

impl ByHand {
    fn deliver(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            assert!(self.broker.is_linked(delivery.to, delivery.link), "a delivery to nobody");
            self.inboxes.entry(delivery.to).or_default().push_back(delivery);
        }
    }
}

impl Brokered for ByHand {
    fn connect(&mut self, who: Who) -> bool {
        self.links += 1;
        self.inboxes.remove(&client(who));
        let (kept, deliveries) = self.broker.connect(client(who), self.links);
        self.deliver(deliveries);
        kept
    }

    fn subscribe(&mut self, device: usize, place: Place) {
        let retained = self.broker.subscribe(device, topic(place));
        self.deliver(retained.unwrap_or_default());
    }

    fn publish(&mut self, _: Who, place: Place, bytes: &[u8], retain: bool) {
        let payload = if bytes.is_empty() { Payload::Empty } else { Payload::Bytes(bytes.into()) };
        let deliveries = self.broker.publish(Message { topic: topic(place), payload, retain, token: None });
        self.deliver(deliveries);
    }

    fn next(&mut self, who: Who) -> Heard {
        let delivery = self.inboxes.get_mut(&client(who)).and_then(VecDeque::pop_front);
        let delivery = delivery.unwrap_or_else(|| panic!("nothing comes to {who:?}"));
        if who == Who::Land {
            self.last = delivery.queued;
        }
        heard(delivery.message)
    }

    fn acknowledge(&mut self) {
        if let Some(queued) = self.last.take() {
            self.broker.acknowledge(queued);
        }
    }

    fn lose(&mut self, who: Who) {
        let will = self.broker.lose(client(who));
        self.deliver(will);
    }
}
