//! What must hold for any configuration: no panic, and what was refused says why and what to do.
//!
//! Called with bounded random bytes by the test beside it and by the targets of `tests/fuzz`.

use crate::config::Config;
use crate::fault::told;
use std::path::Path;

/// A target: its name, bytes to begin with, and the function.
pub(crate) type Target = (&'static str, fn() -> Vec<u8>, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 1] = [("agent_config", honest, any_config)];

/// A configuration with every key.
fn honest() -> Vec<u8> {
    include_bytes!("../../tests/fuzz/seeds/agent.toml").to_vec()
}

/// Configurations: what is meant stays within its limits.
pub(crate) fn any_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::parse(Path::new("/etc/petrel/agent.toml"), &text) {
        Ok(config) => {
            assert!(config.listen.ip().is_loopback() && (1..=256).contains(&config.window));
            assert!((1..=86_400).contains(&config.telemetry.as_secs()) && config.broker.port > 0);
            assert!((64 << 10..=64 << 20).contains(&config.spool_bytes));
            assert!(!config.fleet.as_str().is_empty() && config.ca.starts_with("/"));
        }
        Err(fault) => assert!(fault.advice().is_some() && told(&fault).contains("agent.toml")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of configurations, put where they do not belong.
    const WORDS: [&str; 12] =
        ["=", "\"", "[[", "]", "\n", "0", "-1", "9999999999999999999999", "1e999", "nan", "mqtts://", "\u{0}"];

    #[test]
    fn no_text_breaks_the_configuration() {
        for (name, honest, target) in TARGETS {
            let mut rng = fastrand::Rng::with_seed(7);
            let honest = honest();
            target(&honest);
            for _ in 0..4_000 {
                let mut bytes = honest.clone();
                for _ in 0..rng.usize(1..4) {
                    let at = rng.usize(..=bytes.len());
                    let end = (at + rng.usize(..12)).min(bytes.len());
                    match rng.u8(..3) {
                        0 => drop(bytes.splice(at..end, rng.choice(WORDS).expect("words").bytes())),
                        1 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                        _ => bytes[at..end].iter_mut().for_each(|b| *b = rng.u8(..)),
                    }
                }
                target(&bytes);
            }
            println!("{name}: 4000 inputs, no panic, each meant within its limits or refused with a remedy");
        }
    }
}
