//! The very bytes on the wire: a golden copy of every message, and what is refused in its place.
//!
//! A change of these bytes is a decision: `PETREL_BLESS=1 cargo test -p petrel-protocol --test wire`
//! writes them anew, and the difference shows in the review.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are on the room: its tests read golden files and the clock"
)]

mod fuzzed;
mod samples;

use ciborium::Value;
use petrel_protocol::*;
use samples::{Wire, digest};
use std::fmt::Debug;
use std::path::PathBuf;

/// A golden message with its type left out.
struct Golden {
    name: &'static str,
    bytes: Vec<u8>,
    limit: usize,
    /// Reads bytes and writes what was read.
    recode: fn(&[u8]) -> Result<Vec<u8>, CodecError>,
}

fn golden<T: Wire + PartialEq + Debug>(value: &T) -> Golden {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(T::FILE);
    let text = |bytes: &[u8]| match T::FILE.ends_with(".hex") {
        true => hex::encode(bytes),
        false => String::from_utf8(bytes.to_vec()).expect("JSON is text"),
    };
    let encoded = value.encode();
    if std::env::var_os("PETREL_BLESS").is_some() {
        std::fs::write(&path, text(&encoded) + "\n").expect("the golden folder can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("a golden file for every message");
    assert_eq!(text(&encoded), committed.trim_end(), "the bytes of {} changed", T::FILE);
    assert_eq!(T::decode(&encoded).as_ref(), Ok(value), "{}", T::FILE);
    Golden { name: T::FILE, bytes: encoded, limit: T::LIMIT, recode: |bytes| T::decode(bytes).map(|v| v.encode()) }
}

fn every_message() -> Vec<Golden> {
    vec![
        golden(&samples::hello()),
        golden(&samples::need()),
        golden(&samples::telemetry()),
        golden(&samples::drift()),
        golden(&samples::presence()),
        golden(&samples::offer()),
        golden(&samples::report()),
        golden(&samples::verdict()),
        golden(&samples::result()),
        golden(&samples::fetch()),
        golden(&samples::join()),
        golden(&samples::enrol()),
        golden(&samples::renew()),
        golden(&samples::re_enrol()),
        golden(&samples::enrolled()),
        golden(&samples::problem()),
    ]
}

#[test]
fn messages_are_their_golden_bytes() {
    for message in every_message() {
        assert!(message.bytes.len() <= message.limit, "{}", message.name);
    }
}

#[test]
fn a_message_cut_anywhere_or_followed_by_anything_is_refused() {
    for message in every_message() {
        for length in 0..message.bytes.len() {
            assert!((message.recode)(&message.bytes[..length]).is_err(), "{} cut to {length}", message.name);
        }
        for trailing in [0, b'0', b'}', 0xf6, 0xff] {
            let longer = [&message.bytes[..], &[trailing]].concat();
            assert!((message.recode)(&longer).is_err(), "{} and {trailing}", message.name);
        }
    }
}

#[test]
fn a_size_limit_is_checked_before_anything_is_read() {
    for message in every_message() {
        // Spaces may follow JSON; the CBOR messages are stretched in a test of their own.
        let stretched = |size: usize| [&message.bytes[..], &vec![b' '; size - message.bytes.len()]].concat();
        let at_limit = (message.recode)(&stretched(message.limit));
        match message.name.ends_with(".json") {
            true => assert_eq!(at_limit.as_ref(), Ok(&message.bytes), "{}", message.name),
            false => assert!(matches!(at_limit, Err(CodecError::Malformed(_))), "{}", message.name),
        }
        let too_large = Err(CodecError::TooLarge { got: message.limit + 1, limit: message.limit });
        assert_eq!((message.recode)(&stretched(message.limit + 1)), too_large, "{}", message.name);
        assert_eq!((message.recode)(&vec![0xff; message.limit + 1]), too_large, "garbage in place of {}", message.name);
    }
}

#[test]
fn a_frame_of_exactly_its_limit_is_read() {
    let mut hello = samples::hello();
    hello.key.resize(hello.key.len() + Hello::LIMIT - hello.encode().len() - 1, 7);
    assert_eq!(hello.encode().len(), Hello::LIMIT);
    assert_eq!(Hello::decode(&hello.encode()), Ok(hello.clone()));
    hello.key.push(7);
    assert!(matches!(Hello::decode(&hello.encode()), Err(CodecError::TooLarge { .. })));
}

#[test]
fn a_frame_of_another_version_is_named_as_such() {
    for message in every_message().iter().filter(|m| m.name.ends_with(".hex")) {
        for version in (0..=255).filter(|v| *v != 1) {
            let mut bytes = message.bytes.clone();
            bytes[0] = version;
            assert_eq!((message.recode)(&bytes), Err(CodecError::Version(version.into())), "{}", message.name);
        }
        assert_eq!((message.recode)(&[]), Err(CodecError::Short));
        assert_eq!((message.recode)(&message.bytes[..SIGNATURE_BYTES]), Err(CodecError::Short));
    }
}

#[test]
fn what_a_device_signs_names_the_kind() {
    let signed = |kind| SignedFrame::signed_bytes(kind, b"body");
    assert_eq!(signed(Kind::Hello), b"petrel hello v1\0body");
    assert_eq!(signed(Kind::Need), b"petrel need v1\0body");
    assert_eq!(signed(Kind::Telemetry), b"petrel telemetry v1\0body");
    assert_eq!(signed(Kind::Drift), b"petrel drift v1\0body");
    assert_eq!(signed(Kind::Fetch), b"petrel fetch v1\0body");
    let signature = std::array::from_fn(|i| i as u8);
    let frame = SignedFrame::join(&signature, b"body");
    assert_eq!(SignedFrame::split(Kind::Hello, &frame), Ok(SignedFrame { signature: &signature, body: b"body" }));
}

#[test]
fn a_document_of_another_version_is_refused() {
    for message in every_message().iter().filter(|m| String::from_utf8_lossy(&m.bytes).contains(r#""spec":1"#)) {
        let text = String::from_utf8(message.bytes.clone()).expect("JSON is text");
        for spec in ["0", "2", "18446744073709551615"] {
            let other = text.replace(r#""spec":1"#, &format!(r#""spec":{spec}"#));
            let named = Err(CodecError::Version(spec.parse().expect("a number")));
            assert_eq!((message.recode)(other.as_bytes()), named, "{}", message.name);
            // And whatever that version may hold that is unheard of here.
            let other = other.replacen('{', "{\"unheard\":[true],", 1);
            assert_eq!((message.recode)(other.as_bytes()), named, "{}", message.name);
        }
    }
}

/// Adds a field to the map `map`, or repeats its first one.
fn add_field(map: &mut Vec<(Value, Value)>, repeat: bool) {
    let field = if repeat { map[0].clone() } else { (Value::from("zz"), Value::from(1)) };
    map.push(field);
}

/// Visits every map of a CBOR value; `visit` is told its number.
fn each_map(value: &mut Value, next: &mut usize, visit: &mut impl FnMut(usize, &mut Vec<(Value, Value)>)) {
    match value {
        Value::Map(map) => {
            map.iter_mut().for_each(|(_, inner)| each_map(inner, next, visit));
            visit(*next, map);
            *next += 1;
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_map(item, next, visit)),
        _ => {}
    }
}

#[test]
fn a_field_that_nobody_knows_and_a_field_twice_are_refused_at_every_depth() {
    for message in every_message().iter().filter(|m| m.name.ends_with(".hex")) {
        let (head, body) = message.bytes.split_at(1 + SIGNATURE_BYTES);
        let mut maps = 0;
        each_map(&mut decode_cbor(body).unwrap(), &mut maps, &mut |_, _| {});
        for (at, repeat) in (0..maps).flat_map(|at| [(at, false), (at, true)]) {
            let mut value: Value = decode_cbor(body).unwrap();
            each_map(&mut value, &mut 0, &mut |i, map| {
                if i == at {
                    add_field(map, repeat)
                }
            });
            let bytes = [head, &encode_cbor(&value)].concat();
            let error = (message.recode)(&bytes).expect_err(message.name).to_string();
            let why = if repeat { "duplicate field" } else { "unknown field" };
            assert!(error.contains(why), "{} map {at}: {error}", message.name);
        }
    }
    for message in every_message().iter().filter(|m| m.name.ends_with(".json")) {
        let text = String::from_utf8(message.bytes.clone()).expect("JSON is text");
        for (at, _) in text.match_indices('{') {
            let first = text[at + 1..].split_inclusive(':').next().expect("no object of ours is empty");
            // An object that is one of several things has one field, by which it is known.
            let unknown = ["unknown field", "unknown variant"];
            let twice = ["duplicate field", "expected value"];
            for (field, why) in [(r#""zz":"#, unknown), (first, twice)] {
                // The repeated one takes the value of the first, so nothing else is wrong with it; what is no plain value
                // cannot be cut out so.
                let value = text[at + 1 + first.len()..].split([',', '}']).next().unwrap_or_default();
                if field == first && value.starts_with(['[', '{']) {
                    continue;
                }
                let more = format!("{}{field}{value},{}", &text[..=at], &text[at + 1..]);
                let error = (message.recode)(more.as_bytes()).expect_err(&more).to_string();
                assert!(why.iter().any(|why| error.contains(why)), "{} at {at}: {error}", message.name);
            }
        }
    }
}

#[test]
fn a_need_asks_for_at_most_64_whole_digests() {
    let asking = |bytes: usize| Need { chunks: vec![7; bytes], ..samples::need() };
    assert_eq!(asking(0).digests(), Some(vec![]));
    assert_eq!(asking(64 * 32).digests(), Some(vec![[7; 32]; 64]));
    assert!(asking(64 * 32).encode().len() <= Need::LIMIT);
    for bytes in [31, 33, 64 * 32 + 31, 65 * 32] {
        let need = Need::decode(&asking(bytes).encode()).expect("it is still a message");
        assert_eq!(need.digests(), None, "{bytes}");
    }
    for bytes in [0, 31, 33] {
        let mut value: Value = decode_cbor(&encode_cbor(&samples::need())).unwrap();
        each_map(&mut value, &mut 0, &mut |_, map| map[3].1 = Value::Bytes(vec![1; bytes]));
        assert!(decode_cbor::<Need>(&encode_cbor(&value)).is_err(), "a statement digest of {bytes} bytes");
    }
}

#[test]
fn the_longest_telemetry_fits() {
    let most = u64::MAX;
    let row = StreamTelemetry {
        stream: "x".repeat(63).parse().unwrap(),
        release: most,
        answers: most,
        errors: most,
        latency: [most; LATENCY_BUCKETS],
        took_us: most,
        memory_kb: most,
    };
    let arriving = Arriving { statement: digest(0xff), arrived: most, total: most, rate: most };
    let telemetry = Telemetry {
        device: "d".repeat(63).parse().unwrap(),
        boot: most,
        run: most,
        seq: most,
        at: Some(most),
        uptime_s: most,
        span_s: most,
        measured: most,
        cpu_percent: 12.34,
        memory_used_mb: most,
        memory_total_mb: most,
        agent_memory_mb: most,
        disk_free_mb: most,
        temperature_c: Some(12.34),
        streams: vec![row; MAX_STREAM_ROWS],
        arriving: vec![arriving; MAX_ARRIVING_ROWS],
        spool: SpoolState { waiting: most, bytes: most, merged: most, dropped: most, damaged: most },
    };
    assert!(telemetry.encode().len() <= Telemetry::LIMIT, "{} bytes", telemetry.encode().len());
}

#[test]
fn the_longest_drift_fits() {
    let most = u64::MAX;
    let alarm = DriftAlarm {
        feature: "f".repeat(256),
        level: AlarmLevel::Page,
        cause: "c".repeat(32),
        detail: "d".repeat(128),
        effect: 0.3,
        windows: most,
    };
    let drift = Drift {
        device: "d".repeat(63).parse().unwrap(),
        stream: "x".repeat(63).parse().unwrap(),
        at: Some(most),
        summary: vec![0xff; MAX_SUMMARY_BYTES],
        alarms: vec![alarm; MAX_DRIFT_ALARMS],
        performance: Some(Performance {
            calibration: [Calibrated { count: most, right: most, score: most }; CALIBRATION_BINS],
            values: most,
            absolute: f64::MAX,
            squared: f64::MAX,
            unknown: most,
        }),
        ..samples::drift()
    };
    assert!(drift.encode().len() <= Drift::LIMIT, "{} bytes", drift.encode().len());
    assert!(Drift::LIMIT < MAX_PACKET_BYTES as usize);
}

#[test]
fn a_measure_that_is_no_number_is_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for sum in [bad.into(), -1.0] {
            let performance = Performance { squared: sum, ..Performance::default() };
            let drift = Drift { performance: Some(performance), ..samples::drift() };
            assert!(Drift::decode(&drift.encode()).is_err(), "{sum}");
        }
        let mut drift = samples::drift();
        drift.alarms[0].effect = bad;
        assert!(Drift::decode(&drift.encode()).is_err(), "{bad} deviations");
        let telemetry = Telemetry { cpu_percent: bad, ..samples::telemetry() };
        assert!(Telemetry::decode(&telemetry.encode()).is_err(), "{bad} %");
        let telemetry = Telemetry { temperature_c: Some(bad), ..samples::telemetry() };
        assert!(Telemetry::decode(&telemetry.encode()).is_err(), "{bad} °C");
    }
    let telemetry = Telemetry { temperature_c: None, ..samples::telemetry() };
    assert_eq!(Telemetry::decode(&telemetry.encode()), Ok(telemetry));
}

#[test]
fn topics_are_their_golden_text() {
    let topics = Topics::new(&"demo".parse().unwrap());
    let device: DeviceId = "rpi-1".parse().unwrap();
    let statement = digest(0xab);
    let up = |topic| topics.upstream(&topic);
    let lines = [
        topics.assignment(&device),
        topics.envelope(&statement),
        topics.offer(&statement),
        topics.chunk(&digest(0xcd)),
        topics.bundle_filter(&statement),
        topics.down_filter(&device),
        topics.up_filter(),
        up(BridgeTopic::Hello(device.clone())),
        up(BridgeTopic::Need(device.clone())),
        up(BridgeTopic::Presence(device.clone())),
        up(BridgeTopic::Report(device.clone())),
        up(BridgeTopic::Telemetry(device.clone())),
        up(BridgeTopic::Drift(device.clone())),
        up(BridgeTopic::Verdict(device.clone())),
    ];
    let golden: Vec<&str> = include_str!("golden/topics.txt").lines().collect();
    assert_eq!(lines.as_slice(), golden.as_slice());
}

/// One random damage: a bit, a byte, a cut, a repeat, bytes moved or put in from another message.
fn damage(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = rng.usize(..bytes.len());
    let end = rng.usize(at..bytes.len().min(at + 16)) + 1;
    match rng.u8(..7) {
        0 => bytes[at] ^= 1 << rng.u8(..8),
        1 => bytes[at] = rng.u8(..),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        4 => {
            let from = rng.usize(..other.len());
            let piece = other[from..other.len().min(from + 12)].to_vec();
            bytes.splice(at..end, piece);
        }
        5 => bytes.insert(at, rng.u8(..)),
        _ => bytes.swap(at, end - 1),
    }
    if bytes.is_empty() {
        bytes.push(rng.u8(..));
    }
}

#[test]
fn random_damage_is_read_as_what_it_says_or_refused() {
    const ROUNDS: u32 = 200_000;
    let messages = every_message();
    for (number, message) in messages.iter().enumerate() {
        let mut rng = fastrand::Rng::with_seed(number as u64);
        let mut read = 0;
        for _ in 0..ROUNDS {
            let mut bytes = message.bytes.clone();
            let other = &messages[rng.usize(..messages.len())].bytes;
            (0..rng.u8(1..4)).for_each(|_| damage(&mut rng, &mut bytes, other));
            let Ok(once) = (message.recode)(&bytes) else { continue };
            // What was read is said again in one way only.
            assert_eq!((message.recode)(&once).as_ref(), Ok(&once), "{}: {}", message.name, hex::encode(&bytes));
            read += 1;
        }
        println!("{}: {ROUNDS} damaged, {read} still a message, 0 panics", message.name);
        assert!(read < ROUNDS / 2, "{}: the damage was too mild to prove anything", message.name);
    }
}

/// The fuzz targets, with bounded random input; `PETREL_FUZZED=1000000` gives each that many.
#[test]
fn no_bytes_break_a_reader() {
    let rounds: usize = std::env::var("PETREL_FUZZED").map_or(4_000, |n| n.parse().expect("PETREL_FUZZED is a number"));
    let every = every_message();
    for (name, honest, target) in fuzzed::TARGETS {
        let mut rng = fastrand::Rng::with_seed(7);
        target(&honest());
        for _ in 0..rounds {
            let kind = rng.usize(..every.len());
            let mut bytes = if name == "topics" { honest()[1..].to_vec() } else { every[kind].bytes.clone() };
            for _ in 0..rng.usize(..3) {
                damage(&mut rng, &mut bytes, &every[kind].bytes);
            }
            let mode = if name == "topics" { rng.u8(..) } else { kind as u8 };
            target(&[&[mode], &bytes[..]].concat());
        }
        println!("{name}: {rounds} inputs, no panic, each says itself again or was refused");
    }
}

#[test]
fn a_result_leaves_out_the_oldest_lines_that_do_not_fit() {
    let whole = samples::result();
    let mut result = whole.clone();
    result.fit(MAX_RESULT_BYTES);
    assert_eq!(result, whole);
    let line = |n: usize| format!("line {n} \"quoted\" {}", "x".repeat(n % 900));
    let log = |result: &mut CommandResult| {
        let diagnostics = result.diagnostics.as_mut().expect("diagnostics");
        diagnostics.log = (0..2_000).map(line).collect();
    };
    log(&mut result);
    assert!(result.encode().len() > MAX_RESULT_BYTES);
    result.fit(MAX_RESULT_BYTES);
    let kept = result.diagnostics.as_ref().expect("diagnostics");
    assert!(result.encode().len() <= MAX_RESULT_BYTES && result.encode().len() > MAX_RESULT_BYTES - 1_000);
    assert_eq!(kept.log.last(), Some(&line(1_999)));
    assert_eq!(kept.log.len() as u64 + kept.log_left_out, 2_003);
    assert_eq!(CommandResult::decode(&result.encode()), Ok(result.clone()));
    // Nothing else goes, and a result without a log stays as it is.
    result.fit(10);
    assert!(result.diagnostics.expect("diagnostics").log.is_empty());
}
