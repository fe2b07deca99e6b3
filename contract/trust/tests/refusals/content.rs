//! Bytes that are no document: JSON as liars write it, in the envelope and in every payload.

use crate::signer::*;
use crate::{Case, case};
use petrel_trust::*;
use std::time::{Duration, Instant};

const TWO_TO_THE_53: &str = "9007199254740992";

type Attempt = fn(&[u8]) -> Result<(), Refusal>;

/// Every door for JSON: its honest text, and how a text goes through it (payloads honestly signed).
fn doors() -> Vec<(&'static str, Vec<u8>, Attempt)> {
    vec![
        ("root envelope", root_bytes(), |text| verify_root(FLEET, text).map(drop)),
        ("root", json(&root()), |text| verify_root(FLEET, &sealed(PayloadKind::Root, text, &ROOTS[..2])).map(drop)),
        ("bundle envelope", bundle_bytes(), |text| verify_statement(&trusted(), text).map(drop)),
        ("statement", statement_payload(), |text| {
            verify_statement(&trusted(), &sealed(PayloadKind::Bundle, text, &PUBLISHERS[..2])).map(drop)
        }),
        ("manifest", json(&manifest()), |text| {
            let payload = Statement::payload("a name", resources(&files(text)));
            let statement = verify_statement(&trusted(), &sealed(PayloadKind::Bundle, &payload, &PUBLISHERS[..2]))?;
            verify_manifest(&trusted(), &statement, text).map(drop)
        }),
        ("assignment envelope", assignment_bytes(), |text| verify_assignment(&trusted(), DEVICE, text).map(drop)),
        ("assignment", json(&assignment()), |text| {
            verify_assignment(&trusted(), DEVICE, &sealed(PayloadKind::Assignment, text, &[DIRECTOR])).map(drop)
        }),
        ("revocation", json(&full_revocation()), |text| {
            trust().accept_revocation(&sealed(PayloadKind::Revocation, text, &[REVOCATION, REVOCATION_2]), UP).map(drop)
        }),
        ("beacon", json(&beacon(1)), |text| {
            trust().accept_beacon(&sealed(PayloadKind::Beacon, text, &[BEACON]), UP).map(drop)
        }),
        ("breakglass", json(&breakglass()), |text| {
            trust().accept_breakglass(&sealed(PayloadKind::Breakglass, text, &BREAKGLASS), UP).map(drop)
        }),
        ("model.sig", golden("model.sig"), |text| verify_model_signature(&device_key(7), text).map(drop)),
        ("report envelope", golden("report.dsse.json"), |text| {
            verify_device_document(PayloadKind::Report, &device_key(7), text).map(drop)
        }),
    ]
}

/// `text` with `more` as the first thing in its object number `at`.
fn inserted(text: &str, at: usize, more: &str) -> String {
    let (open, _) = text.match_indices('{').nth(at).expect("an object");
    format!("{}{more}{}", &text[..=open], &text[open + 1..])
}

/// Lies about the whole text.
fn broken(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let deep = |open: &str, n: usize| inserted(text, 0, &format!(r#""deep":{},"#, open.repeat(n)));
    let closed = |n: usize| inserted(text, 0, &format!(r#""deep":{}{},"#, "[".repeat(n), "]".repeat(n)));
    let field = |value: &str| inserted(text, 0, &format!(r#""more":{value},"#)).into_bytes();
    let string = text.match_indices(":\"").map(|(at, _)| at + 2).next().expect("a string");
    let in_string = |bytes: &[u8]| [&text.as_bytes()[..string], bytes, &text.as_bytes()[string..]].concat();
    let as_list = format!("[{text}]");
    vec![
        ("no byte", vec![]),
        ("a space", b" ".to_vec()),
        ("cut before its end", text.as_bytes()[..text.len() - 1].to_vec()),
        ("with a byte order mark", format!("\u{feff}{text}").into_bytes()),
        ("in UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("with a trailing brace", format!("{text}}}").into_bytes()),
        ("with a trailing zero byte", format!("{text}\0").into_bytes()),
        ("twice", format!("{text}{text}").into_bytes()),
        ("with a trailing comment", format!("{text}//").into_bytes()),
        ("with a comma too many", format!("{},}}", &text[..text.len() - 1]).into_bytes()),
        ("in a list", as_list.into_bytes()),
        ("as a list of its values", format!("[{}]", values(text).join(",")).into_bytes()),
        ("null", b"null".to_vec()),
        ("a number", b"1e400".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("an unknown field", field("1")),
        ("an unknown field without end", inserted(text, 0, &format!(r#""{}":1,"#, "A".repeat(30_000))).into_bytes()),
        ("an unknown field of commands", inserted(text, 0, r#""\u001b[2J\u001b]0;x\u0007":1,"#).into_bytes()),
        ("1e400", field("1e400")),
        ("-1e400", field("-1e400")),
        ("NaN", field("NaN")),
        ("hexadecimal", field("0x1")),
        ("a lone high surrogate", in_string(br"\ud800")),
        ("a lone low surrogate", in_string(br"\udc00")),
        ("a surrogate pair the wrong way round", in_string(br"\udc00\ud800")),
        ("a raw control character", in_string(b"\n")),
        ("no UTF-8", in_string(b"\xff")),
        ("an overlong slash", in_string(b"\xc0\xaf")),
        ("a surrogate in UTF-8", in_string(b"\xed\xa0\x80")),
        ("10,000 open lists", deep("[", 10_000).into_bytes()),
        ("6,000 open objects", deep(r#"{"a":"#, 6_000).into_bytes()),
        ("10,000 closed lists", closed(10_000).into_bytes()),
        ("nothing but open lists", vec![b'['; 30_000]),
    ]
}

/// Every field of `text` replaced by what no field may be, and every object with its first key twice.
fn misused(text: &str) -> Vec<(String, Code, Vec<u8>)> {
    let mut cases = Vec::new();
    for (at, _) in text.match_indices('{') {
        let Some(key) = text[at + 1..].split_inclusive(':').next().filter(|k| k.starts_with('"')) else { continue };
        let twice = format!("{}{key}{},{}", &text[..=at], first_value(&text[at + 1 + key.len()..]), &text[at + 1..]);
        cases.push((format!("{key} twice"), Code::Parse, twice.into_bytes()));
    }
    for (at, _) in text.match_indices("\":") {
        let value = first_value(&text[at + 2..]);
        let key = text[..at].rsplit('"').next().unwrap_or_default();
        let capitals = value.to_uppercase();
        let digest = value.len() == 66 && capitals != value;
        if value.starts_with('{') {
            let list = format!("{}[{}]{}", &text[..at + 2], values(value).join(","), &text[at + 2 + value.len()..]);
            cases.push((format!("{key}: a list of its values"), Code::Parse, list.into_bytes()));
        }
        if digest && ["public", "digest", "sha256", "statement_sha256"].contains(&key) {
            let changed = format!("{}{capitals}{}", &text[..at + 2], &text[at + 2 + value.len()..]);
            cases.push((format!("{key} in capitals"), Code::Parse, changed.into_bytes()));
        }
        // Tolerances are the only numbers that are not counts; a large spec is a version of its own.
        let counts: &[&str] = if key.starts_with("tolerance") { &[] } else { &["-1", "0.5", TWO_TO_THE_53] };
        for other in ["1e400", r#""\ud800""#, "[[[]]]"].iter().chain(counts) {
            let changed = format!("{}{other}{}", &text[..at + 2], &text[at + 2 + value.len()..]);
            let expect = match *other {
                TWO_TO_THE_53 if key == "spec" => Code::Version,
                TWO_TO_THE_53 => Code::Limit,
                _ => Code::Parse,
            };
            cases.push((format!("{key}: {other}"), expect, changed.into_bytes()));
        }
    }
    cases
}

/// The values of the object `text`, in order.
fn values(text: &str) -> Vec<&str> {
    let (mut rest, mut values) = (text, Vec::new());
    while let Some(field) = rest.strip_prefix(['{', ',']) {
        let value = &field[first_value(field).len() + 1..];
        values.push(first_value(value));
        rest = &value[first_value(value).len()..];
    }
    values
}

/// The value that `text` begins with.
fn first_value(text: &str) -> &str {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
    values.next().expect("a value").expect("JSON");
    &text[..values.byte_offset()]
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (door, honest, attempt) in doors() {
        let text = String::from_utf8(honest.clone()).expect("documents are text");
        attempt(&honest).unwrap_or_else(|refusal| panic!("the honest {door}: {refusal}"));
        for (how, bytes) in broken(&text) {
            cases.push(case("T53", format!("{door}: {how}"), Code::Parse, attempt(&bytes)));
        }
        for (how, expect, bytes) in misused(&text) {
            cases.push(case("T53", format!("{door}: {how}"), expect, attempt(&bytes)));
        }
    }
    for bad in ["====", "AA=", "AB==", "AAA", "A A=", "_-_-", "\u{e4}"] {
        let payload = format!(r#"{{"payload":"{bad}","payloadType":"{}","signatures":[{{"keyid":"","sig":""}}]}}"#, {
            PayloadKind::Root.media_type()
        });
        cases.push(case("T53", format!("base64 `{bad}`"), Code::Parse, verify_root(FLEET, payload.as_bytes())));
    }
    cases
}

#[test]
fn the_worst_json_costs_less_than_50_ms() {
    for (door, honest, attempt) in doors() {
        let text = String::from_utf8(honest).expect("documents are text");
        for (how, bytes) in broken(&text) {
            let took = || {
                let start = Instant::now();
                assert!(attempt(&bytes).is_err(), "{door}: {how}");
                start.elapsed()
            };
            // The best of many: a busy machine is not a fault of the parser.
            let best = (0..20).map(|_| took()).find(|t| *t < Duration::from_millis(50));
            assert!(best.is_some(), "{door}: {how}");
        }
    }
}
