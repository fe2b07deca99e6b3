//! The fuzz targets with bounded random input, and the chain of roots as a random state machine.
//!
//! `PETREL_FUZZED=1000000` gives each target that many inputs.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are on the room: its tests read golden files and the environment"
)]

mod chains;
mod fuzzed;
mod signer;

use chains::Chain;
use petrel_trust::*;
use signer::unchanged;

/// Words that documents are made of, put where they do not belong.
const WORDS: [&str; 14] = [
    "null",
    "true",
    "0",
    "-1",
    "9007199254740991",
    "9007199254740992",
    "1e999",
    "\"\"",
    "[]",
    "{}",
    "\"2030-01-01T00:00:00Z\"",
    "\"digits\"",
    "\"all\"",
    "\\u0000",
];

/// Honest bytes, or bytes with a few things wrong.
fn input(rng: &mut fastrand::Rng, honest: &[u8]) -> Vec<u8> {
    let mut bytes = honest.to_vec();
    for _ in 0..rng.usize(..4) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..12)).min(bytes.len());
        match rng.u8(..5) {
            0 => drop(bytes.splice(at..end, [])),
            1 => drop(bytes.splice(at..end, rng.choice(WORDS).expect("words").bytes())),
            2 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            3 => bytes[at..end].iter_mut().for_each(|b| *b = rng.u8(..)),
            _ => bytes[at..end].iter_mut().filter(|b| b.is_ascii_digit()).for_each(|b| *b = rng.u8(b'0'..=b'9')),
        }
    }
    bytes.insert(0, rng.u8(..));
    bytes
}

#[test]
fn no_bytes_break_a_door() {
    let rounds: usize = std::env::var("PETREL_FUZZED").map_or(2_000, |n| n.parse().expect("PETREL_FUZZED is a number"));
    for (name, honest, target) in fuzzed::TARGETS {
        let mut rng = fastrand::Rng::with_seed(7);
        let honest = honest();
        target(&honest);
        for _ in 0..rounds {
            target(&input(&mut rng, &honest));
        }
        println!("{name}: {rounds} inputs, no panic, nothing changed by a refusal, no counter fell");
    }
}

/// A device that is offered the steps of a random chain takes exactly those that the rules of the
/// chain, written down a second time in the generator, call good.
#[test]
fn random_chains_of_roots_are_followed_as_the_rules_say() {
    let (mut offered, mut taken) = (0, 0);
    for seed in 0..150 {
        let chain = Chain::random(seed);
        let mut t = Trust::first(signer::device(), signer::FLEET, &chain.first).expect("the first root");
        for step in &chain.steps {
            let version = t.counters().root_version();
            let got = unchanged(&mut t, |t| t.accept_root(&step.bytes, signer::UP));
            assert_eq!(t.counters().root_version() > version, step.good, "seed {seed}: {}: {got:?}", step.how);
            let counters = serde_json::from_slice(&signer::json(t.counters())).expect("plain data");
            let bytes = if step.good { &step.bytes } else { &chain.last_good(step) };
            t = Trust::open(signer::device(), signer::FLEET, counters, bytes, None).expect("a power cut loses nothing");
            offered += 1;
            taken += usize::from(step.good);
        }
        assert_eq!(t.counters().root_version(), chain.reached);
    }
    println!("150 chains, {offered} roots offered, {taken} taken");
    assert!(taken > offered / 4 && taken < offered * 3 / 4 + offered / 8, "good and bad steps both happen");
}
