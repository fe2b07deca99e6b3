//! How long believing takes, as one line of JSON, for `cargo xtask bench trust`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are on the room: its examples measure and speak to a person"
)]

#[path = "../tests/signer/mod.rs"]
mod signer;

use petrel_trust::*;
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 5;
const CALLS: u32 = 500;
const HASHED: usize = 16 << 20;

fn main() {
    let root = signer::trusted();
    let (envelope, manifest) = (signer::bundle_bytes(), signer::json(&signer::manifest()));
    let believe = || {
        let statement = verify_statement(&root, black_box(&envelope)).expect("the honest bundle is believed");
        verify_manifest(&root, &statement, black_box(&manifest)).expect("the honest manifest is believed");
    };
    let content = vec![0x5a; HASHED];
    let verify_ms = best(|| (0..CALLS).for_each(|_| believe())) * 1_000.0 / f64::from(CALLS);
    let hash_s = best(|| {
        black_box(Digest::of(black_box(&content)));
    });
    println!("{}", serde_json::json!({ "verify_ms": verify_ms, "hash_mb_s": HASHED as f64 / 1e6 / hash_s }));
}

/// The seconds of the fastest round.
fn best(work: impl Fn()) -> f64 {
    let round = || {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}
