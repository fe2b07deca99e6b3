//! See `contract/trust/tests/fuzzed/mod.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| petrel_trust_fuzz::call("revocation", data));
