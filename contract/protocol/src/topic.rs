//! The topic tree, the one place that knows it: `petrel/v1/<fleet>/…`.
//!
//! The device's name stands at a fixed place, so any broker can express the access rules with the
//! name in the client's certificate. Parsing is strict: what is not in the tree is no topic of ours.

use crate::{DeviceId, FleetId};
use serde::{Deserialize, Serialize};

/// Builds and reads the topics of one fleet.
#[derive(Debug, Clone)]
pub struct Topics {
    root: String,
}

/// The kinds of documents that land signs for devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentKind {
    /// The root of trust.
    Root,
    /// What was taken away.
    Revocation,
    /// What one device should run.
    Assignment,
    /// The time, and what is the newest.
    Beacon,
    /// Leave to go below a floor.
    Breakglass,
    /// What one device should do now.
    Command,
}

/// What a device receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceTopic {
    /// `d/<device>/down/{assignment,beacon,command}` and `all/{roots/<n>,revocation,beacon,breakglass}`: signed;
    /// retained, but for the beacon that answers one device, and commands.
    Document(DocumentKind),
    /// `b/<statement digest>/envelope`: signed, retained.
    Envelope([u8; 32]),
    /// `b/<statement digest>/offer`: unsigned, retained.
    Offer([u8; 32]),
    /// `c/<chunk digest>`: the chunk's bytes, retained.
    Chunk([u8; 32]),
}

/// What the bridge receives, and from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgeTopic {
    /// `up/hello`
    Hello(DeviceId),
    /// `up/need`
    Need(DeviceId),
    /// `up/presence`, retained, also the will
    Presence(DeviceId),
    /// `up/report`, retained
    Report(DeviceId),
    /// `up/telemetry`
    Telemetry(DeviceId),
    /// `up/drift`
    Drift(DeviceId),
    /// `up/verdict`
    Verdict(DeviceId),
    /// `up/result`
    Result(DeviceId),
}

impl Topics {
    /// The topics of `fleet`.
    pub fn new(fleet: &FleetId) -> Self {
        Self { root: format!("petrel/v1/{fleet}/") }
    }

    /// What every topic begins with.
    pub(crate) fn base(&self) -> &str {
        &self.root
    }

    /// `d/<device>/down/assignment`
    pub fn assignment(&self, device: &DeviceId) -> String {
        format!("{}d/{device}/down/assignment", self.root)
    }

    /// `d/<device>/down/beacon`: the answer to this device's hello.
    pub fn answer(&self, device: &DeviceId) -> String {
        format!("{}d/{device}/down/beacon", self.root)
    }

    /// `d/<device>/down/command`
    pub fn command(&self, device: &DeviceId) -> String {
        format!("{}d/{device}/down/command", self.root)
    }

    /// `all/roots/<version>`: each root on a topic of its own, so that a device reads what it lacks and no more.
    pub fn root(&self, version: u64) -> String {
        format!("{}all/roots/{version}", self.root)
    }

    /// `all/revocation`
    pub fn revocation(&self) -> String {
        format!("{}all/revocation", self.root)
    }

    /// `all/beacon`
    pub fn beacon(&self) -> String {
        format!("{}all/beacon", self.root)
    }

    /// `all/breakglass`
    pub fn breakglass(&self) -> String {
        format!("{}all/breakglass", self.root)
    }

    /// The filter of what land says to everybody, but for the roots: `all/+`.
    pub fn all_filter(&self) -> String {
        format!("{}all/+", self.root)
    }

    /// `d/<device>/up/<leaf>`
    fn up(&self, device: &DeviceId, leaf: &str) -> String {
        format!("{}d/{device}/up/{leaf}", self.root)
    }

    /// The topic of what a device says, as the bridge will read it.
    pub fn upstream(&self, topic: &BridgeTopic) -> String {
        match topic {
            BridgeTopic::Hello(device) => self.up(device, "hello"),
            BridgeTopic::Need(device) => self.up(device, "need"),
            BridgeTopic::Presence(device) => self.up(device, "presence"),
            BridgeTopic::Report(device) => self.up(device, "report"),
            BridgeTopic::Telemetry(device) => self.up(device, "telemetry"),
            BridgeTopic::Drift(device) => self.up(device, "drift"),
            BridgeTopic::Verdict(device) => self.up(device, "verdict"),
            BridgeTopic::Result(device) => self.up(device, "result"),
        }
    }

    /// `b/<statement digest>/envelope`
    pub fn envelope(&self, statement: &[u8; 32]) -> String {
        format!("{}b/{}/envelope", self.root, hex::encode(statement))
    }

    /// `b/<statement digest>/offer`
    pub fn offer(&self, statement: &[u8; 32]) -> String {
        format!("{}b/{}/offer", self.root, hex::encode(statement))
    }

    /// `c/<chunk digest>`
    pub fn chunk(&self, chunk: &[u8; 32]) -> String {
        format!("{}c/{}", self.root, hex::encode(chunk))
    }

    /// The filter of a bundle's documents: `b/<statement digest>/+`.
    pub fn bundle_filter(&self, statement: &[u8; 32]) -> String {
        format!("{}b/{}/+", self.root, hex::encode(statement))
    }

    /// The filter of what land says to one device: `d/<device>/down/+`.
    pub fn down_filter(&self, device: &DeviceId) -> String {
        format!("{}d/{device}/down/+", self.root)
    }

    /// The filter of all that devices say: `d/+/up/+`.
    pub fn up_filter(&self) -> String {
        format!("{}d/+/up/+", self.root)
    }

    /// Reads a topic as the device `device` would; `None` when it is not for it.
    pub fn read_down(&self, device: &DeviceId, topic: &str) -> Option<DeviceTopic> {
        let parts: Vec<&str> = topic.strip_prefix(&self.root)?.split('/').collect();
        match parts.as_slice() {
            ["d", name, "down", leaf] if *name == device.as_str() => match *leaf {
                "assignment" => Some(DeviceTopic::Document(DocumentKind::Assignment)),
                "beacon" => Some(DeviceTopic::Document(DocumentKind::Beacon)),
                "command" => Some(DeviceTopic::Document(DocumentKind::Command)),
                _ => None,
            },
            ["all", "roots", version] => read_version(version).map(|_| DeviceTopic::Document(DocumentKind::Root)),
            ["all", "revocation"] => Some(DeviceTopic::Document(DocumentKind::Revocation)),
            ["all", "beacon"] => Some(DeviceTopic::Document(DocumentKind::Beacon)),
            ["all", "breakglass"] => Some(DeviceTopic::Document(DocumentKind::Breakglass)),
            ["b", digest, "envelope"] => Some(DeviceTopic::Envelope(read_digest(digest)?)),
            ["b", digest, "offer"] => Some(DeviceTopic::Offer(read_digest(digest)?)),
            ["c", _] => self.read_chunk(topic).map(DeviceTopic::Chunk),
            _ => None,
        }
    }

    /// The chunk that a topic names; `None` when it names none.
    pub fn read_chunk(&self, topic: &str) -> Option<[u8; 32]> {
        read_digest(topic.strip_prefix(&self.root)?.strip_prefix("c/")?)
    }

    /// Reads a topic as the bridge would; `None` when it is not a device's word.
    pub fn read_up(&self, topic: &str) -> Option<BridgeTopic> {
        let parts: Vec<&str> = topic.strip_prefix(&self.root)?.split('/').collect();
        let ["d", device, "up", leaf] = parts.as_slice() else { return None };
        let device = device.parse().ok()?;
        match *leaf {
            "hello" => Some(BridgeTopic::Hello(device)),
            "need" => Some(BridgeTopic::Need(device)),
            "presence" => Some(BridgeTopic::Presence(device)),
            "report" => Some(BridgeTopic::Report(device)),
            "telemetry" => Some(BridgeTopic::Telemetry(device)),
            "drift" => Some(BridgeTopic::Drift(device)),
            "verdict" => Some(BridgeTopic::Verdict(device)),
            "result" => Some(BridgeTopic::Result(device)),
            _ => None,
        }
    }
}

/// Digits only, without a zero in front: one version has one topic.
fn read_version(text: &str) -> Option<u64> {
    let version: u64 = text.parse().ok()?;
    (version.to_string() == text).then_some(version)
}

/// Lower-case hex only: one digest has one topic.
fn read_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok()?;
    (hex::encode(digest) == text).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> (Topics, DeviceId) {
        (Topics::new(&"demo".parse().unwrap()), "rpi-1".parse().unwrap())
    }

    #[test]
    fn the_tree_is_what_the_protocol_page_says() {
        let (topics, device) = topics();
        let digest = [0xab; 32];
        let text = "ab".repeat(32);
        assert_eq!(topics.assignment(&device), "petrel/v1/demo/d/rpi-1/down/assignment");
        assert_eq!(topics.envelope(&digest), format!("petrel/v1/demo/b/{text}/envelope"));
        assert_eq!(topics.offer(&digest), format!("petrel/v1/demo/b/{text}/offer"));
        assert_eq!(topics.chunk(&digest), format!("petrel/v1/demo/c/{text}"));
        assert_eq!(topics.up_filter(), "petrel/v1/demo/d/+/up/+");
        assert_eq!(topics.answer(&device), "petrel/v1/demo/d/rpi-1/down/beacon");
        assert_eq!(topics.root(3), "petrel/v1/demo/all/roots/3");
        assert_eq!(topics.all_filter(), "petrel/v1/demo/all/+");
    }

    #[test]
    fn what_is_built_is_read_back() {
        let (topics, device) = topics();
        for up in [
            BridgeTopic::Hello(device.clone()),
            BridgeTopic::Need(device.clone()),
            BridgeTopic::Presence(device.clone()),
            BridgeTopic::Report(device.clone()),
            BridgeTopic::Telemetry(device.clone()),
            BridgeTopic::Drift(device.clone()),
            BridgeTopic::Verdict(device.clone()),
            BridgeTopic::Result(device.clone()),
        ] {
            assert_eq!(topics.read_up(&topics.upstream(&up)), Some(up));
        }
        for (topic, kind) in [
            (topics.assignment(&device), DocumentKind::Assignment),
            (topics.answer(&device), DocumentKind::Beacon),
            (topics.command(&device), DocumentKind::Command),
            (topics.beacon(), DocumentKind::Beacon),
            (topics.root(12), DocumentKind::Root),
            (topics.revocation(), DocumentKind::Revocation),
            (topics.breakglass(), DocumentKind::Breakglass),
        ] {
            assert_eq!(topics.read_down(&device, &topic), Some(DeviceTopic::Document(kind)), "{topic}");
        }
        assert_eq!(topics.read_down(&device, &topics.chunk(&[7; 32])), Some(DeviceTopic::Chunk([7; 32])));
    }

    #[test]
    fn a_foreign_topic_is_not_ours() {
        let (topics, device) = topics();
        for foreign in [
            "petrel/v1/other/d/rpi-1/down/assignment".to_owned(),
            "petrel/v1/demo/d/rpi-2/down/assignment".to_owned(),
            "petrel/v1/demo/d/rpi-1/down/assignment/x".to_owned(),
            "petrel/v1/demo/d/rpi-1/down/unknown".to_owned(),
            "petrel/v1/demo/all/roots/03".to_owned(),
            "petrel/v1/demo/all/roots/-1".to_owned(),
            "petrel/v1/demo/all/unknown".to_owned(),
            "petrel/v1/demo/c/short".to_owned(),
            format!("petrel/v1/demo/c/{}", "AB".repeat(32)),
            String::new(),
        ] {
            assert_eq!(topics.read_down(&device, &foreign), None, "{foreign}");
        }
        assert_eq!(topics.read_up("petrel/v1/demo/d/../up/report"), None);
        assert_eq!(topics.read_up("petrel/v1/demo/d/rpi-1/up/unknown"), None);
    }
}
