//! The pull under random arrivals: chunks of the right and of wrong digests, spoiled documents, cuts, power cuts.

use super::*;

/// Whatever arrives, in whatever order, with cuts in between: nothing but the signed bytes is ever taken for
/// the bundle, and once the broker is honest again it arrives whole.
#[test]
fn no_arrivals_break_the_pull() {
    let rounds: u64 = std::env::var("PETREL_FUZZED").map_or(60, |n| n.parse().expect("PETREL_FUZZED is a number"));
    let mut dice = fastrand::Rng::with_seed(7);
    let (mut arrivals, mut early) = (0, 0);
    for round in 0..rounds {
        let mut bench = Bench::new(several(), dice.usize(1..9));
        bench.start();
        bench.connect();
        let all: Vec<(Digest, Vec<u8>)> = bench.chunks.iter().map(|(digest, bytes)| (*digest, bytes.clone())).collect();
        for now in 0..dice.u64(1..40) {
            let now = now * 700;
            let (digest, right) = dice.choice(&all).expect("chunks").clone();
            let other = dice.choice(&all).expect("chunks").1.clone();
            arrivals += 1;
            match dice.u8(..13) {
                0..4 => bench.fetcher.chunk(now, digest, &right, dice.bool()),
                4 => bench.fetcher.chunk(now, digest, &other, dice.bool()),
                5 => bench.fetcher.chunk(now, digest, &right[..dice.usize(..=right.len())], true),
                6 => bench.fetcher.chunk(now, Digest::of(&other), &[&other[..], b"x"].concat(), dice.bool()),
                7 => bench.fetcher.envelope(now, bench.fixture.digest, &spoiled(&mut dice, &bench.fixture.envelope)),
                8 => bench.fetcher.offer(now, bench.fixture.digest, &spoiled(&mut dice, &bench.offer)),
                12 => {
                    let part = *dice.choice(&[Part::Envelope, Part::Index, Part::Chunk]).expect("three");
                    let bytes = if dice.bool() { right.clone() } else { spoiled(&mut dice, &bench.fixture.envelope) };
                    bench.fetcher.given(now, bench.fixture.digest, part, &bytes);
                }
                9 => bench.run(now, bench.delivered + 1),
                10 if dice.bool() => bench.fetcher.disconnected(),
                10 => bench.connect(),
                _ if dice.bool() => bench.fetcher.tick(now),
                _ => {
                    bench.restart();
                    bench.start();
                    bench.connect();
                }
            }
            if matches!(bench.end, Some(Action::Stored(_))) {
                assert!(bench.arrived(), "round {round}: what was stored is not what was signed");
                early += 1;
                break;
            }
        }
        bench.restart();
        bench.fetch();
        for again in 1..20 {
            bench.fetcher.tick(100_000 * again);
            bench.run(100_000 * again, usize::MAX);
        }
        assert!(bench.arrived(), "round {round}: {:?}", bench.end);
    }
    println!("{rounds} pulls, {arrivals} arrivals, {early} whole before the broker was honest, all whole after");
}

/// Bytes of which a few are other bytes, or gone.
fn spoiled(dice: &mut fastrand::Rng, honest: &[u8]) -> Vec<u8> {
    let mut bytes = honest.to_vec();
    let at = dice.usize(..bytes.len());
    let end = (at + dice.usize(..9)).min(bytes.len());
    if dice.bool() {
        drop(bytes.drain(at..end))
    } else {
        bytes[at..end].iter_mut().for_each(|b| *b = dice.u8(..))
    }
    bytes
}
