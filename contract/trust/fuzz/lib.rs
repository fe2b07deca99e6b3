//! What `cargo test` calls with bounded random bytes, for the fuzz targets.

#[path = "../tests/fuzzed/mod.rs"]
mod fuzzed;
#[path = "../tests/signer/mod.rs"]
mod signer;

/// Calls the target of this name.
///
/// # Panics
/// When there is no such target, or when a door breaks.
pub fn call(name: &str, data: &[u8]) {
    let (_, _, target) = fuzzed::TARGETS.iter().find(|(known, ..)| *known == name).expect("a target of this name");
    target(data);
}
