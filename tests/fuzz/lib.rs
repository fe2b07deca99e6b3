//! Every fuzz target of the house: the same bodies that `cargo test` calls with bounded random bytes.
//!
//! `cargo xtask fuzz` runs them. Each room writes its own bodies beside its tests; the agent is a program
//! without a library, so its files are compiled here as they are.

#![allow(dead_code, unused_imports, missing_docs)] // every file brings more than is called here

// The house's own names of them, beside those that the rooms' tests use.
extern crate petrel_board as board;
extern crate petrel_protocol as protocol;

#[path = "../../agent/src/fuzzed.rs"]
mod agent_fuzzed;
#[path = "../../contract/board/tests/fuzzed/mod.rs"]
mod board_fuzzed;
#[path = "../../cloud-bridge/core/tests/fuzzed/mod.rs"]
mod bridge_fuzzed;
#[path = "../../agent/src/config.rs"]
mod config;
#[path = "../../contract/drift/tests/fuzzed/mod.rs"]
mod drift_fuzzed;
#[path = "../../agent/src/fault.rs"]
mod fault;
#[path = "../../agent/src/feed/meant.rs"]
mod feed;
#[path = "../../agent/src/log.rs"]
mod log;
#[path = "../../contract/protocol/tests/fuzzed/mod.rs"]
mod protocol_fuzzed;
#[path = "../../contract/protocol/tests/samples/mod.rs"]
mod samples;
#[path = "../../agent/src/settings.rs"]
mod settings;
#[path = "../../contract/trust/tests/signer/mod.rs"]
mod signer;
#[path = "../../contract/trust/tests/fuzzed/mod.rs"]
mod trust_fuzzed;

/// Calls the target of this name.
///
/// # Panics
/// When there is no such target, or when a door breaks.
pub fn call(name: &str, data: &[u8]) {
    let every = trust_fuzzed::TARGETS.iter().chain(&protocol_fuzzed::TARGETS).chain(&agent_fuzzed::TARGETS);
    let every = every.chain(&drift_fuzzed::TARGETS).chain(&board_fuzzed::TARGETS).chain(&bridge_fuzzed::TARGETS);
    let (_, _, target) = every.into_iter().find(|(known, ..)| *known == name).expect("a target of this name");
    target(data);
}
