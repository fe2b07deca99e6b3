//! The bytes of a summary and the text of a baseline: golden, in one form, and hostile.

mod fuzzed;
mod samples;

use petrel_drift::*;

fn golden(name: &str, made: &str) -> String {
    let text = match name {
        "summary.hex" => include_str!("golden/summary.hex"),
        "baseline-1.json" => include_str!("golden/baseline-1.json"),
        _ => include_str!("golden/baseline-2.json"),
    };
    assert_eq!(text.trim(), made, "{name} is what every device and every bridge knows: a change needs a new version");
    text.trim().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_summary_is_written_as_it_always_was() {
    golden("summary.hex", &hex(&samples::summary().encode()));
    assert_eq!(Summary::decode(&samples::summary().encode()), Ok(samples::summary()));
}

#[test]
fn baselines_are_written_as_they_always_were() {
    let two = samples::baseline();
    let mut one = two.clone();
    one.features.remove(1);
    one.version = 1;
    for (name, baseline) in [("baseline-1.json", one), ("baseline-2.json", two)] {
        let text = golden(name, &serde_json::to_string(&baseline).unwrap());
        let read: Baseline = serde_json::from_str(&text).unwrap();
        assert_eq!((read.validate(), &read), (Ok(()), &baseline));
        assert_eq!(read.fingerprint(), baseline.fingerprint());
    }
}

#[test]
fn one_flipped_bit_is_refused_or_another_summary() {
    let honest = samples::summary();
    let bytes = honest.encode();
    let (mut refused, mut other) = (0, 0);
    for at in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        match Summary::decode(&bytes) {
            Err(_) => refused += 1,
            Ok(read) => {
                assert_ne!(read, honest, "bit {at}");
                assert_eq!(read.encode(), bytes, "bit {at}");
                other += 1;
            }
        }
    }
    // Half of the bits are numbers for which any value could have been counted: whose bytes they are, a signature says.
    assert!(refused > bytes.len() * 3 && other > 0, "{refused} refused, {other} others");
}

#[test]
fn what_is_hostile_is_refused_with_its_reason() {
    let bytes = samples::summary().encode();
    let cut: Vec<Result<Summary, DecodeError>> = (0..bytes.len()).map(|at| Summary::decode(&bytes[..at])).collect();
    assert!(cut.iter().all(|read| matches!(read, Err(DecodeError::Short))), "a summary that is cut is short");
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = samples::summary().encode();
        change(&mut bytes);
        Summary::decode(&bytes)
    };
    assert_eq!(with(|bytes| bytes[0] = 2), Err(DecodeError::Version { found: 2 }));
    assert_eq!(with(|bytes| bytes.push(0)), Err(DecodeError::OtherForm));
    assert_eq!(
        with(|bytes| bytes.resize(MAX_SUMMARY_BYTES + 1, 0)),
        Err(DecodeError::TooLarge { found: (1 << 20) + 1 })
    );
    let slots = DecodeError::Impossible { reason: "a feature has more than 33 slots" };
    assert_eq!(with(|bytes| bytes[9..].fill(0xff)), Err(slots));
    assert_eq!(with(|bytes| bytes[9..].fill(0)), Err(DecodeError::Short));
}

#[test]
fn what_cannot_have_been_counted_is_refused() {
    type Spoil = fn(&mut Summary);
    let spoils: [(&str, Spoil); 12] = [
        ("more rows", |s| s.rows += 1),
        ("more in a bin", |s| s.features[0].counts[0] += 1),
        ("more missing", |s| s.features[1].missing += 1),
        ("more below than there is", |s| s.features[0].below = 5),
        ("more far than outside", |s| s.features[0].far = 2),
        ("a run longer than the window", |s| s.features[0].longest_run = 5),
        ("a sum that no values have", |s| s.features[0].sum = i64::MAX),
        ("squares that no values have", |s| s.features[0].squares = 1 << 100),
        ("least above greatest", |s| s.features[0].extremes.as_mut().unwrap().min = 501.0),
        ("least is no number", |s| s.features[0].extremes.as_mut().unwrap().min = f32::NAN),
        ("zero has a sign", |s| s.features[0].extremes.as_mut().unwrap().min = -0.0),
        ("more at the least than there is", |s| s.features[0].extremes.as_mut().unwrap().at_min = 5),
    ];
    for (what, spoil) in spoils {
        let mut summary = samples::summary();
        spoil(&mut summary);
        let read = Summary::decode(&summary.encode());
        assert!(matches!(read, Err(DecodeError::Impossible { .. })), "{what}: {read:?}");
    }
}

#[test]
fn a_summary_of_another_baseline_is_not_judged() {
    let summary = samples::summary();
    let mut other = samples::baseline();
    assert_eq!(summary.fits(&other), Ok(()));
    other.features[0].edges[0] += 0.01;
    assert_eq!(summary.fits(&other), Err(SummaryError::OtherBaseline));
    assert_eq!(judge(&other, &summary, Known::Independent), Err(SummaryError::OtherBaseline));
    // The same number, other slots: a lie in a summary that was signed.
    let mut lie = samples::summary();
    lie.features[2].counts.push(0);
    assert_eq!(lie.fits(&samples::baseline()), Err(SummaryError::OtherBaseline));
    let mut lie = samples::summary();
    lie.features[0].extremes = None;
    assert_eq!(lie.fits(&samples::baseline()), Err(SummaryError::OtherBaseline));
}

/// The bodies of `tests/fuzz`, with honest bytes changed a little and with nothing but chance.
#[test]
fn any_bytes_are_read_or_refused() {
    let mut chance = fastrand::Rng::with_seed(11);
    for (_, honest, target) in fuzzed::TARGETS {
        target(&honest());
        for _ in 0..20_000 {
            let mut bytes = honest();
            for _ in 0..chance.usize(1..4) {
                let at = chance.usize(0..bytes.len());
                match chance.u8(0..3) {
                    0 => bytes[at] = chance.u8(..),
                    1 => bytes[at] ^= 1 << chance.u8(0..8),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            target(&bytes);
        }
    }
}
