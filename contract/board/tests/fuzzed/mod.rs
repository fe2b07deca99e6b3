//! What must hold for any profile: no panic, and what is meant stays within its limits.
//!
//! Called with bounded random bytes by the tests beside it and by the targets of `tests/fuzz`.

use petrel_board::{Found, MAX_CORES, MAX_MIB, gather};
use std::path::Path;

/// A target: its name, bytes to begin with, and the function.
pub(crate) type Target = (&'static str, fn() -> Vec<u8>, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 1] = [("profile", || HONEST.as_bytes().to_vec(), any_profile)];

/// A profile with every key.
pub(crate) const HONEST: &str = r#"
board = "a"
name = "A board"
target = "aarch64-unknown-linux-gnu"
[cpu]
cores = 4
features = ["neon"]
[memory]
ram_mb = 800
[storage]
disk_mb = 2048
[clock]
rtc = false
[heat]
sensor = "cpu_thermal"
slows_at = 80.0
[build]
features = ["image", "text"]
budget_mb = 16
packed = true
[agent]
window = 8
"#;

/// Profiles, also of themselves.
pub(crate) fn any_profile(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    match gather(Path::new("a.toml"), |_| Ok(text.clone())) {
        Ok((profile, layers)) => {
            assert!((1..=8).contains(&layers.len()) && (1..=63).contains(&profile.board.len()));
            assert!((1..=MAX_CORES).contains(&profile.cpu.cores) && (1..=MAX_MIB).contains(&profile.memory.ram_mb));
            assert!(!profile.lacks(&Found::default()).is_empty(), "a board of no architecture is none");
        }
        Err(error) => assert!(!error.why.is_empty()),
    }
}

#[test]
fn no_text_breaks_a_profile() {
    const WORDS: [&str; 10] = ["=", "\"", "[", "]", "\n", "0", "-1", "9999999999999999999", "nan", "inherit = "];
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
        println!("{name}: 4000 inputs, no panic, each within its limits or refused");
    }
}
