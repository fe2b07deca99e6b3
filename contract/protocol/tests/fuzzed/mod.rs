//! What must hold for any bytes on the wire: no panic, and what was read says itself again.
//!
//! Called with bounded random bytes by `tests/wire.rs` and by the targets of `tests/fuzz`. The first byte
//! says which message, or which part of a topic, the rest is.

use crate::samples::{self, Wire};
use petrel_protocol::*;
use std::fmt::Debug;

/// A target: its name, bytes to begin with, and the function.
pub(crate) type Target = (&'static str, fn() -> Vec<u8>, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 2] = [
    ("topics", || b"\0petrel/v1/demo/d/rpi-1/up/report".to_vec(), any_topic),
    ("messages", || [&[0][..], &samples::hello().encode()].concat(), any_message),
];

/// Topics, as either side reads them: what is read is for whom it says, and is written as it was read.
pub(crate) fn any_topic(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let topics = Topics::new(&"demo".parse().expect("a good name"));
    let device: DeviceId = "rpi-1".parse().expect("a good name");
    // Random bytes rarely begin as every topic does.
    let topic = match mode % 4 {
        0 => text.into_owned(),
        1 => format!("petrel/v1/demo/{text}"),
        2 => format!("petrel/v1/demo/all/{text}"),
        _ => format!("petrel/v1/demo/d/{text}/up/report"),
    };
    if let Some(up) = topics.read_up(&topic) {
        assert_eq!(topics.upstream(&up), topic, "a topic has one form");
    }
    if let Some(down) = topics.read_down(&device, &topic) {
        let forms = match down {
            DeviceTopic::Document(DocumentKind::Assignment) => vec![topics.assignment(&device)],
            DeviceTopic::Document(DocumentKind::Command) => vec![topics.command(&device)],
            DeviceTopic::Document(DocumentKind::Beacon) => vec![topics.answer(&device), topics.beacon()],
            DeviceTopic::Document(DocumentKind::Revocation) => vec![topics.revocation()],
            DeviceTopic::Document(DocumentKind::Breakglass) => vec![topics.breakglass()],
            DeviceTopic::Document(DocumentKind::Root) => {
                let number = topic.rsplit('/').next().and_then(|number| number.parse().ok());
                number.map(|number| topics.root(number)).into_iter().collect()
            }
            DeviceTopic::Envelope(digest) => vec![topics.envelope(&digest)],
            DeviceTopic::Offer(digest) => vec![topics.offer(&digest)],
            DeviceTopic::Chunk(digest) => vec![topics.chunk(&digest)],
        };
        assert!(forms.contains(&topic), "a topic has one form: {topic}");
    }
}

/// Messages of every kind.
pub(crate) fn any_message(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    match mode % 10 {
        0 => says_itself::<Hello>(rest),
        1 => says_itself::<Need>(rest),
        2 => says_itself::<Telemetry>(rest),
        3 => says_itself::<Presence>(rest),
        4 => says_itself::<Offer>(rest),
        5 => says_itself::<Report>(rest),
        6 => says_itself::<Verdict>(rest),
        7 => says_itself::<Drift>(rest),
        8 => says_itself::<CommandResult>(rest),
        _ => says_itself::<Fetch>(rest),
    }
}

fn says_itself<T: Wire + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = T::decode(bytes) else { return };
    let said = message.encode();
    // A text of nothing but escapes may be longer when it is written again.
    if said.len() <= T::LIMIT {
        assert_eq!(T::decode(&said).as_ref().map(Wire::encode), Ok(said), "it says itself again");
    }
}
