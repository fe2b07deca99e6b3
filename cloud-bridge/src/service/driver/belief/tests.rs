//! What devices say, in any bytes on any topic: understood or refused, never a panic, and never believed of another device.

use super::*;
use crate::service::driver::ahead::{Ahead, Coming};
use crate::service::mqtt::Inbound;
use bridge_core::Now;
use protocol::{Profile, SIGNATURE_BYTES, Topics};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rumqttc::v5::mqttbytes::{QoS, v5::Publish};
use std::time::Instant;
use tokio::sync::mpsc;
use trust::{Envelope, Signature, pae};

/// A bridge in whose fleet `rpi-1` is, and that device's key.
struct Bench {
    bridge: Bridge,
    topics: Topics,
    pair: EcdsaKeyPair,
    rng: SystemRandom,
}

impl Bench {
    fn new() -> Self {
        let rng = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &rng).unwrap();
        let spki = DeviceKey::from_point(pair.public_key().as_ref()).unwrap().spki().to_vec();
        let profile = Profile {
            board: "rpi4".into(),
            arch: "aarch64".into(),
            cores: 4,
            ram_mb: 1_024,
            models_mb: 1_024,
            metered: false,
            agent: "0.1.0".into(),
        };
        let mut bridge = Bridge::restore("demo".parse().unwrap(), []).unwrap();
        let device = "rpi-1".parse().unwrap();
        let (certificate, serial) = (Digest::of(&spki), "5d0c".to_owned());
        let credential = bridge_core::Credential { key: spki, serial, certificate, until: u64::MAX };
        let invitation = bridge_core::Invitation { made: 0, pending: false };
        let enrolled = Event::DeviceEnrolled { device, credential, profile, invitation };
        let step = bridge.step(Now { unix: 1_700_000_000_000 }, enrolled);
        step.commit(|_| anyhow::Ok(())).unwrap().answer.unwrap();
        Self { bridge, topics: Topics::new(&"demo".parse().unwrap()), pair, rng }
    }

    fn signature(&self, signed: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.pair.sign(&self.rng, signed).unwrap().as_ref().try_into().unwrap()
    }

    /// A body that the device signed, so that the bytes behind the signature are read as well.
    fn signed(&self, leaf: &str, body: &[u8]) -> Vec<u8> {
        let frame = |kind| SignedFrame::join(&self.signature(&SignedFrame::signed_bytes(kind, body)), body);
        let document = |kind: PayloadKind| {
            let (payload_type, payload) = (kind.media_type().to_owned(), body.to_vec());
            let key_id = DeviceKey::from_point(self.pair.public_key().as_ref()).unwrap().id().to_string();
            let bytes = self.signature(&pae(&payload_type, &payload)).to_vec();
            Envelope { payload_type, payload, signatures: vec![Signature { key_id, bytes }] }.to_bytes()
        };
        match leaf {
            "hello" => frame(Kind::Hello),
            "need" => frame(Kind::Need),
            "telemetry" => frame(Kind::Telemetry),
            "drift" => frame(Kind::Drift),
            "report" => document(PayloadKind::Report),
            "verdict" => document(PayloadKind::Verdict),
            "result" => document(PayloadKind::Result),
            _ => body.to_vec(),
        }
    }

    fn hear(&self, topic: &str, bytes: &[u8]) -> Option<anyhow::Result<Heard>> {
        let heard = understand(&self.bridge, &self.topics.read_up(topic)?, bytes);
        Some(heard.map(|believed| believed.heard).map_err(|doubt| doubt.reason))
    }
}

/// The golden bytes of what a device says, without frame or envelope.
fn honest(leaf: &str) -> Vec<u8> {
    let hex = |text: &str| hex::decode(text.trim()).unwrap()[1 + SIGNATURE_BYTES..].to_vec();
    match leaf {
        "hello" => hex(include_str!("../../../../../contract/protocol/tests/golden/hello.hex")),
        "need" => hex(include_str!("../../../../../contract/protocol/tests/golden/need.hex")),
        "telemetry" => hex(include_str!("../../../../../contract/protocol/tests/golden/telemetry.hex")),
        "drift" => hex(include_str!("../../../../../contract/protocol/tests/golden/drift.hex")),
        "report" => include_bytes!("../../../../../contract/protocol/tests/golden/report.json").trim_ascii().to_vec(),
        "verdict" => include_bytes!("../../../../../contract/protocol/tests/golden/verdict.json").trim_ascii().to_vec(),
        "result" => include_bytes!("../../../../../contract/protocol/tests/golden/result.json").trim_ascii().to_vec(),
        _ => b"{\"boot\":3,\"online\":true}".to_vec(),
    }
}

/// The topic of what the device `rpi-NUMBER` says.
fn said(number: u8, leaf: &str) -> String {
    let everything = Topics::new(&"demo".parse().unwrap()).everything();
    everything.replace('#', &format!("d/rpi-{number}/up/{leaf}"))
}

const LEAVES: [&str; 8] = ["hello", "need", "telemetry", "drift", "report", "verdict", "result", "presence"];

#[test]
fn no_bytes_break_the_reader_of_what_devices_say() {
    let bench = Bench::new();
    let mut dice = fastrand::Rng::with_seed(7);
    let (mut understood, mut refused) = (0, 0);
    for round in 0..8_000 {
        let leaf = LEAVES[round % LEAVES.len()];
        let mut body = honest(leaf);
        for _ in 0..dice.usize(..3) {
            let at = dice.usize(..=body.len());
            let end = (at + dice.usize(..9)).min(body.len());
            match dice.u8(..3) {
                0 => drop(body.splice(at..end, [])),
                1 => drop(body.splice(at..at, body[at..end].to_vec())),
                _ => body[at..end].iter_mut().for_each(|b| *b = dice.u8(..)),
            }
        }
        let bytes = if dice.bool() { bench.signed(leaf, &body) } else { body };
        let topic = said(dice.u8(1..3), leaf);
        match bench.hear(&topic, &bytes) {
            Some(Ok(Heard::Event(event))) => {
                let known = !topic.contains("rpi-2") || matches!(*event, Event::PresenceReceived { .. });
                assert!(known, "{topic}: a device was believed under another's name: {event:?}");
                understood += 1;
            }
            Some(Ok(Heard::Telemetry(_) | Heard::Drift(_) | Heard::Result(_) | Heard::Nothing)) => understood += 1,
            Some(Err(_)) | None => refused += 1,
        }
    }
    println!("8000 messages, {understood} understood, {refused} refused, no panic");
    assert!(understood > 500 && refused > 500, "{understood} understood, {refused} refused");
}

/// A frame or a document of a version that is not known here is refused as such, in words for the log.
#[test]
fn another_version_is_named() {
    let bench = Bench::new();
    for leaf in ["hello", "need", "telemetry", "drift"] {
        let mut bytes = bench.signed(leaf, &honest(leaf));
        bytes[0] = 2;
        let error = bench.hear(&said(1, leaf), &bytes).unwrap().err().unwrap();
        assert_eq!(code(&error), Some("E_VERSION"), "{leaf}: {error}");
    }
    for leaf in ["report", "verdict", "result"] {
        let body = String::from_utf8(honest(leaf)).unwrap().replacen("\"spec\":1", "\"spec\":2", 1);
        let error = bench.hear(&said(1, leaf), &bench.signed(leaf, body.as_bytes()));
        let error = error.unwrap().err().unwrap();
        assert_eq!(code(&error), Some("E_VERSION"), "{leaf}: {error}");
    }
}

/// What came while something was saved is read by then: in its order, and what was not believed is left for its turn. What a
/// person decides before that turn counts.
#[tokio::test]
async fn what_was_read_ahead_counts_only_as_long_as_its_key_does() {
    let mut bench = Bench::new();
    let (tell, inbound) = mpsc::unbounded_channel();
    let mut ahead = Ahead::new(inbound);
    let stranger = Bench::new();
    let bytes = |of: &Bench| of.signed("telemetry", &honest("telemetry"));
    for number in 0..40 {
        let payload = bytes(if number % 2 == 0 { &bench } else { &stranger });
        let publish = Publish::new(said(1, "telemetry"), QoS::AtLeastOnce, payload, None);
        assert!(tell.send(Inbound::Said(Box::new(publish), Instant::now())).is_ok());
    }
    assert_eq!(ahead.read_while(&bench.bridge, &bench.topics, || "saved"), "saved");
    assert_eq!(ahead.waiting(), 40);
    let came = ahead.come().await;
    let believed: Vec<Option<&Believed>> = came.iter().map(|Coming { read, .. }| read.as_ref()).collect();
    let honest = |(number, read): (usize, &Option<&Believed>)| read.is_some() == (number % 2 == 0);
    assert!(came.len() == 40 && believed.iter().enumerate().all(honest), "{} came", came.len());
    let counts = |bridge: &Bridge| believed.iter().flatten().filter(|read| read.still_counts(bridge)).count();
    assert_eq!(counts(&bench.bridge), 20);
    let step =
        bench.bridge.step(Now { unix: 1_700_000_001_000 }, Event::DeviceRevoked { device: "rpi-1".parse().unwrap() });
    step.commit(|_| anyhow::Ok(())).unwrap().answer.unwrap();
    assert_eq!(counts(&bench.bridge), 0);
    drop(tell);
    assert!(ahead.come().await.is_empty(), "there are no more");
}
