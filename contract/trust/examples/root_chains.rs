//! Prints random chains of roots as TUF metadata with our verdicts, for `tests/oracles/root_chains.py`.
//!
//! `cargo run -p petrel-trust --example root_chains -- 500`

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are on the room: its examples speak to a person"
)]

#[path = "../tests/chains/mod.rs"]
mod chains;
#[path = "../tests/signer/mod.rs"]
mod signer;

use chains::{Chain, NOW};
use petrel_trust::*;
use serde_json::{Value, json};

fn main() {
    let chains: u64 = std::env::args().nth(1).map_or(Ok(500), |n| n.parse()).expect("a number of chains");
    let chains: Vec<Value> = (0..chains).map(compared).collect();
    println!("{}", json!({"now": signer::moment(NOW).to_string(), "chains": chains}));
}

/// A chain, and what a device makes of it.
fn compared(seed: u64) -> Value {
    let chain = Chain::random(seed);
    let mut trust = Trust::first(signer::device(), signer::FLEET, &chain.first).expect("the first root");
    let now_ms = u64::try_from(NOW - signer::T0).expect("later") * 1_000;
    let steps: Vec<Value> = chain
        .steps
        .iter()
        .map(|step| {
            let got = trust.accept_root(&step.bytes, now_ms);
            let taken = matches!(got, Ok(Accepted::New(_)));
            let code = got.err().map(|refusal| refusal.code.as_str());
            json!({"how": step.how, "taken": taken, "code": code, "tuf": step.tuf})
        })
        .collect();
    let expired = trust.clock_state(now_ms) == ClockState::Expired;
    json!({"seed": seed, "first": chain.first_tuf, "steps": steps, "version": trust.root().version, "expired": expired})
}
